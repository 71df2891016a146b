// One integration: its head, and tabs with addresses. A tab is a module whose default
// export is a component of {slug, integration, session, route}; route.parts and
// route.rest have the rest of the address, route.base that of the tab.

import { usePoll } from "./api.js";
import { Empty, Failure, html, Loading, Pill, Tabs, usePage } from "./ui.js";
import { later } from "./later.js";

const tabs = [
  ["events", "Live Events", later(() => import("./tab-events.js"))],
  ["partitions", "Partitions", later(() => import("./tab-partitions.js"))],
  ["dead-letters", "Dead letters", later(() => import("./tab-deadletters.js"))],
  ["blueprint", "Blueprint", later(() => import("./tab-blueprint.js"))],
  ["settings", "Settings", later(() => import("./tab-settings.js"))],
  ["replay", "Replay", later(() => import("./tab-replay.js"))],
];

export default function Integration({ slug, session, route }) {
  const { data, error, reload } = usePoll("/live/summary", 2);
  const integration = data && (data.integrations || []).find((i) => i.integration === slug);
  const home = "/integrations/" + encodeURIComponent(slug), name = route.parts[2] || "events";
  const tab = tabs.find(([key]) => key === name);
  usePage((integration && integration.name) || slug);
  if (!data) return error ? html`<h1>${slug}</h1><${Failure} error=${error} what="The integration could not be read" retry=${reload} />` : html`<h1>${slug}</h1><${Loading} what="the integration" />`;
  return html`
    <div class="bar head"><h1>${(integration && integration.name) || slug}</h1>${integration && html`<${Pill} state=${integration.state} level=${integration.verdict && integration.verdict.level} /><code>${integration.table}</code>`}</div>
    ${!integration && html`<${Empty} title="There is no integration of this name"><p><a href="/">Integrations</a> lists those there are.</p><//>`}
    <${Tabs} label="Views of the integration" items=${tabs.map(([key, title]) => ({ name: title, href: home + "/" + key }))} current=${home + "/" + name} />
    ${tab ? html`<${tab[2]} key=${name} slug=${slug} integration=${integration} session=${session} route=${{ ...route, base: home + "/" + name, rest: route.parts.slice(3) }} />` : html`<${Empty} title="There is no such view" />`}`;
}
