// Shows why the last login failed, and remembers where to go; the form works without.
const messages = {
  wrong: "That is not a valid token.",
  expired: "That token has expired.",
  role: "You are signed in, and have no role here. Ask an administrator for the claim role: viewer, editor or admin.",
  long: "That token is valid, and too long for a session. Send it as a bearer header, through a proxy that signs people in.",
  wait: "Too many wrong tokens. Wait a minute and try again.",
  broken: "The bridge cannot read its tokens. Check ops.token_file and admin.token_file.",
};
const query = new URLSearchParams(location.search);
const why = messages[query.get("why")];
document.getElementById("next").value = query.get("next") || "/";
if (why) document.getElementById("wrong").textContent = why;
// A request from a link on another site has no cookie, though the browser may be signed in.
else fetch("/console/session").then((answer) => answer.ok && location.replace("/login" + location.search), () => {});
