// Experiments: two models side by side, and whether the rule that was stated before has decided.
import { at, get, post, remove } from "../api.js";
import { Difference, Intervals } from "../charts.js";
import { ago, count, duration, html, link, plural, useInterval, useLoad, useState } from "../lib.js";
import { announce, Empty, Failure, Head, Icon, Loaded } from "../parts.js";

const EVERY = 5000;
const STATES = { draft: ["draft", ""], running: ["running", "good"], stopped: ["stopped", "warn"] };
const KINDS = { ab: "A/B test", interleaving: "Interleaving" };
const METRICS = { click_through: "click-through", ndcg: "NDCG", credit: "credit" };
const RULES = { fixed: "one test at the end", sequential: "a test after every user" };

const State = ({ one }) => html`<span class=${"badge " + STATES[one.state][1]}>${STATES[one.state][0]}</span>`;

const since = (one) => one.stopped ? `ran for ${duration(one.stopped - one.started)}` : one.started ? `started ${ago(one.started)}` : `made ${ago(one.created)}`;

// ---------- a new one ----------

function Create({ models, types, made }) {
  const [plan, setPlan] = useState({ name: "", kind: "ab", old: models[0].version, new: models[1].version, share: 50, metric: "click_through", rule: "fixed", users: 1000, hours: 24, effect: 0.05 });
  const [failure, setFailure] = useState(null);
  const [busy, setBusy] = useState(false);
  const set = (change) => setPlan({ ...plan, ...change });
  const ab = plan.kind === "ab";
  const send = async (event) => {
    event.preventDefault();
    setBusy(true);
    setFailure(null);
    const share = plan.share / 100;
    const arms = [{ name: "old", model: plan.old, share: ab ? 1 - share : 0.5 }, { name: "new", model: plan.new, share: ab ? share : 0.5 }];
    const { name, kind, metric, rule } = plan;
    try {
      await post("/v1/experiments", { name: name.trim(), kind, arms, metric, rule, users: Number(plan.users), hours: Number(plan.hours), effect: Number(plan.effect) });
      announce(`Made ${name}`);
      made(name.trim());
    } catch (error) {
      setFailure(error);
      setBusy(false);
    }
  };
  const model = (arm, text) => html`<label class="field"><span>${text}</span>
    <select class="select" value=${plan[arm]} onChange=${(event) => set({ [arm]: event.target.value })}>
      ${models.map((one) => html`<option key=${one.version} value=${one.version}>${one.version}</option>`)}</select></label>`;
  const number = (name, text, hint, more) => html`<label class="field"><span>${text}</span>
    <input class="input" type="number" required value=${plan[name]} onInput=${(event) => set({ [name]: event.target.value })} ...${more} /><small>${hint}</small></label>`;
  const chips = (name, label, all) => html`<div class="field"><span id=${`label-${name}`}>${label}</span><div class="chips" role="group" aria-labelledby=${`label-${name}`}>
    ${Object.entries(all).map(([value, text]) => html`<button type="button" key=${value} class="button chip" aria-pressed=${plan[name] === value} onClick=${() => set({ [name]: value })}>${text}</button>`)}</div></div>`;
  return html`<section class="panel" aria-labelledby="create"><h2 id="create">Plan an experiment</h2>
    <form class="stack" onSubmit=${send}>
      <div class="form-grid">
        <label class="field"><span>Name</span><input class="input" required maxlength="100" pattern="[A-Za-z0-9][A-Za-z0-9 ._\\-]*" title="Letters, digits, space . _ -" value=${plan.name} onInput=${(event) => set({ name: event.target.value })} /></label>
        ${model("old", "Old model")}${model("new", "New model")}
      </div>
      <div class="form-grid">
        ${chips("kind", "Who sees them", { ab: "Each user one model", interleaving: "Each list both" })}
        ${ab && chips("metric", "Decided by", { click_through: "Click-through", ndcg: "NDCG" })}
        ${chips("rule", "Decided with", { fixed: "One test at the end", sequential: "A test after every user" })}
      </div>
      <div class="form-grid">
        ${number("users", ab ? "Users of each arm" : "Users", plan.rule === "fixed" ? "The test is made when so many are complete" : "At most; it may be decided earlier", { min: 2 })}
        ${number("hours", "Hours a user is observed", "From the first list on; 0 counts everything at once", { min: 0, step: "any" })}
        ${ab && number("share", "Users with the new model, %", "The others have the old one", { min: 1, max: 99 })}
        ${plan.rule === "sequential" && number("effect", "Smallest difference worth finding", "Decides how fast the test is, not whether it is right", { min: 0.001, max: 1, step: "any" })}
      </div>
      ${failure && html`<${Failure} error=${failure} />`}
      <div class="row spread"><p class="muted small">Clicks are events of the types ${types.join(", ")} that name their <code>recommendation_id</code>.</p>
        <button class="button primary" disabled=${busy || !plan.name.trim()}><${Icon} name="plus" />Make the plan</button></div>
    </form>
  </section>`;
}

export function Experiments({ parts }) {
  return parts[1] ? html`<${Experiment} name=${parts[1]} key=${parts[1]} />` : html`<${All} />`;
}

function All() {
  const state = useLoad(async (signal) => {
    const [{ experiments }, { models }, scenarios] = await Promise.all([get("/v1/experiments", {}, signal), get("/v1/models", {}, signal), get("/v1/scenarios", {}, signal)]);
    const types = Object.entries(scenarios.events).filter(([, one]) => one.positive && one.weight > 0 && !one.rated).map(([name]) => name);
    return { experiments, models, types };
  }, []);
  return html`
    <${Head} title="Experiments">Two models side by side on real users. The rule that decides is stated before the start, and nothing is said before it has decided.<//>
    <${Loaded} state=${state} children=${({ experiments, models, types }) => html`<div class="stack">
      ${experiments.length ? html`<ul class="tiles">${experiments.map((one) => html`<li key=${one.name}><a class="panel tile-link" href=${link("experiments", one.name)}>
          <div class="row spread"><h2 class="wrap">${one.name}</h2><${State} one=${one} /></div>
          <p class="muted small wrap">${one.arms.map((arm) => arm.model).join(" against ")}</p>
          <p class="small">${KINDS[one.kind]} · ${RULES[one.rule]} · ${since(one)}</p></a></li>`)}</ul>`
        : html`<section class="panel"><${Empty} icon="experiments" title="No experiments yet">${models.length > 1
            ? "Plan one below: say which models, how many users, and what decides."
            : html`An experiment needs two models. <a href=${link("models")}>Load another bundle</a> first.`}<//></section>`}
      ${models.length > 1 && html`<${Create} models=${models} types=${types} made=${(name) => (location.hash = link("experiments", name))} />`}
    </div>`} />`;
}

// ---------- one ----------

function Verdict({ one, result, adopt }) {
  const { needed, complete, decided, winner, sentence } = result;
  const share = Math.min(100, (100 * complete) / needed);
  return html`<section class=${"panel verdict" + (winner ? " won" : "")} aria-labelledby="verdict">
    <div class="row spread"><h2 id="verdict">${winner ? `${winner} is better` : decided ? "No difference is shown" : one.state === "stopped" ? "Stopped too early" : "Not decided yet"}</h2>
      <span class="number muted">${count(complete)} of ${plural(needed, "user")}${one.kind === "ab" ? " of each arm" : ""}</span></div>
    <div class="stack close">
      <div class="progress" role="progressbar" aria-label="Complete users" aria-valuemin="0" aria-valuemax=${needed} aria-valuenow=${complete}><div style=${{ width: `${share}%` }}></div></div>
      <p class="wrap">${sentence}</p>
      ${winner && one.state === "running" && html`<div class="row"><button class="button" onClick=${() => adopt(winner)}>Stop, and let ${winner} answer everybody</button></div>`}
      ${!decided && one.state === "running" && html`<p class="muted small">${one.rule === "fixed" ? "Figures before that are for watching that it works. A decision taken from them would be luck far too often." : "This test may be looked at as often as you like: it is valid after every user."}</p>`}
    </div>
  </section>`;
}

const marks = (arms, name) => arms.map((arm) => (arm[name].value == null ? undefined : arm[name]));

function Figures({ one, result }) {
  const { arms, difference } = result;
  const [to, from] = difference.of;
  const rows = one.kind === "ab"
    ? [["Click-through", "click_through"], ["NDCG", "ndcg"], ["Users who clicked", "users_who_clicked"]].map(([name, key]) => ({ name, marks: marks(arms, key) }))
    : [];
  return html`<div class="two">
    <section class="panel" aria-labelledby="arms"><h2 id="arms">${one.kind === "ab" ? "The arms" : "Whose rows are clicked"}</h2>
      ${rows.length > 0 && html`<ul class="plot-legend">${arms.map((arm) => html`<li key=${arm.name}><i></i>${arm.name} <strong>${plural(arm.users, "user")}</strong></li>`)}</ul>
        <${Intervals} rows=${rows} label="Figures of the arms with 95 % intervals" />`}
      <div class="table-scroll" tabindex="0" role="region" aria-label="Table of the arms"><table>
        <thead><tr><th>Arm</th>${one.kind === "ab" ? html`<th class="number">Lists</th><th class="number">Clicks</th>` : html`<th class="number">Clicks</th><th class="number">Preferred by</th>`}</tr></thead>
        <tbody>${arms.map((arm) => html`<tr key=${arm.name}><td>${arm.name}</td>${one.kind === "ab"
          ? html`<td class="number">${count(arm.lists)}</td><td class="number">${count(arm.clicks)}</td>`
          : html`<td class="number">${count(arm.clicks)}</td><td class="number">${plural(arm.preferred_by, "user")}</td>`}</tr>`)}</tbody>
      </table></div>
    </section>
    <section class="panel" aria-labelledby="difference"><h2 id="difference">Difference in ${METRICS[difference.metric]}</h2>
      <${Difference} ...${difference} from=${from} to=${to} />
      <dl class="pairs"><dt>Test</dt><dd>${difference.test}</dd><dt>p</dt><dd class="number">${difference.p == null ? "–" : difference.p < 0.0001 ? "below 0.0001" : difference.p.toFixed(4)}</dd></dl>
    </section>
  </div>`;
}

function Plan({ one }) {
  return html`<section class="panel" aria-labelledby="plan"><h2 id="plan">The plan</h2>
    <dl class="pairs">
      ${one.arms.map((arm) => html`<dt key=${arm.name}>${arm.name}</dt><dd><span class="wrap">${arm.model}</span>${one.kind === "ab" && html`, ${Math.round(100 * arm.share)} % of users`} ${!arm.loaded && html`<span class="badge bad">not loaded</span>`}</dd>`)}
      <dt>Kind</dt><dd>${one.kind === "ab" ? "A/B test: each user has one model" : "Interleaving: each list is a team draft of both"}</dd>
      <dt>Rule</dt><dd>${RULES[one.rule]}, ${plural(one.users, "user")}${one.kind === "ab" ? " of each arm" : ""}${one.rule === "sequential" ? ` at most, for a difference of ${one.effect}` : ""}</dd>
      ${one.kind === "ab" && html`<dt>Decided by</dt><dd>${METRICS[one.metric]}</dd>`}
      <dt>Observed</dt><dd>${one.hours ? `${one.hours} hours from the first list of a user` : "everything, at once"}</dd>
      ${one.types && html`<dt>Clicks</dt><dd>${one.types.join(", ")}</dd>`}
    </dl>
  </section>`;
}

function Doubts({ one, result }) {
  const clicks = result.arms.reduce((sum, arm) => sum + arm.clicks, 0);
  const texts = [
    one.state === "running" && one.arms.some((arm) => !arm.loaded) && ["bad", "A model of this experiment is not loaded here: nobody takes part. Load it, or start the server with both bundles."],
    result.share_p != null && result.share_p < 0.001 && ["bad", "The arms do not have their planned shares of the users. Something is wrong, so do not trust these figures."],
    result.complete >= 50 && !clicks && ["warn", "No list has a click. Does the feedback name its recommendation_id?"],
    result.mixed_users > 0 && ["", `${plural(result.mixed_users, "user")} saw both arms and ${result.mixed_users === 1 ? "is" : "are"} left out.`],
  ];
  return texts.filter(Boolean).map(([tone, text]) => html`<p key=${text} class=${"notice " + tone}>${text}</p>`);
}

function Experiment({ name }) {
  const state = useLoad((signal) => get(at("experiments", name), {}, signal), [name]);
  const [failure, setFailure] = useState(null);
  const running = state.data?.state === "running";
  useInterval(() => running && state.reload(), EVERY);
  const act = async (work, text) => {
    setFailure(null);
    try {
      await work();
      announce(text);
      return true;
    } catch (error) {
      setFailure(error);
      return false;
    }
  };
  const change = async (what, text) => (await act(() => post(`${at("experiments", name)}/${what}`, {}), text)) && state.reload();
  const adopt = async (winner) => {
    const { model } = state.data.arms.find((arm) => arm.name === winner);
    if (await act(() => post(`${at("experiments", name)}/stop`, {}).then(() => post("/v1/models/activate", { model })), `${winner} answers now`)) state.reload();
  };
  const forget = async () => (await act(() => remove(at("experiments", name)), "Deleted")) && (location.hash = link("experiments"));
  const one = state.data;
  return html`
    <${Head} title=${name} crumbs=${["Experiments", link("experiments")]} actions=${one && html`
      ${one.state === "draft" && html`<button class="button primary" onClick=${() => change("start", "Started")}>Start</button>`}
      ${running && html`<button class="button danger" onClick=${() => change("stop", "Stopped")}>Stop</button>`}
      ${!running && html`<button class="button" onClick=${forget}><${Icon} name="trash" />Delete</button>`}`}>
      ${one && html`<${State} one=${one} /> ${KINDS[one.kind]}, ${since(one)}`}<//>
    <div class="stack">
      ${failure && html`<${Failure} error=${failure} />`}
      <${Loaded} state=${state} children=${() => html`
        ${one.results
          ? html`<${Doubts} one=${one} result=${one.results} /><${Verdict} one=${one} result=${one.results} adopt=${adopt} /><${Figures} one=${one} result=${one.results} />`
          : html`<section class="panel"><${Empty} icon="experiments" title="Nobody takes part yet">Read the plan once more: it cannot be changed after the start.<//></section>`}
        <${Plan} one=${one} />`} />
    </div>`;
}
