// The figures of the server over time. They are kept while other views are open.
import { get } from "./api.js";

const KEPT = 450;
const EVERY = 2000;

const points = { times: [], p50: [], p99: [], requests: [], events: [] };
const listeners = new Set();
let latest = null;
let failure = null;
let before = null;
let timer = null;

function add(stats, now) {
  const past = before ? Math.max(now - before.now, 0.001) : null;
  // A server that was started again counts from 0.
  const rate = (name) => (past ? Math.max(0, stats[name] - before.stats[name]) / past : 0);
  if (past) {
    points.times.push(now);
    points.p50.push(stats.p50_ms);
    points.p99.push(stats.p99_ms);
    points.requests.push(rate("requests"));
    points.events.push(rate("events_stored"));
    for (const values of Object.values(points)) if (values.length > KEPT) values.shift();
  }
  before = { stats, now };
  latest = stats;
}

async function beat() {
  if (document.hidden) return;
  try {
    add(await get("/v1/stats"), Date.now() / 1000);
    failure = null;
  } catch (error) {
    failure = error;
  }
  for (const listener of listeners) listener();
}

export const pulse = () => ({ points, latest, failure });

/** Call back after each new point, for as long as the returned function is not called. */
export function follow(listener) {
  listeners.add(listener);
  if (timer === null) {
    beat();
    timer = setInterval(beat, EVERY);
  }
  return () => {
    listeners.delete(listener);
    if (!listeners.size) {
      clearInterval(timer);
      timer = null;
    }
  };
}
