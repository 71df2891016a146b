// The entry point: connects the stream, the views and the keyboard.

import { $, el, refresh, setText, tone } from "./dom.js";
import { connect } from "./stream.js";
import * as health from "./health.js";
import * as partitions from "./partitions.js";
import * as events from "./events.js";
import * as detail from "./detail.js";
import * as deadLetters from "./deadletters.js";
import * as group from "./group.js";
import * as config from "./config.js";

events.setup(detail.show, detail.changed);
partitions.setup();
detail.setup();
deadLetters.setup();
$("integration").addEventListener("input", (e) => { location.search = "?integration=" + encodeURIComponent(e.target.value); });
views();
theme();
keys();

let run = "", version = "";
connect({
  hello(h) {
    deadLetters.allow(h.dead_letters);
    $("logout").hidden = !h.login;
  },
  status(s) {
    if (version && s.version !== version) location.reload(); // the page is of the previous version
    if (run && s.started + s.epoch !== run) {
      events.restart();
      detail.restart();
    }
    [run, version] = [s.started + s.epoch, s.version];
    integrations(s);
    partitions.setTotal(s.partitions);
    health.status(s);
    events.sample(s);
  },
  partitions: partitions.partitions,
  events: (message) => events.take(message.events),
  link(state, why) {
    const [word, name] = { connecting: ["connecting", "idle"], live: ["live", "ok"], lost: ["no connection", "bad"], resting: ["paused", "idle"] }[state];
    setText($("link"), word);
    tone($("link"), name);
    if (state === "live") delete document.body.dataset.old;
    if (state !== "lost" && state !== "resting") return;
    document.body.dataset.old = "";
    if (state === "resting") health.lost("Paused", "A page in the background disconnects.");
    else health.lost(why ? "Not live" : "No connection to the bridge", why);
  },
});

// integrations lets one choose among several.
function integrations(s) {
  const select = $("integration");
  $("integrations").hidden = s.integrations.length < 2;
  if (document.activeElement === select) return; // it may be open
  refresh(select, s.integrations.map((i) => el("option", { value: i.integration }, i.integration + (i.ready ? "" : i.state === "running" ? " (not delivering)" : " (" + i.state + ")"))));
  select.value = s.integration;
}

function views() {
  const tabs = [...document.querySelectorAll('[role="tab"]')];
  const opened = { "dead-letters": deadLetters.opened, group: group.opened, config: config.opened };
  function choose(tab, focus) {
    for (const t of tabs) {
      const on = t === tab;
      t.setAttribute("aria-selected", String(on));
      t.tabIndex = on ? 0 : -1;
      $(t.getAttribute("aria-controls")).hidden = !on;
    }
    if (focus) tab.focus();
    const name = tab.getAttribute("aria-controls");
    if (opened[name]) opened[name]();
  }
  for (const tab of tabs) {
    tab.addEventListener("click", () => choose(tab));
    tab.addEventListener("keydown", (e) => {
      const to = { ArrowRight: tabs.indexOf(tab) + 1, ArrowLeft: tabs.indexOf(tab) - 1, Home: 0, End: -1 }[e.key];
      if (to === undefined) return;
      e.preventDefault();
      choose(tabs[(to + tabs.length) % tabs.length], true);
    });
  }
}

function theme() {
  const order = ["auto", "light", "dark"], words = { auto: ["Auto", "as the system"], light: ["Light", "light"], dark: ["Dark", "dark"] };
  const root = document.documentElement, button = $("theme");
  const now = () => root.dataset.theme || "auto";
  function label() {
    setText(button, words[now()][0]);
    button.title = "Colours: " + words[now()][1];
    button.setAttribute("aria-label", "Colours: " + words[now()][1] + ", change");
  }
  button.addEventListener("click", () => {
    const next = order[(order.indexOf(now()) + 1) % order.length];
    if (next === "auto") delete root.dataset.theme; else root.dataset.theme = next;
    try { localStorage.setItem("bridge-theme", next); } catch { /* not kept without storage */ }
    label();
  });
  label();
}

function keys() {
  const dialog = $("keys");
  $("help").addEventListener("click", () => dialog.showModal());
  document.addEventListener("keydown", (e) => {
    if (e.ctrlKey || e.metaKey || e.altKey || dialog.open) return;
    const field = /^(INPUT|SELECT|TEXTAREA)$/.test(e.target.tagName), button = e.target.tagName === "BUTTON";
    if (e.key === "Escape") {
      if (detail.isOpen()) detail.close();
      else if (field) e.target.blur();
      return;
    }
    if (field) return;
    const watching = !$("events").hidden;
    const does = {
      "/": () => watching && ($("q").focus(), $("q").select()),
      "?": () => dialog.showModal(),
      j: () => watching && events.step(1),
      k: () => watching && events.step(-1),
      // Space presses the focused button, except those of the list.
      " ": () => watching && (!button || e.target.classList.contains("open")) && events.pause(),
    }[e.key];
    if (does && does() !== false) e.preventDefault();
  });
}
