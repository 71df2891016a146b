// Blueprint of one integration.

import { Empty, html } from "./ui.js";

export default function Blueprint() {
  return html`<${Empty} title="Blueprint" />`;
}
