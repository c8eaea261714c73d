// The public API of the server; the page has no other door.

const KEY = "palate.key";

/** An answer of 4xx or 5xx, or no answer at all (status 0). */
export class Problem extends Error {
  constructor(status, title, detail) {
    super(detail || title);
    this.status = status;
    this.title = title;
  }
}

// A key lives as long as the tab: it is not left behind on a shared computer.
export const apiKey = () => sessionStorage.getItem(KEY) ?? "";

export function setApiKey(key) {
  if (key) sessionStorage.setItem(KEY, key);
  else sessionStorage.removeItem(KEY);
  window.dispatchEvent(new Event("keychange"));
}

function address(path, query = {}) {
  const pairs = new URLSearchParams();
  for (const [name, value] of Object.entries(query)) {
    for (const one of Array.isArray(value) ? value : [value]) if (one != null && one !== "") pairs.append(name, one);
  }
  const text = pairs.toString();
  return path + (text ? "?" + text : "");
}

/** One request; the raw answer, or a thrown Problem. */
export async function send(method, path, { query, body, type = "application/json", signal } = {}) {
  const headers = {};
  if (apiKey()) headers.Authorization = `Bearer ${apiKey()}`;
  if (body !== undefined) headers["Content-Type"] = type;
  let answer;
  try {
    answer = await fetch(address(path, query), { method, headers, body, signal, credentials: "same-origin" });
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new Problem(0, "No answer", "The server does not answer. Is it running?");
  }
  if (!answer.ok) {
    const problem = await answer.json().catch(() => ({}));
    if (answer.status === 401) window.dispatchEvent(new Event("keyneeded"));
    throw new Problem(answer.status, problem.title ?? `Status ${answer.status}`, problem.detail ?? "");
  }
  return answer;
}

async function json(method, path, options = {}) {
  const body = options.body === undefined ? undefined : JSON.stringify(options.body);
  const answer = await send(method, path, { ...options, body });
  return answer.status === 204 ? null : answer.json();
}

export const get = (path, query, signal) => json("GET", path, { query, signal });
export const post = (path, body, signal) => json("POST", path, { body, signal });
export const patch = (path, body) => json("PATCH", path, { body });
export const put = (path, body) => json("PUT", path, { body });
export const remove = (path) => json("DELETE", path);

export const at = (kind, id) => `/v1/${kind}/${encodeURIComponent(id)}`;

// Items that were shown once need not be asked for again; a change of an item drops it here.
const known = new Map();

/** Items by id, one request for all that are not known yet. */
export async function itemsById(ids, signal) {
  const missing = [...new Set(ids)].filter((id) => !known.has(id));
  for (let start = 0; start < missing.length; start += 50) {
    const part = missing.slice(start, start + 50);
    const { items } = await get("/v1/items", { item_id: part }, signal);
    for (const item of items) known.set(item.item_id, item);
  }
  return new Map(ids.filter((id) => known.has(id)).map((id) => [id, known.get(id)]));
}

export const forgetItem = (id) => known.delete(id);
