// Replay of one integration: to a time, an offset, the beginning or the end. A dry run
// shows what would be delivered again; the offsets are set only while it is disabled.

import { may, send } from "./api.js";
import { count } from "./format.js";
import { Dialog, Failure, Field, html, Needs, Table, useState } from "./ui.js";
import { Installed, of } from "./installed.js";

const kinds = [
  ["earliest", "The beginning of the log"], ["time", "A time: the first event then or later"], ["offset", "An offset, the same in each partition"], ["latest", "The end of the log: what is not delivered yet is skipped"],
];

// partitionsOf reads a list like 0,3-5; null where it is none.
function partitionsOf(text) {
  const all = [];
  for (const part of text.split(",").map((p) => p.trim()).filter(Boolean)) {
    const found = /^(\d{1,7})(?:-(\d{1,7}))?$/.exec(part);
    if (!found) return null;
    const from = Number(found[1]), to = Number(found[2] || found[1]);
    if (to < from || to - from > 10_000) return null;
    for (let p = from; p <= to; p++) all.push(p);
  }
  return all;
}

function Plan({ report: r }) {
  const columns = [
    { key: "topic", name: "Topic", class: "name" }, { key: "partition", name: "Partition", n: true }, { key: "committed", name: "Committed", n: true, render: (p) => p.committed === null ? "none" : count(p.committed) },
    { key: "target", name: "Target", n: true, render: (p) => count(p.target) }, { key: "log_end", name: "Log end", n: true, render: (p) => count(p.log_end) }, { key: "to_read", name: "To read", n: true, render: (p) => count(p.to_read) },
    { key: "delivered_again", name: "Again", n: true, render: (p) => count(p.delivered_again) }, { key: "skipped", name: "Skipped", n: true, render: (p) => count(p.skipped) }, { key: "note", name: "Note", class: "wrap", render: (p) => p.note || "" },
  ];
  const t = r.totals;
  return html`<section class="card" id="plan" aria-label="What the replay does"><h2>${r.executed ? "Done, and read back" : "Dry run: nothing is changed"}</h2>
    <p role="status" id="plan-total"><b>${t.delivered_again > 0 ? "Up to " + count(t.delivered_again) + " rows are written again" : t.changed > 0 ? "No event is delivered twice" : "Every partition is there already"}</b>${t.delivered_again > 0 ? ", with the message_id they have already. The view of bridge ddl --dedupe-view shows each once." : "."} ${count(t.to_read)} events to read from ${r.to}, in ${count(t.partitions)} ${t.partitions === 1 ? "partition" : "partitions"} of group <code>${r.group}</code>.</p>
    ${t.skipped > 0 && html`<p class="warning">${count(t.skipped)} events that were never delivered are skipped: they do not reach the table.</p>`}
    ${r.members.length > 0 && html`<p class="warning">The group has ${count(r.members.length)} ${r.members.length === 1 ? "member" : "members"}: ${r.members.slice(0, 5).map((m) => m.client_id + " at " + m.host).join(", ")}. The offsets can be set when it has none.</p>`}
    <${Table} label="Partitions of the replay" cards columns=${columns} rows=${r.partitions} id=${(p) => p.topic + "/" + p.partition} />
    ${r.executed && html`<p>Enable the integration: it continues from these offsets.</p>`}
  </section>`;
}

function Page({ integration: i, reload, session, route }) {
  const topics = i.source.topics || [];
  const [form, setForm] = useState({ kind: "earliest", time: "", offset: "", topic: "", partitions: "" });
  const [busy, setBusy] = useState(""), [error, setError] = useState(null), [planned, setPlanned] = useState(null);
  const [open, setOpen] = useState(false), [reason, setReason] = useState(""), [skip, setSkip] = useState(false);
  const change = (patch) => { setForm({ ...form, ...patch }); setPlanned(null); };
  const partitions = partitionsOf(form.partitions), at = new Date(form.time);
  const to = form.kind === "time" ? (form.time && !Number.isNaN(at.getTime()) ? at.toISOString() : "") : form.kind === "offset" ? form.offset.trim() : form.kind;
  const body = { to, ...(form.topic ? { topics: [form.topic] } : {}), ...(partitions && partitions.length > 0 ? { partitions } : {}) };
  async function run(dryRun) {
    setBusy(dryRun ? "dry" : "execute");
    setError(null);
    try {
      setPlanned({ report: await send("POST", of(i.slug, "/replay"), dryRun ? body : { ...body, reason, allow_skip: skip }, { dryRun, timeout: 90_000 }) });
      setOpen(false);
      if (!dryRun) reload();
    } catch (failure) { setError(failure); }
    setBusy("");
  }
  const wrong = (field) => error && error.of && error.of(field);
  const elsewhere = error && !["to", "topics", "partitions"].some(wrong), report = planned && planned.report;
  if (!may(session, "editor")) return html`<${Needs} session=${session} role="editor" what="A replay" />`;
  return html`
    <section class="card" aria-labelledby="to-head"><h2 id="to-head">Deliver again from</h2>
      <fieldset class="variants"><legend class="unseen">Position</legend>${kinds.map(([kind, label]) => html`<label key=${kind} class="choice"><input type="radio" name="kind" value=${kind} checked=${form.kind === kind} onChange=${() => change({ kind })} /><span>${label}</span></label>`)}</fieldset>
      <div class="fields">
        ${form.kind === "time" && html`<div class="field" data-field="time"><label for="time">Time, in your time zone</label><input type="datetime-local" step="1" id="time" aria-invalid=${wrong("to") ? "true" : undefined} value=${form.time} onInput=${(e) => change({ time: e.target.value })} />
          ${wrong("to") && html`<p class="error">${wrong("to").message} <span class="fix">${wrong("to").remedy}</span></p>`}</div>`}
        ${form.kind === "offset" && html`<${Field} field=${{ key: "offset", label: "Offset", required: true }} value=${form.offset} error=${wrong("to")} onInput=${(offset) => change({ offset })} />`}
        ${topics.length > 1 && html`<${Field} field=${{ key: "topic", label: "Topic", type: "select", options: [{ value: "", name: "All " + topics.length }, ...topics.map((t) => ({ value: t }))] }} value=${form.topic} error=${wrong("topics")} onInput=${(topic) => change({ topic })} />`}
        ${(topics.length === 1 || form.topic) && html`<${Field} field=${{ key: "partitions", label: "Partitions", placeholder: "all", help_text: "A list like 0,3-5." }} value=${form.partitions} onInput=${(p) => change({ partitions: p })}
          error=${wrong("partitions") || (partitions === null && { message: "This is not a list of partitions.", remedy: "Write it as 0,3-5." })} />`}
      </div>
      ${(form.kind === "earliest" || form.kind === "latest") && wrong("to") && html`<p class="error">${wrong("to").message}</p>`}
      <div class="bar"><button type="button" id="dry-run" disabled=${Boolean(busy) || !to || partitions === null} onClick=${() => run(true)}>${busy === "dry" ? "Looking up …" : "Dry run"}</button>
        <button type="button" class="main" id="execute" disabled=${Boolean(busy) || i.enabled || !report || report.executed || report.totals.changed === 0} onClick=${() => setOpen(true)}>Replay …</button>
        ${i.enabled && html`<p class="muted" id="enabled">The offsets can be set only while it is disabled: ${i.managed_by === "file" ? html`set <code>enabled: false</code> in the file` : html`<a href=${route.base.replace(/replay$/, "settings")}>disable it</a>`}, then replay, then enable it.</p>`}</div>
      ${!open && elsewhere && html`<${Failure} error=${error} what="The replay was refused" />`}
    </section>
    ${report && html`<${Plan} report=${report} />`}
    ${open && html`<${Dialog} title=${"Replay " + i.name} onClose=${() => setOpen(false)} actions=${html`<button type="button" class="main" id="execute-now" disabled=${Boolean(busy) || !reason.trim() || report.totals.skipped > 0 && !skip} onClick=${() => run(false)}>${busy ? "Setting the offsets …" : "Set the offsets"}</button>`}>
      <p>Group <code>${i.group}</code> is set to ${report.to}. ${report.totals.delivered_again > 0 ? "Up to " + count(report.totals.delivered_again) + " rows are written again." : ""}</p>
      <${Field} field=${{ key: "reason", label: "Reason", required: true, help_text: "It is kept in the audit log." }} value=${reason} onInput=${setReason} />
      ${report.totals.skipped > 0 && html`<label class="choice"><input type="checkbox" id="skip" checked=${skip} onChange=${(e) => setSkip(e.target.checked)} /><span>Skip ${count(report.totals.skipped)} events that were never delivered</span></label>`}
      <${Failure} error=${error} what="The replay was refused" /><//>`}`;
}

export default function Replay({ slug, session, route }) {
  return html`<${Installed} slug=${slug} session=${session}>${(i, reload) => html`<${Page} integration=${i} reload=${reload} session=${session} route=${route} />`}<//>`;
}
