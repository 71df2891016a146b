// Settings of one integration.

import { Empty, html } from "./ui.js";

export default function Settings() {
  return html`<${Empty} title="Settings" />`;
}
