// The connection to the bridge. It reconnects automatically, disconnects in the
// background and reports when the state shown is old.

const HIDDEN_FOR = 60_000; // then a page in the background disconnects
const SILENT_FOR = 6_000; // the bridge sends a message each second
const DEAD_FOR = 20_000; // then the connection is considered dead

// of adds the integration that the page shows, which its URL has.
const of = (path) => path + location.search;

export function connect(handlers) {
  let source = null, lastWord = 0, errors = 0, hiding = 0, retry = 0;

  function open() {
    close();
    lastWord = Date.now();
    handlers.link("connecting");
    const mine = source = new EventSource(of("stream"));
    for (const name of ["hello", "status", "partitions", "events"]) {
      mine.addEventListener(name, (message) => {
        lastWord = Date.now();
        errors = 0;
        handlers.link("live");
        handlers[name](JSON.parse(message.data));
      });
    }
    mine.onerror = () => {
      // After an answer that is no stream the browser gives up; we do not. A
      // stream that has ended it opens again, and the bridge ends each in time.
      if (mine.readyState === EventSource.CLOSED) refused();
      else handlers.link(++errors > 1 ? "lost" : "connecting");
    };
  }

  // refused asks why there is no stream, and tries again.
  async function refused() {
    close();
    const mine = retry = setTimeout(open, 3000), asking = new AbortController();
    let why = "";
    try {
      const answer = await fetch(of("stream"), { signal: asking.signal });
      if (answer.status === 401) {
        location.reload(); // the login form is next
        return;
      }
      if (!answer.ok) why = (await answer.json()).error;
    } catch { /* the bridge is away */ }
    asking.abort();
    if (retry === mine) handlers.link("lost", why);
  }

  function close() {
    clearTimeout(retry);
    retry = 0;
    if (source) source.close();
    source = null;
  }

  document.addEventListener("visibilitychange", () => {
    clearTimeout(hiding);
    if (document.hidden) {
      hiding = setTimeout(() => { close(); handlers.link("resting"); }, HIDDEN_FOR);
    } else if (!source) {
      open();
    }
  });
  setInterval(() => {
    if (!source) return;
    const silent = Date.now() - lastWord;
    if (silent > SILENT_FOR) handlers.link("lost");
    if (silent > DEAD_FOR) open();
  }, 1000);
  open();
}

// ask fetches JSON; what went wrong is thrown in words.
export async function ask(path, options) {
  let answer;
  try {
    answer = await fetch(of(path), options);
  } catch {
    throw new Error("The bridge does not answer.");
  }
  if (answer.status === 401) {
    location.reload();
    throw new Error("The token is asked for again.");
  }
  const body = await answer.json().catch(() => ({}));
  if (!answer.ok) throw new Error(body.error || "The bridge answered " + answer.status + ".");
  return body;
}
