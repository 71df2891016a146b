// One integration: its head, and tabs with addresses. A tab is a module whose default
// export is a component of {slug, integration, session, route}; route.parts and
// route.rest have the rest of the address, route.base that of the tab.

import { usePoll, useSummary } from "./api.js";
import { axis, count, percent, rate, seconds, short } from "./format.js";
import { Chart, Empty, Failure, html, Loading, Pill, Remedy, Since, Tabs, usePage } from "./ui.js";
import { later } from "./later.js";

const tabs = [
  ["events", "Live Events", later(() => import("./tab-events.js"))],
  ["partitions", "Partitions", later(() => import("./tab-partitions.js"))],
  ["dead-letters", "Dead letters", later(() => import("./tab-deadletters.js"))],
  ["blueprint", "Blueprint", later(() => import("./tab-blueprint.js"))],
  ["settings", "Settings", later(() => import("./tab-settings.js"))],
  ["replay", "Replay", later(() => import("./tab-replay.js"))],
  ["configuration", "Configuration", later(() => import("./tab-configuration.js"))],
];

const tones = { ok: "ok", warning: "warn", error: "bad" };

// Verdict is the first thing to know, with what to do.
function Verdict({ integration, summary }) {
  const v = integration.verdict || {};
  return html`<section class="banner" data-tone=${tones[v.level] || "idle"} aria-label="Verdict" id="verdict">
    <div class="bar"><h2><${Pill} state=${integration.state} level=${v.level} /></h2><p class="grow">${v.text}${v.since ? html` <span class="muted">for <${Since} at=${v.since} now=${summary.time} /></span>` : ""}</p></div>
    ${v.remedy && html`<${Remedy} text=${v.remedy} />`}
  </section>`;
}

// Changed shows what is wrong with the configuration on disk.
function Changed({ reload }) {
  if (!reload || reload.state !== "failed" && !(reload.pending_restart || []).length) return null;
  return html`<section class="banner" data-tone=${reload.state === "failed" ? "bad" : "warn"} aria-label="Configuration on disk" id="reload">
    ${reload.state === "failed" && html`<p>The configuration on disk is refused, and the previous one stays in force: ${reload.error}</p>`}
    ${(reload.pending_restart || []).length > 0 && html`<p>Changed on disk, in force after a restart: ${reload.pending_restart.join(", ")}</p>`}
  </section>`;
}

// Ledger accounts for every event that was read since the start.
function Ledger({ ledger: l }) {
  const term = (n, name) => html`<span class=${n === 0 ? "muted" : ""}><b>${count(n)}</b> ${name}</span>`;
  return html`<p class="ledger" id="ledger" aria-label="Outcomes of all events since the start">
    ${term(l.read, "read")} = ${term(l.delivered, "delivered")} + ${term(l.dead_lettered, "dead-lettered")} + ${term(l.skipped, "skipped")} + ${term(l.filtered, "filtered")} + ${term(l.in_flight, "in flight")} + ${term(l.released, "released for redelivery")}
    ${" "}<${Pill} state=${l.unaccounted === 0 ? "ok" : "error"}>${l.unaccounted === 0 ? "all accounted for" : count(l.unaccounted) + " unaccounted for: a bug in the bridge, please report it"}<//>
    ${l.lost > 0 && html` <${Pill} state="error">Kafka removed ${count(l.lost)} offsets before they were delivered<//>`}</p>`;
}

const share = (h) => h.outcomes_per_second.map((all, i) => all === null || h.rejected_per_second[i] === null ? null : all > 0 ? h.rejected_per_second[i] / all : 0);

// Figures are the charts of the last 15 minutes.
function Figures({ history: h }) {
  if (!h || h.rows_per_second.length === 0) return html`<p class="muted">Charts begin 10 seconds after the start.</p>`;
  const chart = (title, series, format) => html`<${Chart} key=${title} title=${title} series=${series} step=${h.step_seconds} end=${h.end} format=${format} axis=${format === seconds ? axis : format} />`;
  return html`<div class="charts" id="figures">
    ${chart("Rows per second", [{ name: "rows", values: h.rows_per_second }], rate)}
    ${chart("Lag, events", [{ name: "lag", values: h.lag }], short)}
    ${chart("Oldest unacknowledged", [{ name: "age", values: h.oldest_unacked_seconds }], seconds)}
    ${chart("Ack", [{ name: "p99", values: h.ack_p99_seconds }, { name: "p50", values: h.ack_p50_seconds }], seconds)}
    ${chart("Rejected", [{ name: "rejected", values: share(h) }], percent)}
  </div>`;
}

function Head({ integration, summary }) {
  const { data } = usePoll(integration.state === "shadowed" ? null : "/live/history?integration=" + encodeURIComponent(integration.integration), 5);
  const off = integration.verdict && integration.verdict.level === "off" && !integration.lag;
  return html`<${Verdict} integration=${integration} summary=${summary} />
    <${Changed} reload=${summary.reload} />
    ${data && !off && html`<${Ledger} ledger=${data.ledger} /><${Figures} history=${data.history} />`}
    ${data && !off && summary.scope === "process" && html`<p class="muted" id="scope">These figures are of the member that serves this page. Set <code>ops.peers</code> to see all members.</p>`}`;
}

export default function Integration({ slug, session, route }) {
  const { data, error, reload } = useSummary();
  const integration = data && (data.integrations || []).find((i) => i.integration === slug);
  const home = "/integrations/" + encodeURIComponent(slug);
  const shadowed = integration && integration.state === "shadowed", name = route.parts[2] || (shadowed ? "settings" : "events");
  const shown = shadowed ? tabs.filter(([key]) => key === "settings" || key === "blueprint") : tabs, tab = shown.find(([key]) => key === name);
  usePage((integration && integration.name) || slug);
  if (!data) return error ? html`<h1>${slug}</h1><${Failure} error=${error} what="The integration could not be read" retry=${reload} />` : html`<h1>${slug}</h1><${Loading} what="the integration" />`;
  const known = integration || session.admin; // one of the store may not run yet
  return html`
    <div class="bar head"><h1>${(integration && integration.name) || slug}</h1>${integration && html`<code>${integration.table}</code>`}${integration && integration.dead_letters > 0 && html`<a href=${home + "/dead-letters"}>${count(integration.dead_letters)} dead letters</a>`}</div>
    ${error && error.status !== 0 && html`<${Failure} error=${error} what="The state could not be read" retry=${reload} />`}
    ${integration ? html`<${Head} integration=${integration} summary=${data} />` : html`<${Empty} title="No integration of this name runs here"><p>It may have been removed, or its configuration is not taken over yet. <a href="/">Integrations</a> lists those there are.</p><//>`}
    ${known && html`<${Tabs} label="Views of the integration" items=${shown.map(([key, title]) => ({ name: title, href: home + "/" + key }))} current=${home + "/" + name} />`}
    ${known && (tab ? html`<${tab[2]} key=${name} slug=${slug} integration=${integration} session=${session} route=${{ ...route, base: home + "/" + name, rest: route.parts.slice(3) }} />` : html`<${Empty} title="There is no such view"><p><a href=${home + "/events"}>Live Events</a></p><//>`)}`;
}
