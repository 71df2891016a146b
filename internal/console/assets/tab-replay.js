// Replay of one integration.

import { Empty, html } from "./ui.js";

export default function Replay() {
  return html`<${Empty} title="Replay" />`;
}
