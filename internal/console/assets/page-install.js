import { Empty, html, usePage } from "./ui.js";

export default function Install() {
  usePage("Install");
  return html`<h1>Install</h1><${Empty} title="Install" />`;
}
