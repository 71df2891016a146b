import { Empty, html, usePage } from "./ui.js";

export default function Members() {
  usePage("Members");
  return html`<h1>Members</h1><${Empty} title="Members" />`;
}
