// The address of the page. Links are ordinary links; those to pages of the console do
// not load the document again.

import { useEffect, useState } from "./preact.js";

const pages = /^\/($|library($|\/)|integrations($|\/)|members$|audit$)/;

// current returns the route of the address: {path, parts, query (an object), url}.
function current() {
  return {
    path: location.pathname, parts: location.pathname.split("/").slice(1).filter(Boolean).map(decode),
    query: Object.fromEntries(new URLSearchParams(location.search)), url: location.pathname + location.search,
  };
}

function decode(part) {
  try { return decodeURIComponent(part); } catch { return part; }
}

const changed = () => dispatchEvent(new Event("route"));

// navigate goes to a path of the console. replace leaves no entry in the history.
export function navigate(path, { replace = false } = {}) {
  if (path === location.pathname + location.search) return;
  history[replace ? "replaceState" : "pushState"](null, "", path);
  changed();
}

// setQuery changes parameters of the address; empty values remove them.
export function setQuery(patch, { replace = true } = {}) {
  const query = new URLSearchParams(location.search);
  for (const [name, value] of Object.entries(patch)) {
    if (value === undefined || value === null || value === "") query.delete(name);
    else query.set(name, value);
  }
  const text = query.toString();
  navigate(location.pathname + (text ? "?" + text : ""), { replace });
}

// useRoute returns the route, and draws the component again when it changes.
export function useRoute() {
  const [route, setRoute] = useState(current);
  useEffect(() => {
    const update = () => setRoute(current());
    const click = (e) => {
      const link = e.target.closest("a[href]");
      if (e.defaultPrevented || e.button !== 0 || e.ctrlKey || e.metaKey || e.shiftKey || e.altKey || !link || link.target || link.hasAttribute("download")) return;
      const to = new URL(link.href);
      if (to.origin !== location.origin || !pages.test(to.pathname) || to.hash) return;
      e.preventDefault();
      if (to.pathname !== location.pathname && "unsaved" in document.body.dataset && !confirm("Leave this page? What you typed is not saved.")) return;
      navigate(to.pathname + to.search);
      if (!link.hasAttribute("data-stay")) scrollTo(0, 0);
    };
    addEventListener("route", update);
    addEventListener("popstate", update);
    document.addEventListener("click", click);
    return () => {
      removeEventListener("route", update);
      removeEventListener("popstate", update);
      document.removeEventListener("click", click);
    };
  }, []);
  return route;
}
