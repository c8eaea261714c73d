// Parts that several views are made of.
import { ago, html, link, percent, useEffect, useRef, useState } from "./lib.js";

// ---------- icons: 24 x 24, stroked ----------

const PATHS = {
  try: "M12 3l2.5 5.6 6 .6-4.5 4 1.3 6L12 16l-5.3 3.2 1.3-6-4.5-4 6-.6z",
  overview: "M4 19V5M4 19h16M8 15l4-5 3 3 5-7",
  users: "M9 11a3.5 3.5 0 1 0 0-7 3.5 3.5 0 0 0 0 7zM2.5 20c.6-3.6 3.2-5.5 6.5-5.5s5.900 1.900 6.500 5.500M16 4.500a3.500 3.500 0 0 1 0 6.500M18 15c2 .8 3.200 2.500 3.500 5",
  items: "M4 4h7v7H4zM13 4h7v7h-7zM4 13h7v7H4zM13 13h7v7h-7z",
  scenarios: "M4 7h10M18 7h2M4 17h2M10 17h10M16 5v4M8 15v4",
  experiments: "M9 3h6M10 3v6.500L4.500 18.500A1.700 1.700 0 0 0 6 21h12a1.700 1.700 0 0 0 1.500-2.500L14 9.500V3M7.500 14.500h9",
  models: "M12 3l8 4.500-8 4.500-8-4.500zM4 12l8 4.500 8-4.500M4 16.500l8 4.500 8-4.500",
  data: "M12 3v11m0 0l-4-4m4 4l4-4M4 17v3h16v-3",
  settings: "M12 15a3 3 0 1 0 0-6 3 3 0 0 0 0 6zM12 2.500v3M12 18.500v3M2.500 12h3M18.500 12h3M5.300 5.300l2.100 2.100M16.600 16.600l2.100 2.100M5.300 18.700l2.100-2.100M16.600 7.400l2.100-2.100",
  like: "M7 11v9H4v-9zM7 11l4-8c1.500 0 2.500 1 2.500 2.500V9H19c1.200 0 2 1 1.800 2.200l-1.300 7c-.2 1-1 1.800-2 1.800H7",
  dislike: "M17 13V4h3v9zM17 13l-4 8c-1.500 0-2.500-1-2.500-2.500V15H5c-1.200 0-2-1-1.800-2.200l1.300-7c.2-1 1-1.800 2-1.800H17",
  hide: "M3 3l18 18M10.600 6.200A9.500 9.500 0 0 1 12 6c6 0 9 6 9 6a15 15 0 0 1-2.700 3.400M6.500 7.600A15 15 0 0 0 3 12s3 6 9 6a9 9 0 0 0 4.400-1.200M10 10a3 3 0 0 0 4 4",
  show: "M3 12s3-6 9-6 9 6 9 6-3 6-9 6-9-6-9-6zM12 15a3 3 0 1 0 0-6 3 3 0 0 0 0 6z",
  question: "M9 9a3 3 0 1 1 4.500 2.600c-1 .6-1.500 1.200-1.500 2.400M12 17.500v.01M12 21a9 9 0 1 0 0-18 9 9 0 0 0 0 18z",
  search: "M11 18a7 7 0 1 0 0-14 7 7 0 0 0 0 14zM16 16l5 5",
  undo: "M9 7H15a5 5 0 0 1 0 10H8M9 7l3-3M9 7l3 3",
  close: "M6 6l12 12M18 6L6 18",
  menu: "M4 7h16M4 12h16M4 17h16",
  person: "M12 12a4 4 0 1 0 0-8 4 4 0 0 0 0 8zM4 21c.8-4.500 4-6.500 8-6.500s7.200 2 8 6.500",
  plus: "M12 5v14M5 12h14",
  trash: "M4 7h16M9 7V4h6v3M6 7l1 13h10l1-13",
  empty: "M3 13l3-8h12l3 8v6H3zM3 13h5l1.500 3h5L16 13h5",
};

export const Icon = ({ name }) => html`<svg viewBox="0 0 24 24" width="20" height="20" aria-hidden="true" fill="none" stroke="currentColor"
  stroke-width="1.8" stroke-linecap="round" stroke-linejoin="round"><path d=${PATHS[name]} /></svg>`;

// ---------- states ----------

/** Says something to a screen reader; the text is read again even if it is the same. */
export function announce(text) {
  const place = document.getElementById("live");
  if (!place) return;
  place.textContent = "";
  setTimeout(() => (place.textContent = text), 30);
}

export const Failure = ({ error, retry }) => html`<div class="notice bad" role="alert">
  <strong>${error.title ?? "That did not work"}.</strong> ${error.message}
  ${retry && html`<button class="button small" onClick=${retry}>Try again</button>`}
</div>`;

export const Empty = ({ icon = "empty", title, children }) => html`<div class="empty">
  <${Icon} name=${icon} /><strong>${title}</strong>${children && html`<p>${children}</p>`}
</div>`;

export const Bones = ({ lines = 4 }) => html`<div class="stack close" role="status" aria-label="Loading">
  ${Array.from({ length: lines }, (_, n) => html`<div key=${n} class=${"bone text" + (n % 3 === 2 ? " short" : "")}></div>`)}
</div>`;

export const CardBones = ({ cards = 6, narrow }) => html`<div class=${"cards" + (narrow ? " narrow" : "")} role="status" aria-label="Loading">
  ${Array.from({ length: cards }, (_, n) => html`<div key=${n} class="card">
    <div class="tile wide bone"></div>
    <div class="card-body"><div class="bone text"></div><div class="bone text short"></div><div class="bone text"></div></div>
  </div>`)}
</div>`;

/** What a load has brought: bones at first, then the data; an error stands above what was there before. */
export const Loaded = ({ state, bones, children }) => html`
  ${state.error && html`<${Failure} error=${state.error} retry=${state.reload} />`}
  ${state.data ? children(state.data) : state.error ? null : bones ?? html`<${Bones} />`}
`;

// ---------- items ----------

const IMAGES = ["image", "image_url", "img", "picture", "thumbnail", "poster", "poster_url", "cover", "cover_url", "photo"];
const PROSE = ["title", "name", "description", "text", "url", "link", "imdb_url", ...IMAGES];

/** The address of an item's picture, if it has one that the content security policy lets through. */
function pictureOf(item) {
  for (const name of IMAGES) {
    const value = item?.features?.[name];
    if (typeof value === "string" && /^(https:\/\/|data:image\/|\/)/.test(value)) return value;
  }
  return null;
}

/** A hue from 0 to 359 that looks random and is the same every time (FNV-1a, then mixed). */
function hueOf(text) {
  let sum = 0x811c9dc5;
  for (const letter of text) sum = Math.imul(sum ^ letter.codePointAt(0), 0x01000193);
  sum = Math.imul(sum ^ (sum >>> 15), 0x2c1b3c6d);
  return ((sum ^ (sum >>> 13)) >>> 0) % 360;
}

// Ids such as u0313 differ at their end, titles at their beginning.
function initials(text) {
  const words = text.match(/[\p{L}\p{N}]+/gu) ?? ["?"];
  const [first, second] = words.map((word) => [...word]);
  const letters = second ? [first[0], second[0]] : /\d$/.test(words[0]) ? first.slice(-2) : first.slice(0, 2);
  return letters.join("").toUpperCase();
}

/** The first field that puts items into groups, such as a category or genres. */
export function groupOf(item) {
  for (const [name, value] of Object.entries(item?.features ?? {})) {
    if (PROSE.includes(name) || /date|_id$/.test(name)) continue;
    if (Array.isArray(value) && typeof value[0] === "string") return [name, value[0]];
    if (typeof value === "string" && value.length <= 40) return [name, value];
  }
  return null;
}

/** A picture, or a tile with initials whose color is that of the item's group. */
export function Tile({ item, title, size = "" }) {
  const [broken, setBroken] = useState(false);
  const text = item?.title ?? title ?? item?.item_id ?? "?";
  const hue = hueOf(groupOf(item)?.[1] ?? text);
  const picture = pictureOf(item);
  return html`<div class=${"tile " + size} style=${{ "--hue": hue }} aria-hidden="true">
    ${initials(text)}
    ${picture && !broken && html`<img src=${picture} alt="" loading="lazy" referrerpolicy="no-referrer" onError=${() => setBroken(true)} />`}
  </div>`;
}

/** The fields of an item in one line. */
export function meta(item, most = 3) {
  const texts = [];
  for (const [name, value] of Object.entries(item?.features ?? {})) {
    if (PROSE.includes(name) || value == null || value === "" || /date|_id$/.test(name)) continue;
    if (Array.isArray(value)) texts.push(value.slice(0, 3).join(", "));
    else if (typeof value === "number") texts.push(/year/.test(name) ? String(value) : `${name} ${Number.isInteger(value) && !/price|cost/.test(name) ? value : value.toFixed(2)}`);
    else if (typeof value === "string" && value.length <= 40) texts.push(value);
  }
  return texts.filter(Boolean).slice(0, most).join(" · ");
}

const SOURCES = {
  model: ["model", "accent", "From the model: events of training"],
  "fold-in": ["live", "good", "From the model, with what was said just now"],
  features: ["features", "accent", "From the fields of the user or item"],
  segment: ["segment", "", "Popular among similar users"],
  recent: ["recent", "warn", "Popular at the moment"],
  popular: ["popular", "warn", "Popular with everybody"],
  "new-item": ["new item", "good", "A new item gets a chance"],
  explore: ["explore", "good", "Drawn by chance to learn more"],
};

export function Source({ name }) {
  const [text, tone, title] = SOURCES[name] ?? [name, "", ""];
  return html`<span class=${"badge " + tone} title=${title}>${text}</span>`;
}

/** The items of the history behind a row, with their shares. */
export const Reasons = ({ because }) => html`<details class="reasons">
  <summary>Why this?</summary>
  <ul class="bars">${because.map((one) => html`<li key=${one.item_id}>
    <span class="wrap">${one.title ?? one.item_id}</span><span class="number muted">${percent(one.share)}</span>
    <div class="track"><div class="fill" style=${{ width: percent(Math.min(1, Math.max(0, one.share))).replace(" ", "") }}></div></div>
  </li>`)}</ul>
</details>`;

const TONES = { like: "good", purchase: "good", cart: "good", rating: "good", dislike: "bad", hide: "bad" };
export const EventType = ({ type }) => html`<span class=${"badge plain " + (TONES[type] ?? "")}>${type}</span>`;

/** Stored events as lines. */
export const EventLines = ({ events, showUser, undo }) => html`<ul class="lines">${events.map((event) => html`<li key=${event.event_id}>
  <${EventType} type=${event.type} />
  <span class="grow">
    <a class="title" href=${link("items", event.item_id)}>${event.title ?? event.item_id}</a>
    <small class="muted">${showUser && html`<a href=${link("users", event.user_id)}>${event.user_id}</a>, `}${
      event.value != null && html`value ${event.value}, `}<time title=${new Date(event.time * 1000).toISOString()}>${ago(event.time)}</time></small>
  </span>
  ${undo && html`<button class="button icon quiet small" aria-label=${`Undo ${event.type} of ${event.title ?? event.item_id}`}
    onClick=${() => undo(event)}><${Icon} name="undo" /></button>`}
</li>`)}</ul>`;

// ---------- page, dialog, toast ----------

/** The head of a view. The heading takes the focus when the view opens, so that a screen reader starts there. */
export function Head({ title, crumbs, children, actions }) {
  const heading = useRef();
  useEffect(() => {
    document.title = `${title} · Palate`;
    if (window.palateNavigated) heading.current?.focus({ preventScroll: true });
    window.palateNavigated = true;
  }, [title]);
  return html`<div class="page-head">
    <div>
      ${crumbs && html`<p class="crumbs"><a href=${crumbs[1]}>${crumbs[0]}</a></p>`}
      <h1 tabindex="-1" ref=${heading} class="wrap">${title}</h1>
      ${children && html`<p>${children}</p>`}
    </div>
    ${actions && html`<div class="row">${actions}</div>`}
  </div>`;
}

/** A modal dialog; the browser keeps the focus inside and gives it back. */
export function Dialog({ title, close, children }) {
  const dialog = useRef();
  useEffect(() => {
    const node = dialog.current;
    if (!node.open) node.showModal();
    return () => node.close();
  }, []);
  return html`<dialog ref=${dialog} aria-label=${title} onClose=${close}
      onClick=${(event) => event.target === dialog.current && dialog.current.close()}>
    <div class="dialog-in">
      <div class="dialog-head"><h2>${title}</h2>
        <button class="button icon quiet small" aria-label="Close" onClick=${() => dialog.current.close()}><${Icon} name="close" /></button>
      </div>
      <div class="dialog-body">${children}</div>
    </div>
  </dialog>`;
}

export const Toast = ({ text, action, run, close }) => html`<div class="toast">
  <span>${text}</span>
  ${action && html`<button class="button small" onClick=${run}><${Icon} name="undo" />${action}</button>`}
  <button class="button icon small" aria-label="Dismiss" onClick=${close}><${Icon} name="close" /></button>
</div>`;

export function SearchBox({ label, value, set, placeholder, id = "search" }) {
  return html`<div class="search">
    <label class="hidden-text" for=${id}>${label}</label>
    <${Icon} name="search" />
    <input class="input" id=${id} type="search" autocomplete="off" spellcheck="false" placeholder=${placeholder ?? label} value=${value}
      onInput=${(event) => set(event.target.value)} />
  </div>`;
}
