import { Empty, html, usePage } from "./ui.js";

export default function Audit() {
  usePage("Audit");
  return html`<h1>Audit</h1><${Empty} title="Audit" />`;
}
