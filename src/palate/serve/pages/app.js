// The shell: navigation, the view of the address, the question for an API key.
import { get, setApiKey } from "./api.js";
import { html, link, render, useEffect, useLoad, useRoute, useState } from "./lib.js";
import { Icon } from "./parts.js";
import { Data } from "./views/data.js";
import { Experiments } from "./views/experiments.js";
import { Item, Items } from "./views/items.js";
import { Models } from "./views/models.js";
import { Overview } from "./views/overview.js";
import { Scenarios } from "./views/scenarios.js";
import { Settings } from "./views/settings.js";
import { Try } from "./views/try.js";
import { User, Users } from "./views/users.js";

const VIEWS = {
  try: Try,
  overview: Overview,
  users: ({ parts, query }) => (parts[1] ? html`<${User} id=${parts[1]} key=${parts[1]} />` : html`<${Users} query=${query} />`),
  items: ({ parts, query }) => (parts[1] ? html`<${Item} id=${parts[1]} key=${parts[1]} />` : html`<${Items} query=${query} />`),
  scenarios: Scenarios,
  experiments: Experiments,
  models: Models,
  data: Data,
  settings: Settings,
};
const OPERATE = [
  ["overview", "Overview"],
  ["users", "Users"],
  ["items", "Items"],
  ["scenarios", "Scenarios"],
  ["experiments", "Experiments"],
  ["models", "Models"],
  ["data", "Data"],
  ["settings", "Settings"],
];

function KeyNeeded() {
  const [key, setKey] = useState("");
  const send = (event) => {
    event.preventDefault();
    setApiKey(key.trim());
  };
  return html`<form class="panel stack close" onSubmit=${send}>
    <h1>An API key is needed</h1>
    <p class="muted">This server asks for keys. Make one with <code>palate keys create NAME --role admin</code>. It is kept in this tab only.</p>
    <label class="field"><span>API key</span>
      <input class="input" type="password" autocomplete="off" value=${key} onInput=${(event) => setKey(event.target.value)} /></label>
    <div class="row"><button class="button primary">Use this key</button></div>
  </form>`;
}

function Navigation({ view }) {
  const [open, setOpen] = useState(false);
  const about = useLoad((signal) => get("/v1/version", {}, signal), []);
  const one = ([name, text]) => html`<li key=${name}><a href=${link(name)} aria-current=${view === name ? "page" : null} onClick=${() => setOpen(false)}>
    <${Icon} name=${name} />${text}</a></li>`;
  return html`<header class="side">
    <div class="side-top">
      <a class="brand" href=${link("try")}><img src="icon.svg" alt="" />Palate</a>
      <button class="button icon quiet menu-button" aria-expanded=${open} aria-controls="nav" aria-label="Menu" onClick=${() => setOpen(!open)}>
        <${Icon} name=${open ? "close" : "menu"} /></button>
    </div>
    <nav id="nav" class="nav-fold" data-open=${open} aria-label="Main">
      <ul class="nav">${one(["try", "Try it"])}</ul>
      <p class="nav-title" id="nav-operate">Operate</p>
      <ul class="nav" aria-labelledby="nav-operate">${OPERATE.map(one)}</ul>
    </nav>
    <div class="side-foot">
      ${about.data && html`<span class="wrap">${about.data.model}</span><span>Palate ${about.data.palate} · <a href="openapi.json">API</a></span>`}
    </div>
  </header>`;
}

function App() {
  const route = useRoute();
  const [locked, setLocked] = useState(false);
  const [turn, setTurn] = useState(0);
  useEffect(() => {
    const lock = () => setLocked(true);
    const unlock = () => {
      setLocked(false);
      setTurn((n) => n + 1);
    };
    window.addEventListener("keyneeded", lock);
    window.addEventListener("keychange", unlock);
    return () => {
      window.removeEventListener("keyneeded", lock);
      window.removeEventListener("keychange", unlock);
    };
  }, []);
  useEffect(() => window.scrollTo(0, 0), [route.parts.join("/")]);
  const name = route.parts[0] in VIEWS ? route.parts[0] : "try";
  const View = VIEWS[name];
  return html`<div class="shell">
    <a class="skip" href="#main" onClick=${(event) => {
      // The address is the route, so the link must not change it.
      event.preventDefault();
      document.getElementById("main").focus();
    }}>Skip to the content</a>
    <${Navigation} view=${name} />
    <main id="main" tabindex="-1">${locked && name !== "settings" ? html`<${KeyNeeded} />` : html`<${View} ...${route} key=${name + turn} />`}</main>
    <div id="live" class="hidden-text" role="status" aria-live="polite"></div>
  </div>`;
}

render(html`<${App} />`, document.getElementById("app"));
