// The dead letters, read from their topic when the view is opened, and a redrive as a
// dry run.

import { $, el, fill, setText } from "./dom.js";
import { stamp, clock, count } from "./format.js";
import { ask } from "./stream.js";
import * as detail from "./detail.js";

let available = true, loaded = false;

export function setup() {
  $("dead-letters-read").addEventListener("click", read);
  $("dead-letters-dry-run").addEventListener("click", dryRun);
}

// allow sets whether there is a dead-letter topic.
export function allow(yes) {
  available = yes;
  $("dead-letters-read").hidden = $("dead-letters-dry-run").hidden = !yes;
  if (!yes) setText($("dead-letters-line"), "There is no dead-letter topic: rejects.policy is not dead_letter. Recent rejects are among the events.");
}

export function opened() {
  if (available && !loaded) read();
}

async function busy(button, work) {
  button.disabled = true;
  try {
    await work();
  } catch (e) {
    setText($("dead-letters-line"), e.message);
  } finally {
    button.disabled = false;
  }
}

function read() {
  return busy($("dead-letters-read"), async () => {
    setText($("dead-letters-line"), "Reading the topic …");
    const { dead_letters: list } = await ask("dead-letters");
    loaded = true;
    draw(list);
  });
}

function draw(list) {
  setText($("dead-letters-line"), list.length ? "The " + count(list.length) + " newest unresolved dead letters, read at " + clock(new Date()) + "." : "Read at " + clock(new Date()) + ".");
  $("dead-letters-empty").hidden = list.length > 0;
  $("dead-letters-table").hidden = list.length === 0;
  fill($("dead-letters-table").tBodies[0], list.map((l) => {
    const button = el("button", { type: "button", class: "open", onclick: (click) => { click.stopPropagation(); open(); } }, l.name || l.type || "(no name)");
    const open = () => detail.deadLetter(l, () => button.focus());
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

function dryRun() {
  return busy($("dead-letters-dry-run"), async () => {
    const box = $("dry-run");
    box.hidden = false;
    fill(box, "Mapping the newest dead letters with the present blueprint …");
    let t;
    try {
      t = await ask("dead-letters/dry-run", { method: "POST" });
    } catch (e) {
      fill(box, e.message);
      return;
    }
    const still = t.still || [];
    fill(box,
      el("p", {}, el("b", {}, t.dead_letters === 0 ? "There is nothing to redrive." : count(t.rows) + " of " + count(t.events) + " failed events would be rows now."),
        t.dead_letters ? " Mapped: the " + count(t.dead_letters) + " newest dead letters. Nothing was written; rows that the table would refuse are not known." : ""),
      t.rows ? el("p", {}, "To write them: ", el("code", {}, "bridge dlq redrive --execute")) : null,
      still.length ? el("ul", {}, still.map((s) => el("li", {}, count(s.events) + " rejected again: ", el("code", {}, s.code), s.column ? [" in column ", el("code", {}, s.column)] : "", s.meaning ? ", " + s.meaning : ""))) : null,
      t.dropped ? el("p", {}, count(t.dropped) + " would be filtered.") : null,
      t.damaged ? el("p", {}, count(t.damaged) + " dead letters have incomplete headers and cannot be redriven unchanged.") : null);
  });
}
