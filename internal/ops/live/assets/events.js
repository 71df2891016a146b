// The list of recent events: bounded here as it is in the bridge, filtered,
// pausable, and walked with the keyboard.

import { $, el, refresh, setText, announce } from "./dom.js";
import { clockMillis, clock, seconds, count, statusWords } from "./format.js";

const KEPT = 600; // events in memory
const DRAWN = 150; // rows in the page
const LARGE = 64 << 10; // bytes; of larger ones the bridge does not read the names
const inOrder = new Intl.Collator("en", { numeric: true }).compare;
const narrow = matchMedia("(max-width: 700px)");

const byID = new Map(); // in the order they came
const rows = new Map(); // id to <tr>, those drawn
const chosen = new Set(); // statuses; none means all
let paused = false, waiting = 0, scheduled = false, opened = 0;
let onOpen = () => {};
let onChange = () => {};

export function setup(open, change) {
  onOpen = open;
  onChange = change;
  for (const [status, [word]] of Object.entries(statusWords)) {
    $("chips").append(el("button", { type: "button", "aria-pressed": "false", "data-status": status, onclick: toggle }, word, el("span", { class: "n", "aria-hidden": "true" }, "0")));
  }
  for (const id of ["q", "by-type", "by-name", "by-partition"]) $(id).addEventListener("input", () => draw(true));
  $("pause").addEventListener("click", pause);
  narrow.addEventListener("change", () => { rows.clear(); $("events-table").tBodies[0].replaceChildren(); draw(); });
}

function toggle(event) {
  const button = event.currentTarget, on = button.getAttribute("aria-pressed") !== "true";
  button.setAttribute("aria-pressed", String(on));
  if (on) chosen.add(button.dataset.status); else chosen.delete(button.dataset.status);
  draw(true);
}

export function pause() {
  paused = !paused;
  waiting = 0;
  announce(paused ? "Paused" : "Going on");
  label();
  if (!paused) draw();
}

function label() {
  // How many are waiting is not part of the name: a screen reader would speak
  // each new name of the button that has the focus.
  $("pause").classList.toggle("on", paused);
  refresh($("pause"), paused ? "Resume" : "Pause", paused && waiting ? el("span", { "aria-hidden": "true" }, " · " + count(waiting) + " new") : null);
}

// take keeps what came; while paused it is not drawn.
export function take(list) {
  for (const e of list) {
    if (!byID.has(e.id)) waiting++;
    byID.set(e.id, e);
    onChange(e);
  }
  if (byID.size > KEPT) {
    const ids = [...byID.keys()].sort((a, b) => a - b);
    for (const id of ids.slice(0, byID.size - KEPT)) byID.delete(id);
  }
  if (paused) { label(); return; }
  waiting = 0;
  if (!scheduled) {
    scheduled = true;
    requestAnimationFrame(() => { scheduled = false; draw(); });
  }
}

// restart forgets the events of a process that is gone.
export function restart() {
  byID.clear();
  draw();
}

export const get = (id) => byID.get(id);

export function sample(s) {
  const { seen, kept } = s.sample;
  const text = seen === 0 ? "" : kept >= seen ? "All " + count(seen) + " events so far were shown." : count(kept) + " of " + count(seen) + " events so far were shown: at most 100 a second, spread over the batches. Rejected ones are kept longest.";
  setText($("sample"), text);
}

function matches(e) {
  const q = $("q").value.trim().toLowerCase(), type = $("by-type").value, name = $("by-name").value, partition = $("by-partition").value;
  if (chosen.size && !chosen.has(e.status)) return false;
  if (type && e.type !== type || name && e.name !== name || partition && where(e) !== partition) return false;
  return !q || [e.type, e.name, e.message_id, e.code, e.column, String(e.offset)].some((t) => t && t.toLowerCase().includes(q));
}

const where = (e) => e.topic + "/" + e.partition;

function draw(byHand) {
  const counts = {}, types = new Set(), names = new Set(), places = new Set(), show = [];
  const all = [...byID.values()].sort((a, b) => b.id - a.id);
  for (const e of all) {
    counts[e.status] = (counts[e.status] || 0) + 1;
    if (e.type) types.add(e.type);
    if (e.name) names.add(e.name);
    places.add(where(e));
    if (show.length < DRAWN && matches(e)) show.push(e);
  }
  for (const chip of $("chips").children) setText(chip.lastChild, count(counts[chip.dataset.status] || 0));
  options($("by-type"), types);
  options($("by-name"), names);
  options($("by-partition"), places);
  place(show);
  const empty = $("events-empty");
  empty.hidden = show.length > 0;
  setText(empty, all.length ? "No event matches the filters." : "Nothing has passed yet. Events appear here as the bridge reads them.");
  if (byHand) announce(show.length === DRAWN ? DRAWN + " or more events match" : show.length + (show.length === 1 ? " event matches" : " events match"));
}

// options keeps a list of choices current without touching one that is open.
function options(select, values) {
  const want = [...values].sort(inOrder).slice(0, 200);
  if (select.value && !values.has(select.value)) want.push(select.value);
  const have = [...select.options].slice(1).map((o) => o.value);
  if (document.activeElement === select || have.join("\n") === want.join("\n")) return;
  const value = select.value;
  while (select.options.length > 1) select.remove(1);
  for (const text of want) select.add(new Option(text, text));
  select.value = value;
}

// place draws the rows. One that stays where it was is not moved, so that it
// keeps the focus; one that has the focus stays until it loses it.
function place(show) {
  const body = $("events-table").tBodies[0], want = new Set(show.map((e) => e.id));
  let held = null;
  for (const [id, tr] of rows) {
    if (want.has(id)) continue;
    if (tr.contains(document.activeElement)) held = tr;
    else { tr.remove(); rows.delete(id); }
  }
  let at = body.firstChild;
  for (const e of show) {
    if (held && at === held) at = at.nextSibling;
    let tr = rows.get(e.id);
    if (!tr) {
      tr = row(e);
      rows.set(e.id, tr);
    } else if (tr.dataset.status !== e.status) {
      mark(tr, e);
    }
    if (tr === at) at = at.nextSibling;
    else body.insertBefore(tr, at);
  }
}

function row(e) {
  const tr = el("tr", { "data-id": e.id, onclick: () => open(e.id) },
    el("td", { class: "mono", title: e.mapped }, narrow.matches ? clock(e.mapped) : clockMillis(e.mapped)),
    el("td", {}, el("span", { class: "tag" })),
    el("td", { class: "wide" }, e.type || "–"),
    el("td", {}, el("button", { type: "button", class: "open", onclick: (click) => { click.stopPropagation(); open(e.id); } }, title(e))),
    el("td", { class: "wide mono", title: e.message_id }, e.message_id || "–"),
    el("td", { class: "mono", title: where(e) + " offset " + e.offset }, e.partition + " @ " + e.offset + (e.index ? "#" + e.index : ""), el("span", { class: "muted wide" }, "  " + e.topic)),
    el("td", { class: "n wide" }));
  mark(tr, e);
  return tr;
}

export const title = (e) => e.name || e.type || (e.size > LARGE ? "(too large to name)" : "(no name)");

// mark writes what changes in the life of an event.
function mark(tr, e) {
  const [word, tone] = statusWords[e.status] || [e.status, "idle"];
  const tag = tr.children[1].firstChild;
  tr.dataset.status = e.status;
  tag.dataset.tone = tone;
  setText(tag, word);
  const button = tr.children[3].firstChild;
  if (e.code && button.childNodes.length === 1) button.append(el("span", { class: "muted" }, "  " + e.code + (e.column ? " · " + e.column : "")));
  setText(tr.children[6], e.ack_seconds && e.status === "delivered" ? seconds(e.ack_seconds) : "–");
}

function open(id) {
  select(id);
  onOpen(id);
}

// select marks the event that is open; 0 none.
export function select(id) {
  if (rows.has(opened)) delete rows.get(opened).dataset.open;
  opened = id;
  if (rows.has(id)) rows.get(id).dataset.open = "";
}

export function focusOn(id) {
  const tr = rows.get(id);
  (tr ? tr.querySelector("button") : $("events")).focus(); // it may have made way
}

// step moves the focus to the next or the previous event.
export function step(by) {
  const buttons = [...$("events-table").tBodies[0].querySelectorAll("button.open")];
  if (!buttons.length) return;
  const now = buttons.indexOf(document.activeElement);
  const next = now < 0 ? 0 : Math.min(Math.max(now + by, 0), buttons.length - 1);
  buttons[next].focus();
  buttons[next].scrollIntoView({ block: "nearest" });
}
