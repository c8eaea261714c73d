// Try it: be somebody, say what you like, and see the list follow.
import { at, get, itemsById } from "../api.js";
import { html, link, plural, useCallback, useEffect, useLoad, useRef, useSettled, useState } from "../lib.js";
import { announce, Bones, Dialog, EventType, Failure, groupOf, Head, Icon, Loaded, meta, SearchBox, Tile, Toast } from "../parts.js";
import { chooseUser, currentUser, isVisitor, say, startNew, takeBack } from "../session.js";
import { List, useList } from "./list.js";

const QUESTIONS = 8;
const DONE = { like: "Liked", dislike: "Not for you:", hide: "Hidden:", unknown: "Noted:" };

/** The choice of a person: a known user, or any id. */
function ChooseUser({ choose, close }) {
  const [text, setText] = useState("");
  const users = useLoad((signal) => get("/v1/users", { limit: 200 }, signal), []);
  const wanted = text.trim().toLowerCase();
  const matches = (user) => user.user_id.toLowerCase().includes(wanted) || Object.values(user.features).some((one) => String(one).toLowerCase() === wanted);
  return html`<${Dialog} title="Choose a user" close=${close}>
    <form class="row" onSubmit=${(event) => { event.preventDefault(); if (text.trim()) choose(text.trim()); }}>
      <label class="field grow"><span>User id</span>
        <input class="input" autofocus autocomplete="off" value=${text} onInput=${(event) => setText(event.target.value)} /></label>
      <button class="button primary" disabled=${!text.trim()}>Use this id</button>
    </form>
    <${Loaded} state=${users} children=${(data) => {
      const found = data.users.filter((user) => !wanted || matches(user)).slice(0, 60);
      if (!found.length) return html`<p class="muted">No user of the first ${plural(data.users.length, "user")} matches. An id that is not listed works, too.</p>`;
      return html`<ul aria-label="Users">${found.map((user) => html`<li key=${user.user_id}>
        <button class="pick" onClick=${() => choose(user.user_id)}>
          <${Tile} title=${user.user_id} />
          <span><strong>${user.user_id}</strong><br /><small class="muted">${[
            plural(user.training_events, "event") + " in training",
            user.live_events ? `${user.live_events} live` : "",
            ...Object.values(user.features).filter((one) => one != null).map(String).slice(0, 3),
          ].filter(Boolean).join(" · ")}</small></span>
        </button></li>`)}</ul>`;
    }} />
  <//>`;
}

/** Why an item is not in the list, as a sentence and two bars. */
function WhyNot({ user, item, scenario, close }) {
  const state = useLoad((signal) => get("/v1/why-not", { user_id: user, item_id: item.item_id, k: 12, scenario }, signal), [item.item_id]);
  return html`<${Dialog} title="Why not this?" close=${close}>
    <div class="row"><${Tile} item=${item} /><div><h3 class="wrap">${item.title ?? item.item_id}</h3><small class="muted">${meta(item)}</small></div></div>
    <${Loaded} state=${state} children=${(why) => html`
      <p class="notice">${why.place ? `It is in the list, at place ${why.place}.` : why.reason[0].toUpperCase() + why.reason.slice(1) + "."}</p>
      ${why.score != null && html`<dl class="pairs">
        <dt>Score</dt><dd class="number">${why.score.toFixed(4)}</dd>
        ${why.score_at_k != null && html`<dt>Place ${why.k} has</dt><dd class="number">${why.score_at_k.toFixed(4)}</dd>`}
        ${why.rank != null && html`<dt>Rank by score</dt><dd class="number">${why.rank} of ${why.items}</dd>`}
      </dl>`}`} />
  <//>`;
}

/** Search by title; each hit can be liked, or asked about. */
function Find({ act, ask }) {
  const [text, setText] = useState("");
  const settled = useSettled(text.trim());
  const found = useLoad(async (signal) => {
    if (!settled) return { rows: [] };
    const { items } = await get("/v1/search", { q: settled, limit: 8 }, signal);
    const known = await itemsById(items.map((row) => row.item_id), signal);
    announce(plural(items.length, "item") + " found");
    return { rows: items.map((row) => known.get(row.item_id) ?? row) };
  }, [settled]);
  return html`<section class="panel" aria-label="Search">
    <${SearchBox} id="find" label="Search titles" value=${text} set=${setText} />
    ${settled && html`<${Loaded} state=${found} children=${({ rows }) => rows.length
      ? html`<ul class="lines" aria-label="Items found">${rows.map((item) => html`<li key=${item.item_id}>
          <${Tile} item=${item} />
          <span class="grow"><a class="title" href=${link("items", item.item_id)}>${item.title ?? item.item_id}</a><small class="muted">${meta(item, 2)}</small></span>
          <button class="button icon small like" aria-label=${`Like ${item.title ?? item.item_id}`} title="Like" onClick=${() => act(item, "like")}><${Icon} name="like" /></button>
          <button class="button icon small" aria-label=${`Why not ${item.title ?? item.item_id}`} title="Why is it not in the list?" onClick=${() => ask(item)}><${Icon} name="question" /></button>
        </li>`)}</ul>`
      : !found.loading && html`<p class="muted small">No title has a word that begins with “${settled}”.</p>`} />`}
  </section>`;
}

/** Onboarding: one item after the other, chosen so that the answers tell tastes apart. */
function Questions({ act, answered, skip }) {
  const questions = useLoad(async (signal) => {
    const { items } = await get("/v1/onboarding", { n: 2 * QUESTIONS }, signal);
    const known = await itemsById(items.map((row) => row.item_id), signal);
    return items.map((row) => known.get(row.item_id) ?? row);
  }, []);
  const [place, setPlace] = useState(0);
  const first = useRef();
  const said = (item, type) => {
    setPlace(place + 1);
    act(item, type);
    // The buttons stay where they are; the next question is read out.
    first.current?.focus();
  };
  return html`<section class="panel" aria-labelledby="questions">
    <div class="row spread"><h2 id="questions">A few questions</h2><button class="button quiet small" onClick=${skip}>Skip</button></div>
    <${Loaded} state=${questions} bones=${html`<${Bones} lines=${5} />`} children=${(items) => {
      const left = items.filter((item) => !answered.has(item.item_id));
      const item = left[0];
      if (!item || place >= QUESTIONS) return html`<p class="muted">Thank you. The list knows you a little now: like or hide what you see to go on.</p>`;
      return html`<div class="question">
        <div class="progress" role="progressbar" aria-label="Questions answered" aria-valuemin="0" aria-valuemax=${QUESTIONS} aria-valuenow=${place}><div style=${{ width: `${(100 * place) / QUESTIONS}%` }}></div></div>
        <${Tile} item=${item} />
        <div aria-live="polite"><h3 class="wrap">${item.title ?? item.item_id}</h3><p class="muted small">${meta(item)}</p></div>
        <div class="row">
          <button ref=${first} class="button small like" onClick=${() => said(item, "like")}><${Icon} name="like" />I like it</button>
          <button class="button small hide" onClick=${() => said(item, "dislike")}><${Icon} name="dislike" />Not for me</button>
        </div>
        <button class="button quiet small" onClick=${() => said(item, "unknown")}>I don’t know it</button>
      </div>`;
    }} />
  </section>`;
}

/** What the person has said, the newest first. */
function Said({ state, undo }) {
  return html`<section class=${"panel" + (state.events.length ? "" : " only-wide")} aria-labelledby="said"><h2 id="said">What you said</h2>
    ${state.events.length
      ? html`<ul class="lines">${state.events.slice(0, 8).map((event) => html`<li key=${event.event_id}>
          <${EventType} type=${event.type} />
          <span class="grow"><span class="title">${event.title ?? event.item_id}</span></span>
          <button class="button icon quiet small" aria-label=${`Take back: ${event.type} ${event.title ?? event.item_id}`} onClick=${() => undo(event)}><${Icon} name="undo" /></button>
        </li>`)}</ul>
        ${state.events.length > 8 && html`<p class="muted small">and ${state.events.length - 8} more</p>`}`
      : html`<p class="muted small">Nothing yet. Likes and dislikes appear here and can be taken back.</p>`}
  </section>`;
}

/** Values of the first grouping field, the most frequent first, from the first items of the catalog. */
function useGroups() {
  const state = useLoad(async (signal) => {
    const { items } = await get("/v1/items", { limit: 300 }, signal);
    const sums = new Map();
    let field = null;
    for (const item of items) {
      const group = groupOf(item);
      if (!group || (field && group[0] !== field)) continue;
      field = group[0];
      const values = item.features[field];
      for (const value of Array.isArray(values) ? values : [values]) sums.set(value, (sums.get(value) ?? 0) + 1);
    }
    const found = [...sums].sort((one, two) => two[1] - one[1]).filter(([, n]) => n > 1).map(([value]) => value);
    return { field, values: found.slice(0, 9) };
  }, []);
  return state.data ?? { field: null, values: [] };
}

export function Try({ query }) {
  const [user, setUser] = useState(() => (query.get("user") ? chooseUser(query.get("user")) : currentUser()));
  const [turn, setTurn] = useState(0);
  const [scenario, setScenario] = useState("");
  const [group, setGroup] = useState("");
  const [compare, setCompare] = useState(false);
  const [skipped, setSkipped] = useState(false);
  const [leaving, setLeaving] = useState(new Set());
  const [said, setSaid] = useState([]);
  const [dialog, setDialog] = useState(null);
  const [toast, setToast] = useState(null);
  const [failure, setFailure] = useState(null);
  const heading = useRef();
  const acted = useRef(false); // whether the focus was on a card that has to go

  const about = useLoad((signal) => {
    const nobody = { user_id: user, training_events: 0, live_events: 0, features: {} };
    if (isVisitor(user) && !said.length) return Promise.resolve(nobody); // nothing to ask the server for
    return get(at("users", user), {}, signal).catch((error) => {
      if (error.status === 404 || error.status === 403) return nobody;
      throw error;
    });
  }, [user, turn, said.length > 0]);
  const scenarios = useLoad((signal) => get("/v1/scenarios", {}, signal), []);
  const models = useLoad((signal) => get("/v1/models", {}, signal), []);
  const groups = useGroups();
  const filter = group && groups.field ? `${groups.field}:${group}` : undefined;
  const versions = models.data?.models.map((one) => one.version) ?? [];
  const names = Object.keys(scenarios.data?.scenarios ?? {});

  useEffect(() => {
    const abort = new AbortController();
    // A key without the role to read events still may use the page: then only what was said here is listed.
    get("/v1/events", { user_id: user, limit: 50 }, abort.signal).then(({ events }) => setSaid(events), () => setSaid([]));
    setLeaving(new Set());
    return () => abort.abort();
  }, [user]);

  const asked = { user, k: 12, scenario, filter, turn };
  const list = useList(asked);

  useEffect(() => {
    setLeaving(new Set());
    // The card that took over the focus may be gone from the new list, too.
    if (acted.current && document.activeElement === document.body) heading.current?.focus({ preventScroll: true });
    acted.current = false;
  }, [list.list]);

  const undo = useCallback(async (event) => {
    try {
      await takeBack(event.event_id);
    } catch (error) {
      if (error.status !== 404) return setFailure(error);
    }
    setSaid((old) => old.filter((one) => one.event_id !== event.event_id));
    setToast(null);
    announce(`Taken back: ${event.title ?? event.item_id}`);
    setTurn((n) => n + 1);
  }, []);

  const act = useCallback(async (item, type) => {
    const title = item.title ?? item.item_id;
    const card = document.activeElement?.closest?.(".card");
    const next = card?.nextElementSibling ?? card?.previousElementSibling;
    setLeaving((old) => new Set([...old, item.item_id]));
    setFailure(null);
    try {
      const event_id = await say(user, item.item_id, type, list.list?.recommendation_id);
      const event = { event_id, item_id: item.item_id, type, title: item.title };
      setSaid((old) => [event, ...old]);
      setToast({ text: `${DONE[type]} ${title}`, event });
      announce(`${DONE[type]} ${title}. The list is up to date.`);
      setTurn((n) => n + 1);
      // The card goes; the focus moves on to its neighbor, or it would be lost.
      if (card) {
        acted.current = true;
        (next?.querySelector(".like") ?? heading.current)?.focus({ preventScroll: true });
      }
    } catch (error) {
      setLeaving(new Set());
      setFailure(error);
    }
  }, [user, list.list]);

  const become = (id) => {
    setUser(chooseUser(id));
    setSkipped(false);
    setDialog(null);
    setToast(null);
  };
  const known = about.data?.training_events > 0;
  const asking = !known && !skipped;
  return html`
    <${Head} title="Try it" actions=${html`
      <button class="button" onClick=${() => setDialog("user")}><${Icon} name="users" />Choose a user</button>
      <button class="button" onClick=${() => become(startNew())}><${Icon} name="plus" />Start new</button>`}>
      Say what you like, and watch the list follow. Every click is stored and is part of the next answer.
    <//>
    <div class="side-main">
      <div class="stack">
        <section class="panel" aria-label="You are">
          <div class="row">
            <${Tile} title=${user} />
            <div class="grow"><h2 class="wrap">${isVisitor(user) ? "A new visitor" : user}</h2>
              <p class="muted small wrap">${about.data
                ? [known ? plural(about.data.training_events, "event") + " in training" : "Unknown to the model", plural(about.data.live_events, "live event"),
                   ...Object.values(about.data.features).filter((one) => one != null).map(String).slice(0, 3)].join(" · ")
                : "…"}</p></div>
          </div>
        </section>
        <${Find} act=${act} ask=${(item) => setDialog(item)} />
        ${asking && html`<${Questions} key=${user} act=${act} answered=${new Set(said.map((one) => one.item_id))} skip=${() => setSkipped(true)} />`}
        <${Said} state=${{ events: said }} undo=${undo} />
      </div>
      <section class="stack close" aria-labelledby="list">
        <div class="row spread">
          <div class="row"><h2 id="list" tabindex="-1" ref=${heading}>For you</h2>
            ${list.list?.experiment && html`<a class="badge accent" href=${link("experiments", list.list.experiment)}>${list.list.experiment}: ${list.list.arm ?? "both"}</a>`}</div>
          <div class="row">
            ${names.length > 0 && html`<label class="row"><span class="small muted">Scenario</span>
              <select class="select" value=${scenario} onChange=${(event) => setScenario(event.target.value)}>
                <option value="">none</option>${names.map((name) => html`<option key=${name} value=${name}>${name}</option>`)}</select></label>`}
            ${versions.length > 1 && html`<label class="switch"><input type="checkbox" checked=${compare} onChange=${() => setCompare(!compare)} />Compare models</label>`}
          </div>
        </div>
        ${groups.values.length > 1 && html`<div class="chips" role="group" aria-label=${`Filter by ${groups.field}`}>
          ${["", ...groups.values].map((value) => html`<button key=${value} class="button chip" aria-pressed=${group === value} onClick=${() => setGroup(value)}>${value || "All"}</button>`)}
        </div>`}
        ${failure && html`<${Failure} error=${failure} />`}
        ${list.list?.notes.length > 0 && html`<p class="notice">${known || said.length ? list.list.notes.join(" ") : "Nothing is known about you yet, so these are the most popular items. Like one to begin."}</p>`}
        ${compare && versions.length > 1
          ? html`<${Compare} asked=${asked} versions=${versions} act=${act} leaving=${leaving} />`
          : html`<${List} state=${list} act=${act} leaving=${leaving} />`}
      </section>
    </div>
    ${dialog === "user" && html`<${ChooseUser} choose=${become} close=${() => setDialog(null)} />`}
    ${dialog?.item_id && html`<${WhyNot} user=${user} item=${dialog} scenario=${scenario} close=${() => setDialog(null)} />`}
    ${toast && html`<${Toast} text=${toast.text} action="Undo" run=${() => undo(toast.event)} close=${() => setToast(null)} />`}
  `;
}

/** Two models for the same person, side by side; both follow each click. */
function Compare({ asked, versions, act, leaving }) {
  const [chosen, setChosen] = useState(versions.slice(0, 2));
  const lists = [useList({ ...asked, model: chosen[0] }), useList({ ...asked, model: chosen[1] })];
  const sets = lists.map((one) => new Set(one.list?.items.map((row) => row.item_id)));
  const shared = new Set([...sets[0]].filter((id) => sets[1].has(id)));
  return html`
    <p class="muted small" role="status">${plural(shared.size, "item")} of ${sets[0].size} ${shared.size === 1 ? "is" : "are"} in both lists.</p>
    <div class="two">${lists.map((state, place) => html`<div class="stack close" key=${place}>
      <label class="field"><span>Model ${place + 1}</span>
        <select class="select" value=${chosen[place]} onChange=${(event) => setChosen(chosen.map((one, n) => (n === place ? event.target.value : one)))}>
          ${versions.map((version) => html`<option key=${version} value=${version}>${version}</option>`)}</select></label>
      <${List} state=${state} act=${act} leaving=${leaving} narrow shared=${shared} label=${`Recommendations of ${chosen[place]}`} />
    </div>`)}</div>`;
}
