// Integrations: one row each, those in trouble first.

import { may, useSummary } from "./api.js";
import { count, percent, rate, seconds, short } from "./format.js";
import { Chips, Code, Empty, Failure, html, Loading, Pill, Remedy, Search, Since, Sparkline, Table, usePage, useState } from "./ui.js";
import { setQuery } from "./router.js";

const order = { error: 0, warning: 1, ok: 2, off: 3 };
const href = (row) => "/integrations/" + encodeURIComponent(row.integration);
const levelOf = (row) => (row.verdict && row.verdict.level) || "off";

// The curl of the integration page, for the deployment that serves this page.
const curl = () => `curl -X POST ${location.origin}/v1/admin/integration-catalog/databricks_zerobus/install \\
-H "Authorization: Bearer YOUR_TOKEN" \\
-H "Content-Type: application/json" \\
-d '{
"name": "Databricks (Zerobus Ingest)",
"variant": "default",
"config": {
"workspace_url": "https://abc-12345.cloud.databricks.com",
"client_id": "00000000-0000-0000-0000-000000000000",
"client_secret": "YOUR_CLIENT_SECRET",
"catalog": "datafly",
"schema": "events",
"table": "stream"
},
"delivery_mode": "server_side"
}'`;

const trend = (row) => {
  if (!(row.lag > 0) || !(Math.abs(row.lag_change) >= 1)) return ""; // one event more or less is none
  return row.lag_change > 0 ? html`<span title="grows"> ↗</span>` : html`<span title="shrinks"> ↘</span>`;
};
const number = (value, format) => value === undefined || value === null || value < 0 ? "–" : format(value);

const columns = (time) => [
  { key: "name", name: "Name", sort: true, class: "name", render: (r) => r.name || r.integration },
  { key: "table", name: "Table", sort: true, class: "table", render: (r) => html`<code>${r.table}</code>` },
  { key: "state", name: "State", sort: true, render: (r) => html`<${Pill} state=${r.state} level=${levelOf(r)} />${r.verdict && levelOf(r) !== "ok" ? html` <span class="muted"><${Since} at=${r.verdict.since} now=${time} /></span>` : ""}` },
  { key: "lag", name: "Lag", n: true, sort: true, title: "events to deliver", render: (r) => html`${number(r.lag, short)}${trend(r)}` },
  { key: "seconds_behind", name: "Behind", n: true, sort: true, title: "age of the oldest event to deliver", render: (r) => number(r.seconds_behind, seconds) },
  { key: "rows_per_second", name: "Rows/s", n: true, sort: true, render: (r) => number(r.rows_per_second, rate) },
  { key: "history", name: "15 min", class: "history", title: "rows per second in the last 15 minutes", render: (r) => html`<${Sparkline} values=${r.history && r.history.rows_per_second} label="rows per second in the last 15 minutes" />` },
  { key: "ack_p99_seconds", name: "Ack p99", n: true, sort: true, title: "p99 of the time until a batch is acknowledged", render: (r) => r.ack_p99_seconds ? seconds(r.ack_p99_seconds) : "–" },
  { key: "reject_share", name: "Rejected", n: true, sort: true, render: (r) => number(r.reject_share, percent) },
  { key: "dead_letters", name: "Dead letters", n: true, sort: true, render: (r) => number(r.dead_letters, count) },
];

function sorted(rows, sort) {
  if (!sort) return rows.sort((a, b) => order[levelOf(a)] - order[levelOf(b)] || (a.name || a.integration).localeCompare(b.name || b.integration));
  const down = sort.startsWith("-") ? -1 : 1, key = sort.replace("-", "");
  const value = (r) => r[key] ?? (typeof rows[0][key] === "string" ? "" : -1);
  return rows.sort((a, b) => { const x = value(a), y = value(b); return down * (x < y ? -1 : x > y ? 1 : 0) || (a.integration < b.integration ? -1 : 1); });
}

// Banner names what does not deliver, or that all is well.
function Banner({ rows, time }) {
  const [open, setOpen] = useState(false);
  const bad = rows.filter((r) => levelOf(r) === "error"), warned = rows.filter((r) => levelOf(r) === "warning"), enabled = rows.filter((r) => levelOf(r) !== "off");
  const worst = bad[0] || warned[0];
  if (!worst) return html`<section class="banner" data-tone=${enabled.length > 0 ? "ok" : "idle"} aria-label="Verdict"><h2>${enabled.length > 1 ? "All " + count(enabled.length) + " are healthy" : enabled.length === 1 ? "Healthy" : "None is enabled"}</h2></section>`;
  const some = bad.length > 0 ? bad : warned;
  return html`<section class="banner" data-tone=${bad.length > 0 ? "bad" : "warn"} aria-label="Verdict">
    <div class="bar"><h2>${count(some.length)} of ${count(rows.length)} ${bad.length > 0 ? "not delivering" : "with a warning"}:</h2>
      <p class="grow"><b>${worst.name || worst.integration}</b> ${worst.verdict.text} ${worst.verdict.since ? html`<span class="muted">for <${Since} at=${worst.verdict.since} now=${time} /></span>` : ""}${some.length > 1 ? html` <span class="muted">and ${count(some.length - 1)} more</span>` : ""}</p>
      ${worst.verdict.remedy && html`<button type="button" aria-expanded=${open ? "true" : "false"} onClick=${() => setOpen(!open)}>What to do</button>`}
      <a class="button" href=${href(worst)}>Open</a></div>
    ${open && worst.verdict.remedy && html`<${Remedy} text=${worst.verdict.remedy} />`}
  </section>`;
}

// Problems are those of the process and the members; an integration has its own verdict.
function Problems({ list, all }) {
  const mine = (list || []).filter((p) => !p.integration || !all.some((r) => r.integration === p.integration && levelOf(r) === "error"));
  if (mine.length === 0) return null;
  return html`<section class="banner" data-tone="warn" aria-label="Problems"><ul class="problems">${mine.slice(0, 5).map((p) => html`<li key=${p.integration + p.code + p.text}>${p.integration ? html`<b>${p.integration}</b> ` : ""}${p.text}${p.remedy ? html` <span class="muted">${p.remedy}</span>` : ""}</li>`)}</ul>${mine.length > 5 && html`<p class="muted">and ${count(mine.length - 5)} more</p>`}</section>`;
}

function None({ session }) {
  return html`<${Empty} title="No integration yet">
    <p>An integration reads topics of Kafka and writes their events as rows into one table. Install the first one here, by API, or in a file.</p>
    ${may(session, "editor") ? html`<p><a class="button main" href="/library/databricks_zerobus/install">Install</a></p>`
      : session.admin ? html`<p class="needs">Installing needs the role editor; yours is ${session.role}.</p>`
        : html`<p class="needs">Installing is done on the admin listener: set <code>admin.enabled</code> and open <code>admin.address</code>.</p>`}
    ${session.admin && html`<${Code} label="Install by API" text=${curl()} />`}
  <//>`;
}

let painted = false; // the browser's tools show when the rows were there first

export default function Home({ route, session }) {
  const off = session.mode === "off";
  const { data, error, reload } = useSummary(off);
  const { q = "", show = "", sort = "" } = route.query;
  usePage("Integrations");
  const title = html`<div class="bar head"><h1>Integrations</h1>${data && html`<span class="muted">${count((data.members && data.members.length) ?? data.members ?? 1)} ${(data.members && data.members.length) === 1 || data.members === 1 ? "member" : "members"}</span>`}<span class="grow"></span>${may(session, "editor") && data && data.integrations.length > 0 && html`<a class="button" href="/library">Install</a>`}</div>`;
  if (off) return html`${title}<${Empty} title="The state is not recorded"><p>Set <code>ops.live_events</code> to <code>metadata</code> or <code>full</code>, and restart the bridge. <code>bridge status</code> works without it.</p><//>`;
  if (!data) return html`${title}${error ? html`<${Failure} error=${error} what="The integrations could not be read" retry=${reload} />` : html`<${Loading} what="the integrations" />`}`;
  const all = data.integrations || [];
  if (!painted) requestAnimationFrame(() => performance.mark("console: rows"));
  painted = true;
  if (all.length === 0) return html`${title}<${None} session=${session} />`;
  const has = (r) => [r.name, r.integration, r.table, r.state, r.verdict && r.verdict.text].join("\n").toLowerCase().includes(q.toLowerCase());
  const rows = sorted(all.filter((r) => has(r) && (!show || levelOf(r) === show)), sort);
  const chips = [["", "All"], ["error", "Not delivering"], ["warning", "Warning"], ["ok", "Healthy"], ["off", "Not running"]]
    .map(([value, name]) => ({ value, name, count: all.filter((r) => !value || levelOf(r) === value).length })).filter((c) => !c.value || c.count > 0 || c.value === show);
  return html`${title}
    ${error && error.status !== 0 && html`<${Failure} error=${error} what="The integrations could not be read" retry=${reload} />`}
    <${Banner} rows=${all} time=${data.time} />
    <${Problems} list=${data.problems} all=${all} />
    ${all.length > 1 && html`<div class="bar filters"><${Search} label="Search name, table, state" value=${q} onInput=${(v) => setQuery({ q: v })} /><${Chips} label="Show" items=${chips} value=${show} onChange=${(v) => setQuery({ show: v })} /></div>`}
    ${rows.length === 0 ? html`<${Empty} title="None matches"><p>${count(all.length)} integrations are hidden by the search. <button type="button" onClick=${() => setQuery({ q: "", show: "" })}>Show all</button></p><//>`
      : html`<${Table} label="Integrations" cards columns=${columns(data.time)} rows=${rows} id=${(r) => r.integration} href=${href} sort=${sort} onSort=${(s) => setQuery({ sort: s })} />`}`;
}
