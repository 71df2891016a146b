import { Empty, html, usePage } from "./ui.js";

export default function Library() {
  usePage("Integration Library");
  return html`<h1>Integration Library</h1><${Empty} title="Integration Library" />`;
}
