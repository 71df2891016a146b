// Settings of one integration: the fields of its install, enable and disable, remove.

import { get, may, send, stream, useOnce } from "./api.js";
import { Diff, Dialog, Facts, Failure, Field, html, Loading, Needs, Time, useEffect, useRef, useState, useUnsaved } from "./ui.js";
import { Conflict, Installed, of, Outcome } from "./installed.js";
import { Steps } from "./steps.js";

const list = (text) => text.split(/[\s,]+/).filter(Boolean);
const same = (a, b) => JSON.stringify(a) === JSON.stringify(b);

// patchOf is what a form changes; secrets only where they are replaced.
function patchOf(i, vendor, form) {
  const patch = {}, config = {};
  if (form.name !== i.name) patch.name = form.name;
  if (form.variant !== i.variant) patch.variant = form.variant;
  if (!same(list(form.topics), i.source.topics || [])) patch.source = { topics: list(form.topics) };
  for (const f of vendor.config_fields) {
    const value = (form.config[f.key] || "").trim();
    if (f.type === "secret" ? form.replace[f.key] : value !== (i.config[f.key] || "")) config[f.key] = value;
  }
  if (Object.keys(config).length > 0) patch.config = config;
  return patch;
}

const formOf = (i, vendor) => ({ name: i.name, variant: i.variant, topics: (i.source.topics || []).join(", "), replace: {},
  config: Object.fromEntries(vendor.config_fields.map((f) => [f.key, f.type === "secret" ? "" : i.config[f.key] || ""])) });

// again puts what was typed, in a form of an older revision, onto the present one.
function again(i, vendor, edit) {
  const form = formOf(i, vendor), was = formOf(edit.of, vendor);
  for (const key of ["name", "variant", "topics"]) if (edit.form[key] !== was[key]) form[key] = edit.form[key];
  for (const [key, value] of Object.entries(edit.form.config)) if (value !== was.config[key]) form.config[key] = value;
  return { ...form, replace: edit.form.replace };
}

// Secret shows that a secret is set, and takes another one.
function Secret({ field, secret, replace, value, onReplace, onInput, error, disabled }) {
  if (replace) return html`<${Field} field=${{ ...field, required: true }} value=${value} onInput=${onInput} error=${error} />`;
  return html`<div class="field" data-field=${field.key}><span class="label">${field.label}</span>
    <div class="bar"><span class="grow">${secret && secret.set ? html`set${secret.fingerprint ? html`, fingerprint <code>${secret.fingerprint}</code>` : ""}` : "not set"}</span><button type="button" class="small" disabled=${disabled} onClick=${onReplace}>Replace<span class="unseen"> ${field.label}</span></button></div>
    ${error && html`<p class="error">${error.message} <span class="fix">${error.remedy}</span></p>`}</div>`;
}

function Form({ integration: i, vendor, reload, session, carry }) {
  const [{ result: saved, edit }] = useState(() => carry.current);
  const [form, setForm] = useState(() => edit ? again(i, vendor, edit) : formOf(i, vendor)), [reason, setReason] = useState(edit ? edit.reason : "");
  const [busy, setBusy] = useState(""), [error, setError] = useState(null), [result, setResult] = useState(saved), [check, setCheck] = useState(null);
  const running = useRef(null);
  useEffect(() => { carry.current = {}; return () => running.current && running.current.abort(); }, []);
  const editable = may(session, "editor") && i.managed_by === "store", patch = patchOf(i, vendor, form), changed = Object.keys(patch).length > 0;
  useUnsaved(changed);
  const change = (next) => { setForm({ ...form, ...next }); setResult(null); };
  const wrong = (field) => error && error.of && error.of(field);
  const known = new Set(["name", "variant", "source.topics", ...vendor.config_fields.map((f) => "config." + f.key)]);
  const elsewhere = error && !(error.fields && error.fields.length > 0 && error.fields.every((f) => known.has(f.field)));
  async function run(name, action) {
    setBusy(name);
    setError(null);
    try { await action(); } catch (failure) { setError(failure); }
    setBusy("");
  }
  const review = () => run("review", async () => setResult(await send("PATCH", of(i.slug), patch, { revision: i.revision, dryRun: true })));
  const save = () => run("save", async () => {
    try {
      carry.current = { result: await send("PATCH", of(i.slug), patch, { revision: i.revision, reason }) };
    } catch (failure) {
      if (failure.status !== 412) throw failure;
      carry.current = { edit: { of: i, form, reason } };
      setError(failure);
    }
    reload();
  });
  const test = () => run("check", async () => {
    running.current = new AbortController();
    const steps = [];
    setCheck({ steps, over: false, ok: false });
    let failure = null;
    await stream(of(i.slug, "/check"), { body: patch, signal: running.current.signal, silence: 90_000, on(name, data) {
      if (name === "step") steps.push(data);
      if (name === "failure") failure = data.error && data.error.message;
      setCheck({ steps: [...steps], over: name === "done" || name === "failure", ok: name === "done" && data.ok, failure });
    } });
  });
  const others = Object.entries(i.config).filter(([key]) => !vendor.config_fields.some((f) => f.key === key)).map(([key, v]) => ["config." + key, v])
    .concat(...["source", "mapping", "rejects", "delivery"].map((s) => Object.entries(i[s] || {}).filter(([key]) => s !== "source" || key !== "topics").map(([key, v]) => [s + "." + key, v])));
  return html`
    ${edit && html`<${Conflict} integration=${i}>${changed ? "Look at what changes, then save again." : "It has these values already."}<//>`}
    <section class="card" aria-labelledby="fields-head"><h2 id="fields-head">Fields</h2>
      <div class="fields">
        <${Field} field=${{ key: "name", label: "Name", required: true }} value=${form.name} disabled=${!editable} error=${wrong("name")} onInput=${(name) => change({ name })} />
        <${Field} field=${{ key: "variant", label: "Variant", type: "select", required: true, options: vendor.variants.map((v) => ({ value: v.key, name: v.name })) }} value=${form.variant} disabled=${!editable} error=${wrong("variant")} onInput=${(variant) => change({ variant })} />
        <${Field} field=${{ key: "topics", label: "Topics", required: true, help_text: "Names, separated by commas." }} value=${form.topics} disabled=${!editable} error=${wrong("source.topics")} onInput=${(topics) => change({ topics })} />
        ${vendor.config_fields.map((f) => f.type === "secret"
    ? html`<${Secret} key=${f.key} field=${f} secret=${i.config[f.key]} replace=${form.replace[f.key]} value=${form.config[f.key]} disabled=${!editable} error=${wrong("config." + f.key)}
          onReplace=${() => change({ replace: { ...form.replace, [f.key]: true } })} onInput=${(v) => change({ config: { ...form.config, [f.key]: v } })} />`
    : html`<${Field} key=${f.key} field=${f} value=${form.config[f.key]} disabled=${!editable} error=${wrong("config." + f.key)} onInput=${(v) => change({ config: { ...form.config, [f.key]: v } })} />`)}
      </div>
      ${others.length > 0 && html`<h3>Further settings</h3><${Facts} items=${others.map(([key, v]) => [key, html`<code>${typeof v === "string" ? v : JSON.stringify(v)}</code>`])} /><p class="help">Change them with <code>bridge integrations set ${i.slug} KEY=VALUE</code> or by the API.</p>`}
      ${may(session, "editor") && html`<div class="bar"><button type="button" id="test" disabled=${Boolean(busy)} onClick=${test}>${busy === "check" ? "Testing …" : changed ? "Test connection with the changes" : "Test connection"}</button>
        ${busy === "check" && html`<button type="button" class="quiet" onClick=${() => running.current.abort()}>Stop</button>`}</div>
      <${Steps} check=${check} busy=${busy === "check"} />`}
      ${result && html`${result.dry_run && html`<${Diff} changes=${result.changes} />`}<${Outcome} result=${result} />`}
      ${elsewhere && html`<${Failure} error=${error} what="It was not saved" retry=${error.status === 412 ? reload : undefined} />`}
      ${error && !elsewhere && html`<p class="error" role="alert">${error.message}</p>`}
      ${editable && changed && html`<div class="fields"><${Field} field=${{ key: "reason", label: "Reason", help_text: "It is kept in the audit log." }} value=${reason} onInput=${setReason} /></div>
      <div class="actions"><button type="button" onClick=${() => { setForm(formOf(i, vendor)); setError(null); setResult(null); }}>Discard</button><button type="button" id="review" disabled=${Boolean(busy)} onClick=${review}>Show what changes</button>
        <button type="button" class="main" id="save" disabled=${Boolean(busy)} onClick=${save}>${busy === "save" ? "Saving …" : "Save"}</button></div>`}
      ${!may(session, "editor") && html`<${Needs} session=${session} role="editor" what="Changing it" />`}
    </section>`;
}

// Switch enables or disables the integration, after a question.
function Switch({ integration: i, reload, session }) {
  const [open, setOpen] = useState(false), [reason, setReason] = useState(""), [state, setState] = useState({});
  const verb = i.enabled ? "Disable" : "Enable";
  async function run() {
    setState({ busy: true });
    try {
      await send("POST", of(i.slug, i.enabled ? "/disable" : "/enable"), undefined, { revision: i.revision, reason });
      setOpen(false);
      setState({});
      reload();
    } catch (error) { setState({ error }); }
  }
  return html`<section class="card" aria-labelledby="switch-head"><h2 id="switch-head">${i.enabled ? "Enabled" : "Disabled"}</h2>
    <p>${i.enabled ? "All members run it. Disabled, it drains, leaves its group and keeps its offsets." : "No member runs it. Enabled, it continues from its committed offsets."}</p>
    ${i.managed_by !== "store" ? "" : may(session, "editor") ? html`<div><button type="button" id="switch" onClick=${() => setOpen(true)}>${verb} …</button></div>` : html`<${Needs} session=${session} role="editor" what=${verb.slice(0, -1) + "ing"} />`}
    ${open && html`<${Dialog} title=${verb + " " + i.name} onClose=${() => setOpen(false)} actions=${html`<button type="button" class="main" id="switch-now" disabled=${state.busy} onClick=${run}>${verb}</button>`}>
      <${Field} field=${{ key: "reason", label: "Reason", help_text: "It is kept in the audit log." }} value=${reason} onInput=${setReason} /><${Failure} error=${state.error} what="It was not changed" retry=${state.error && state.error.status === 412 ? reload : undefined} /><//>`}
  </section>`;
}

// Remove takes the integration away, once its name was typed.
function Remove({ integration: i, reload, session, onRemoved }) {
  const [open, setOpen] = useState(false), [typed, setTyped] = useState(""), [reason, setReason] = useState(""), [state, setState] = useState({});
  async function run() {
    setState({ busy: true });
    try { onRemoved(await send("DELETE", of(i.slug), undefined, { revision: i.revision, reason })); } catch (error) { setState({ error }); }
  }
  return html`<section class="card" aria-labelledby="remove-head"><h2 id="remove-head">Remove</h2>
    <p>It drains and is gone from all members. Its consumer group, its dead letters, the table and the grants stay.</p>
    ${i.managed_by !== "store" ? "" : may(session, "admin") ? html`<div><button type="button" class="danger" id="remove" onClick=${() => setOpen(true)}>Remove …</button></div>` : html`<${Needs} session=${session} role="admin" what="Removing" />`}
    ${open && html`<${Dialog} title=${"Remove " + i.name} onClose=${() => setOpen(false)} actions=${html`<button type="button" class="danger" id="remove-now" disabled=${state.busy || typed !== i.name} onClick=${run}>Remove</button>`}>
      <${Field} field=${{ key: "typed", label: "Type the name to confirm: " + i.name, required: true }} value=${typed} onInput=${setTyped} />
      <${Field} field=${{ key: "reason", label: "Reason", help_text: "It is kept in the audit log." }} value=${reason} onInput=${setReason} /><${Failure} error=${state.error} what="It was not removed" retry=${state.error && state.error.status === 412 ? () => { setState({}); reload(); } : undefined} /><//>`}
  </section>`;
}

export default function Settings({ slug, session }) {
  const vendor = useOnce(session.admin ? "databricks_zerobus" : null, (signal) => get("/v1/admin/integration-catalog/databricks_zerobus", { signal }));
  const [removed, setRemoved] = useState(null), carry = useRef({});
  if (removed) return html`<section class="card" id="removed" role="status"><h2>${removed.integration.name || slug} was removed</h2>${(removed.notes || []).length > 0 && html`<p>What is left, and how to delete it:</p><ul>${removed.notes.map((n) => html`<li key=${n}>${n}</li>`)}</ul>`}<p><a href="/">Integrations</a></p></section>`;
  return html`<${Installed} slug=${slug} session=${session}>${(i, reload) => html`
    <${Facts} items=${[["Slug", html`<code>${i.slug}</code>`], ["Id", html`<code>${i.id}</code>`], ["Revision", i.revision ? String(i.revision) : ""], ["Group", html`<code>${i.group}</code>`], ["Dead letters", (i.dead_letter_topics || []).join(", ")],
    ["Changed", i.meta && i.meta.updated_at && html`<${Time} at=${i.meta.updated_at} /> by ${i.meta.by}${i.meta.reason ? ": " + i.meta.reason : ""}`]]} />
    ${vendor.error ? html`<${Failure} error=${vendor.error} what="The catalog could not be read" retry=${vendor.reload} />` : !vendor.data ? html`<${Loading} what="the catalog" />`
    : html`<${Form} key=${"form " + i.revision} integration=${i} vendor=${vendor.data} reload=${reload} session=${session} carry=${carry} />`}
    <div class="two"><${Switch} key=${"switch " + i.revision} integration=${i} reload=${reload} session=${session} /><${Remove} integration=${i} reload=${reload} session=${session} onRemoved=${setRemoved} /></div>`}<//>`;
}
