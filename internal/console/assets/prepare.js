// Run with a warehouse: the statements that create the table and its grants.

import { send, stream } from "./api.js";
import { count } from "./format.js";
import { Failure, Field, html, useEffect, useRef, useState } from "./ui.js";
import { Steps } from "./steps.js";

const states = { done: "ok", exists: "ok", failed: "failed", refused: "failed", started: "running" };

// step is a statement of the API as one of Steps.
const step = (s) => ({ step: s.statement.split("\n")[0], status: states[s.state] || s.state, detail: s.note || (s.state === "exists" ? "exists" : ""), error: s.error });

const warehouse = (w) => w.name + " (" + [w.state.toLowerCase(), w.cluster_size].filter(Boolean).join(", ") + ")";

// summary states what a result means.
function summary({ executed, ok, changed, plan, warehouse: chosen, no_warehouse: none, error }) {
  const open = plan.filter((s) => s.state === "will run" || s.state === "not visible").length;
  if (!executed) return open === 0 ? "Nothing is missing." : count(open) + (open === 1 ? " statement" : " statements") + " will run" + (chosen ? " on " + warehouse(chosen) + "." : "; no warehouse is chosen: " + none + ".");
  if (ok) return changed ? "The table and its grants are there." : "Nothing had to be changed.";
  return error || "A statement was refused; the test shows whether it is needed.";
}

// Prepare runs the SQL of request at the path at, then calls again.
export function Prepare({ at, request, busy, setBusy, again }) {
  const [chosen, setChosen] = useState(""), [token, setToken] = useState("");
  const [list, setList] = useState([]), [error, setError] = useState(null);
  const [shown, setShown] = useState(null); // {steps, over, result}
  const running = useRef(null);
  const asked = () => ({ ...request, ...(chosen ? { warehouse_id: chosen } : {}), ...(token.trim() ? { token: token.trim() } : {}) });
  const known = (result) => { if (result.warehouses) setList(result.warehouses); };
  useEffect(() => {
    const control = new AbortController();
    // Without an answer, any warehouse can be chosen still.
    send("POST", at, asked(), { dryRun: true, signal: control.signal }).then((result) => control.signal.aborted || known(result), () => {});
    return () => {
      control.abort();
      if (running.current) running.current.abort();
    };
  }, []);

  async function act(name, action) {
    if (busy) return;
    setBusy(name);
    setError(null);
    setShown(null);
    running.current = new AbortController();
    let done = false;
    try { done = await action(running.current.signal); } catch (failure) { if (failure.name !== "AbortError") setError(failure); }
    setBusy("");
    if (done) again();
  }
  const plan = () => act("plan", async (signal) => {
    const result = await send("POST", at, asked(), { dryRun: true, signal });
    known(result);
    setShown({ steps: result.plan.map(step), over: true, result });
    return false;
  });
  const execute = () => act("prepare", async (signal) => {
    const steps = [];
    let result = null;
    setShown({ steps, over: false });
    await stream(at, { body: asked(), signal, silence: 120_000, on(name, data) {
      if (name === "step") {
        if (steps.length > 0 && steps[steps.length - 1].status === "running") steps.pop();
        steps.push(step(data));
      }
      if (name === "failure") setError({ message: data.error.message, fields: data.fields, remedy: data.remedy });
      if (name === "done") result = data;
      setShown({ steps: [...steps], over: Boolean(result), result });
    } });
    if (!result) return false;
    known(result);
    if (result.ok) setToken("");
    return true;
  });
  const wrong = (field) => error && (error.fields || []).find((f) => f.field === field);
  const elsewhere = error && !(wrong("token") || wrong("warehouse_id"));
  const works = busy === "prepare";
  // Enter in a field runs the statements, and installs nothing.
  const enter = (e) => { if (e.key === "Enter" && e.target.tagName === "INPUT") { e.preventDefault(); execute(); } };
  return html`<div class="stack" onKeyDown=${enter}>
    <h3>Run with a warehouse</h3>
    <p class="help">Runs what is missing on a SQL warehouse, as the service principal or with a token. A warehouse that is stopped starts: that takes minutes, and costs.</p>
    <div class="fields">
      <${Field} field=${{ key: "warehouse_id", label: "SQL warehouse", type: "select", options: [{ value: "", name: "One that runs, or the only one" }, ...list.map((w) => ({ value: w.id, name: warehouse(w) }))] }} value=${chosen} onInput=${setChosen} error=${wrong("warehouse_id")} />
      <${Field} field=${{ key: "token", label: "Databricks token", type: "secret", help_text: "Of a person who may create and grant. It is used for this request only, and not stored." }} value=${token} onInput=${setToken} error=${wrong("token")} />
    </div>
    <div class="bar"><button type="button" onClick=${execute} disabled=${Boolean(busy)}>${works ? "Running …" : "Run with a warehouse"}</button>
      <button type="button" class="quiet" onClick=${plan} disabled=${Boolean(busy)}>Show what is missing</button>
      ${works && html`<button type="button" class="quiet" onClick=${() => running.current.abort()}>Stop</button>`}</div>
    <${Steps} check=${shown} busy=${works} label="Statements" status=${works ? "Running …" : !shown ? "" : shown.result ? summary(shown.result) : "It ended before all statements had run. What runs may still complete."} />
    ${shown && shown.result && (shown.result.warnings || []).map((w) => html`<p class="warning" key=${w}>${w}</p>`)}
    ${elsewhere && html`<${Failure} error=${error} what="It was not run" />`}
  </div>`;
}
