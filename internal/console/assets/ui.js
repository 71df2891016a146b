// The components that all pages share. Text only goes through the components, so that
// nothing from an event or a name can become markup.

import { html, useEffect, useLayoutEffect, useRef, useState } from "./preact.js";
import { ago, clock, count, known, span, stamp, utc } from "./format.js";
import { navigate } from "./router.js";

export { html, useEffect, useLayoutEffect, useMemo, useRef, useState } from "./preact.js";

let ids = 0;
// useID returns an id for an element of this component.
export const useID = () => useState(() => "x" + ++ids)[0];

// tones are the colours of states.
const tones = {
  delivering: "ok", running: "ok", ok: "ok", delivered: "ok", successful: "ok", passed: "ok", writing: "ok", ready: "ok",
  "catching up": "info", starting: "info", draining: "info", "in flight": "info",
  "falling behind": "warn", retrying: "warn", warning: "warn", shadowed: "idle",
  blocked: "bad", failed: "bad", rejected: "bad", error: "bad", "not answering": "bad",
};
const levels = { ok: "ok", warning: "warn", error: "bad", off: "idle" };

export const words = (state) => String(state || "").replaceAll("_", " ");

// tone returns the colour of a level (ok, warning, error, off) or of a state.
export const tone = (name) => levels[name] || tones[words(name)] || "idle";

// Pill shows a state. A level other than ok overrides the colour that the state has.
export const Pill = ({ state, level, children }) => html`<span class="pill" data-tone=${tone(level && level !== "ok" ? level : state)}>${children || words(state)}</span>`;

// Time shows a local time, with UTC on hover; ms with milliseconds, short without the date.
export function Time({ at, short }) {
  if (!known(at)) return "–";
  return html`<time datetime=${new Date(at).toISOString()} title=${utc(at)}>${short ? clock(at) : stamp(at)}</time>`;
}

// Since shows how long ago a time was, by the clock of the bridge (now).
export function Since({ at, now }) {
  if (!known(at)) return null;
  return html`<time datetime=${new Date(at).toISOString()} title=${stamp(at) + " local, " + utc(at)}>${span(ago(at, now || Date.now()))}</time>`;
}

export const Loading = ({ what }) => html`<p class="loading" role="status">Reading ${what || "the state"} …</p>`;

// Empty is for what would be here, and what to do.
export const Empty = ({ title, children }) => html`<div class="empty"><h2>${title}</h2>${children}</div>`;

// Failure shows an error with its remedy, and a button if it can be tried again.
export function Failure({ error, what, retry }) {
  if (!error) return null;
  const fields = error.fields || [];
  return html`<div class="failure" role="alert">
    <p><b>${what || "This failed"}.</b> ${error.message}</p>
    ${fields.length > 0 && html`<ul>${fields.map((f) => html`<li key=${f.field}><code>${f.field}</code>: ${f.message}${f.remedy ? " " + f.remedy : ""}</li>`)}</ul>`}
    ${error.remedy && html`<${Remedy} text=${error.remedy} />`}
    ${retry && html`<button type="button" onClick=${retry}>Try again</button>`}
  </div>`;
}

// Remedy shows what the operator can do, to copy.
export const Remedy = ({ text }) => html`<div class="remedy"><b>What to do</b><span>${text}</span><${Copy} text=${text} label="the remedy" /></div>`;

async function copyText(text) {
  if (navigator.clipboard) return navigator.clipboard.writeText(text);
  // Over plain HTTP browsers offer the older way only.
  const area = document.createElement("textarea");
  area.value = text;
  (document.querySelector("dialog[open]") || document.body).append(area);
  area.select();
  const ok = document.execCommand("copy");
  area.remove();
  if (!ok) throw new Error("not allowed");
  return undefined;
}

// Copy is a button that copies text; label names what for screen readers.
export function Copy({ text, label }) {
  const [word, setWord] = useState("Copy");
  async function copy() {
    try { await copyText(text); setWord("Copied"); } catch { setWord("Not allowed"); }
    setTimeout(() => setWord("Copy"), 1500);
  }
  return html`<button type="button" class="quiet small" aria-label=${word + " " + (label || "")} onClick=${copy}>${word}</button>`;
}

// Code shows text to copy.
export function Code({ text, label }) {
  return html`<figure class="code" aria-label=${label}>
    <figcaption>${label}<${Copy} text=${text} label=${label} /></figcaption>
    <pre tabindex="0">${text}</pre>
  </figure>`;
}

// Tabs are links, one of them to the page that is shown: items of {name, href, count},
// current the href of one.
export const Tabs = ({ label, items, current }) => html`<nav class="tabs" aria-label=${label}>
  ${items.map((i) => html`<a key=${i.href} href=${i.href} aria-current=${i.href === current ? "page" : undefined}>${i.name}${i.count ? html` <span class="badge">${count(i.count)}</span>` : ""}</a>`)}
</nav>`;

// Chips are filters of which one is on: items of {value, name, count}.
export const Chips = ({ label, items, value, onChange }) => html`<div class="chips" role="group" aria-label=${label}>
  ${items.map((i) => html`<button key=${i.value} type="button" aria-pressed=${i.value === value ? "true" : "false"} onClick=${() => onChange(i.value)}>${i.name}${i.count === undefined ? "" : html` <span class="badge">${count(i.count)}</span>`}</button>`)}
</div>`;

// Search is the field that / focuses.
export const Search = ({ label, value, onInput }) => html`<input type="search" class="search" data-search aria-label=${label} placeholder=${label + "  ( / )"} value=${value || ""} onInput=${(e) => onInput(e.target.value)} />`;

// Field is a labelled control: field has {key, label, type (string, secret, list, text,
// select), required, placeholder, help_text, options}; error is {message, remedy}.
export function Field({ field, value, onInput, error, disabled, children }) {
  const id = useID(), help = id + "-help", wrong = id + "-error";
  const described = [field.help_text && help, error && wrong].filter(Boolean).join(" ") || undefined;
  const common = { id, name: field.key, value: value ?? "", disabled, required: field.required, placeholder: field.placeholder || undefined,
    "aria-describedby": described, "aria-invalid": error ? "true" : undefined, onInput: (e) => onInput(e.target.value), spellcheck: false };
  let control = children;
  if (!control && field.type === "text") control = html`<textarea rows="4" ...${common}></textarea>`;
  else if (!control && field.type === "select") control = html`<select ...${common}>${field.options.map((o) => html`<option key=${o.value} value=${o.value}>${o.name || o.value}</option>`)}</select>`;
  else if (!control) control = html`<input type=${field.type === "secret" ? "password" : "text"} autocomplete=${field.type === "secret" ? "new-password" : "off"} autocapitalize="off" ...${common} />`;
  return html`<div class="field" data-field=${field.key}>
    <label for=${id}>${field.label}${field.required ? "" : html` <span class="muted">optional</span>`}</label>
    ${control}
    ${field.help_text && html`<p class="help" id=${help}>${field.help_text}</p>`}
    ${error && html`<p class="error" id=${wrong}>${error.message}${error.remedy ? html` <span class="fix">${error.remedy}</span>` : ""}</p>`}
  </div>`;
}

// Dialog asks something in front of the page. The browser keeps the focus inside, and
// returns it. Esc calls onClose through the event close: browsers omit cancel where nobody
// clicked before. actions are buttons.
export function Dialog({ title, onClose, children, actions, wide }) {
  const ref = useRef(null), id = useID();
  useLayoutEffect(() => { // before it is painted: Esc would find nothing to close
    const box = ref.current, before = document.activeElement;
    box.showModal();
    return () => { if (before && before.isConnected) before.focus(); };
  }, []);
  return html`<dialog ref=${ref} class=${wide ? "wide-dialog" : undefined} aria-labelledby=${id} onClose=${onClose}>
    <h2 id=${id}>${title}</h2>
    ${children}
    <div class="actions"><button type="button" onClick=${onClose}>Close</button>${actions}</div>
  </dialog>`;
}

const shown = (value) => value === undefined || value === null ? "none" : typeof value === "string" ? value : JSON.stringify(value);

// Diff shows changes by dotted field: {field: {old, new}}.
export function Diff({ changes }) {
  const all = Object.entries(changes || {}).sort(([a], [b]) => a < b ? -1 : 1);
  if (all.length === 0) return html`<p class="muted">Nothing changes.</p>`;
  return html`<div class="region" tabindex="0" role="region" aria-label="Changes"><table class="diff"><thead><tr><th scope="col">Field</th><th scope="col">Before</th><th scope="col">After</th></tr></thead>
    <tbody>${all.map(([field, c]) => html`<tr key=${field}><th scope="row"><code>${field}</code></th>
      <td class=${c.old === null || c.old === undefined ? "muted" : "del"}>${shown(c.old)}</td><td class=${c.new === null || c.new === undefined ? "muted" : "ins"}>${shown(c.new)}</td></tr>`)}</tbody></table></div>`;
}

// lines compares two texts line by line: [[" ", "-" or "+", line], ...].
export function lines(before, after) {
  const a = before.split("\n"), b = after.split("\n");
  let head = 0, tail = 0;
  while (head < a.length && head < b.length && a[head] === b[head]) head++;
  while (tail < a.length - head && tail < b.length - head && a[a.length - 1 - tail] === b[b.length - 1 - tail]) tail++;
  const x = a.slice(head, a.length - tail), y = b.slice(head, b.length - tail), out = a.slice(0, head).map((l) => [" ", l]);
  if (x.length * y.length > 1e6) out.push(...x.map((l) => ["-", l]), ...y.map((l) => ["+", l])); // too much to compare
  else {
    const best = Array.from({ length: x.length + 1 }, () => new Uint16Array(y.length + 1));
    for (let i = x.length - 1; i >= 0; i--) for (let j = y.length - 1; j >= 0; j--) best[i][j] = x[i] === y[j] ? best[i + 1][j + 1] + 1 : Math.max(best[i + 1][j], best[i][j + 1]);
    for (let i = 0, j = 0; i < x.length || j < y.length;) {
      if (i < x.length && j < y.length && x[i] === y[j]) { out.push([" ", x[i]]); i++; j++; }
      else if (j >= y.length || i < x.length && best[i + 1][j] >= best[i][j + 1]) out.push(["-", x[i++]]);
      else out.push(["+", y[j++]]);
    }
  }
  return out.concat(a.slice(a.length - tail).map((l) => [" ", l]));
}

// TextDiff shows the lines in which two texts differ, with three lines around each.
export function TextDiff({ before, after, label }) {
  const all = lines(before || "", after || "");
  const near = (i) => all.slice(Math.max(i - 3, 0), i + 4).some(([mark]) => mark !== " ");
  if (!all.some(([mark]) => mark !== " ")) return html`<p class="muted">Nothing changes.</p>`;
  return html`<pre class="textdiff" tabindex="0" aria-label=${label || "Changes"}>${all.map(([mark, line], i) => near(i)
    ? html`<span key=${i} class=${mark === "+" ? "ins" : mark === "-" ? "del" : ""}>${mark} ${line}${"\n"}</span>` : i > 0 && near(i - 1) ? html`<span key=${i} class="muted">…${"\n"}</span>` : null)}</pre>`;
}

// gap reports whether a value of a history is missing.
const gap = (v) => v === null || v === undefined || v < 0;

// stretches are the runs of points without a gap between them, as paths.
function stretches(values, x, y) {
  let path = "", open = false;
  values.forEach((v, i) => {
    if (gap(v)) { open = false; return; }
    path += (open ? "L" : "M") + x(i).toFixed(1) + "," + y(v).toFixed(1) + (open ? "" : "h0");
    open = true;
  });
  return path;
}

// Sparkline shows the course of a number without axes.
export function Sparkline({ values, label }) {
  const all = (values || []).filter((v) => !gap(v));
  const top = Math.max(...all, 0) || 1, n = Math.max((values || []).length - 1, 1);
  return html`<svg class="spark" viewBox="0 0 96 20" preserveAspectRatio="none" role="img" aria-label=${label || "history"}>
    <path class="base" d="M0,19.5H96" /><path class="line" d=${stretches(values || [], (i) => 96 * i / n, (v) => 19 - 17.5 * v / top)} /></svg>`;
}

// nice rounds the top of an axis up to 1, 2 or 5 times a power of ten.
function nice(n) {
  if (!(n > 0)) return 1;
  const power = 10 ** Math.floor(Math.log10(n));
  return [1, 2, 5, 10].find((m) => m * power >= n) * power;
}

// Chart shows series over time with axes; under a pointer, and with the arrow keys when
// focused, the values at one time. series: [{name, values}], step in seconds, end the
// time of the last value, format of a value, axis that of the labels of the axis.
export function Chart({ title, series, step, end, format = count, axis = format }) {
  const [at, setAt] = useState(null);
  const n = Math.max(...series.map((s) => s.values.length), 1), W = 300, H = 96;
  const all = series.flatMap((s) => s.values).filter((v) => !gap(v));
  const top = nice(Math.max(...all, 0)), x = (i) => n > 1 ? W * i / (n - 1) : W, y = (v) => H - (H - 4) * Math.min(v / top, 1);
  const time = (i) => new Date(new Date(end) - (n - 1 - i) * step * 1000).toISOString();
  const move = (e) => {
    const box = e.currentTarget.getBoundingClientRect();
    setAt(Math.max(0, Math.min(n - 1, Math.round((e.clientX - box.left) / box.width * (n - 1)))));
  };
  const key = (e) => {
    const to = { ArrowLeft: (at ?? n) - 1, ArrowRight: (at ?? n - 2) + 1, Home: 0, End: n - 1 }[e.key];
    if (to === undefined) return;
    e.preventDefault();
    setAt(Math.max(0, Math.min(n - 1, to)));
  };
  const shownAt = at === null ? null : Math.min(at, n - 1);
  const value = (s, i) => gap(s.values[i]) ? "–" : format(s.values[i]);
  const text = series.map((s) => (series.length > 1 ? s.name + " " : "") + value(s, shownAt ?? n - 1)).join(", ");
  return html`<figure class="chart">
    <figcaption><span>${title}</span><span class="readout">${shownAt === null ? "" : html`<${Time} at=${time(shownAt)} short /> `}${text}</span></figcaption>
    <div class="plot" tabindex="0" role="slider" aria-label=${title + ", last " + span(n * step)} aria-valuemin="0" aria-valuemax=${n - 1} aria-valuenow=${shownAt ?? n - 1}
        aria-valuetext=${(shownAt === null ? "now" : clock(time(shownAt))) + ": " + text} onKeyDown=${key} onBlur=${() => setAt(null)}>
      <svg viewBox="0 0 ${W} ${H}" preserveAspectRatio="none" aria-hidden="true" onPointerMove=${move} onPointerLeave=${() => setAt(null)}>
        <path class="base" d="M0,${H}H${W}M0,${y(top / 2)}H${W}M0,${y(top)}H${W}" />
        ${series.map((s, i) => html`<path key=${s.name} class=${i ? "line second" : "line"} d=${stretches(s.values, x, y)} />`)}
        ${shownAt !== null && html`<path class="cursor" d="M${x(shownAt)},0V${H}" />`}
      </svg>
      <span class="y most" aria-hidden="true">${axis(top)}</span><span class="y mid" aria-hidden="true">${axis(top / 2) === axis(top) ? "" : axis(top / 2)}</span><span class="y zero" aria-hidden="true">${axis(0)}</span>
      <span class="x from" aria-hidden="true">${clock(time(0))}</span><span class="x mid" aria-hidden="true">${clock(time((n - 1) / 2))}</span><span class="x to" aria-hidden="true">${clock(time(n - 1))}</span>
    </div>
  </figure>`;
}

// A table with more rows than this shows those in view only.
const WINDOW = 120, MARGIN = 25;

// useWindow returns the range of rows to draw, and the height of those left out.
function useWindow(ref, total) {
  const [view, setView] = useState({ from: 0, to: WINDOW, height: 33 });
  useEffect(() => {
    if (total <= WINDOW) return undefined;
    const look = () => {
      const body = ref.current;
      if (!body) return;
      const drawn = body.querySelectorAll("tr[data-row]");
      const height = drawn.length > 0 ? (drawn[drawn.length - 1].getBoundingClientRect().bottom - drawn[0].getBoundingClientRect().top) / drawn.length : 33;
      const scroller = body.closest(".region-y"), edge = scroller ? scroller.getBoundingClientRect() : { top: 0, bottom: innerHeight };
      const above = edge.top - body.getBoundingClientRect().top;
      const from = Math.max(0, Math.floor(above / height) - MARGIN), to = Math.ceil((above + edge.bottom - edge.top) / height) + MARGIN;
      setView((old) => Math.abs(old.from - from) < 8 && Math.abs(old.to - to) < 8 && Math.abs(old.height - height) < 1 ? old : { from, to: Math.max(to, from + MARGIN), height });
    };
    look();
    addEventListener("scroll", look, { passive: true, capture: true });
    addEventListener("resize", look);
    return () => {
      removeEventListener("scroll", look, { capture: true });
      removeEventListener("resize", look);
    };
  }, [total > WINDOW]);
  if (total <= WINDOW) return { from: 0, to: total, before: 0, after: 0 };
  const from = Math.min(view.from, Math.max(total - MARGIN, 0)), to = Math.min(Math.max(view.to, from), total);
  return { from, to, before: from * view.height, after: (total - to) * view.height };
}

// Table shows rows. columns: [{key, name, n (a number, right-aligned), render(row), sort
// (true: its head sorts), title}]; the first column holds the link. id(row) is unique;
// href(row), if given, is where the row leads. sort is "key" or "-key"; onSort gets the
// next one. Rows neither move nor vanish while the pointer or the focus is on them.
export function Table({ label, columns, rows, id, href, sort, onSort, current, cards }) {
  const body = useRef(null), [held, setHeld] = useState(null);
  const now = new Map(rows.map((r) => [id(r), r]));
  const list = held ? held.map(([key, old]) => now.get(key) || old) : rows;
  const moved = held && (held.length !== rows.length || held.some(([key], i) => key !== id(rows[i])));
  const view = useWindow(body, list.length);
  const hold = () => setHeld((old) => old || rows.map((r) => [id(r), r]));
  const release = () => {
    if (body.current && !body.current.matches(":hover, :focus-within")) setHeld(null);
  };
  useEffect(() => setHeld(null), [sort]);
  const open = (e, row) => {
    if (e.defaultPrevented || e.target.closest("a, button, input, select, label") || String(getSelection())) return;
    const link = e.currentTarget.querySelector("a");
    if (e.ctrlKey || e.metaKey) window.open(href(row), "_blank", "noopener");
    else if (link) link.click();
    else navigate(href(row));
  };
  const head = (c) => {
    if (!c.sort) return c.name;
    const down = sort === "-" + c.key, up = sort === c.key;
    return html`<button type="button" onClick=${() => onSort(c.n ? (down ? c.key : "-" + c.key) : up ? "-" + c.key : c.key)}>${c.name}<span aria-hidden="true">${up ? " ↑" : down ? " ↓" : ""}</span></button>`;
  };
  const order = (c) => !c.sort ? undefined : sort === c.key ? "ascending" : sort === "-" + c.key ? "descending" : "none";
  const cell = (row, c, i) => {
    const content = c.render ? c.render(row) : row[c.key];
    return html`<td key=${c.key} role="cell" class=${[c.n && "n", c.class].filter(Boolean).join(" ") || undefined} data-label=${c.name}>${i === 0 && href ? html`<a class="row" href=${href(row)}>${content}</a>` : content}</td>`;
  };
  return html`<div class=${"region" + (cards ? " cards" : "")} tabindex="0" role="region" aria-label=${label}>
    <table role="table" aria-rowcount=${list.length + 1}>
      <thead role="rowgroup"><tr role="row">${columns.map((c) => html`<th key=${c.key} scope="col" role="columnheader" class=${c.n ? "n" : undefined} title=${c.title} aria-sort=${order(c)}>${head(c)}</th>`)}</tr></thead>
      <tbody ref=${body} role="rowgroup" onPointerEnter=${hold} onPointerLeave=${() => setTimeout(release)} onFocusIn=${hold} onFocusOut=${() => setTimeout(release)}>
        ${view.before > 0 && html`<tr key="before" aria-hidden="true" role="presentation" style=${{ height: view.before + "px" }}></tr>`}
        ${list.slice(view.from, view.to).map((row, i) => html`<tr key=${"row " + id(row)} role="row" data-row aria-rowindex=${view.from + i + 2} data-open=${current !== undefined && current === id(row) ? "" : undefined} class=${href ? "link" : undefined} onClick=${href ? (e) => open(e, row) : undefined}>${columns.map((c, i) => cell(row, c, i))}</tr>`)}
        ${view.after > 0 && html`<tr key="after" aria-hidden="true" role="presentation" style=${{ height: view.after + "px" }}></tr>`}
      </tbody>
    </table>
    ${moved && html`<p class="held">The rows hold still while you point at them.</p>`}
  </div>`;
}

// Facts is a list of names and values: [[name, value], ...]; those without are left out.
export const Facts = ({ items }) => html`<dl class="facts">${items.filter(([, value]) => value !== undefined && value !== null && value !== "").map(([name, value]) => html`<div key=${name}><dt>${name}</dt><dd>${value}</dd></div>`)}</dl>`;

// Needs shows which role an action needs, where a session lacks it.
export function Needs({ session, role, what }) {
  const why = session.admin ? "needs the role " + role + "; yours is " + session.role : "is done on the admin listener";
  return html`<p class="needs">${what} ${why}.</p>`;
}

// useUnsaved asks before a page with unsaved text is left, and keeps it if the session ends.
export function useUnsaved(unsaved) {
  useLayoutEffect(() => { // before it is painted: a link would be followed without asking
    if (!unsaved) return undefined;
    const warn = (e) => e.preventDefault();
    document.body.dataset.unsaved = "";
    addEventListener("beforeunload", warn);
    return () => {
      delete document.body.dataset.unsaved;
      removeEventListener("beforeunload", warn);
    };
  }, [unsaved]);
}

// usePage sets the title of the page.
export function usePage(title) {
  useLayoutEffect(() => { document.title = title + " · bridge"; }, [title]);
}
