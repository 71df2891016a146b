// The steps of a check, as they come in.

import { Copy, html } from "./ui.js";

const words = { ok: "ok", passed: "ok", failed: "error", skipped: "skipped" };
const marks = { ok: ["✓", "ok"], warning: ["!", "warn"], error: ["✗", "bad"], skipped: ["–", "idle"] };

// Steps shows {steps: [{step, status, detail, error, warning}], over, ok, failure}; status is
// the text of the last line instead of the outcome of a check.
export function Steps({ check, busy, label, status }) {
  if (!check) return null;
  const failed = check.steps.filter((s) => s.status === "failed").length;
  return html`<ol class="steps" aria-label=${label || "Steps of the check"} aria-busy=${busy ? "true" : "false"}>
    ${check.steps.map((s, i) => {
    const word = s.warning ? "warning" : words[s.status] || s.status, [mark, tone] = marks[word] || marks.skipped;
    return html`<li key=${i} data-tone=${tone}><span class="stepmark" aria-hidden="true">${mark}</span><div><b>${s.step}</b> <span class="muted">${word}</span>
${s.detail && html` <span class="muted">· ${s.detail}</span>`}
      ${s.warning && html`<p class="why">${s.warning}</p>`}
      ${s.error && html`<p class="why">${s.error} <${Copy} text=${s.error} label=${"the error of " + s.step} /></p>`}</div></li>`;
  })}
  </ol>
  <p role="status">${status || (busy && !check.over ? "Testing …" : check.failure ? html`<span class="error">The test ended early: ${check.failure}</span>` : check.over ? (check.ok ? "All that is needed works." : failed + (failed === 1 ? " step has failed." : " steps have failed.")) : "The test was stopped.")}</p>`;
}
