// The drawer: one event or dead letter, opened.

import { $, el, fill, facts, copyButton } from "./dom.js";
import { stamp, bytes, seconds, count, statusWords } from "./format.js";
import { ask } from "./stream.js";
import * as events from "./events.js";

let open = 0; // the id of the event that is shown
let back = null; // returns the focus
const covered = matchMedia("(max-width: 660px)"); // the drawer covers the page

export function setup() {
  $("drawer-close").addEventListener("click", close);
  covered.addEventListener("change", fence);
}

// fence keeps the focus in the visible part of the page.
function fence() {
  for (const part of document.querySelectorAll("main, .top, .skip")) part.inert = isOpen() && covered.matches;
}

export const isOpen = () => !$("drawer").hidden;

export function close() {
  if (!isOpen()) return;
  $("drawer").hidden = true;
  fence();
  open = 0;
  events.select(0);
  if (back) back();
  back = null;
}

function present(title, body, giveBack) {
  fill($("drawer-title"), title);
  fill($("drawer-body"), body);
  const fresh = !isOpen();
  $("drawer").hidden = false;
  fence();
  back = giveBack;
  if (fresh) $("drawer-title").focus();
}

// show opens an event with its details.
export async function show(id) {
  open = id;
  const listed = events.get(id);
  if (!isOpen() && listed) present(events.title(listed), head(listed), () => events.focusOn(id));
  let found, trouble;
  try {
    found = await ask("events/" + id);
  } catch (e) {
    trouble = e.message;
  }
  if (open !== id) return;
  const e = found ? found.event : listed;
  if (!e) {
    present("Event " + id, el("p", { class: "hint" }, trouble), () => events.focusOn(id));
    return;
  }
  present(events.title(e), [head(e), trouble ? el("p", { class: "hint" }, trouble) : content(found)], () => events.focusOn(id));
}

// restart closes an event of a previous process: event ids restart with the process.
export function restart() {
  if (open) close();
}

// changed redraws the open event when it has an outcome.
export function changed(e) {
  if (e.id === open) show(e.id);
}

function head(e) {
  const [word, tone] = statusWords[e.status] || [e.status, "idle"];
  const why = e.reason || e.meaning || (e.status === "abandoned" ? "its batch was abandoned by a stop or a rebalance; the next owner of the partition reads it again" : "");
  return [
    el("div", { class: "lead" }, el("span", { class: "tag", "data-tone": tone }, word), e.code ? el("code", {}, e.code) : null, e.column ? el("span", {}, "column ", el("code", {}, e.column)) : null,
      why ? el("span", {}, why) : null),
    el("dl", { class: "facts" }, facts([
      ["Type", e.type], ["Name", e.name], ["Message id", e.message_id ? el("code", {}, e.message_id) : ""],
      ["Topic", el("code", {}, e.topic)], ["Partition", String(e.partition)], ["Offset", String(e.offset) + (e.index ? ", event " + e.index + " of its record" : "")],
      ["Produced", stamp(e.produced)], ["Read", stamp(e.mapped)],
      ["Completed in", e.ack_seconds ? seconds(e.ack_seconds) : ""],
      ["Batch", e.batch && e.batch.records ? count(e.batch.rows) + " rows of " + count(e.batch.records) + " records, " + bytes(e.batch.row_bytes) + ", offsets " + e.batch.first_offset + " to " + e.batch.last_offset : ""],
      ["Size", bytes(e.size)],
    ])),
  ];
}

function content(found) {
  const c = found.content;
  if (found.mode !== "full") {
    return el("p", { class: "hint" }, "Values are hidden: ", el("code", {}, "ops.live_events"), " is ", el("code", {}, "metadata"), ". With ", el("code", {}, "full"), " this shows the event, its row, and the source of each column.");
  }
  if (!c) return el("p", { class: "hint" }, "The content of this event was not kept.");
  return [
    c.columns && c.columns.length ? [section("From event to row" + (c.section ? ", section " + c.section : "") + (c.shape === "row" ? ", already mapped" : "")), columns(c.columns)] : null,
    c.row ? [section("Row", c.row), el("pre", { tabindex: "0", "aria-label": "Row" }, c.row)] : null,
    c.truncated ? el("p", { class: "hint" }, "Only the first 64 KiB of the record are kept, so its row and columns are not shown.") : null,
    section(c.truncated ? "Start of the event" : "Event", c.value), el("pre", { tabindex: "0", "aria-label": "Event" }, c.value || "(no value: a tombstone)"),
    c.key ? [section("Key"), el("pre", {}, c.key)] : null,
    c.headers && c.headers.length ? [section("Headers"), el("dl", { class: "facts" }, facts(c.headers.map((h) => [h.key, h.value || "(empty)"])))] : null,
  ].flat();
}

function section(name, text) {
  return el("div", { class: "head" }, el("h3", {}, name), text ? copyButton(text, name) : null);
}

function columns(list) {
  return el("table", { class: "grid" },
    el("thead", {}, el("tr", {}, ["Column", "Type", "Value", "Source"].map((h) => el("th", { scope: "col" }, h)))),
    el("tbody", {}, list.map((c) => el("tr", {},
      el("td", {}, c.name), el("td", { class: "muted" }, c.type),
      el("td", { class: c.value ? "mono" : "null" }, c.value || "NULL"),
      el("td", { class: c.value ? "mono" : "muted" }, c.why || c.source || "–")))));
}

// deadLetter opens a dead letter.
export function deadLetter(l, giveBack) {
  open = 0;
  events.select(0);
  present(l.name || l.type || "(no name)", [
    el("div", { class: "lead" }, el("span", { class: "tag", "data-tone": "bad" }, l.code || "unknown"), l.column ? el("span", {}, "column ", el("code", {}, l.column)) : null, el("span", {}, l.reason || l.meaning || "")),
    el("dl", { class: "facts" }, facts([
      ["Type", l.type], ["Message id", l.message_id ? el("code", {}, l.message_id) : ""], ["Failed at", stamp(l.failed_at)], ["Source", el("code", {}, l.source)],
      ["Dead letter at", el("code", {}, l.topic + "/" + l.partition + "/" + l.offset)], ["Events", l.events], ["Attempts", l.attempts ? String(l.attempts) : ""], ["Size", bytes(l.size)],
    ])),
    l.value ? [section("Record", l.value), el("pre", { tabindex: "0", "aria-label": "Record" }, l.value)]
      : el("p", { class: "hint" }, "Values are hidden: ", el("code", {}, "ops.live_events"), " is not ", el("code", {}, "full"), "."),
  ].flat(), giveBack);
}
