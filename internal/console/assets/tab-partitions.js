// Partitions of one integration over the whole group, those in trouble first.

import { usePoll } from "./api.js";
import { count, percent, seconds } from "./format.js";
import { Chips, Empty, Failure, html, Loading, Pill, Remedy, Search, Table } from "./ui.js";
import { setQuery } from "./router.js";

const known = (n) => n < 0 ? "–" : count(n);
const words = { blocked: "blocked", stuck: "stuck", rejecting: "rejecting", no_owner: "no owner" };
const levels = { blocked: "error", stuck: "error", rejecting: "warning", no_owner: "warning" };

const State = ({ p }) => html`${p.trouble ? html`<${Pill} state=${p.trouble} level=${levels[p.trouble]}>${words[p.trouble]}<//>` : html`<${Pill} state=${p.state === "waiting" ? "idle" : p.state}>${p.state || "not reported"}<//>`}${p.reason ? html` <span class="reason">${p.reason}</span>` : ""}`;

const columns = (topics) => [
  { key: "partition", name: "Partition", render: (p) => html`<code>${topics > 1 ? p.topic + "/" : ""}${p.partition}</code>` },
  { key: "state", name: "State", class: "wrap", render: (p) => html`<${State} p=${p} />` },
  { key: "lag", name: "Lag", n: true, sort: true, render: (p) => known(p.lag) },
  { key: "oldest_unacked_seconds", name: "Oldest unacknowledged", n: true, sort: true, render: (p) => p.oldest_unacked_seconds > 0 ? seconds(p.oldest_unacked_seconds) : "–" },
  { key: "reject_share", name: "Rejected", n: true, sort: true, title: "share of the events since its owner first had it", render: (p) => p.events_done > 0 ? percent(p.reject_share) : "–" },
  { key: "committed", name: "Committed", n: true, render: (p) => known(p.committed) },
  { key: "end_offset", name: "End", n: true, render: (p) => known(p.end_offset) },
  { key: "member_id", name: "Member", class: "name", render: (p) => html`<code title=${p.member_id}>${p.peer || p.member_id || "none"}</code>` },
];

function sorted(rows, sort) {
  if (!sort) return rows;
  const down = sort.startsWith("-") ? -1 : 1, key = sort.replace("-", "");
  return [...rows].sort((a, b) => down * (a[key] - b[key]));
}

function Members({ data }) {
  const silent = data.members.filter((m) => m.answering === false).length, unasked = data.members.filter((m) => m.answering === null).length;
  const text = [count(data.total) + (data.total === 1 ? " partition" : " partitions"), data.members.length && count(data.members.length) + (data.members.length === 1 ? " member" : " members"),
    silent && count(silent) + " not answering", unasked && count(unasked) + " not asked: set ops.peers to see their states", data.scope === "process" && "of this member only"].filter(Boolean).join(", ");
  return html`<p class="muted" id="partitions-line">${text}.</p>
    ${data.problems.filter((r) => r.code !== "not_delivering").slice(0, 3).map((r) => html`<section class="banner" data-tone="warn" key=${r.text}><p><code>${r.code}</code> ${r.text}</p>${r.remedy && html`<${Remedy} text=${r.remedy} />`}</section>`)}`;
}

export default function Partitions({ slug, route }) {
  const { data, error, reload } = usePoll("/live/partitions?integration=" + encodeURIComponent(slug), 3);
  const { q = "", show = "", sort = "" } = route.query;
  if (!data) return error ? html`<${Failure} error=${error} what="The partitions could not be read" retry=${reload} />` : html`<${Loading} what="the partitions" />`;
  if (data.total === 0) return html`<${Members} data=${data} /><${Empty} title="No partitions"><p>None is assigned yet. A group gets its partitions when the first member has joined, and a topic has to exist: <code>bridge check</code> names what is missing.</p><//>`;
  const topics = new Set(data.partitions.map((p) => p.topic)).size;
  const has = (p) => (p.topic + "/" + p.partition + " " + p.member_id + " " + (p.peer || "") + " " + (p.reason || "")).toLowerCase().includes(q.toLowerCase());
  const rows = sorted(data.partitions.filter((p) => has(p) && (!show || p.trouble)), sort);
  const chips = [{ value: "", name: "All", count: data.total }, { value: "trouble", name: "In trouble", count: data.trouble }];
  return html`<${Members} data=${data} />
    ${error && error.status !== 0 && html`<${Failure} error=${error} what="The partitions could not be read" retry=${reload} />`}
    <div class="bar filters"><${Search} label="Search partition, member, reason" value=${q} onInput=${(v) => setQuery({ q: v })} /><${Chips} label="Show" items=${chips} value=${show} onChange=${(v) => setQuery({ show: v })} /></div>
    ${data.partitions.length < data.total && html`<p class="muted">The first ${count(data.partitions.length)} are listed, those in trouble first.</p>`}
    <div id="partitions">${rows.length === 0 ? html`<${Empty} title=${show && !q ? "No partition is in trouble" : "None matches"}><p><button type="button" onClick=${() => setQuery({ q: "", show: "" })}>Show all</button></p><//>`
      : html`<${Table} label="Partitions" cards columns=${columns(topics)} rows=${rows} id=${(p) => p.topic + "/" + p.partition} sort=${sort} onSort=${(s) => setQuery({ sort: s })} />`}</div>`;
}
