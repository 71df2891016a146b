// Requests to the bridge, and the one state of the connection that all pages share.

import { useEffect, useRef, useState } from "./preact.js";

const TIMEOUT = 10_000; // of a request, and of silence in a stream
const RETRY = 2_000; // first pause between attempts; it doubles up to 16 s

// RequestError is an answer that refuses, or that there is no answer (status 0).
export class RequestError extends Error {
  constructor(status, body) {
    const error = (body && body.error) || {};
    super(typeof error === "string" ? error : error.message || (status ? "The bridge answered " + status + "." : "The bridge does not answer."));
    this.status = status;
    this.code = error.code || "";
    this.fields = (body && body.fields) || [];
    this.remedy = (body && body.remedy) || "";
  }
  // of returns what is wrong with a field: {message, remedy}, or undefined.
  of(field) {
    return this.fields.find((f) => f.field === field);
  }
}

// The connection: ok, or lost since a time; ended while the session has, on a page with
// unsaved text. Subscribers are called with each change.
const link = { ok: true, since: null, last: Date.now(), ended: false };
const subscribers = new Set();

function connected() {
  link.last = Date.now();
  if (link.ok) return;
  link.ok = true;
  link.since = null;
  delete document.body.dataset.lost;
  for (const call of subscribers) call();
}

// lost reports that the bridge does not answer. What is shown is as old as the last
// answer.
function lost() {
  if (!link.ok) return;
  link.ok = false;
  link.since = new Date(link.last).toISOString();
  document.body.dataset.lost = "";
  for (const call of subscribers) call();
  probe(RETRY);
}

// probe asks until the bridge answers, so that a page without polls returns too.
function probe(pause) {
  setTimeout(async () => {
    if (link.ok) return;
    try { await get("/console/session"); } catch { /* lost again, or refused */ }
    if (!link.ok) probe(Math.min(2 * pause, 16_000));
  }, pause);
}

// signedOut notes whether the session has ended.
function signedOut(ended) {
  if (link.ended === ended) return;
  link.ended = ended;
  for (const call of subscribers) call();
}

// useConnection returns {ok, since, ended} and draws the component again with each change.
export function useConnection() {
  const [, draw] = useState(0);
  useEffect(() => {
    const call = () => draw((n) => n + 1);
    subscribers.add(call);
    return () => subscribers.delete(call);
  }, []);
  return { ok: link.ok, since: link.since, ended: link.ended };
}

// request sends a request and returns its answer and, unless it is a stream (timeout 0),
// the text of that. An abort by signal throws AbortError.
async function request(method, path, { body, headers, signal, timeout = TIMEOUT } = {}) {
  const limit = new AbortController();
  const timer = timeout && setTimeout(() => limit.abort(), timeout);
  const stop = () => limit.abort();
  if (signal) signal.addEventListener("abort", stop, { once: true });
  if (signal && signal.aborted) stop();
  let answer, text;
  try {
    answer = await fetch(path, { method, signal: limit.signal, body: body === undefined ? undefined : JSON.stringify(body),
      headers: { Accept: "application/json", ...(body === undefined ? {} : { "Content-Type": "application/json" }), ...headers } });
    if (timeout || !answer.ok) text = await answer.text();
  } catch (error) {
    if (signal && signal.aborted) throw error;
    lost();
    throw new RequestError(0);
  } finally {
    clearTimeout(timer);
    if (timeout && signal) signal.removeEventListener("abort", stop);
  }
  if (answer.status === 502 || answer.status === 504) lost(); // of a proxy: the bridge does not answer it
  else connected();
  signedOut(answer.status === 401 && "unsaved" in document.body.dataset);
  if (answer.status === 401) {
    if (!link.ended) location.assign("/login?next=" + encodeURIComponent(location.pathname + location.search));
    throw new RequestError(401, { error: "The session has ended. Sign in again." });
  }
  if (!answer.ok) throw new RequestError(answer.status, parse(text));
  return { answer, text };
}

function parse(text) {
  try { return JSON.parse(text); } catch { return null; }
}

// get returns the JSON of a path; null for an answer without any.
export const get = async (path, options) => parse((await request("GET", path, options)).text);

// send changes something and returns the JSON of the answer. revision becomes If-Match,
// id Idempotency-Key; reason and dryRun (true or false) are parameters.
export async function send(method, path, body, { revision, id, reason, dryRun, ...options } = {}) {
  const headers = {}, query = new URLSearchParams();
  if (revision) headers["If-Match"] = '"' + revision + '"';
  if (id) headers["Idempotency-Key"] = id;
  if (reason) query.set("reason", reason);
  if (dryRun !== undefined) query.set("dry_run", dryRun);
  const text = query.toString();
  return parse((await request(method, path + (text ? "?" + text : ""), { body, headers, timeout: 60_000, ...options })).text);
}

// all reads all pages of a list of the API: at most ten, of 100 items each.
export async function all(path, options) {
  const items = [];
  for (let cursor = "", n = 0; n < 10; n++) {
    const page = await get(path + "?limit=100" + (cursor ? "&cursor=" + encodeURIComponent(cursor) : ""), options);
    items.push(...page.data);
    if (!page.has_more) break;
    cursor = page.next_cursor;
  }
  return items;
}

// stream reads server-sent events and calls on(name, data) with each, until the answer
// ends or signal aborts. With a body it is a POST. silence bounds the time between two
// events and comments; 0: none.
export async function stream(path, { body, signal, on, silence = 60_000 }) {
  const limit = new AbortController();
  let quiet = false, timer = 0;
  const heard = () => {
    clearTimeout(timer);
    if (silence) timer = setTimeout(() => { quiet = true; limit.abort(); }, silence);
  };
  const stop = () => limit.abort();
  if (signal) signal.addEventListener("abort", stop);
  if (signal && signal.aborted) stop();
  try {
    heard();
    const { answer } = await request(body === undefined ? "GET" : "POST", path, { body, signal: limit.signal, timeout: 0, headers: { Accept: "text/event-stream" } });
    const reader = answer.body.pipeThrough(new TextDecoderStream()).getReader();
    for (let rest = ""; ;) {
      const { done, value } = await reader.read();
      if (done) return;
      heard();
      connected();
      const messages = (rest + value).replaceAll("\r\n", "\n").split("\n\n");
      rest = messages.pop();
      for (const message of messages) {
        let name = "message";
        const data = [];
        for (const line of message.split("\n")) {
          if (line.startsWith("event:")) name = line.slice(6).trim();
          else if (line.startsWith("data:")) data.push(line.slice(5).trimStart());
        }
        if (data.length) on(name, JSON.parse(data.join("\n")));
      }
    }
  } catch (error) {
    if (signal && signal.aborted) return;
    if (error instanceof RequestError) throw error;
    if (error.name === "AbortError" && !quiet) return;
    lost();
    throw new RequestError(0);
  } finally {
    clearTimeout(timer);
    if (signal) signal.removeEventListener("abort", stop);
    limit.abort();
  }
}

// useStream keeps a stream of server-sent events open while the component is shown and
// the page is visible; it opens it again when it ends. handlers are called by name.
// It returns the error of a refusal, or null. path null: none.
export function useStream(path, handlers) {
  const [error, setError] = useState(null);
  const current = useRef(handlers);
  current.current = handlers;
  useEffect(() => {
    if (!path) return undefined;
    let control = null, timer = 0, pause = 1_000, over = false;
    async function open() {
      clearTimeout(timer);
      control = new AbortController();
      try {
        await stream(path, { signal: control.signal, silence: 20_000, on(name, data) {
          pause = 1_000;
          setError(null);
          const call = current.current[name];
          if (call) call(data);
        } });
      } catch (failure) {
        if (failure.status) setError(failure);
      }
      control = null;
      if (!over && !document.hidden) timer = setTimeout(open, pause);
      pause = Math.min(2 * pause, 16_000);
    }
    const seen = () => {
      clearTimeout(timer);
      if (document.hidden) timer = setTimeout(() => control && control.abort(), 60_000);
      else if (!control) open();
    };
    document.addEventListener("visibilitychange", seen);
    open();
    return () => {
      over = true;
      clearTimeout(timer);
      document.removeEventListener("visibilitychange", seen);
      if (control) control.abort();
    };
  }, [path]);
  return error;
}

// usePoll reads a path now and every few seconds (a number, or a function of the data that
// is the same each time) while the page is visible; 0 seconds: once. It returns {data, error, reload}; data stays while an attempt fails. One request
// runs at a time. path null: none.
export function usePoll(path, every) {
  const [state, setState] = useState({ path, data: null, error: null });
  const again = useRef(() => {});
  useEffect(() => {
    if (!path) return undefined;
    const control = new AbortController();
    let timer = 0, running = false;
    async function ask() {
      clearTimeout(timer);
      if (running) return;
      running = true;
      let data = null;
      try {
        data = await get(path, { signal: control.signal });
        if (!control.signal.aborted) setState({ path, data, error: null });
      } catch (error) {
        if (!control.signal.aborted) setState((old) => ({ path, data: old.path === path ? old.data : null, error }));
      }
      running = false;
      if (every && !document.hidden && !control.signal.aborted) timer = setTimeout(ask, 1000 * (typeof every === "function" ? every(data) : every));
    }
    const seen = () => { clearTimeout(timer); if (every && !document.hidden) ask(); };
    document.addEventListener("visibilitychange", seen);
    again.current = ask;
    ask();
    return () => {
      control.abort();
      clearTimeout(timer);
      document.removeEventListener("visibilitychange", seen);
    };
  }, [path, every]);
  const mine = state.path === path ? state : { data: null, error: null };
  return { data: mine.data, error: mine.error, reload: () => again.current() };
}

// useSummary reads the state of all integrations. Many change little each, and cost more.
const pauseOf = (data) => data && data.integrations && data.integrations.length > 30 ? 5 : 2;

export const useSummary = (off) => usePoll(off ? null : "/live/summary", pauseOf);

// Roles, from the least. may reports whether a session may do what needs a role.
const roles = ["viewer", "editor", "admin"];

export const may = (session, role) => Boolean(session && session.admin) && roles.indexOf(session.role) >= roles.indexOf(role);

// useOnce calls an async function, again when key changes, and returns {data, error,
// reload}; data stays while a reload fails. key null: none.
export function useOnce(key, call) {
  const [state, setState] = useState({ key, data: null, error: null }), [turn, setTurn] = useState(0);
  useEffect(() => {
    if (key === null) return undefined;
    const control = new AbortController();
    call(control.signal).then((data) => !control.signal.aborted && setState({ key, data, error: null }),
      (error) => !control.signal.aborted && setState((old) => ({ key, data: old.key === key ? old.data : null, error })));
    return () => control.abort();
  }, [key, turn]);
  return { ...state, reload: () => setTurn((n) => n + 1) };
}

// newID returns an id for a request, so that a repeated one changes nothing twice.
export function newID() {
  return [...crypto.getRandomValues(new Uint8Array(12))].map((n) => n.toString(16).padStart(2, "0")).join("");
}
