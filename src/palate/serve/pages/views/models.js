// Models: the loaded bundles, their figures, and which of them answers.
import { get, post, remove } from "../api.js";
import { Intervals } from "../charts.js";
import { count, html, useLoad, useState } from "../lib.js";
import { announce, Failure, Head, Loaded } from "../parts.js";

// Figures between 0 and 1 where more is better share an axis; the others have scales of their own.
const SHARED = ["HitRate", "NDCG", "Recall", "Precision", "MRR", "MAP"];

const named = (one) => `${one.metric}${one.k ? `@${one.k}` : ""}`;

function Figures({ models }) {
  const names = [...new Set(models.flatMap((one) => one.metrics.filter((row) => SHARED.includes(row.metric)).map(named)))];
  const rows = names.map((name) => ({ name, marks: models.map((one) => one.metrics.find((row) => named(row) === name)) }));
  const first = models[0].metrics[0];
  if (!rows.length) return html`<p class="muted small">This bundle carries no figures: <code>palate train</code> measures one on held-out rows.</p>`;
  return html`<div class="stack close">
    ${models.length > 1 && html`<ul class="plot-legend">${models.map((one) => html`<li key=${one.version}><i></i>${one.version}</li>`)}</ul>`}
    <${Intervals} rows=${rows} label="Figures with 95 % intervals" />
    ${first && html`<p class="muted small">${first.users ? `${count(first.users)} users, ` : ""}${first.candidates}. ${first.protocol}. Bars are 95 % intervals.</p>`}
  </div>`;
}

function Model({ one, act, busy, figures }) {
  return html`<section class="panel" aria-label=${one.version}>
    <div class="row spread"><div><h2 class="wrap">${one.version}</h2><p class="muted small">${one.recipe} on ${one.data}, made ${new Date(one.created).toLocaleString()}</p></div>
      ${one.active ? html`<span class="badge good">answers</span>`
        : html`<div class="row"><button class="button small primary" disabled=${busy} onClick=${() => act("activate", one.version)}>Let it answer</button>
          <button class="button small" disabled=${busy} onClick=${() => act("unload", one.version)}>Unload</button></div>`}</div>
    <div class="stack">
      <dl class="pairs"><dt>Users</dt><dd class="number">${count(one.users)}</dd><dt>Items</dt><dd class="number">${count(one.items)}</dd>
        <dt>Training events</dt><dd class="number">${count(one.training_events)}</dd><dt>Item fields</dt><dd>${one.item_fields.join(", ") || "none"}</dd></dl>
      ${figures && html`<${Figures} models=${[one]} />`}
    </div>
  </section>`;
}

/** Whether figures of two bundles may be put on one axis: measured in the same way. */
const comparable = (models) => models.length === 2 && models.every((one) => one.metrics.length) &&
  ["protocol", "candidates", "users", "ties"].every((name) => models[0].metrics[0][name] === models[1].metrics[0][name]);

export function Models() {
  const state = useLoad((signal) => get("/v1/models", {}, signal), []);
  const [name, setName] = useState("");
  const [failure, setFailure] = useState(null);
  const [busy, setBusy] = useState(false);
  const run = async (work, text) => {
    setBusy(true);
    setFailure(null);
    try {
      await work();
      announce(text);
      state.reload();
    } catch (error) {
      setFailure(error);
    }
    setBusy(false);
  };
  const act = (what, version) => run(
    () => (what === "unload" ? remove(`/v1/models/${encodeURIComponent(version)}`) : post("/v1/models/activate", { model: version })),
    what === "unload" ? "Unloaded" : `${version} answers now`,
  );
  const load = (event) => {
    event.preventDefault();
    run(() => post("/v1/models/load", { model: name.trim() }), "Loaded");
  };
  return html`
    <${Head} title="Models" actions=${html`<button class="button" disabled=${busy} onClick=${() => run(() => post("/v1/models/rollback", {}), "Rolled back")}>Roll back</button>`}>
      The bundles that are loaded. Switching takes effect for the next request; none fails.<//>
    <div class="stack">
      ${failure && html`<${Failure} error=${failure} />`}
      <${Loaded} state=${state} children=${({ models }) => html`
        ${comparable(models) && html`<section class="panel" aria-labelledby="both"><h2 id="both">Side by side</h2><${Figures} models=${models} /></section>`}
        <div class="two">${models.map((one) => html`<${Model} key=${one.version} one=${one} act=${act} busy=${busy} figures=${!comparable(models)} />`)}</div>`} />
      <section class="panel" aria-labelledby="load"><h2 id="load">Load another bundle</h2>
        <form class="row" onSubmit=${load}><label class="field"><span>Name of its folder, beside the first bundle</span>
          <input class="input" value=${name} onInput=${(event) => setName(event.target.value)} /></label>
          <button class="button" disabled=${busy || !name.trim()}>${busy ? "Loading…" : "Load"}</button></form>
      </section>
    </div>`;
}
