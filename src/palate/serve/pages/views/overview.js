// Overview: what the server does now.
import { get } from "../api.js";
import { Shares, TimePlot } from "../charts.js";
import { count, duration, html, link, milliseconds, percent, plural, useEffect, useInterval, useLoad, useState } from "../lib.js";
import { Bones, Empty, EventLines, Failure, Head, Loaded, Tile } from "../parts.js";
import { follow, pulse } from "../pulse.js";

const rate = (value) => `${value < 10 ? value.toFixed(1) : Math.round(value)}/s`;

export function Overview() {
  const [, setTurn] = useState(0);
  useEffect(() => follow(() => setTurn((n) => n + 1)), []);
  const { stats: latest, history, events: fresh, changes, live, failure } = pulse();
  const enough = history?.time.length > 1;
  const waiting = html`<div class="empty tall"><p>${latest ? "The first points come with the first requests." : ""}</p></div>`;
  // Those of the stream come before those that were there; after an undo, or a break of the stream, all are loaded again.
  const events = useLoad((signal) => get("/v1/events", { limit: 8 }, signal), [changes]);
  const newest = (loaded) => {
    const seen = new Set();
    return [...(live ? fresh : []), ...loaded].filter(({ seq }) => !seen.has(seq) && seen.add(seq)).sort((a, b) => b.seq - a.seq).slice(0, 8);
  };
  const popular = useLoad((signal) => get("/v1/recent", { k: 8 }, signal), []);
  const exposure = useLoad((signal) => get("/v1/stats/exposure", { limit: 5 }, signal), []);
  useInterval(() => {
    popular.reload();
    exposure.reload();
  }, 15000);
  return html`
    <${Head} title="Overview">What the server does now. Figures and events arrive as they happen.<//>
    <div class="stack">
      ${failure && html`<${Failure} error=${failure} />`}
      ${latest && !latest.store.available && html`<p class="notice bad" role="alert"><strong>The store does not answer.</strong> Lists are answered from memory; feedback is refused until it is back.</p>`}
      ${latest ? html`<dl class="facts">
        <div class="fact"><dt>Requests</dt><dd>${count(latest.requests)}<small>${count(latest.requests_last_minute)} in the last minute</small></dd></div>
        <div class="fact"><dt>Latency, median</dt><dd>${milliseconds(latest.p50_ms)}<small>99 %: ${milliseconds(latest.p99_ms)}</small></dd></div>
        <div class="fact"><dt>Errors</dt><dd>${count(latest.errors)}<small>answers of 5xx</small></dd></div>
        <div class="fact"><dt>Events stored</dt><dd>${count(latest.events_stored)}<small>since the start</small></dd></div>
        <div class="fact"><dt>Live users</dt><dd>${count(latest.live_users)}<small>with ${plural(latest.live_events, "event")} since training</small></dd></div>
        <div class="fact"><dt>Running for</dt><dd>${duration(latest.uptime_seconds)}<small>${latest.store.kind}, last commit ${milliseconds(latest.store.last_commit_ms)}</small></dd></div>
      </dl>` : !failure && html`<${Bones} lines=${3} />`}
      <div class="two">
        <section class="panel" aria-labelledby="latency"><h2 id="latency">Latency</h2>
          ${enough ? html`<${TimePlot} title="Latency" times=${history.time} format=${milliseconds}
            series=${[{ label: "median", values: history.p50_ms }, { label: "99 %", values: history.p99_ms }]} />` : waiting}
        </section>
        <section class="panel" aria-labelledby="traffic"><h2 id="traffic">Requests and events</h2>
          ${enough ? html`<${TimePlot} title="Requests and events a second" times=${history.time} format=${rate}
            series=${[{ label: "requests", values: history.requests_per_second }, { label: "events", values: history.events_per_second }]} />` : waiting}
        </section>
      </div>
      <div class="two">
        <section class="panel" aria-labelledby="events"><h2 id="events">Latest events</h2>
          <${Loaded} state=${events} children=${(data) => newest(data.events).length
            ? html`<${EventLines} events=${newest(data.events)} showUser />`
            : html`<${Empty} title="No events yet">Feedback appears here as it arrives. <a href=${link("try")}>Try it.</a><//>`} />
        </section>
        <section class="panel" aria-labelledby="now"><h2 id="now">Popular now</h2>
          <${Loaded} state=${popular} children=${(data) => data.items.length
            ? html`<ol class="lines">${data.items.map((row) => html`<li key=${row.item_id}>
                <span class="muted number">${row.rank}</span><${Tile} title=${row.title ?? row.item_id} />
                <span class="grow"><a class="title" href=${link("items", row.item_id)}>${row.title ?? row.item_id}</a></span></li>`)}</ol>`
            : html`<${Empty} title="Nothing is known about times">The training events have no times, and no event has come since.<//>`} />
        </section>
      </div>
      <section class="panel" aria-labelledby="exposure"><h2 id="exposure">Exposure</h2>
        <${Loaded} state=${exposure} children=${(data) => data.places
          ? html`<${Shares} label="Share of the places in lists" rows=${data.top.map((one) => ({ name: `top ${percent(one.items)} of items`, share: one.share }))} />
              <p class="muted small">${plural(data.lists, "list")} since the start had ${plural(data.places, "place")} and showed ${count(data.items_shown)} of ${plural(data.items, "item")}.
                ${data.most_shown.length > 0 && html` Most often: ${data.most_shown.map((row, n) => html`${n ? ", " : ""}<a key=${row.item_id} href=${link("items", row.item_id)}>${row.title ?? row.item_id}</a> (${percent(row.share)})`)}.`}</p>`
          : html`<${Empty} title="No lists yet">The share of the places that the most shown items take appears here.<//>`} />
      </section>
    </div>`;
}
