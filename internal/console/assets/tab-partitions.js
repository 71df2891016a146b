// Partitions of one integration.

import { Empty, html } from "./ui.js";

export default function Partitions() {
  return html`<${Empty} title="Partitions" />`;
}
