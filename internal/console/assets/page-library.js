// Integration Library: what can be installed.

import { all, may, useOnce } from "./api.js";
import { Chips, Empty, Failure, html, Loading, Needs, Pill, Search, usePage } from "./ui.js";
import { setQuery } from "./router.js";

const title = (text) => text ? text[0].toUpperCase() + text.slice(1) : "";

export default function Library({ route, session }) {
  usePage("Integration Library");
  return html`<h1>Integration Library</h1>${session.admin ? html`<${Cards} route=${route} session=${session} />` : html`<${NoAPI} />`}`;
}

// NoAPI explains how to get at the API, on a listener without it.
export const NoAPI = () => html`<${Empty} title="This address shows only">
  <p>Integrations are installed and changed on the admin listener. Turn it on with <code>admin.enabled: true</code> and <code>store.keys</code>, restart the bridge, and open <code>admin.address</code>, by default <code>localhost:8084</code>.</p>
  <p>Without the API, describe integrations in the configuration: the key <code>integrations</code>, or files in <code>integrations_dir</code>.</p>
<//>`;

function Cards({ route, session }) {
  const { data, error, reload } = useOnce("catalog", (signal) => all("/v1/admin/integration-catalog", { signal }));
  if (error) return html`<${Failure} error=${error} what="The catalog could not be read" retry=${reload} />`;
  if (!data) return html`<${Loading} what="the catalog" />`;
  const { q = "", category = "" } = route.query;
  const categories = [...new Set(data.map((v) => v.category))].sort();
  const found = data.filter((v) => (!category || v.category === category) && (v.name + "\n" + v.description).toLowerCase().includes(q.toLowerCase()));
  return html`
    <div class="bar filters"><${Search} label="Search the library" value=${q} onInput=${(v) => setQuery({ q: v })} />
      <${Chips} label="Category" value=${category} onChange=${(v) => setQuery({ category: v })} items=${[{ value: "", name: "All", count: data.length }, ...categories.map((c) => ({ value: c, name: title(c), count: data.filter((v) => v.category === c).length }))]} /></div>
    ${found.length === 0 ? html`<${Empty} title="None matches"><p><button type="button" onClick=${() => setQuery({ q: "", category: "" })}>Show all</button></p><//>` : html`<div class="tiles">${found.map((v) => html`<article class="card" key=${v.key}>
      <div class="bar"><h2 class="grow">${v.name}</h2><${Pill}>${v.status}<//></div>
      <p>${v.description}</p>
      <p class="muted">${title(v.category)}${v.variants.length > 1 ? ", " + v.variants.length + " variants" : ""}</p>
      <div class="bar">${may(session, "editor") ? html`<a class="button main" href=${"/library/" + encodeURIComponent(v.key) + "/install"}>Install</a>` : html`<${Needs} session=${session} role="editor" what="Installing" />`}
        <a href=${/^https:/.test(v.website) ? v.website : "#"} target="_blank" rel="noopener noreferrer">Documentation<span class="unseen"> of ${v.name}</span></a></div>
    </article>`)}</div>`}`;
}
