// The dead letters, read from their topic when the view is opened, and a redrive
// that only pretends.

import { $, el, fill, say } from "./dom.js";
import { stamp, clock, count } from "./format.js";
import { ask } from "./stream.js";
import * as detail from "./detail.js";

let available = true, loaded = false;

export function setup() {
  $("letters-read").addEventListener("click", read);
  $("letters-trial").addEventListener("click", trial);
}

// allow says whether rejects are kept in a topic at all.
export function allow(yes) {
  available = yes;
  $("letters-read").hidden = $("letters-trial").hidden = !yes;
  if (!yes) say($("letters-line"), "Rejects are not kept in a topic: rejects.policy says what becomes of them. Those of late are among the events.");
}

export function opened() {
  if (available && !loaded) read();
}

async function busy(button, work) {
  button.disabled = true;
  try {
    await work();
  } catch (e) {
    say($("letters-line"), e.message);
  } finally {
    button.disabled = false;
  }
}

function read() {
  return busy($("letters-read"), async () => {
    say($("letters-line"), "Reading the topic …");
    const { letters } = await ask("letters");
    loaded = true;
    draw(letters);
  });
}

function draw(letters) {
  say($("letters-line"), letters.length ? "The " + count(letters.length) + " newest dead letters that have not landed since, read at " + clock(new Date()) + "." : "Read at " + clock(new Date()) + ".");
  $("letters-empty").hidden = letters.length > 0;
  $("letters-table").hidden = letters.length === 0;
  fill($("letters-table").tBodies[0], letters.map((l) => {
    const button = el("button", { type: "button", class: "open", onclick: (click) => { click.stopPropagation(); open(); } }, l.name || l.type || "(no name)");
    const open = () => detail.letter(l, () => button.focus());
    return el("tr", { onclick: open },
      el("td", { class: "mono" }, l.failed_at ? stamp(l.failed_at).slice(0, 19) : "–"),
      el("td", {}, el("span", { class: "tag", "data-tone": "bad", title: l.meaning }, l.code || "unknown")),
      el("td", { class: "mono" }, l.column || "–"),
      el("td", {}, button),
      el("td", { class: "wide mono", title: l.source }, l.source),
      el("td", { class: "wide mono", title: l.topic + "/" + l.partition + "/" + l.offset }, l.partition + " @ " + l.offset),
      el("td", { class: "n wide" }, l.attempts ? String(l.attempts) : "–"));
  }));
}

function trial() {
  return busy($("letters-trial"), async () => {
    const box = $("trial");
    box.hidden = false;
    fill(box, "Mapping the newest dead letters by the blueprint of now …");
    let t;
    try {
      t = await ask("letters/trial", { method: "POST" });
    } catch (e) {
      fill(box, e.message);
      return;
    }
    const still = t.still || [];
    fill(box,
      el("p", {}, el("b", {}, t.letters === 0 ? "There is nothing to redrive." : count(t.rows) + " of " + count(t.events) + " failed events would be rows now."),
        t.letters ? " Looked at: the " + count(t.letters) + " newest dead letters. Nothing was written; what the table itself would refuse shows only when rows are." : ""),
      t.rows ? el("p", {}, "To write them: ", el("code", {}, "bridge dlq redrive --execute")) : null,
      still.length ? el("ul", {}, still.map((s) => el("li", {}, count(s.events) + " rejected again: ", el("code", {}, s.code), s.column ? [" in column ", el("code", {}, s.column)] : "", s.meaning ? ", " + s.meaning : ""))) : null,
      t.dropped ? el("p", {}, count(t.dropped) + " would be filtered.") : null,
      t.faulty ? el("p", {}, count(t.faulty) + " letters have headers that are not whole and cannot be redriven as they were.") : null);
  });
}
