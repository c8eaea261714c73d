// The figures of the server, now and over the last minutes, and the newest events, for as long as somebody looks.
// They come as server-sent events; where the stream breaks, they are asked for instead until it is back.
import { get, send } from "./api.js";
import { useEffect, useRef } from "./lib.js";

const EVERY = 2000;
const KEPT = 50; // events
const listeners = new Set();
let state = { stats: null, history: null, events: [], changes: 0, live: false, failure: null };
let abort = null;

function tell(change) {
  state = { ...state, ...change };
  for (const listener of listeners) listener();
}

const take = {
  overview: (stats) => tell({ stats, live: true, failure: null }),
  history: (history) => tell({ history }),
  events: ({ events, changed }) => tell(changed
    ? { events: [], changes: state.changes + 1 }
    : { events: [...events, ...state.events].slice(0, KEPT) }),
};

/** Hand over each message of the stream until it ends. */
async function listen(signal) {
  const answer = await send("GET", "/v1/stream", { signal });
  const reader = answer.body.pipeThrough(new TextDecoderStream()).getReader();
  let rest = "";
  for (;;) {
    const { value, done } = await reader.read();
    if (done) return;
    const messages = (rest + value).split("\n\n");
    rest = messages.pop();
    for (const message of messages) {
      const fields = Object.fromEntries(message.split("\n").map((line) => line.split(/: (.*)/s, 2)));
      if (fields.event in take) take[fields.event](JSON.parse(fields.data));
    }
  }
}

async function ask(signal) {
  try {
    const [stats, history] = await Promise.all([get("/v1/stats", {}, signal), get("/v1/stats/history", {}, signal)]);
    // Events that were missed are loaded again by those who show them.
    tell({ stats, history, live: false, changes: state.changes + 1, failure: null });
  } catch (failure) {
    if (!signal.aborted) tell({ live: false, failure });
  }
}

async function run(signal) {
  while (!signal.aborted) {
    await listen(signal).catch(() => {});
    if (signal.aborted) return;
    await ask(signal);
    await new Promise((go) => setTimeout(go, EVERY));
  }
}

// A browser has six connections to a server: a page that nobody sees gives its own back.
function turn() {
  const wanted = listeners.size > 0 && !document.hidden;
  if (wanted && abort === null) {
    abort = new AbortController();
    run(abort.signal);
  } else if (!wanted && abort !== null) {
    abort.abort();
    abort = null;
  }
}
document.addEventListener("visibilitychange", turn);

export const pulse = () => state;

/** Call back when new events match, or when earlier ones were taken back, moved or deleted, while the view is there. */
export function useEvents(match, call) {
  const latest = useRef();
  latest.current = { match, call };
  useEffect(() => {
    let [seq, changes] = [state.events[0]?.seq ?? 0, state.changes];
    return follow(() => {
      const fresh = state.events.filter((event) => event.seq > seq);
      if (fresh.some(latest.current.match) || state.changes !== changes) latest.current.call();
      seq = Math.max(seq, state.events[0]?.seq ?? 0);
      changes = state.changes;
    });
  }, []);
}

/** Call back after each new reading, until the returned function is called. */
export function follow(listener) {
  listeners.add(listener);
  turn();
  return () => {
    listeners.delete(listener);
    turn();
  };
}
