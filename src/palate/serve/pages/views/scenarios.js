// Scenarios: named options of requests, the types of events, and a preview of rules.
import { get, itemsById, post } from "../api.js";
import { html, useLoad, useState } from "../lib.js";
import { Empty, Failure, Head, Loaded, meta, Source, Tile } from "../parts.js";
import { currentUser } from "../session.js";

const EXAMPLE = '{"caps": {"FIELD": 2}}';

/** Two lists for one user: by score alone, and under a scenario and rules. */
function Preview({ names, field }) {
  const [user, setUser] = useState(currentUser);
  const [scenario, setScenario] = useState(names[0] ?? "");
  const [rules, setRules] = useState(field ? EXAMPLE.replace("FIELD", field) : "");
  const [failure, setFailure] = useState(null);
  const [lists, setLists] = useState(null);
  const run = async (event) => {
    event.preventDefault();
    setFailure(null);
    try {
      const asked = { user_id: user, k: 10 };
      let parsed;
      try {
        parsed = rules.trim() ? JSON.parse(rules) : undefined;
      } catch (error) {
        throw new Error(`The rules are not JSON: ${error.message}.`);
      }
      const both = await Promise.all([post("/v1/recommend", asked), post("/v1/recommend", { ...asked, scenario: scenario || undefined, rules: parsed })]);
      const items = await itemsById(both.flatMap((list) => list.items.map((row) => row.item_id)));
      setLists({ both, items });
    } catch (error) {
      setFailure(error);
    }
  };
  const one = (list, title) => html`<div><h3>${title}</h3><ol class="lines">${list.items.map((row) => html`<li key=${row.item_id}>
    <span class="muted number">${row.rank}</span><${Tile} item=${lists.items.get(row.item_id)} title=${row.title} />
    <span class="grow"><span class="title">${row.title ?? row.item_id}</span><small class="muted">${row.rule || meta(lists.items.get(row.item_id), 2)}</small></span>
    <${Source} name=${row.source} /></li>`)}</ol></div>`;
  return html`<section class="panel" aria-labelledby="preview"><h2 id="preview">Preview</h2>
    <form class="stack close" onSubmit=${run}>
      <div class="row">
        <label class="field"><span>User id</span><input class="input" required value=${user} onInput=${(event) => setUser(event.target.value)} /></label>
        <label class="field"><span>Scenario</span><select class="select" value=${scenario} onChange=${(event) => setScenario(event.target.value)}>
          <option value="">none</option>${names.map((name) => html`<option key=${name}>${name}</option>`)}</select></label>
      </div>
      <label class="field"><span>Rules, as JSON, on top of the scenario</span>
        <textarea class="input code" spellcheck="false" value=${rules} onInput=${(event) => setRules(event.target.value)}></textarea></label>
      <div class="row"><button class="button primary">Show the list</button></div>
    </form>
    ${failure && html`<${Failure} error=${failure} />`}
    ${lists && html`<div class="two preview">${one(lists.both[0], "By score alone")}${one(lists.both[1], "Under the rules")}</div>`}
  </section>`;
}

const yes = (value) => (value ? "yes" : "–");

export function Scenarios() {
  const state = useLoad(async (signal) => {
    const [scenarios, models] = await Promise.all([get("/v1/scenarios", {}, signal), get("/v1/models", {}, signal)]);
    const active = models.models.find((one) => one.active);
    return { ...scenarios, field: active?.item_fields.find((name) => /categor|genre|kind|brand|type/.test(name)) };
  }, []);
  return html`
    <${Head} title="Scenarios">Named options that a request asks for, such as “home” or “cart”. They are part of the settings of the server.<//>
    <${Loaded} state=${state} children=${({ scenarios, events, field }) => html`<div class="stack">
      ${Object.keys(scenarios).length
        ? html`<div class="two">${Object.entries(scenarios).map(([name, one]) => html`<section class="panel" key=${name} aria-label=${name}>
            <h2>${name}</h2>
            <dl class="pairs"><dt>List length</dt><dd>${one.k}</dd><dt>Seen items</dt><dd>${one.exclude_seen ? "left out" : "may be listed again"}</dd>
              ${one.explore != null && html`<dt>Exploring</dt><dd>${Math.round(100 * one.explore)} % of the places</dd>`}
              <dt>Rules</dt><dd>${Object.keys(one.rules).length ? html`<pre class="code" tabindex="0">${JSON.stringify(one.rules, null, 2)}</pre>` : "none"}</dd></dl>
          </section>`)}</div>`
        : html`<section class="panel"><${Empty} icon="scenarios" title="No scenarios yet">Add a table <code>[scenarios.home]</code> to the settings and start the server with <code>--config</code>.<//></section>`}
      <${Preview} names=${Object.keys(scenarios)} field=${field} />
      <section class="panel" aria-labelledby="types"><h2 id="types">Types of events</h2>
        <div class="table-scroll" tabindex="0" role="region" aria-label="Table of event types"><table>
          <thead><tr><th>Type</th><th class="number">Weight</th><th>Counts as popular</th><th>Marks as seen</th><th>Hides</th><th>Lifetime</th></tr></thead>
          <tbody>${Object.entries(events).map(([name, one]) => html`<tr key=${name}><td>${name}</td><td class="number">${one.rated ? "value" : one.weight}</td>
            <td>${yes(one.positive)}</td><td>${yes(one.seen)}</td><td>${yes(one.hides)}</td><td>${one.lifetime_days == null ? "for ever" : `${one.lifetime_days} d`}</td></tr>`)}</tbody>
        </table></div>
      </section>
    </div>`} />`;
}
