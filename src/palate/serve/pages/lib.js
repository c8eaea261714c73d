// The view library under short names, and the hooks that all views share.
import { h, render } from "./vendor/preact.js";
import { useCallback, useEffect, useMemo, useRef, useState } from "./vendor/hooks.js";
import htm from "./vendor/htm.js";

export const html = htm.bind(h);
export { render, useCallback, useEffect, useMemo, useRef, useState };

/**
 * Load something when `inputs` change. While it loads again, the old data stays, so that nothing jumps.
 * @param {(signal: AbortSignal) => Promise<any>} load
 * @param {any[]} inputs
 * @returns {{data: any, error: Error | null, loading: boolean, reload: () => void}}
 */
export function useLoad(load, inputs) {
  const [state, setState] = useState({ data: null, error: null, loading: true });
  const [turn, setTurn] = useState(0);
  useEffect(() => {
    const abort = new AbortController();
    setState((old) => ({ ...old, loading: true }));
    load(abort.signal).then(
      (data) => abort.signal.aborted || setState({ data, error: null, loading: false }),
      (error) => abort.signal.aborted || setState((old) => ({ data: old.data, error, loading: false })),
    );
    return () => abort.abort();
  }, [...inputs, turn]);
  return { ...state, reload: useCallback(() => setTurn((n) => n + 1), []) };
}

/** Call `tick` every so many milliseconds while the page is visible. */
export function useInterval(tick, ms) {
  const latest = useRef(tick);
  latest.current = tick;
  useEffect(() => {
    const timer = setInterval(() => document.hidden || latest.current(), ms);
    return () => clearInterval(timer);
  }, [ms]);
}

/** A value that follows another one after it has been still for a while. */
export function useSettled(value, ms = 150) {
  const [settled, setSettled] = useState(value);
  useEffect(() => {
    const timer = setTimeout(() => setSettled(value), ms);
    return () => clearTimeout(timer);
  }, [value, ms]);
  return settled;
}

// Routes are the part of the address behind "#": the server needs to know only one page.

export const link = (...parts) => "#/" + parts.map(encodeURIComponent).join("/");

export function parseRoute() {
  const [path, query] = location.hash.replace(/^#\/?/, "").split("?");
  const decode = (part) => {
    try {
      return decodeURIComponent(part);
    } catch {
      return part; // a lone % typed by hand
    }
  };
  return { parts: path.split("/").filter(Boolean).map(decode), query: new URLSearchParams(query ?? "") };
}

export function useRoute() {
  const [route, setRoute] = useState(parseRoute);
  useEffect(() => {
    const change = () => setRoute(parseRoute());
    window.addEventListener("hashchange", change);
    return () => window.removeEventListener("hashchange", change);
  }, []);
  return route;
}

// Numbers and times as people read them.

const whole = new Intl.NumberFormat("en-US");
const short = new Intl.NumberFormat("en-US", { notation: "compact", maximumFractionDigits: 1 });

export const count = (n) => (n == null ? "–" : n >= 100_000 ? short.format(n) : whole.format(n));

export const plural = (n, one, many = one + "s") => `${count(n)} ${n === 1 ? one : many}`;

export const percent = (share) => `${Math.round(100 * share)} %`;

export const milliseconds = (ms) => (ms >= 1000 ? `${(ms / 1000).toFixed(1)} s` : `${ms < 10 ? ms.toFixed(1) : Math.round(ms)} ms`);

export function duration(seconds) {
  const units = [[86400, "d"], [3600, "h"], [60, "min"]];
  for (const [size, name] of units) if (seconds >= size) return `${Math.floor(seconds / size)} ${name}`;
  return `${Math.floor(seconds)} s`;
}

export const ago = (seconds) => {
  const past = Date.now() / 1000 - seconds;
  return past < 5 ? "just now" : past < 86400 * 30 ? `${duration(past)} ago` : new Date(seconds * 1000).toLocaleDateString();
};

export const moment = (seconds) => new Date(seconds * 1000).toLocaleString();
