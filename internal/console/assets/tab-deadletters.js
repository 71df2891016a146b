// Dead letters of one integration, grouped by code and column; a redrive as a dry run,
// and for real where the listener has the API.

import { may, send, usePoll } from "./api.js";
import { bytes, clock, count } from "./format.js";
import { Code, Dialog, Empty, Facts, Failure, Field, html, Loading, Needs, Pill, Table, Time, useEffect, useState } from "./ui.js";
import { navigate, setQuery } from "./router.js";

const since = { "": "Any time", "15m": "Last 15 minutes", "1h": "Last hour", "24h": "Last day" };
const lengths = { "15m": 900, "1h": 3600, "24h": 86_400 };

// filterOf returns the parameters that select what the address selects; from is fixed
// while the address stays, so that the path of the request does.
function filterOf(q, now) {
  const f = new URLSearchParams();
  for (const name of ["code", "column", "partition"]) if (q[name] !== undefined) f.set(name, q[name] === "-" && name !== "partition" ? "" : q[name]);
  if (lengths[q.since]) f.set("from", new Date(now - lengths[q.since] * 1000).toISOString().replace(/\.\d+Z/, "Z"));
  return f;
}

const words = (n, one) => count(n) + " " + one + (n === 1 ? "" : "s");

function Groups({ data, route }) {
  const { code, column } = route.query;
  const key = (g) => g.code + "\n" + g.column;
  const href = (g) => {
    const q = new URLSearchParams(route.query);
    q.delete("open");
    if (code === g.code && (column || "") === (g.column || "-")) { q.delete("code"); q.delete("column"); } else { q.set("code", g.code); q.set("column", g.column || "-"); }
    return route.path + (String(q) ? "?" + q : "");
  };
  const columns = [
    { key: "code", name: "Code", class: "name", render: (g) => g.code || "unreadable" },
    { key: "column", name: "Column", render: (g) => g.column ? html`<code>${g.column}</code>` : "–" },
    { key: "count", name: "Dead letters", n: true, render: (g) => count(g.count) },
    { key: "last", name: "Newest", n: true, render: (g) => html`<${Time} at=${g.last} />` },
    { key: "meaning", name: "Meaning, and an example", class: "wrap", render: (g) => html`${g.meaning || ""} ${g.example.reason ? html`<span class="muted">${g.example.reason}</span>` : html`<span class="muted">${g.example.name || g.example.type || ""} at ${g.example.source}</span>`}` },
  ];
  return html`<h2>By code and column</h2><div id="groups"><${Table} label="Dead letters by code and column" cards columns=${columns} rows=${data.groups} id=${key} href=${href} current=${code === undefined ? undefined : code + "\n" + (column === "-" ? "" : column || "")} /></div>
    ${data.more_groups > 0 && html`<p class="muted">${words(data.more_groups, "further group")} are not listed.</p>`}`;
}

const name = (d) => d.topic + "/" + d.partition + "/" + d.offset;

function Detail({ entry: d, onClose }) {
  return html`<${Dialog} title=${d.name || d.type || "(no name)"} wide onClose=${onClose}>
    <div id="dead-letter" class="stack"><p><${Pill} state="error">${d.code || "unreadable"}<//>${d.column ? html` column <code>${d.column}</code>` : ""} ${d.reason || d.meaning || ""}</p>
    <${Facts} items=${[["Type", d.type], ["Message id", d.message_id && html`<code>${d.message_id}</code>`], ["Failed at", d.failed_at && html`<${Time} at=${d.failed_at} />`], ["Source", html`<code>${d.source}</code>`],
      ["Dead letter at", html`<code>${name(d)}</code>`], ["Events", d.events], ["Attempts", d.attempts ? String(d.attempts) : ""], ["Size", bytes(d.size)]]} />
    ${d.value ? html`<${Code} label="Record" text=${d.value} />` : html`<p class="muted">Values are hidden: <code>ops.live_events</code> is not <code>full</code>.</p>`}</div><//>`;
}

function Newest({ data, route }) {
  const columns = [
    { key: "name", name: "Event", class: "name", render: (d) => d.name || d.type || "(no name)" },
    { key: "code", name: "Code", render: (d) => html`<${Pill} state="error">${d.code || "unreadable"}<//>` },
    { key: "column", name: "Column", render: (d) => d.column ? html`<code>${d.column}</code>` : "–" },
    { key: "failed_at", name: "Failed", n: true, render: (d) => html`<${Time} at=${d.failed_at} />` },
    { key: "message_id", name: "Message id", class: "name", render: (d) => html`<code>${d.message_id || "–"}</code>` },
    { key: "source", name: "Source", class: "name", render: (d) => html`<code title=${d.source}>${d.source}</code>` },
    { key: "attempts", name: "Attempts", n: true, render: (d) => d.attempts || "–" },
  ];
  const href = (d) => {
    const q = new URLSearchParams(route.query);
    q.set("open", name(d));
    return route.path + "?" + q;
  };
  const open = data.dead_letters.find((d) => name(d) === route.query.open);
  return html`<h2>Newest</h2><p class="muted">${data.dead_letters.length < data.matched ? count(data.dead_letters.length) + " of " + count(data.matched) + " that match, newest first." : words(data.matched, "dead letter") + ", newest first."}</p>
    <div id="rejects"><${Table} label="Dead letters" cards columns=${columns} rows=${data.dead_letters} id=${name} href=${href} /></div>
    ${open && html`<${Detail} entry=${open} onClose=${() => setQuery({ open: "" })} />`}`;
}

const again = (list) => (list || []).length > 0 && html`<ul>${list.map((s, i) => html`<li key=${i}>${words(s.events || s.dead_letters, "time")} again: <code>${s.code}</code>${s.column ? html` in column <code>${s.column}</code>` : ""}${s.meaning ? ", " + s.meaning : s.reason ? ", " + s.reason : ""}</li>`)}</ul>`;

// DryRun shows what a redrive would do. It writes nothing.
function DryRun({ slug, filter, total }) {
  const [state, setState] = useState(null);
  useEffect(() => setState(null), [slug, String(filter)]);
  async function run() {
    setState({ busy: true });
    const q = new URLSearchParams(filter);
    q.set("integration", slug);
    try { setState({ report: await send("POST", "/live/dead-letters/dry-run?" + q) }); } catch (error) { setState({ error }); }
  }
  const r = state && state.report;
  return html`<button type="button" id="dry-run" disabled=${Boolean(state && state.busy) || total === 0} onClick=${run}>${state && state.busy ? "Mapping …" : "Redrive: dry run"}</button>
    ${state && (state.error || r) && html`<div class="result" id="dry-run-result" role="status">${state.error ? html`<${Failure} error=${state.error} what="The dry run failed" />` : html`<section class="card">
      <p><b>${r.dead_letters === 0 ? "There is nothing to redrive." : count(r.rows) + " of " + count(r.events) + " failed events would be rows now."}</b>
        ${r.dead_letters > 0 && ` Mapped with the present blueprint: ${words(r.dead_letters, "dead letter")}${r.complete ? "" : " of the newest " + count(r.read)}. Nothing was written, and rows that the table would refuse are not known.`}</p>
      ${again(r.still)}
      ${r.dropped > 0 && html`<p>${count(r.dropped)} would be filtered.</p>`}${r.damaged > 0 && html`<p>${words(r.damaged, "dead letter")} cannot be restored: headers are incomplete.</p>`}
    </section>`}</div>`}`;
}

// Redrive maps the selected dead letters again and writes their rows.
function Redrive({ slug, session, query, filter, onDone }) {
  const [open, setOpen] = useState(false), [reason, setReason] = useState(""), [state, setState] = useState({});
  if (!session.admin) return html`<p class="needs">Redriving is done on the admin listener, or with <code>bridge dlq redrive --execute</code>.</p>`;
  if (!may(session, "editor")) return html`<${Needs} session=${session} role="editor" what="Redriving" />`;
  const f = new URLSearchParams(filter), body = { reason };
  if (f.get("code")) body.codes = [f.get("code")];
  if (f.get("column")) body.column = f.get("column");
  if (f.get("partition")) body.partitions = [Number(f.get("partition"))];
  if (f.get("from")) body.from = f.get("from");
  const selected = [body.codes && "code " + body.codes[0], body.column && "column " + body.column, body.partitions && "partition " + body.partitions[0], body.from && since[query.since].toLowerCase()].filter(Boolean).join(", ");
  async function run() {
    setState({ busy: true });
    try {
      setState({ report: await send("POST", "/v1/admin/integrations/" + encodeURIComponent(slug) + "/dead-letters/redrive?dry_run=false", body, { timeout: 600_000 }) });
      onDone();
    } catch (error) { setState({ error }); }
  }
  const r = state.report, close = () => { setOpen(false); setState({}); };
  return html`<button type="button" class="main" onClick=${() => setOpen(true)}>Redrive …</button>
    ${open && html`<${Dialog} title="Redrive dead letters" onClose=${close} actions=${!r && html`<button type="button" class="main" id="redrive" disabled=${state.busy || !reason.trim()} onClick=${run}>${state.busy ? "Redriving …" : "Redrive"}</button>`}>
      ${r ? html`<p role="status" id="redrive-result"><b>${count(r.delivered)} of ${count(r.matched)} dead letters were delivered</b> as ${words(r.rows, "row")}${r.rejected ? ", " + count(r.rejected) + " were rejected again" : ""}${r.filtered ? ", " + count(r.filtered) + " filtered" : ""}${r.failed ? ", " + count(r.failed) + " failed" : ""}. ${r.error || ""}</p>${again(r.not_delivered)}`
        : html`<p>Every unresolved dead letter${selected ? " with " + selected : ""} is mapped with the present blueprint, and its rows are written to the table. The dead letters stay in their topic and count as resolved.</p>
          <${Field} field=${{ key: "reason", label: "Reason", type: "string", required: true, help_text: "It is kept in the audit log." }} value=${reason} onInput=${setReason} />
          <${Failure} error=${state.error} what="The redrive failed" />`}<//>`}`;
}

export default function DeadLetters({ slug, session, route }) {
  const q = route.query, [now, setNow] = useState(Date.now());
  const filter = filterOf(q, now);
  const path = "/live/dead-letters?integration=" + encodeURIComponent(slug) + (String(filter) ? "&" + filter : "");
  const { data, error, reload } = usePoll(path, 0);
  const [shown, setShown] = useState(null); // the last answer stays while another is read
  useEffect(() => { if (data) setShown({ data, at: Date.now() }); }, [data]);
  if (error && error.status === 404 && !data) return html`<${Empty} title="No dead letters are kept"><p>${error.message}. Set <code>rejects.policy</code> to <code>dead_letter</code> to keep rejected events. Recent rejects are among the <a href=${"/integrations/" + encodeURIComponent(slug) + "/events?status=rejected"}>Live Events</a>.</p><//>`;
  const list = data || (shown && shown.data);
  const again = () => { setNow(Date.now()); if (!q.since) reload(); };
  const filtered = ["code", "column", "partition", "since"].some((k) => q[k] !== undefined);
  const bar = html`<div class="bar filters">
    <label>Failed <select aria-label="Failed" value=${q.since || ""} onInput=${(e) => { setNow(Date.now()); setQuery({ since: e.target.value }); }}>${Object.entries(since).map(([v, t]) => html`<option key=${v} value=${v}>${t}</option>`)}</select></label>
    <input class="partition" inputmode="numeric" size="10" aria-label="Partition of the source" placeholder="Partition" value=${q.partition || ""} onChange=${(e) => setQuery({ partition: e.target.value.replace(/\D/g, "") })} />
    ${filtered && html`<button type="button" onClick=${() => navigate(route.path)}>Show all</button>`}
    <button type="button" id="read" onClick=${again}>Read again</button></div>`;
  if (!list) return html`${bar}${error ? html`<${Failure} error=${error} what="The dead letters could not be read" retry=${reload} />` : html`<${Loading} what="the dead-letter topic" />`}`;
  const all = list.groups.reduce((n, g) => n + g.count, 0);
  return html`${bar}
    ${error && html`<${Failure} error=${error} what="The dead letters could not be read" retry=${reload} />`}
    <p class="muted" id="total">${list.complete ? words(list.read, "unresolved dead letter") + " in all" : "Of the newest " + count(list.read) + " unresolved dead letters read; there may be older ones"}${filtered ? ", " + count(list.matched) + " match" : ""}. Read ${shown && html`at ${clock(shown.at)}`}${!data && !error ? ", reading …" : ""}.</p>
    ${list.read === 0 ? html`<${Empty} title="No dead letters"><p>An event that can never become a row would be here, with the code and the column that caused it: not JSON, a value that does not fit its column, a row that the table refuses.</p><//>`
      : all === 0 ? html`<${Empty} title="None matches"><p>No dead letter of this time and partition is among those read. <button type="button" onClick=${() => navigate(route.path)}>Show all</button></p><//>`
        : html`<${Groups} data=${list} route=${route} />
          <div class="bar"><${DryRun} slug=${slug} filter=${filter} total=${list.matched} /><${Redrive} slug=${slug} session=${session} query=${q} filter=${filter} onDone=${again} /></div>
          ${list.matched > 0 ? html`<${Newest} data=${list} route=${route} />` : html`<${Empty} title="None matches"><p><button type="button" onClick=${() => navigate(route.path)}>Show all</button></p><//>`}`}`;
}
