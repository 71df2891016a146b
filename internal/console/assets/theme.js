// Loaded before the page is drawn, so that a chosen theme does not flash.
(function () {
  try {
    const chosen = localStorage.getItem("bridge-theme");
    if (chosen === "light" || chosen === "dark") document.documentElement.dataset.theme = chosen;
  } catch (e) { /* storage may be forbidden; then the system decides */ }
})();
