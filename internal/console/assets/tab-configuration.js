// The configuration in force of one integration, and where its rows go now.

import { usePoll } from "./api.js";
import { ago, bytes, clock, count, seconds, span } from "./format.js";
import { Code, Empty, Facts, Failure, html, Loading, Pill } from "./ui.js";

function Sink({ status: s, time, limit }) {
  const k = s.sink || {}, t = s.totals;
  const expires = k.token_expires_at ? ago(time, k.token_expires_at) : null;
  return html`<section class="card" id="sink"><h2>Sink</h2><${Facts} items=${[
    ["State", k.state && html`<${Pill} state=${k.state} />${k.since ? " for " + span(ago(k.since, time)) : ""}`],
    ["Table", html`<code>${k.table || s.table}</code>`],
    ["Transport", k.transport && k.transport + (k.endpoint ? " to " + k.endpoint : "") + (k.transport_reason ? ": " + k.transport_reason : "")],
    ["Streams", (k.streams || []).length ? html`<code>${k.streams.join(" ")}</code>` : ""],
    ["Token", k.token_minted_at ? seconds(ago(k.token_minted_at, time)) + " old" + (expires === null ? "" : expires > 0 ? ", expires in " + seconds(expires) : ", expired") : "none yet"],
    ["Requests", count(t.sink_requests) + (t.sink_retries ? ", " + count(t.sink_retries) + " repeated" : "")],
    ["Commits", count(t.commits) + (t.commit_errors ? ", " + count(t.commit_errors) + " failed" : "")],
    ["Consumer group", html`<code>${s.group}</code>`],
    ["Member", s.member_id && html`<code>${s.member_id}</code>`],
    ["Rebalances", count(t.rebalances)],
    ["Buffered", bytes(s.buffered_bytes) + " of " + bytes(limit) + " that all integrations share"],
  ]} /></section>`;
}

export default function Configuration({ slug }) {
  const { data, error, reload } = usePoll("/live/config?integration=" + encodeURIComponent(slug), 10);
  if (!data) return error ? html`<${Failure} error=${error} what="The configuration could not be read" retry=${reload} />` : html`<${Loading} what="the configuration" />`;
  if (!data.config) return html`<${Empty} title="No configuration is in force"><p>The integration does not run in this process.</p><//>`;
  return html`<p class="muted">In force at ${clock(data.time)} in the member that serves this page, version ${data.version}. Secrets are redacted. ${data.reload && data.reload.generation ? "Generation " + data.reload.generation + ", hash " + data.reload.hash + "." : ""}</p>
    <${Code} label="Configuration in force" text=${JSON.stringify(data.config, null, 2)} />
    ${data.status && html`<${Sink} status=${data.status} time=${data.time} limit=${data.buffered_limit_bytes} />`}`;
}
