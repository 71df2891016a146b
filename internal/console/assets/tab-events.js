// Live Events of one integration.

import { Empty, html } from "./ui.js";

export default function LiveEvents() {
  return html`<${Empty} title="Live Events" />`;
}
