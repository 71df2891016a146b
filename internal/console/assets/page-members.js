// Members: the processes of the deployment, and what each of them runs.

import { usePoll } from "./api.js";
import { bytes, count, span, ago } from "./format.js";
import { Facts, Failure, html, Loading, Pill, Since, Table, Time, usePage } from "./ui.js";

export default function Members() {
  usePage("Members");
  const { data, error, reload } = usePoll("/live/members", 2);
  const head = html`<h1>Members</h1>`;
  if (!data) return html`${head}${error ? html`<${Failure} error=${error} what="The members could not be read" retry=${reload} />` : html`<${Loading} what="the members" />`}`;
  const silent = data.members.filter((m) => !m.ok);
  return html`${head}
    ${silent.length > 0 && html`<section class="banner" data-tone="bad" aria-label="Verdict"><h2>${count(silent.length)} of ${count(data.members.length)} not answering</h2></section>`}
    ${!data.peers_configured && html`<p class="muted">Only this process is asked, since <code>ops.peers</code> is not set. The others are shown as Kafka knows them.</p>`}
    ${!data.kafka.ok && html`<section class="banner" data-tone="warn" aria-label="Kafka"><p>What Kafka knows is missing or old${data.kafka.error ? ": " + data.kafka.error : ""}.</p></section>`}
    <div class="tiles members">${[...data.members].sort((a, b) => a.ok - b.ok || (a.address < b.address ? -1 : 1)).map((m) => html`<${Member} key=${m.address} member=${m} now=${data.time} />`)}</div>
    ${data.unreported.length > 0 && html`<h2>Members that no process reports</h2><${Table} label="Members that no process reports" cards rows=${data.unreported} id=${(u) => u.integration + " " + u.member_id} columns=${[
      { key: "member_id", name: "Member", class: "name", render: (u) => html`<code>${u.member_id}</code>` },
      { key: "host", name: "Host" }, { key: "integration", name: "Integration", render: (u) => html`<a href=${"/integrations/" + encodeURIComponent(u.integration)}>${u.integration}</a>` },
      { key: "partitions", name: "Partitions", n: true, render: (u) => count(u.partitions) },
      { key: "answering", name: "State", render: (u) => html`<${Pill} state=${u.answering === false ? "not answering" : "not asked"} />` },
    ]} />`}`;
}

function Member({ member: m, now }) {
  const total = m.integrations.reduce((n, i) => n + i.partitions, 0), bound = m.memory || {};
  return html`<article class="card" aria-label=${m.address}>
    <div class="bar"><h2 class="grow mono">${m.address}</h2><${Pill} state=${m.ok ? m.state : "not answering"} /></div>
    ${!m.ok && html`<p class="error">Not answering${m.since ? html` since <${Time} at=${m.since} /> (<${Since} at=${m.since} now=${now} />)` : ""}: ${m.error}</p>`}
    ${bound.warning && html`<p class="warning">${bound.warning}</p>`}
    ${m.ok && html`<${Facts} items=${[
      ["Version", m.version],
      ["This page", m.self && "comes from this process"],
      ["Uptime", m.started && html`<span title=${m.started}>${span(ago(m.started, now))}</span>`],
      ["Buffered", bytes(m.buffered_bytes) + " of " + bytes(m.buffered_limit_bytes)],
      ["Memory", bound.bound_bytes ? "at most " + bytes(bound.bound_bytes) + (bound.cgroup_bytes ? " of " + bytes(bound.cgroup_bytes) : "") : ""],
      ["Integrations", count(m.integrations.length)],
      ["Partitions", count(total)],
    ]} />
    ${m.integrations.length > 0 && html`<ul class="holds" tabindex="0" aria-label=${"Integrations of " + m.address + ", with their partitions"}>
      ${m.integrations.map((i) => html`<li key=${i.integration}><a href=${"/integrations/" + encodeURIComponent(i.integration)}>${i.name || i.integration}</a><${Pill} state=${i.state || "starting"} /><span class="n">${count(i.partitions)}</span></li>`)}</ul>`}`}
  </article>`;
}
