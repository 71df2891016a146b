// Audit: who changed what, when and why, newest first.

import { get, useOnce } from "./api.js";
import { Diff, Empty, Failure, html, Loading, Time, usePage, useState, words } from "./ui.js";
import { NoAPI } from "./page-library.js";

export default function Audit({ session }) {
  usePage("Audit");
  return html`<h1>Audit</h1>${session.admin ? html`<${Log} />` : html`<${NoAPI} />`}`;
}

function Log() {
  const [older, setOlder] = useState([]), [next, setNext] = useState(undefined), [more, setMore] = useState({ busy: false, error: null });
  const { data, error, reload } = useOnce("audit", (signal) => get("/v1/admin/audit-log?limit=50", { signal }));
  if (error) return html`<${Failure} error=${error} what="The audit log could not be read" retry=${reload} />`;
  if (!data) return html`<${Loading} what="the audit log" />`;
  const cursor = next === undefined ? data.next_cursor : next;
  async function read() {
    setMore({ busy: true, error: null });
    try {
      const page = await get("/v1/admin/audit-log?limit=50&cursor=" + encodeURIComponent(cursor));
      setOlder([...older, ...page.data]);
      setNext(page.next_cursor);
      setMore({ busy: false, error: null });
    } catch (failure) { setMore({ busy: false, error: failure }); }
  }
  const entries = [...data.data, ...older];
  if (entries.length === 0) return html`<${Empty} title="No change yet"><p>Each installation, change and removal of an integration is recorded here for 90 days, with who did it and why.</p><//>`;
  return html`<ol class="log">${entries.map((e) => html`<${Entry} key=${e.id} entry=${e} />`)}</ol>
    <${Failure} error=${more.error} what="Older entries could not be read" />
    ${cursor && html`<p><button type="button" onClick=${read} disabled=${more.busy}>${more.busy ? "Reading …" : "Older"}</button></p>`}`;
}

function Entry({ entry: e }) {
  const [open, setOpen] = useState(false), fields = Object.keys(e.changes || {});
  const name = e.slug || e.resource_id, gone = /removed$/.test(e.action) || e.resource_type === "workspace";
  return html`<li class="card entry">
    <div class="bar"><b>${words(e.action)}</b> ${gone ? html`<span>${name}</span>` : html`<a href=${"/integrations/" + encodeURIComponent(name)}>${name}</a>`}
      ${e.revision ? html`<span class="muted">revision ${e.revision}</span>` : ""}<span class="grow"></span><span>${e.user_id}</span><span class="muted"><${Time} at=${e.timestamp} /></span></div>
    ${e.reason && html`<p>${e.reason}</p>`}
    <div class="bar"><span class="muted grow fields-of">${fields.length === 0 ? "no field changed" : fields.slice(0, 6).join(", ") + (fields.length > 6 ? " and " + (fields.length - 6) + " more" : "")}</span><span class="muted mono">${e.request_id}</span>
      ${fields.length > 0 && html`<button type="button" class="small" aria-expanded=${open ? "true" : "false"} onClick=${() => setOpen(!open)}>Changes<span class="unseen"> of ${name}, revision ${e.revision}</span></button>`}</div>
    ${open && html`<${Diff} changes=${e.changes} />`}
  </li>`;
}
