// The shell: head, navigation, the state of the connection, the keyboard, and the page
// that the address names.

import { html, render, useEffect, useLayoutEffect, useRef, useState } from "./preact.js";
import { get, useConnection, usePoll } from "./api.js";
import { Dialog, Empty, Failure, Loading, Time } from "./ui.js";
import { Guard, later } from "./later.js";
import { useRoute } from "./router.js";
import Home from "./page-home.js";

const Library = later(() => import("./page-library.js")), Install = later(() => import("./page-install.js"));
const Integration = later(() => import("./page-integration.js"));
const Members = later(() => import("./page-members.js")), Audit = later(() => import("./page-audit.js"));

function Page({ route, session }) {
  const [first, second, third] = route.parts;
  if (!first) return html`<${Guard}><${Home} ...${{ route, session }} /><//>`;
  if (first === "library" && third === "install") return html`<${Install} key=${second} vendor=${second} ...${{ route, session }} />`;
  if (first === "library") return html`<${Library} ...${{ route, session }} />`;
  if (first === "integrations" && second) return html`<${Integration} key=${second} slug=${second} ...${{ route, session }} />`;
  if (first === "members") return html`<${Members} ...${{ route, session }} />`;
  if (first === "audit") return html`<${Audit} ...${{ route, session }} />`;
  return html`<${Empty} title="There is no such page"><p><a href="/">Integrations</a> lists what there is.</p><//>`;
}

const sections = [["/", "Integrations"], ["/library", "Integration Library"], ["/members", "Members"], ["/audit", "Audit"]];

const here = (route, href) => href === "/" ? !route.parts[0] || route.parts[0] === "integrations" : route.path === href || route.path.startsWith(href + "/");

function Head({ route, session, onKeys }) {
  return html`<header class="top">
    <a class="brand" href="/"><span class="mark" aria-hidden="true"></span>bridge</a>
    <nav class="sections" aria-label="Sections">${sections.map(([href, name]) => html`<a key=${href} href=${href} aria-current=${here(route, href) ? "page" : undefined}>${name}</a>`)}</nav>
    <div class="tools">
      ${session && html`<span class="deployment" title=${"deployment, version " + session.version}>${session.deployment}</span>`}
      ${session && html`<span class="muted role" title=${session.admin ? "your role" : "this listener has no API"}>${[session.name, session.role].filter(Boolean).join(", ")}</span>`}
      <${Theme} />
      <button type="button" class="quiet small" aria-haspopup="dialog" title="Keyboard (?)" onClick=${onKeys}>Keys</button>
      ${session && session.login && html`<form method="post" action="/logout"><button class="quiet small">Sign out</button></form>`}
    </div>
  </header>`;
}

// Theme switches between the colours of the system, light and dark.
function Theme() {
  const names = { auto: "Auto", light: "Light", dark: "Dark" }, order = Object.keys(names);
  const [theme, setTheme] = useState(document.documentElement.dataset.theme || "auto");
  function next() {
    const to = order[(order.indexOf(theme) + 1) % order.length];
    if (to === "auto") delete document.documentElement.dataset.theme; else document.documentElement.dataset.theme = to;
    try { localStorage.setItem("bridge-theme", to); } catch { /* not kept without storage */ }
    setTheme(to);
  }
  return html`<button type="button" class="quiet small" id="theme" aria-label=${"Colours: " + names[theme] + ", change"} onClick=${next}>${names[theme]}</button>`;
}

// Lost shows that the bridge does not answer, and since when.
function Lost() {
  const link = useConnection();
  useLayoutEffect(() => {
    if (link.ok) return undefined;
    const title = document.title;
    document.title = "○ No connection · bridge";
    return () => { if (document.title.startsWith("○")) document.title = title; };
  }, [link.ok]);
  const login = "/login?next=" + encodeURIComponent(location.pathname + location.search);
  return html`<div role="status" aria-live="polite">${link.ok && link.ended && html`<p class="lost" id="ended"><b>The session has ended.</b> What you typed stays here: <a href=${login} target="_blank">sign in in another tab</a>, then continue.</p>`}${!link.ok && html`<p class="lost" id="lost"><b>No connection to the bridge since <${Time} at=${link.since} short />.</b> What this page shows is from then. It tries again automatically.</p>`}</div>`;
}

const keys = [["/", "search"], ["j, k", "next, previous row"], ["Enter", "open"], ["g then i, l, m, a", "Integrations, Library, Members, Audit"], ["Esc", "leave a field, close"], ["?", "this list"]];

// useKeys handles the keyboard of all pages.
function useKeys(onHelp) {
  const pending = useRef("");
  useEffect(() => {
    function rows(step) {
      const links = [...document.querySelectorAll("main tr[data-row] a.row")];
      if (links.length === 0) return;
      const at = links.indexOf(document.activeElement), to = links[Math.max(0, Math.min(links.length - 1, at < 0 ? 0 : at + step))];
      to.focus({ preventScroll: true });
      to.closest("tr").scrollIntoView({ block: "nearest" });
    }
    function press(e) {
      if (e.ctrlKey || e.metaKey || e.altKey || document.querySelector("dialog[open]")) return;
      const field = /^(INPUT|SELECT|TEXTAREA)$/.test(e.target.tagName);
      if (field) {
        if (e.key === "Escape") e.target.blur();
        return;
      }
      const to = pending.current === "g" && { i: 0, l: 1, m: 2, a: 3 }[e.key];
      pending.current = e.key;
      if (to || to === 0) {
        document.querySelectorAll(".sections a")[to].click();
        e.preventDefault();
        return;
      }
      const does = {
        "/": () => { const f = document.querySelector("[data-search]"); if (f) { f.focus(); f.select(); } },
        "?": onHelp, j: () => rows(1), k: () => rows(-1),
      }[e.key];
      if (!does) return;
      e.preventDefault();
      does();
    }
    document.addEventListener("keydown", press);
    return () => document.removeEventListener("keydown", press);
  }, []);
}

function App() {
  const route = useRoute(), link = useConnection(), [help, setHelp] = useState(false);
  const { data: session, error, reload } = usePoll("/console/session", 15); // pages without polls notice that the bridge or the session has gone
  const version = useRef("");
  useKeys(() => setHelp(true));
  useEffect(() => {
    // After a restart the page may be of another version.
    if (!link.ok) return;
    if (version.current) get("/console/session").then((now) => { if (now.version !== version.current) location.reload(); }, () => {});
  }, [link.ok]);
  if (session) version.current = session.version;
  return html`
    <a class="skip" href="#main">Skip to the content</a>
    <${Head} route=${route} session=${session} onKeys=${() => setHelp(true)} />
    <${Lost} />
    <main id="main" tabindex="-1">${session ? html`<${Page} route=${route} session=${session} />` : error ? html`<${Failure} error=${error} what="The session could not be read" retry=${reload} />` : html`<${Loading} what="the session" />`}</main>
    ${help && html`<${Dialog} title="Keyboard" onClose=${() => setHelp(false)}>
      <dl class="keys">${keys.map(([key, what]) => html`<div key=${key}><dt><kbd>${key}</kbd></dt><dd>${what}</dd></div>`)}</dl><//>`}`;
}

render(html`<${App} />`, document.getElementById("app"));
