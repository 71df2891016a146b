// The connection to the bridge. It comes back by itself, lets go while nobody
// looks at the page, and tells when what is shown is old.

const HIDDEN_FOR = 60_000; // then a page in the background lets go
const SILENT_FOR = 6_000; // the bridge speaks each second

export function connect(handlers) {
  let source = null, lastWord = 0, hiding = 0, retry = 0;

  function open() {
    close();
    handlers.link("connecting");
    source = new EventSource("stream");
    for (const name of ["hello", "status", "partitions", "events"]) {
      source.addEventListener(name, (message) => {
        lastWord = Date.now();
        handlers.link("live");
        handlers[name](JSON.parse(message.data));
      });
    }
    source.onerror = () => {
      handlers.link("lost");
      // After an answer that is no stream the browser gives up; we do not.
      if (source && source.readyState === EventSource.CLOSED) later();
    };
  }

  async function later() {
    close();
    clearTimeout(retry);
    try {
      const answer = await fetch("config", { method: "GET" });
      if (answer.status === 401) {
        location.reload(); // the login form is next
        return;
      }
    } catch { /* the bridge is away */ }
    retry = setTimeout(open, 3000);
  }

  function close() {
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
    if (source && lastWord && Date.now() - lastWord > SILENT_FOR) handlers.link("lost");
  }, 1000);
  open();
}

// ask fetches JSON; what went wrong is thrown in words.
export async function ask(path, options) {
  let answer;
  try {
    answer = await fetch(path, options);
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
