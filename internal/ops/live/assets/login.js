// Says why the last try was not let in; the form itself works without this.
const said = {
  wrong: "That is not the token.",
  wait: "Too many wrong tokens. Wait a minute and try again.",
  broken: "The bridge cannot read its token. Mend ops.token_file.",
};
const why = said[location.search.slice(1)];
// A link from another site comes without the cookie that lets in; it is here
// nevertheless.
if (!location.search) fetch("config").then((answer) => answer.ok && location.replace("./"), () => {});
if (why) document.getElementById("wrong").textContent = why;
