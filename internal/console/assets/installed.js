// An integration as the API has it, for the tabs that change it.

import { get, useOnce } from "./api.js";
import { Failure, html, Loading } from "./ui.js";
import { NoAPI } from "./page-library.js";

// of returns the address of an integration in the API.
export const of = (slug, rest = "") => "/v1/admin/integrations/" + encodeURIComponent(slug) + rest;

// Installed reads an integration and shows children(integration, reload). One that a file
// describes gets a note: the API does not change it.
export function Installed({ slug, session, children }) {
  const { data, error, reload } = useOnce(session.admin ? slug : null, (signal) => get(of(slug), { signal }));
  if (!session.admin) return html`<${NoAPI} />`;
  const failure = error && html`<${Failure} error=${error} what="The integration could not be read" retry=${reload} />`;
  if (!data) return failure || html`<${Loading} what="the integration" />`;
  return html`
    ${failure}
    ${data.managed_by === "file" && html`<p class="fact" id="managed">It is described by <code>${data.file || "the configuration"}</code>, and is changed there.</p>`}
    ${children(data, reload)}`;
}

const actions = {
  start: "It starts.", stop: "It drains and stops.", replace: "It drains and starts again with the change.", live: "It takes the change over while it runs.", none: "Nothing that runs changes.",
};

// Conflict reports that somebody else changed the integration, and that nothing typed is lost.
export const Conflict = ({ integration: i, children }) => html`<p class="warning" role="alert" id="conflict">${i.meta && i.meta.by ? html`<b>${i.meta.by}</b>` : "Somebody"} has changed it meanwhile; it is at revision ${i.revision} now${i.meta && i.meta.reason ? ": " + i.meta.reason : ""}. What you typed is still here. ${children}</p>`;

// Outcome shows what a change does, or has done, to what runs.
export const Outcome = ({ result }) => html`<p role="status" id="outcome">${result.dry_run ? "" : "Saved as revision " + result.integration.revision + ". "}${actions[result.action] || ""}</p>
  ${(result.warnings || []).map((w) => html`<p class="warning" key=${w}>${w}</p>`)}`;
