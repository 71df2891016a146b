// The upper part of the page: health, reasons, remedies and figures.

import { $, el, fill, refresh, setText, tone, facts, copyButton, announce } from "./dom.js";
import { Chart } from "./chart.js";
import { count, rate, short, bytes, seconds, ago, clock } from "./format.js";

const figures = {
  in: figure("fig-in", new Chart("Events read per second")),
  out: figure("fig-out", new Chart("Rows delivered per second")),
  lag: figure("fig-lag", new Chart("Events not delivered yet")),
  ack: figure("fig-ack", new Chart("Time to acknowledge, p50 and p99", { second: true })),
  buffer: figure("fig-buffer", new Chart("Buffered bytes", { limit: 1 })),
};
let before = null; // the last status
const trail = []; // time in seconds and lag, of the last half minute
let verdict = "";
let reasonsShown = "";

function figure(id, chart) {
  const value = el("p", { class: "value" }, "–"), under = el("p", { class: "under" });
  $(id).append(value, under, chart.node);
  return { value, under, chart };
}

function show(f, big, unit, under) {
  refresh(f.value, big, unit ? el("small", {}, " " + unit) : "");
  setText(f.under, under);
  f.chart.describe(big + (unit ? " " + unit : "") + (under ? ", " + under : ""));
}

export function status(s) {
  header(s);
  const flow = rates(s);
  health(s, flow);
  reload(s.reload);
  draw(s, flow);
  ledger(s.ledger);
  sink(s);
  before = s;
}

function header(s) {
  setText($("route"), "group " + s.group + "  →  " + (s.sink.table || s.table) + "   ·   " + s.version + (s.started ? "   ·   up " + seconds(ago(s.started, s.time)) : ""));
}

// rates are those since the last status of the same process.
function rates(s) {
  if (!before || before.started !== s.started || !s.totals) return null;
  const dt = (new Date(s.time) - new Date(before.time)) / 1000;
  if (dt <= 0 || dt > 30) return null;
  const per = (key) => Math.max(s.totals[key] - before.totals[key], 0) / dt;
  return { in: per("events_read"), out: per("rows_delivered"), bytesIn: per("event_bytes_read"), bytesOut: per("row_bytes_delivered"), lost: per("events_rejected"), filtered: per("events_filtered") };
}

// shrinks returns by how many events per second the lag has shrunk recently; null
// while unknown.
function shrinks(s) {
  const now = new Date(s.time) / 1000;
  if (s.lag < 0 || before && before.started !== s.started) trail.length = 0;
  if (s.lag >= 0) trail.push({ now, lag: s.lag });
  while (trail.length && now - trail[0].now > 30) trail.shift();
  return trail.length && now - trail[0].now >= 5 ? (trail[0].lag - s.lag) / (now - trail[0].now) : null;
}

function health(s, flow) {
  const gain = shrinks(s);
  let word = "Delivering", name = "ok", line;
  if (!s.live) {
    [word, name, line] = ["Not alive", "bad", s.live_reason + ". Only a restart helps."];
  } else if (!s.ready) {
    word = s.state === "running" ? "Not delivering" : { starting: "Starting", draining: "Draining", stopped: "Stopped", failed: "Failed", disabled: "Disabled" }[s.state] || s.state;
    name = s.sink.state === "blocked" || s.blocked_partitions > 0 ? "bad" : "warn";
    line = (s.sink.state !== "ready" && s.sink.since ? "The sink is " + s.sink.state + " for " + seconds(ago(s.sink.since, s.time)) + ". " : "") + "No events are lost: only acknowledged events are committed.";
  } else if (s.sink.state === "retrying") {
    [word, name, line] = ["Retrying", "warn", "The sink does not accept rows at the moment; the bridge retries. " + (s.sink.reason || "")];
  } else {
    line = fine(s, flow, gain);
  }
  const box = $("health");
  tone(box, name);
  setText($("health-word"), word);
  setText($("health-line"), line);
  document.title = (name === "ok" ? "● " : name === "warn" ? "▲ " : "■ ") + word + " · bridge";
  reasons(s.not_ready || [], s.more_reasons || 0);
  const spoken = word + (s.not_ready && s.not_ready.length ? ": " + s.not_ready[0].text : "") + (s.reload.state === "failed" ? ". The configuration on disk is refused." : "");
  if (spoken !== verdict) announce(spoken);
  verdict = spoken;
}

function fine(s, flow, gain) {
  if (s.partitions === 0) return "No partition is assigned to this member; other members have all of them.";
  const parts = [];
  if (s.lag > 1000 && s.lag > 10 * (flow ? flow.out : 0)) {
    parts.push(count(s.lag) + " events behind" + (gain === null ? "" : gain > 1 ? ", caught up in about " + seconds(s.lag / gain) : ", and not catching up"));
  } else if (s.lag >= 0) parts.push(s.lag === 0 ? "Everything in the topics is delivered" : "Keeping up");
  if (s.ack) parts.push("p50 of acknowledgements " + seconds(s.ack.p50_seconds));
  if (s.oldest_unacked_seconds > 10) parts.push("the oldest unacknowledged event waits for " + seconds(s.oldest_unacked_seconds));
  return parts.join("; ") + ".";
}

function reasons(list, more) {
  const key = JSON.stringify([list, more]);
  if (key === reasonsShown) return; // a selection in the text survives
  reasonsShown = key;
  fill($("reasons"), list.map((r) => el("li", {},
    el("p", {}, el("span", { class: "tag", "data-tone": "bad" }, r.code), " " + r.text),
    r.remedy ? el("div", { class: "remedy" }, el("b", {}, "Remedy"), el("span", {}, r.remedy), copyButton(r.remedy, "the remedy")) : null)), more ? el("li", { class: "muted" }, "and " + count(more) + " more") : null);
}

// reload shows the state of a configuration that was changed on disk.
function reload(r) {
  const refused = r.state === "failed", waiting = r.pending_restart || [];
  $("reload").hidden = !refused && !waiting.length;
  refresh($("reload"), el("span", { class: "tag", "data-tone": refused ? "bad" : "warn" }, "configuration"),
    refused ? " The configuration on disk is refused, the previous one stays in force: " + r.error + "." : "",
    waiting.length ? " Changed on disk, in force after a restart: " + waiting.join(", ") + "." : "");
}

function draw(s, flow) {
  // Charts are over time: missed updates are a gap.
  const passed = before ? (new Date(s.time) - new Date(before.time)) / 1000 : 1;
  if (passed <= 0) return; // the same state again
  const missed = passed > 3 ? Math.round(passed) - 1 : 0;
  show(figures.in, flow ? rate(flow.in) : "–", flow ? "/s" : "", flow ? bytes(flow.bytesIn) + "/s" : "");
  show(figures.out, flow ? rate(flow.out) : "–", flow ? "/s" : "", flow ? bytes(flow.bytesOut) + "/s" : "");
  figures.in.chart.push(missed, flow ? flow.in : null);
  figures.out.chart.push(missed, flow ? flow.out : null);
  show(figures.lag, s.lag < 0 ? "–" : short(s.lag), "events", s.oldest_unacked_seconds > 0 ? "oldest unacknowledged " + seconds(s.oldest_unacked_seconds) : "all acknowledged");
  figures.lag.chart.push(missed, s.lag < 0 ? null : s.lag);
  if (s.ack) show(figures.ack, seconds(s.ack.p50_seconds), "p50", seconds(s.ack.p99_seconds) + " p99");
  else show(figures.ack, "–", "", "no write in the last 10 s");
  figures.ack.chart.push(missed, s.ack ? s.ack.p50_seconds : null, s.ack ? s.ack.p99_seconds : null);
  const share = s.buffered_limit_bytes > 0 ? s.buffered_bytes / s.buffered_limit_bytes : 0;
  show(figures.buffer, (100 * share).toFixed(share > 0 && share < 0.1 ? 1 : 0) + " %", "", bytes(s.buffered_bytes) + " of " + bytes(s.buffered_limit_bytes));
  figures.buffer.chart.push(missed, share);
}

// ledger shows the outcomes of all events that were read.
function ledger(l) {
  const box = $("ledger");
  box.hidden = !l;
  if (!l) return;
  const term = (n, name) => el("span", { class: n === 0 ? "zero" : "" }, el("b", {}, count(n)), " " + name);
  const op = (text) => el("span", { class: "op" }, text);
  refresh(box, term(l.read, "read"), op("="), term(l.delivered, "delivered"), op("+"), term(l.dead_lettered, "dead-lettered"), op("+"), term(l.skipped, "skipped"), op("+"),
    term(l.filtered, "filtered"), op("+"), term(l.in_flight, "in flight"), op("+"), term(l.released, "released for redelivery"),
    el("span", { class: "tag", "data-tone": l.unaccounted === 0 ? "ok" : "bad" }, l.unaccounted === 0 ? "all accounted for" : count(l.unaccounted) + " unaccounted for: a bug in the bridge, please report it"),
    l.lost > 0 ? el("span", { class: "tag", "data-tone": "bad" }, "kafka removed " + count(l.lost) + " offsets before they were delivered") : "");
}

const sinkTones = { ready: "ok", retrying: "warn", blocked: "bad" };

function sink(s) {
  const k = s.sink;
  const expires = k.token_expires_at ? ago(s.time, k.token_expires_at) : null;
  refresh($("sink"), facts([
    ["State", el("span", {}, el("span", { class: "tag", "data-tone": sinkTones[k.state] || "idle" }, k.state), k.since ? " for " + seconds(ago(k.since, s.time)) : "")],
    ["Table", el("code", {}, k.table)],
    ["Transport", k.transport + (k.endpoint ? " to " + k.endpoint : "") + (k.transport_reason ? ": " + k.transport_reason : "")],
    ["Streams", (k.streams || []).length ? el("code", {}, k.streams.join(" ")) : ""],
    ["Token", k.token_minted_at ? seconds(ago(k.token_minted_at, s.time)) + " old" + (expires === null ? "" : expires > 0 ? ", expires in " + seconds(expires) : ", expired") : "none yet"],
    ["Requests", count(s.totals.sink_requests) + (s.totals.sink_retries ? ", " + count(s.totals.sink_retries) + " repeated" : "")],
    ["Commits", count(s.totals.commits) + (s.totals.commit_errors ? ", " + count(s.totals.commit_errors) + " failed" : "")],
    ["Rebalances", count(s.totals.rebalances)],
  ]));
}

// lost marks what is shown as old, with the reason.
export function lost(text, why) {
  tone($("health"), "idle");
  setText($("health-word"), text);
  setText($("health-line"), [why, before ? "This state is from " + clock(before.time) + "." : ""].filter(Boolean).join(" "));
  document.title = "○ " + text + " · bridge";
  if (verdict !== text) announce(text);
  verdict = text;
}
