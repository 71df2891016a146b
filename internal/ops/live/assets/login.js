// Shows why the last login failed; the form works without this script.
const messages = {
  wrong: "That is not the token.",
  wait: "Too many wrong tokens. Wait a minute and try again.",
  broken: "The bridge cannot read its token. Check ops.token_file.",
};
const why = messages[location.search.slice(1)];
// A request from a link on another site has no cookie, though the browser may be logged in.
if (!location.search) fetch("config").then((answer) => answer.ok && location.replace("./"), () => {});
if (why) document.getElementById("wrong").textContent = why;
