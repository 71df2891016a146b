// Live Events of one integration: a sample of the events with their outcomes, and one of
// them in detail.

import { usePoll, useStream } from "./api.js";
import { bytes, clockMillis, count, seconds } from "./format.js";
import { Chips, Code, Copy, Empty, Facts, Failure, html, Loading, Pill, Search, Table, Time, useEffect, useMemo, useRef, useState } from "./ui.js";
import { setQuery } from "./router.js";

const KEPT = 600; // events in memory
const DRAWN = 300; // rows of the list
const DRAW_EVERY = 1_000; // milliseconds
const LARGE = 64 << 10; // bytes; of larger ones the bridge does not read the names

// The words of the statuses: delivered is what the documentation of the integration
// calls successful.
const statuses = { in_flight: "in flight", retrying: "retrying", delivered: "successful", rejected: "rejected", filtered: "filtered", abandoned: "again" };
const levels = { delivered: "ok", retrying: "warning", rejected: "error" };
const Status = ({ e }) => html`<${Pill} state=${e.status} level=${levels[e.status]}>${statuses[e.status] || e.status}<//>`;

const title = (e) => e.name || e.type || (e.size > LARGE ? "(too large to name)" : "(no name)");
const place = (e) => e.partition + "-" + e.offset + (e.index ? "#" + e.index : "");
const where = (e) => e.topic + "/" + e.partition;
const inOrder = new Intl.Collator("en", { numeric: true }).compare;

// useEvents keeps the newest events of the stream, and what it reports of the sample.
function useEvents(slug) {
  const kept = useRef(new Map()), timer = useRef(0), drawn = useRef(-DRAW_EVERY);
  const [state, setState] = useState({ list: null, hello: null, status: null, topics: [] });
  const draw = (patch) => setState((old) => ({ ...old, ...patch }));
  useEffect(() => () => clearTimeout(timer.current), []);
  const error = useStream("/live/stream?integration=" + encodeURIComponent(slug), {
    hello: (hello) => draw({ hello, list: [...kept.current.values()].sort((a, b) => b.id - a.id) }),
    status(status) {
      const restarted = state.status && state.status.epoch !== status.epoch; // ids begin again with the process
      if (restarted) kept.current.clear();
      draw(restarted ? { status, list: [] } : { status });
    },
    partitions: (list) => draw({ topics: [...new Set(list.map((p) => p.topic))].sort(inOrder) }),
    events({ events }) {
      for (const e of events) kept.current.set(e.id, e);
      if (kept.current.size > KEPT) for (const id of [...kept.current.keys()].sort((a, b) => a - b).slice(0, kept.current.size - KEPT)) kept.current.delete(id);
      // The first at once, then all that came once a second: a list of many events is slow to draw.
      if (timer.current) return;
      timer.current = setTimeout(() => {
        timer.current = 0;
        drawn.current = performance.now();
        draw({ list: [...kept.current.values()].sort((a, b) => b.id - a.id) });
      }, Math.max(drawn.current + DRAW_EVERY - performance.now(), 0));
    },
  });
  return { ...state, error };
}

function matches(e, q) {
  if (q.status && e.status !== q.status || q.type && e.type !== q.type || q.name && e.name !== q.name || q.partition && where(e) !== q.partition) return false;
  const text = (q.q || "").trim().toLowerCase();
  return !text || [e.type, e.name, e.message_id, e.code, e.column, place(e)].some((t) => t && t.toLowerCase().includes(text));
}

// Choice is a filter with the values that there are.
function Choice({ label, all, values, value, onInput, word = (v) => v }) {
  const list = [...new Set(values)].filter(Boolean).sort(inOrder).slice(0, 200);
  if (value && !list.includes(value)) list.push(value);
  return html`<select aria-label=${label} value=${value || ""} onInput=${(e) => onInput(e.target.value)}><option value="">${all}</option>${list.map((v) => html`<option key=${v} value=${v}>${word(v)}</option>`)}</select>`;
}

// First shows that no event came yet, and how to send one.
function First({ integration, topics }) {
  const v = (integration && integration.verdict) || {};
  if (v.level === "error" || v.level === "off") return html`<${Empty} title="No events"><p>The integration is ${integration.state}: ${v.text}</p><//>`;
  const topic = topics[0] || "TOPIC";
  return html`<${Empty} title="Waiting for the first event"><p>Events appear here as the bridge reads them. Trigger one on your site, or send one to ${topics.length ? html`the topic <code>${topic}</code>` : "a topic of this integration"}:</p>
    <${Code} label="Send an event" text=${`echo '{"type":"track","event":"test_event","message_id":"test-1","user_id":"u-1"}' |\n  kafka-console-producer.sh --bootstrap-server BROKER:9092 --topic ${topic}`} /><//>`;
}

// Sampled shows which part of all events the list has.
function Sampled({ status, shown, matching }) {
  const { seen } = status.sample;
  if (seen === 0) return null;
  const text = shown >= seen ? "All " + count(seen) + " events since the start are here, newest first." : count(shown) + " of " + count(seen) + " shown, newest first; search covers these. Rejected ones are kept longest.";
  return html`<p class="muted" id="sample">${text}${matching < shown ? " " + count(matching) + (matching === 1 ? " matches." : " match.") : ""}</p>`;
}

function List({ integration, route, live, opened }) {
  const [held, setHeld] = useState(null); // the list while paused
  const q = route.query, list = held || live.list || [], box = useRef(null);
  const found = useMemo(() => list.filter((e) => matches(e, q)), [list, route.url]);
  const waiting = held ? (live.list || []).filter((e) => held.length === 0 || e.id > held[0].id).length : 0;
  const pause = () => setHeld((old) => old ? null : live.list || []);
  useEffect(() => {
    const link = opened.current && [...box.current.querySelectorAll("a.row")].find((a) => a.getAttribute("href") === opened.current);
    if (link) {
      link.focus();
      if (!link.matches(":focus-visible")) link.blur(); // the rows would hold still
    }
    opened.current = "";
  }, []);
  const href = (e) => {
    const more = new URLSearchParams(location.search);
    more.set("topic", e.topic);
    if (e.index) more.set("index", e.index);
    return route.base + "/" + e.partition + "/" + e.offset + "?" + more;
  };
  const counts = {};
  for (const e of list) counts[e.status] = (counts[e.status] || 0) + 1;
  const chips = [{ value: "", name: "All", count: list.length }, ...Object.entries(statuses).map(([value, name]) => ({ value, name, count: counts[value] || 0 })).filter((c) => c.count > 0 || c.value === q.status)];
  const columns = [
    { key: "name", name: "Event", class: "name", render: (e) => title(e) },
    { key: "status", name: "Status", render: (e) => html`<${Status} e=${e} />${e.code ? html` <span class="muted">${e.code}${e.column ? " · " + e.column : ""}</span>` : ""}` },
    { key: "type", name: "Type", render: (e) => e.type || "–" },
    { key: "message_id", name: "Message id", class: "name", render: (e) => html`<code title=${e.message_id}>${e.message_id || "–"}</code>` },
    { key: "place", name: "Partition-offset", render: (e) => html`<code title=${where(e) + " offset " + e.offset}>${place(e)}</code>` },
    { key: "ack", name: "Latency", n: true, title: "from mapping to the acknowledgement", render: (e) => e.ack_seconds && e.status === "delivered" ? seconds(e.ack_seconds) : "–" },
    { key: "mapped", name: "Read", n: true, render: (e) => html`<span title=${e.mapped}>${clockMillis(e.mapped)}</span>` },
  ];
  const none = list.length === 0, one = list.every((e) => e.topic === list[0].topic);
  return html`<div class="stack" ref=${box} id="events">
    <div class="bar filters">
      <${Search} label="Search name, type, message id, code" value=${q.q} onInput=${(v) => setQuery({ q: v })} />
      <${Choice} label="Type" all="All types" values=${list.map((e) => e.type)} value=${q.type} onInput=${(v) => setQuery({ type: v })} />
      <${Choice} label="Event" all="All events" values=${list.map((e) => e.name)} value=${q.name} onInput=${(v) => setQuery({ name: v })} />
      <${Choice} label="Partition" all="All partitions" values=${list.map(where)} value=${q.partition} word=${(v) => one ? "Partition " + v.slice(v.lastIndexOf("/") + 1) : v} onInput=${(v) => setQuery({ partition: v })} />
      <button type="button" id="pause" aria-pressed=${held ? "true" : "false"} onClick=${pause}>${held ? "Resume" : "Pause"}${waiting > 0 ? html`<span aria-hidden="true"> · ${count(waiting)} new</span>` : ""}</button>
    </div>
    ${!none && html`<${Chips} label="Status" items=${chips} value=${q.status || ""} onChange=${(v) => setQuery({ status: v })} />`}
    ${live.status && html`<${Sampled} status=${live.status} shown=${list.length} matching=${found.length} />`}
    ${!none && found.length === 0 ? html`<${Empty} title="No event matches"><p>Search covers the ${count(list.length)} events that are kept. Older ones are in the table: query it for the <code>message_id</code>, or run <code>bridge dlq list</code>.</p><p><button type="button" onClick=${() => setQuery({ q: "", status: "", type: "", name: "", partition: "" })}>Show all</button></p><//>`
      : none ? (live.status && live.status.sample.seen > 0 ? html`<${Loading} what="the events" />` : html`<${First} integration=${integration} topics=${live.topics} />`)
        : html`<${Table} label="Events" cards columns=${columns} rows=${found.slice(0, DRAWN)} id=${(e) => e.id} href=${href} />`}
  </div>`;
}

// Columns shows which source fed each column of the row, and why it is NULL.
const Columns = ({ list }) => html`<div class="region" tabindex="0" role="region" aria-label="Columns"><table><thead><tr><th scope="col">Column</th><th scope="col">Type</th><th scope="col">Value</th><th scope="col">Source</th></tr></thead>
  <tbody>${list.map((c) => html`<tr key=${c.name}><td><code>${c.name}</code></td><td class="muted">${c.type}</td><td class="wrap">${c.value ? html`<code>${c.value}</code>` : html`<span class="muted">NULL</span>`}</td><td class="wrap">${c.why ? html`<span class="muted">${c.why}</span>` : html`<code>${c.source || "–"}</code>`}</td></tr>`)}</tbody></table></div>`;

function Content({ mode, content: c }) {
  if (mode !== "full") return html`<p class="muted" id="hidden">Values are hidden: <code>ops.live_events</code> is <code>metadata</code>. With <code>full</code> this shows the event, its row, and the source of each column.</p>`;
  if (!c) return html`<p class="muted">The content of this event was not kept.</p>`;
  return html`
    ${(c.columns || []).length > 0 && html`<h3>From event to row${c.section ? ", section " + c.section : ""}${c.shape === "row" ? ", already mapped" : ""}</h3><${Columns} list=${c.columns} />`}
    ${c.row && html`<${Code} label="Row" text=${c.row} />`}
    ${c.truncated && html`<p class="muted">Only the first 64 KiB of the record are kept, so its row and columns are not shown.</p>`}
    <${Code} label=${c.truncated ? "Start of the event" : "Event"} text=${c.value || "(no value: a tombstone)"} />
    ${c.key && html`<${Code} label="Key" text=${c.key} />`}
    ${(c.headers || []).length > 0 && html`<h3>Headers</h3><${Facts} items=${c.headers.map((h) => [h.key, h.value || "(empty)"])} />`}`;
}

// Detail is one event, which its partition and offset name.
function Detail({ slug, route, listed }) {
  const [partition, offset] = route.rest, { topic, index, ...filters } = route.query;
  const query = new URLSearchParams({ integration: slug, ...(topic ? { topic } : {}), ...(index ? { index } : {}) });
  const path = "/live/events/" + encodeURIComponent(partition) + "/" + encodeURIComponent(offset) + "?" + query;
  const [done, setDone] = useState(false), head = useRef(null);
  const { data, error, reload } = usePoll(path, done ? 0 : 1);
  const e = data ? data.event : listed;
  const over = Boolean(data && !["in_flight", "retrying"].includes(data.event.status));
  useEffect(() => setDone(over), [over]);
  useEffect(() => {
    head.current.focus({ preventScroll: true });
    const press = (e) => { if (e.key === "Escape" && !document.querySelector("dialog[open]")) document.getElementById("back").click(); };
    document.addEventListener("keydown", press);
    return () => document.removeEventListener("keydown", press);
  }, []);
  const back = new URLSearchParams(filters).toString();
  const why = e && (e.reason || e.meaning || (e.status === "abandoned" ? "its batch was abandoned by a stop or a rebalance; the next owner of the partition reads it again" : ""));
  return html`<section class="card" id="detail" aria-label="Event">
    <div class="bar"><a href=${route.base + (back ? "?" + back : "")} id="back">← Live Events</a></div>
    <h2 tabindex="-1" ref=${head}>${e ? title(e) : "Event " + partition + "-" + offset}</h2>
    ${error && error.status !== 0 && html`<${Failure} error=${error} what="The event could not be read" retry=${reload} />`}
    ${!e && !error && html`<${Loading} what="the event" />`}
    ${e && html`<p><${Status} e=${e} />${e.code ? html` <code>${e.code}</code>` : ""}${e.column ? html` column <code>${e.column}</code>` : ""} ${why}</p>
      <${Facts} items=${[
        ["Type", e.type], ["Message id", e.message_id && html`<code>${e.message_id}</code> <${Copy} text=${e.message_id} label="the message id" />`],
        ["Topic", html`<code>${e.topic}</code>`], ["Partition-offset", html`<code>${place(e)}</code>${e.index ? ", event " + e.index + " of its record" : ""}`],
        ["Produced", e.produced && html`<${Time} at=${e.produced} />`], ["Read", html`<${Time} at=${e.mapped} />`],
        ["Latency", e.ack_seconds ? seconds(e.ack_seconds) : ""],
        ["Batch", e.batch && e.batch.records ? count(e.batch.rows) + " rows of " + count(e.batch.records) + " records, " + bytes(e.batch.row_bytes) + ", offsets " + e.batch.first_offset + " to " + e.batch.last_offset : ""],
        ["Size", bytes(e.size)],
      ]} />`}
    ${data && html`<${Content} mode=${data.mode} content=${data.content} />`}
  </section>`;
}

export default function LiveEvents({ slug, integration, route }) {
  const live = useEvents(slug), opened = useRef("");
  const [partition, offset] = route.rest;
  if (offset !== undefined) {
    opened.current = route.url;
    const listed = (live.list || []).find((e) => String(e.partition) === partition && String(e.offset) === offset && (!route.query.topic || e.topic === route.query.topic) && String(e.index || "") === (route.query.index || ""));
    return html`<${Detail} key=${route.url} slug=${slug} route=${route} listed=${listed} />`;
  }
  if (live.error) return html`<${Failure} error=${live.error} what="Events cannot be shown" />`;
  if (!live.list) return html`<${Loading} what="the events" />`;
  return html`<${List} integration=${integration} route=${route} live=${live} opened=${opened} />`;
}
