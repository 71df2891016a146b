// Install: the five steps on one page. Nothing is written before the last button.

import { all, get, may, newID, send, stream, useOnce } from "./api.js";
import { count, rate } from "./format.js";
import { Code, Diff, Failure, Field, html, Loading, Needs, Since, useEffect, usePage, useRef, useState, useUnsaved } from "./ui.js";
import { navigate } from "./router.js";
import { asCurl, asYAML } from "./as.js";
import { NoAPI } from "./page-library.js";
import { Prepare } from "./prepare.js";
import { Steps } from "./steps.js";

export default function Install({ vendor, session }) {
  usePage("Install");
  const { data, error, reload } = useOnce(session.admin ? vendor : null, (signal) => get("/v1/admin/integration-catalog/" + encodeURIComponent(vendor), { signal }));
  const head = html`<p class="crumbs"><a href="/library">Integration Library</a></p><h1>Install ${data ? data.name : vendor}</h1>`;
  if (!session.admin) return html`${head}<${NoAPI} />`;
  if (error) return html`${head}<${Failure} error=${error} what="The catalog could not be read" retry=${reload} />`;
  if (!data) return html`${head}<${Loading} what="the catalog" />`;
  return html`${head}${may(session, "editor") ? html`<${Form} vendor=${data} />` : html`<${Needs} session=${session} role="editor" what="Installing" />`}`;
}

const initial = (vendor) => ({ name: vendor.name, variant: vendor.variants[0] ? vendor.variants[0].key : "", topics: [], other: "", config: Object.fromEntries(vendor.config_fields.map((f) => [f.key, ""])) });

// body is the request that a form stands for.
function body(form) {
  const topics = [...form.topics, ...form.other.split(/[\s,]+/).filter(Boolean)];
  return { name: form.name.trim(), variant: form.variant, delivery_mode: "server_side", config: Object.fromEntries(Object.entries(form.config).map(([k, v]) => [k, v.trim()])),
    ...(topics.length > 0 ? { source: { topics: [...new Set(topics)] } } : {}) };
}

function Form({ vendor }) {
  const [form, setForm] = useState(() => initial(vendor));
  const [error, setError] = useState(null), [busy, setBusy] = useState("");
  const [check, setCheck] = useState(null), [review, setReview] = useState(null); // of the form as it was
  const running = useRef(null), attempt = useRef({ text: "", id: "" }), forms = useRef(null);
  useUnsaved(Object.values(form.config).some(Boolean));
  useEffect(() => () => running.current && running.current.abort(), []);
  // Browsers may fill several fields at once, so each change builds on the last.
  const change = (patch) => {
    setForm((old) => ({ ...old, ...(typeof patch === "function" ? patch(old) : patch) }));
    setReview(null);
  };
  const wrong = (field) => error && error.of && error.of(field);
  const base = "/v1/admin/integration-catalog/" + encodeURIComponent(vendor.key);
  const missing = [form.name.trim() ? "" : "name", ...vendor.config_fields.filter((f) => f.required && !form.config[f.key].trim()).map((f) => "config." + f.key)].filter(Boolean);

  // run does one action at a time, and shows what it fails with at the fields.
  async function run(name, action) {
    if (busy) return;
    setBusy(name);
    setError(null);
    try {
      await action();
    } catch (failure) {
      setError(failure);
      // The first field that is wrong gets the focus, after it was marked.
      setTimeout(() => { const first = forms.current && forms.current.querySelector("[aria-invalid]"); if (first) first.focus(); });
    }
    setBusy("");
  }
  const dryRun = async () => {
    const result = await send("POST", base + "/install", body(form), { dryRun: true });
    setReview({ form, result });
  };
  const test = () => run("check", async () => {
    setCheck(null);
    await dryRun();
    running.current = new AbortController();
    const steps = [];
    setCheck({ steps, over: false, ok: false });
    let failure = null;
    await stream(base + "/check", { body: body(form), signal: running.current.signal, silence: 90_000, on(name, data) {
      if (name === "step") steps.push(data);
      if (name === "failure") failure = data.error && data.error.message;
      setCheck({ steps: [...steps], over: name === "done" || name === "failure", ok: name === "done" && data.ok, failure });
    } });
  });
  const install = () => run("install", async () => {
    const text = JSON.stringify(body(form));
    if (attempt.current.text !== text) attempt.current = { text, id: newID() }; // a repeated one installs once
    const result = await send("POST", base + "/install", body(form), { id: attempt.current.id });
    navigate("/integrations/" + encodeURIComponent(result.integration.slug) + "/events");
  });
  const known = new Set(["name", "variant", "source.topics", ...vendor.config_fields.map((f) => "config." + f.key)]);
  const elsewhere = error && !(error.fields && error.fields.length > 0 && error.fields.every((f) => known.has(f.field)));
  const current = review && review.form === form ? review.result : null;
  const slug = current ? current.integration.slug : "";
  return html`<form class="form" ref=${forms} autocomplete="off" onSubmit=${(e) => { e.preventDefault(); install(); }} novalidate>
    <${Step} n="1" title="Name and variant">
      <div class="fields"><${Field} field=${{ key: "name", label: "Name", required: true, help_text: "Shown in lists. The consumer group and metrics get a short form of it that never changes." }} value=${form.name} onInput=${(name) => change({ name })} error=${wrong("name") || wrong("slug")} /></div>
      <${Variants} vendor=${vendor} value=${form.variant} onChange=${(variant) => change({ variant })} error=${wrong("variant")} />
    <//>
    <${Step} n="2" title="Source"><${Topics} form=${form} change=${change} error=${wrong("source.topics")} /><//>
    <${Step} n="3" title="Destination">
      <div class="fields">${vendor.config_fields.map((f) => html`<${Field} key=${f.key} field=${f} value=${form.config[f.key]} error=${wrong("config." + f.key)} onInput=${(v) => change((old) => ({ config: { ...old.config, [f.key]: v } }))} />`)}</div>
    <//>
    <${Step} n="4" title="Test connection">
      <p class="help">Tries Kafka, the workspace, the table and its columns. It creates nothing and writes no row.</p>
      <div class="bar"><button type="button" onClick=${test} disabled=${Boolean(busy) || missing.length > 0}>${busy === "check" ? "Testing …" : "Test connection"}</button>
        ${busy === "check" && running.current && html`<button type="button" class="quiet" onClick=${() => running.current.abort()}>Stop</button>`}${missing.length > 0 && html`<span class="muted">${count(missing.length)} ${missing.length === 1 ? "field is" : "fields are"} empty</span>`}</div>
      <${Steps} check=${check} busy=${busy === "check"} />
      ${current && html`<${SQL} result=${current} open=${!(check && check.ok)}><${Prepare} at=${base + "/prepare"} request=${body(form)} busy=${busy} setBusy=${setBusy} again=${test} /><//>`}
    <//>
    <${Step} n="5" title="Review">
      <div class="bar"><button type="button" onClick=${() => run("review", dryRun)} disabled=${Boolean(busy) || missing.length > 0}>Show what will be created</button></div>
      ${current && html`<${Reviewed} result=${current} vendor=${vendor} request=${body(form)} slug=${slug} />`}
    <//>
    ${elsewhere && html`<${Failure} error=${error} what="It was not installed" />`}
    ${error && !elsewhere && html`<p class="error" role="alert">${count(error.fields.length)} ${error.fields.length === 1 ? "field needs" : "fields need"} a correction.</p>`}
    <div class="actions"><a class="button" href="/library">Cancel</a><button class="main" disabled=${Boolean(busy) || missing.length > 0}>${busy === "install" ? "Installing …" : "Install Integration"}</button></div>
  </form>`;
}

const Step = ({ n, title, children }) => html`<section class="card" aria-labelledby=${"step-" + n}><h2 id=${"step-" + n}><span class="step">${n}</span>${title}</h2>${children}</section>`;

function Variants({ vendor, value, onChange, error }) {
  if (vendor.variants.length === 0) return null;
  return html`<fieldset class="variants"><legend>Variant</legend>
    ${vendor.variants.map((v) => html`<label key=${v.key} class="choice"><input type="radio" name="variant" value=${v.key} checked=${v.key === value} disabled=${Boolean(v.problem)} onChange=${() => onChange(v.key)} />
      <span><b>${v.name}</b> ${v.description}${v.adds && v.adds.length > 0 ? html` <span class="muted">Adds ${v.adds.join(", ")}.</span>` : ""}${v.problem ? html` <span class="error">${v.problem}</span>` : ""}</span></label>`)}
    ${error && html`<p class="error">${error.message} ${error.remedy}</p>`}
  </fieldset>`;
}

// Topics lets one pick topics, with what is known of each.
function Topics({ form, change, error }) {
  const { data, error: failure, reload } = useOnce("topics", (signal) => all("/v1/admin/topics", { signal }));
  const [q, setQ] = useState("");
  const toggle = (name) => change((old) => ({ topics: old.topics.includes(name) ? old.topics.filter((t) => t !== name) : [...old.topics, name] }));
  const found = (data || []).filter((t) => form.topics.includes(t.name) || t.name.toLowerCase().includes(q.toLowerCase()));
  const now = new Date().toISOString();
  return html`
    <p class="help">The topics to read. With none chosen, those of <code>kafka.topics</code> are read.</p>
    ${!data && !failure && html`<${Loading} what="the topics" />`}
    ${failure && html`<${Failure} error=${failure} what="The topics could not be read; name them below" retry=${reload} />`}
    ${data && data.length > 8 && html`<input type="search" class="search" aria-label="Search topics" placeholder="Search topics" value=${q} onInput=${(e) => setQ(e.target.value)} />`}
    ${data && data.length > 0 && html`<div class="region region-y topics" tabindex="0" role="region" aria-label="Topics"><table>
      <thead><tr><th scope="col">Topic</th><th scope="col" class="n">Partitions</th><th scope="col" class="n">Events/s</th><th scope="col" class="n">Newest event</th></tr></thead>
      <tbody>${found.slice(0, 200).map((t) => html`<tr key=${t.name}><td class="wrap"><label class="choice"><input type="checkbox" checked=${form.topics.includes(t.name)} onChange=${() => toggle(t.name)} /><span>${t.name}</span></label></td>
        <td class="n">${count(t.partitions)}</td><td class="n">${rate(t.events_per_second)}</td><td class="n">${t.newest ? html`<${Since} at=${t.newest} now=${now} /> ago` : "–"}</td></tr>`)}</tbody></table></div>
      ${found.length > 200 && html`<p class="muted">${count(found.length - 200)} more; search for them.</p>`}`}
    ${data && data.length === 0 && html`<p class="muted">The cluster has no topic to read yet. Name it below; the integration waits until it exists.</p>`}
    <div class="fields"><${Field} field=${{ key: "topics", label: "Other topics", help_text: "Names, separated by commas." }} value=${form.other} onInput=${(other) => change({ other })} error=${error} /></div>`;
}

// SQL shows what creates the table and grants what is needed, to run in Databricks.
function SQL({ result, open, children }) {
  const grants = (result.grants || []).map((g) => g.replace(/;?\s*$/, ";")).join("\n");
  if (!result.ddl && !grants) return null;
  return html`<details open=${open}><summary>SQL of the table and its grants</summary>
    ${result.ddl && html`<${Code} label="Table" text=${result.ddl} />`}
    ${grants && html`<${Code} label="Grants" text=${grants} />`}${children}</details>`;
}

// Reviewed shows the outcome of a dry run, and the same request in other forms.
function Reviewed({ result, vendor, request, slug }) {
  return html`
    ${(result.warnings || []).map((w) => html`<p class="warning" key=${w}>${w}</p>`)}
    <${Diff} changes=${result.changes} />
    <div class="two">
      <${Code} label="The same by API" text=${asCurl(location.origin, vendor, request)} />
      <${Code} label="The same in a file" text=${asYAML(slug, vendor, request)} />
    </div>`;
}
