// The table of partitions: those that need somebody first. A few are drawn, all
// on request.

import { $, el, refresh, setText } from "./dom.js";
import { count, bytes, seconds } from "./format.js";

const FEW = 40;
const tones = { waiting: "idle", writing: "info", rejecting: "warn", blocked: "bad", draining: "idle" };
let all = [], everything = false, total = 0;

export function setup() {
  $("partitions-all").addEventListener("click", () => { everything = !everything; draw(); });
}

export function partitions(list) {
  all = list.slice().sort((a, b) => (b.state === "blocked") - (a.state === "blocked") || trouble(b) - trouble(a) || a.topic.localeCompare(b.topic) || a.partition - b.partition);
  draw();
}

export function setTotal(n) { total = n; }

// trouble puts what waits for long before the rest, without having rows jump
// about for a few events of lag.
const trouble = (p) => (p.oldest_unacked_seconds > 10 ? p.oldest_unacked_seconds : 0) + (p.lag > 10_000 ? p.lag : 0);

const known = (n) => (n < 0 ? "–" : count(n));

function draw() {
  const topics = new Set(all.map((p) => p.topic));
  $("partitions-count").title = [...topics].slice(0, 20).join(", ");
  setText($("partitions-count"), count(Math.max(total, all.length)) + " assigned" + (topics.size > 1 ? " of " + topics.size + " topics" : topics.size ? " of " + [...topics][0] : ""));
  const button = $("partitions-all");
  button.hidden = all.length <= FEW;
  setText(button, everything ? "Show " + FEW : (total > all.length ? "Show " : "Show all ") + count(all.length));
  const shown = everything ? all : all.slice(0, FEW);
  refresh($("partitions").tBodies[0], shown.map((p) => el("tr", {},
    el("td", { title: p.topic + "/" + p.partition }, topics.size > 1 ? p.topic + "/" + p.partition : String(p.partition)),
    el("td", { class: p.reason ? "why" : "" }, el("span", { class: "tag", "data-tone": tones[p.state] || "idle" }, p.state), p.paused ? " paused" : "", p.reason ? " " + p.reason : ""),
    el("td", { class: "n" }, known(p.lag)),
    el("td", { class: "n" }, p.oldest_unacked_seconds > 0 ? seconds(p.oldest_unacked_seconds) : "–"),
    el("td", { class: "n wide" }, count(p.pending_events)),
    el("td", { class: "n wide" }, bytes(p.buffered_bytes)),
    el("td", { class: "n" }, known(p.committed)),
    el("td", { class: "n wide" }, known(p.end_offset)),
    el("td", { class: "n wide" }, count(p.rows_delivered)))));
}

export const names = () => all.map((p) => p.topic + "/" + p.partition);
