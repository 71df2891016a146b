// Blueprint of one integration: an editor with validation as you type, an event to try it on
// beside it, the changes to the stored document, and the revisions.

import { get, may, send, useOnce } from "./api.js";
import { count } from "./format.js";
import { Code, Empty, Failure, Field, html, Loading, Needs, Pill, Table, TextDiff, Time, useEffect, useID, useRef, useState, useUnsaved, words } from "./ui.js";
import { Conflict, Installed, of, Outcome } from "./installed.js";

const PAUSE = 600; // milliseconds without a key before something is sent

// usePaused calls an async function after a pause, again when key changes, and returns
// {data, error, busy}; data stays meanwhile. key null: none.
function usePaused(key, call) {
  const [state, setState] = useState({ data: null, error: null, busy: false });
  useEffect(() => {
    if (key === null) { setState({ data: null, error: null, busy: false }); return undefined; }
    const control = new AbortController();
    setState((old) => ({ ...old, busy: true }));
    const timer = setTimeout(() => call(control.signal).then((data) => ({ data, error: null }), (error) => ({ data: null, error }))
      .then((next) => !control.signal.aborted && setState({ ...next, busy: false })), PAUSE);
    return () => { clearTimeout(timer); control.abort(); };
  }, [key]);
  return state;
}

// Editor is a text area with line numbers; those in marks are lines with a problem.
function Editor({ text, onInput, marks, disabled, area, described }) {
  const all = text.split("\n"), gutter = useRef(null);
  area.current = (line, column) => {
    const field = gutter.current.nextElementSibling, at = all.slice(0, line - 1).reduce((n, l) => n + l.length + 1, 0) + Math.max(column - 1, 0);
    field.focus();
    field.setSelectionRange(at, at);
    gutter.current.children[line - 1].scrollIntoView({ block: "center" });
  };
  return html`<div class="editor"><pre class="gutter" aria-hidden="true" ref=${gutter}>${all.map((_, i) => html`<span key=${i} class=${marks.has(i + 1) ? "del" : undefined}>${i + 1}${"\n"}</span>`)}</pre>
    <textarea id="document" aria-label="Blueprint document" aria-describedby=${described} aria-invalid=${marks.size > 0 ? "true" : undefined} wrap="off" spellcheck=${false} readonly=${disabled}
      rows=${Math.max(all.length, 14)} cols=${Math.min(Math.max(...all.map((l) => l.length), 40) + 1, 400)} value=${text} placeholder=${"version: 2\nextends: default"} onInput=${(e) => onInput(e.target.value)}></textarea></div>`;
}

// Problems lists mistakes; each leads to its place.
function Problems({ state, area, id }) {
  const r = state.data;
  if (state.error) return html`<${Failure} error=${state.error} what="The document could not be validated" />`;
  return html`<div id=${id} role="status" aria-busy=${state.busy ? "true" : "false"} class="stack">
    ${!r ? html`<p class="muted">Validating …</p>` : r.valid ? html`<p><${Pill} state="ok">valid<//> <span class="muted">${(r.warnings || []).length > 0 ? "" : "It compiles, and fits the columns of the table."}</span></p>`
      : html`<p><${Pill} state="error">${count(r.problems.length)} ${r.problems.length === 1 ? "problem" : "problems"}<//></p>
        <ol class="problems">${r.problems.map((p, i) => html`<li key=${i}>${p.line ? html`<button type="button" class="small" onClick=${() => area.current(p.line, p.column || 1)}>line ${p.line}${p.column ? ", column " + p.column : ""}</button> ` : ""}${p.message}${p.remedy ? html` <b>${p.remedy}</b>` : ""}</li>`)}</ol>`}
    ${r && (r.warnings || []).map((w) => html`<p class="warning" key=${w}>${w}</p>`)}
  </div>`;
}

const outcomes = { row: ["ok", "a row"], reject: ["error", "rejected"], filter: ["off", "filtered"] };

function Result({ result: r }) {
  const [state, word] = outcomes[r.outcome] || ["off", r.outcome];
  const columns = [
    { key: "name", name: "Column", class: "name", render: (c) => html`<code>${c.name}</code>` }, { key: "type", name: "Type" },
    { key: "value", name: "Value", class: "wrap", render: (c) => c.value ? html`<code>${c.value}</code>` : html`<span class="muted">NULL</span>` },
    { key: "source", name: "Source, or why NULL", class: "wrap", render: (c) => c.source ? html`<code>${c.source}</code>` : html`<span class="muted">${c.why}</span>` },
  ];
  return html`<section class="stack result" aria-label="Outcome of the event">
    <p><${Pill} state=${state}>${word}<//>${r.code ? html` <code>${r.code}</code>` : ""}${r.column ? html` in column <code>${r.column}</code>` : ""} ${r.reason || ""}${r.section ? html` <span class="muted">section ${r.section}</span>` : ""}</p>
    ${r.columns.length > 0 && html`<${Table} label="Columns of the row" cards columns=${columns} rows=${r.columns} id=${(c) => c.name} />`}
    ${r.row && html`<${Code} label="Row" text=${JSON.stringify(r.row, null, 2)} />`}
  </section>`;
}

// Try maps a recent or a pasted event with the document in the editor.
function Try({ slug, text, ready }) {
  const [event, setEvent] = useState(""), [recent, setRecent] = useState({});
  async function read() {
    setRecent({ busy: true });
    try { setRecent({ list: (await get(of(slug, "/recent-events?limit=10"), { timeout: 30_000 })).data }); } catch (error) { setRecent({ error }); }
  }
  let parsed = event;
  try { parsed = JSON.parse(event); } catch { /* it is sent as text */ }
  const tried = usePaused(ready && event.trim() ? text + "\u0000" + event : null, (signal) => send("POST", "/v1/admin/blueprint/try", { integration: slug, blueprint: text, event: parsed }, { signal }));
  const name = (e) => e.topic + "/" + e.partition + "/" + e.offset;
  return html`<section class="card" aria-labelledby="try-head"><h2 id="try-head">Try on an event</h2>
    <div class="bar"><button type="button" id="recent" disabled=${recent.busy} onClick=${read}>${recent.busy ? "Reading …" : "Read recent events"}</button>
      ${recent.list && recent.list.length > 0 && html`<select aria-label="Recent events" onInput=${(e) => { const found = recent.list.find((x) => name(x) === e.target.value); if (found) setEvent(typeof found.event === "string" ? found.event : JSON.stringify(found.event, null, 2)); }}>
        <option value="">${count(recent.list.length)} events, newest first</option>${recent.list.map((e) => html`<option key=${name(e)} value=${name(e)}>${name(e)}, ${new Date(e.time).toLocaleTimeString()}</option>`)}</select>`}
      ${recent.list && recent.list.length === 0 && html`<span class="muted">The topics hold no event yet.</span>`}</div>
    <${Failure} error=${recent.error} what="Recent events could not be read" />
    <div class="field"><label for="event">Event</label><textarea id="event" rows="8" spellcheck=${false} placeholder=${'{"type": "track", "event": "…"}'} value=${event} onInput=${(e) => setEvent(e.target.value)}></textarea></div>
    <${Failure} error=${tried.error} what="The event could not be tried" />
    <div id="tried" role="status" aria-busy=${tried.busy ? "true" : "false"} class="stack">${!event.trim() ? html`<p class="muted">Paste an event, or choose a recent one. Nothing is written.</p>`
      : !tried.data ? html`<p class="muted">${tried.busy ? "Mapping …" : ""}</p>` : tried.data.problems.length > 0 ? html`<p class="muted">The document has problems; they are listed beside it.</p>`
        : tried.data.results.length === 0 ? html`<p class="muted">The record holds no event.</p>` : tried.data.results.map((r, i) => html`<${Result} key=${i} result=${r} />`)}</div>
  </section>`;
}

// Revisions lists who changed the integration. The document of one can be taken back.
function Revisions({ slug, route, text, onUse }) {
  const { data, error, reload } = useOnce(slug, (signal) => get(of(slug, "/revisions?limit=50"), { signal }));
  if (error) return html`<${Failure} error=${error} what="The revisions could not be read" retry=${reload} />`;
  if (!data) return html`<${Loading} what="the revisions" />`;
  const rows = data.data.filter((e) => e.record), open = rows.find((e) => String(e.revision) === route.query.revision);
  if (rows.length === 0) return html`<p class="muted">The audit log has no revision of it.</p>`;
  const columns = [
    { key: "revision", name: "Revision", class: "name", render: (e) => "revision " + e.revision }, { key: "time", name: "Time", render: (e) => html`<${Time} at=${e.timestamp} />` },
    { key: "by", name: "By", render: (e) => e.user_id }, { key: "action", name: "Change", render: (e) => words(e.action) + (e.changes && e.changes.blueprint ? ", blueprint" : "") },
    { key: "reason", name: "Reason", class: "wrap", render: (e) => e.reason || "–" },
  ];
  return html`<${Table} label="Revisions" cards columns=${columns} rows=${rows} id=${(e) => e.id} href=${(e) => route.base + "?revision=" + e.revision} current=${open && open.id} />
    ${open && html`<section class="card" id="revision"><div class="bar"><h3 class="grow">Document of revision ${open.revision}, compared with the editor</h3>
      <button type="button" id="use" onClick=${() => onUse(open.record.blueprint || "")}>Put it into the editor</button></div>
      <${TextDiff} before=${open.record.blueprint || ""} after=${text} label=${"Changes since revision " + open.revision} /></section>`}`;
}

function Page({ integration: i, reload, session, route, carry }) {
  const stored = i.blueprint || "", [{ result, edit }] = useState(() => carry.current);
  const [text, setText] = useState(edit ? edit.text : stored), [reason, setReason] = useState(edit ? edit.reason : "");
  const [state, setState] = useState({ result }), area = useRef(null), id = useID();
  const editor = may(session, "editor"), changed = text !== stored;
  useEffect(() => { carry.current = {}; }, []);
  useUnsaved(changed);
  const request = { integration: i.slug, variant: i.variant, blueprint: text };
  const check = usePaused(editor ? text : null, (signal) => send("POST", "/v1/admin/blueprint/validate", request, { signal }));
  const marks = new Set(check.data ? check.data.problems.map((p) => p.line).filter(Boolean) : []);
  async function save() {
    setState({ busy: true });
    try {
      carry.current = { result: await send("PATCH", of(i.slug), { blueprint: text }, { revision: i.revision, reason }) };
      reload();
    } catch (error) {
      setState({ error });
      if (error.status !== 412) return;
      carry.current = { edit: { text, reason } };
      reload();
    }
  }
  return html`
    <p class="muted">${stored ? "It has a document of its own." : html`It uses the built-in blueprint <code>${i.variant}</code>, with an empty document.`}${text.trim() === "" ? "" : " Empty the editor to use the built-in one."}
      ${text.trim() === "" && editor && html` <button type="button" class="small" id="extend" onClick=${() => setText("version: 2\nextends: " + i.variant + "\nglobal:\n  mappings:\n    - {source: properties.example, target: example}\n")}>Begin with an extension of it</button>`}</p>
    ${state.result && html`<${Outcome} result=${state.result} />`}
    ${edit && html`<${Conflict} integration=${i}>${changed ? "The changes below are those to the new revision: saving puts your document in its place." : "Both documents are the same."}<//>`}
    ${!editor && html`<${Needs} session=${session} role="editor" what="Changing and trying the blueprint" />`}
    <div class="two blueprint">
      <section class="card" aria-labelledby="document-head"><h2 id="document-head">Document</h2>
        <${Editor} text=${text} onInput=${setText} marks=${marks} disabled=${!editor} area=${area} described=${editor ? id : undefined} />
        ${editor && html`<${Problems} state=${check} area=${area} id=${id} />`}
        ${check.data && check.data.ddl && changed && html`<${Code} label="SQL for the columns of the table" text=${check.data.ddl} />`}
      </section>
      ${editor && html`<${Try} slug=${i.slug} text=${text} ready=${Boolean(check.data)} />`}
    </div>
    ${changed && html`<section class="card" aria-labelledby="diff-head"><h2 id="diff-head">Changes to revision ${i.revision}</h2>
      <${TextDiff} before=${stored} after=${text} label="Changes to the stored document" />
      ${editor && i.managed_by === "store" && html`<div class="fields"><${Field} field=${{ key: "reason", label: "Reason", help_text: "It is kept in the audit log." }} value=${reason} onInput=${setReason} /></div>
      <${Failure} error=${state.error} what="It was not saved" retry=${state.error && state.error.status === 412 ? reload : undefined} />
      <div class="actions"><button type="button" onClick=${() => setText(stored)}>Discard</button><button type="button" class="main" id="save" disabled=${state.busy || !check.data || !check.data.valid || check.busy} onClick=${save}>${state.busy ? "Saving …" : "Save revision " + (i.revision + 1)}</button></div>`}
    </section>`}
    ${i.managed_by === "store" && html`<h2>Revisions</h2><${Revisions} slug=${i.slug} route=${route} text=${text} onUse=${setText} />`}`;
}

export default function Blueprint({ slug, session, route }) {
  const carry = useRef({}); // what the page of the next revision shows: the outcome of a save, or what was typed
  return html`<${Installed} slug=${slug} session=${session}>${(i, reload) => i.managed_by === "file" && i.mapping && i.mapping.blueprint
    ? html`<${Empty} title="The blueprint is a file"><p>The bridge reads <code>${i.mapping.blueprint}</code>, and follows its changes. <code>bridge blueprint validate</code> and <code>bridge blueprint test</code> work on it.</p><//>`
    : html`<${Page} key=${i.revision} integration=${i} reload=${reload} session=${session} route=${route} carry=${carry} />`}<//>`;
}
