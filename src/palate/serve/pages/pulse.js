// The figures of the server, now and over the last minutes, for as long as somebody looks.
import { get } from "./api.js";

const EVERY = 2000;
const listeners = new Set();
let state = { stats: null, history: null, failure: null };
let timer = null;

async function beat() {
  if (document.hidden) return;
  try {
    const [stats, history] = await Promise.all([get("/v1/stats"), get("/v1/stats/history")]);
    state = { stats, history, failure: null };
  } catch (failure) {
    state = { ...state, failure };
  }
  for (const listener of listeners) listener();
}

export const pulse = () => state;

/** Call back after each new reading, until the returned function is called. */
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
