// Dead letters of one integration.

import { Empty, html } from "./ui.js";

export default function DeadLetters() {
  return html`<${Empty} title="Dead letters" />`;
}
