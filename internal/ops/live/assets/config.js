// The effective configuration, as the bridge redacted it.

import { $, el, fill, facts } from "./dom.js";
import { ask } from "./stream.js";

export async function opened() {
  const body = $("config-body");
  try {
    const { config } = await ask("config");
    fill(body, Object.entries(config || {}).map(([name, part]) => el("section", {}, el("h2", {}, name), el("dl", { class: "facts" }, facts(flat("", part))))));
  } catch (e) {
    fill(body, el("p", { class: "hint" }, e.message));
  }
}

function flat(prefix, part) {
  return Object.entries(part).flatMap(([name, value]) => {
    if (value !== null && typeof value === "object" && !Array.isArray(value)) return flat(prefix + name + ".", value);
    const text = Array.isArray(value) ? value.join(", ") : String(value);
    return [[prefix + name, text === "" ? el("span", { class: "null" }, "empty") : el("code", {}, text)]];
  });
}
