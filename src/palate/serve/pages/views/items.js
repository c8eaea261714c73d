// Items: search and table, and one item with neighbors, events and a form.
import { at, forgetItem, get, itemsById, patch } from "../api.js";
import { count, html, link, plural, useLoad, useSettled, useState } from "../lib.js";
import { announce, Empty, EventLines, Failure, Head, Loaded, meta, SearchBox, Tile } from "../parts.js";
import { useEvents } from "../pulse.js";
import { usePages } from "./users.js";

function State({ item }) {
  if (item.hidden) return html`<span class="badge bad">hidden</span>`;
  if (!item.in_stock) return html`<span class="badge warn">not in stock</span>`;
  if (!item.listed) return html`<span class="badge warn">expired</span>`;
  return html`<span class="badge good">listed</span>`;
}

const Table = ({ items, stale }) => html`<div class=${"table-scroll" + (stale ? " stale" : "")} tabindex="0" role="region" aria-label="Table of items"><table>
  <thead><tr><th>Item</th><th class="no-phone">Fields</th><th class="number">Events</th><th>State</th></tr></thead>
  <tbody>${items.map((item) => html`<tr key=${item.item_id}>
    <td><a href=${link("items", item.item_id)}>${item.title ?? item.item_id}</a> ${!item.in_model && html`<span class="badge good">new</span>`}</td>
    <td class="muted no-phone">${meta(item) || "–"}</td><td class="number">${count(item.events)}</td><td><${State} item=${item} /></td>
  </tr>`)}</tbody>
</table></div>`;

export function Items() {
  const { state, pager } = usePages("/v1/items");
  const [text, setText] = useState("");
  const settled = useSettled(text.trim());
  const found = useLoad(async (signal) => {
    if (!settled) return null;
    const { items } = await get("/v1/search", { q: settled, limit: 50 }, signal);
    const ids = items.map((row) => row.item_id);
    const known = await itemsById(ids, signal);
    announce(plural(ids.length, "item") + " found");
    return ids.map((id) => known.get(id)).filter(Boolean);
  }, [settled]);
  return html`
    <${Head} title="Items">The catalog of the model with all changes since. A hidden item is in no list.<//>
    <div class="stack">
      <${SearchBox} id="items" label="Search titles" value=${text} set=${setText} />
      <section class="panel" aria-label="All items">
        ${settled ? html`<${Loaded} state=${found} children=${(items) => items.length
            ? html`<${Table} items=${items} stale=${found.loading} />`
            : html`<${Empty} icon="search" title="No title matches">Words are matched from their beginning.<//>`} />`
          : html`<${Loaded} state=${state} children=${({ items }) => html`<${Table} items=${items} stale=${state.loading} />`} />${pager}`}
      </section>
    </div>`;
}

const day = (seconds) => (seconds == null ? "" : new Date(seconds * 1000).toISOString().slice(0, 10));

// A field of the catalog as text, and back in the type that it has.
const asText = (value) => (Array.isArray(value) ? value.join(", ") : value == null ? "" : String(value));
const asValue = (text, old) => {
  if (Array.isArray(old)) return text.split(",").map((one) => one.trim()).filter(Boolean).map((one) => (typeof old[0] === "number" ? Number(one) : one));
  if (text.trim() === "") return null;
  return typeof old === "number" ? Number(text) : text;
};

/** The fields that can be changed while serving. */
function Form({ item, saved }) {
  const [title, setTitle] = useState(item.title ?? "");
  const [stock, setStock] = useState(item.in_stock);
  const [expires, setExpires] = useState(day(item.expires));
  const own = Object.entries(item.features).filter(([name]) => name !== "title");
  const [fields, setFields] = useState(() => Object.fromEntries(own.map(([name, value]) => [name, typeof value === "boolean" ? value : asText(value)])));
  const [failure, setFailure] = useState(null);
  const [done, setDone] = useState(false);
  const save = async (event) => {
    event.preventDefault();
    setFailure(null);
    const change = { in_stock: stock, expires: expires ? Date.parse(expires) / 1000 : null };
    if (title !== (item.title ?? "")) change.title = title;
    const changed = own.filter(([name, value]) => fields[name] !== (typeof value === "boolean" ? value : asText(value)));
    if (changed.length) change.features = Object.fromEntries(changed.map(([name, value]) => [name, typeof value === "boolean" ? fields[name] : asValue(fields[name], value)]));
    try {
      saved(await patch(at("items", item.item_id), change));
      setDone(true);
      announce("Saved");
    } catch (error) {
      setFailure(error);
    }
  };
  return html`<form class="stack close" onSubmit=${save} onInput=${() => setDone(false)}>
    <label class="field"><span>Title</span><input class="input" maxlength="1000" value=${title} onInput=${(event) => setTitle(event.target.value)} /></label>
    <label class="field"><span>Last day</span><input class="input" type="date" value=${expires} onInput=${(event) => setExpires(event.target.value)} />
      <small>In no list from this day on. Empty: no end.</small></label>
    <label class="switch"><input type="checkbox" checked=${stock} onChange=${() => setStock(!stock)} />In stock</label>
    ${own.map(([name, value]) => typeof value === "boolean"
      ? html`<label class="switch" key=${name}><input type="checkbox" checked=${fields[name]} onChange=${() => setFields({ ...fields, [name]: !fields[name] })} />${name}</label>`
      : html`<label class="field" key=${name}><span>${name}</span><input class="input" type=${typeof value === "number" ? "number" : "text"} step="any" value=${fields[name]}
          onInput=${(event) => setFields({ ...fields, [name]: event.target.value })} />${Array.isArray(value) && html`<small>Separated by commas.</small>`}</label>`)}
    ${failure && html`<${Failure} error=${failure} />`}
    <div class="row"><button class="button primary">Save</button>${done && html`<span class="badge good">saved</span>`}</div>
  </form>`;
}

export function Item({ id }) {
  const [turn, setTurn] = useState(0);
  const [failure, setFailure] = useState(null);
  const item = useLoad((signal) => get(at("items", id), {}, signal), [id, turn]);
  const similar = useLoad(async (signal) => {
    const { items } = await get("/v1/similar", { item_id: id, k: 8 }, signal).catch((error) => {
      if (error.status === 404) return { items: [] }; // not in the model: a new item has no neighbors
      throw error;
    });
    const known = await itemsById(items.map((row) => row.item_id), signal);
    return items.map((row) => ({ ...row, item: known.get(row.item_id) }));
  }, [id, turn]);
  const events = useLoad((signal) => get("/v1/events", { item_id: id, limit: 12 }, signal), [id]);
  useEvents((event) => event.item_id === id, () => {
    events.reload();
    item.reload();
  });
  const saved = () => {
    forgetItem(id);
    setTurn((n) => n + 1);
  };
  const hide = async (hidden) => {
    try {
      await patch(at("items", id), { hidden });
      announce(hidden ? "Hidden: no list holds it" : "Listed again");
      saved();
    } catch (error) {
      setFailure(error);
    }
  };
  const data = item.data;
  return html`
    <${Head} title=${data?.title ?? id} crumbs=${["Items", link("items")]}
      actions=${data && html`<button class=${"button " + (data.hidden ? "primary" : "danger")} onClick=${() => hide(!data.hidden)}>${data.hidden ? "List it again" : "Hide everywhere"}</button>`} />
    ${failure && html`<${Failure} error=${failure} />`}
    <${Loaded} state=${item} children=${(data) => html`<div class="side-main">
      <div class="stack">
        <section class="panel" aria-labelledby="about"><h2 id="about">About</h2>
          <div class="stack close">
            <${Tile} item=${data} size="large" />
            <div class="row"><${State} item=${data} />${!data.in_model && html`<span class="badge warn">not in the model</span>`}</div>
            <dl class="pairs"><dt>Id</dt><dd>${data.item_id}</dd><dt>Events</dt><dd>${count(data.events)}</dd>
              ${Object.entries(data.features).filter(([name, value]) => name !== "title" && value != null).map(([name, value]) => html`<dt key=${name}>${name}</dt><dd>${Array.isArray(value) ? value.join(", ") : String(value)}</dd>`)}</dl>
          </div>
        </section>
        <section class="panel" aria-labelledby="edit"><h2 id="edit">Change</h2><${Form} key=${id} item=${data} saved=${saved} /></section>
      </div>
      <div class="stack">
        <section class="panel" aria-labelledby="similar"><h2 id="similar">Most similar</h2>
          <${Loaded} state=${similar} children=${(rows) => rows.length
            ? html`<ol class="lines">${rows.map((row) => html`<li key=${row.item_id}><${Tile} item=${row.item} title=${row.title} />
                <span class="grow"><a class="title" href=${link("items", row.item_id)}>${row.title ?? row.item_id}</a><small class="muted">${meta(row.item, 2)}</small></span>
                <span class="muted number small">${row.score.toFixed(3)}</span></li>`)}</ol>`
            : html`<p class="muted small">The model knows no neighbors of this item.</p>`} />
        </section>
        <section class="panel" aria-labelledby="events"><h2 id="events">Events since training</h2>
          <${Loaded} state=${events} children=${(data) => data.events.length
            ? html`<${EventLines} events=${data.events} showUser />`
            : html`<p class="muted small">Nobody has said anything about this item yet.</p>`} />
        </section>
      </div>
    </div>`} />`;
}
