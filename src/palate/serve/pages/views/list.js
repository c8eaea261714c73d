// A list of recommendations that tells what changed since the last one.
import { get, itemsById } from "../api.js";
import { html, link, useEffect, useRef, useState } from "../lib.js";
import { CardBones, Empty, Failure, Icon, meta, Reasons, Source, Tile } from "../parts.js";

/**
 * The list of a user, loaded again whenever an input or `turn` changes.
 * @param {{user: string, k: number, scenario?: string, filter?: string, model?: string, turn: number}} asked
 */
export function useList({ user, k = 12, scenario, filter, model, turn }) {
  const [state, setState] = useState({ list: null, items: new Map(), moves: new Map(), error: null, loading: true });
  const before = useRef({ who: null, ranks: new Map() });
  const query = { user_id: user, k, scenario, filter, model, explain: true };
  const who = JSON.stringify(query);
  const [again, setAgain] = useState(0);

  useEffect(() => {
    const abort = new AbortController();
    setState((old) => ({ ...old, loading: true }));
    get("/v1/recommend", query, abort.signal)
      .then(async (list) => {
        const items = await itemsById(list.items.map((row) => row.item_id), abort.signal).catch(() => new Map());
        if (abort.signal.aborted) return;
        const old = before.current;
        const moves = new Map();
        // Movements are only of interest within one list, not between users or scenarios.
        if (old.who === who) {
          for (const row of list.items) {
            const rank = old.ranks.get(row.item_id);
            moves.set(row.item_id, rank === undefined ? "new" : rank - row.rank);
          }
        }
        before.current = { who, ranks: new Map(list.items.map((row) => [row.item_id, row.rank])) };
        setState({ list, items, moves, error: null, loading: false });
      })
      .catch((error) => abort.signal.aborted || setState((old) => ({ ...old, error, loading: false })));
    return () => abort.abort();
  }, [who, turn, again]);

  const more = async () => {
    const next = await get("/v1/recommend", { recommendation_id: state.list.recommendation_id, k, explain: true });
    const items = await itemsById(next.items.map((row) => row.item_id));
    for (const row of next.items) before.current.ranks.set(row.item_id, row.rank);
    setState((old) => ({
      ...old,
      list: { ...old.list, items: [...old.list.items, ...next.items], end: !next.items.length },
      items: new Map([...old.items, ...items]),
    }));
    return next.items.length;
  };
  return { ...state, more, reload: () => setAgain((n) => n + 1) };
}

function Moved({ move }) {
  if (move === undefined || move === 0) return null;
  if (move === "new") return html`<span class="moved new">new</span>`;
  return html`<span class=${"moved " + (move > 0 ? "up" : "down")}>${move > 0 ? "↑" : "↓"} ${Math.abs(move)}<span class="hidden-text">${move > 0 ? " places up" : " places down"}</span></span>`;
}

export function Card({ row, item, move, leaving, act, note }) {
  const title = row.title ?? item?.title ?? row.item_id;
  const about = meta(item);
  return html`<li class=${"card" + (leaving ? " leaving" : "") + (move === "new" ? " fresh" : "")} data-item=${row.item_id}>
    <${Tile} item=${item} title=${title} size="wide" />
    <span class="rank"><span class="hidden-text">Rank </span>${row.rank}<${Moved} move=${move} /></span>
    <div class="card-body">
      <h3><a href=${link("items", row.item_id)}>${title}</a></h3>
      ${about && html`<p class="meta">${about}</p>`}
      <div class="row tight"><${Source} name=${row.source} />${note && html`<span class="badge plain">${note}</span>`}</div>
      ${row.rule && html`<p class="why">${row.rule}</p>`}
      ${row.because?.length ? html`<${Reasons} because=${row.because} />` : null}
      ${act && html`<div class="actions">
        <button class="button small like" aria-label=${`Like ${title}`} disabled=${leaving} onClick=${() => act(row, "like")}><${Icon} name="like" />Like</button>
        <button class="button small icon hide" aria-label=${`Not for me: ${title}`} title="Not for me" disabled=${leaving} onClick=${() => act(row, "dislike")}><${Icon} name="dislike" /></button>
        <button class="button small icon hide" aria-label=${`Hide ${title}`} title="Hide" disabled=${leaving} onClick=${() => act(row, "hide")}><${Icon} name="hide" /></button>
      </div>`}
    </div>
  </li>`;
}

/** The cards of a list. `act(row, type)` is called for a click; `leaving` are items that were just acted on. */
export function List({ state, act, leaving = new Set(), narrow = false, shared, label = "Recommendations" }) {
  const [busy, setBusy] = useState(false);
  if (state.error && !state.list) return html`<${Failure} error=${state.error} retry=${state.reload} />`;
  if (!state.list) return html`<${CardBones} narrow=${narrow} cards=${narrow ? 4 : 6} />`;
  const { list, items, moves } = state;
  if (!list.items.length) {
    return html`<${Empty} title="Nothing to recommend">No item is left under these conditions. Choose another filter or take something back.<//>`;
  }
  const more = async () => {
    setBusy(true);
    await state.more().finally(() => setBusy(false));
  };
  return html`
    ${state.error && html`<${Failure} error=${state.error} retry=${state.reload} />`}
    <ol class=${"cards" + (narrow ? " narrow" : "")} aria-label=${label} aria-busy=${state.loading}>
      ${list.items.map((row) => html`<${Card} key=${row.item_id} row=${row} item=${items.get(row.item_id)} move=${moves.get(row.item_id)}
        leaving=${leaving.has(row.item_id)} act=${act} note=${shared?.has(row.item_id) ? "in both" : null} />`)}
    </ol>
    ${!list.end && html`<div class="row"><button class="button" disabled=${busy} onClick=${more}>Show more</button></div>`}
  `;
}
