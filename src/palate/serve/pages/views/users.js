// Users: all of them, and one with events and list.
import { at, get, remove } from "../api.js";
import { count, html, link, plural, useLoad, useState } from "../lib.js";
import { announce, Dialog, Empty, EventLines, Failure, Head, Icon, Loaded, SearchBox, Tile } from "../parts.js";
import { useEvents } from "../pulse.js";
import { takeBack } from "../session.js";
import { List, useList } from "./list.js";

const PAGE = 50;

/** Pages of a listing: what is shown now, and how to go to the next or the one before. */
export function usePages(path) {
  const [cursors, setCursors] = useState([null]);
  const state = useLoad((signal) => get(path, { limit: PAGE, cursor: cursors.at(-1) }, signal), [cursors.at(-1)]);
  const pager = html`<nav class="row pager" aria-label="Pages">
    <button class="button small" disabled=${cursors.length < 2} onClick=${() => setCursors(cursors.slice(0, -1))}>Back</button>
    <button class="button small" disabled=${!state.data?.next} onClick=${() => setCursors([...cursors, state.data.next])}>Next</button>
    <small class="muted">Page ${cursors.length}</small>
  </nav>`;
  return { state, pager };
}

const texts = (features) => Object.entries(features).filter(([, value]) => value != null && value !== "");

export function Users() {
  const { state, pager } = usePages("/v1/users");
  const [text, setText] = useState("");
  const open = (event) => {
    event.preventDefault();
    if (text.trim()) location.hash = link("users", text.trim());
  };
  return html`
    <${Head} title="Users">Those of the training data, then those that came since. Sessions are left out.<//>
    <div class="stack">
      <form class="row" role="search" onSubmit=${open}><${SearchBox} id="user" label="User id" placeholder="Open a user by id" value=${text} set=${setText} />
        <button class="button" disabled=${!text.trim()}>Open</button></form>
      <section class="panel" aria-label="All users">
        <${Loaded} state=${state} children=${({ users }) => users.length ? html`
          <div class=${"table-scroll" + (state.loading ? " stale" : "")} tabindex="0" role="region" aria-label="Table of users"><table>
            <thead><tr><th>User</th><th class="number">Training</th><th class="number">Live</th><th>Fields</th></tr></thead>
            <tbody>${users.map((user) => html`<tr key=${user.user_id}>
              <td><a href=${link("users", user.user_id)}>${user.user_id}</a> ${!user.in_model && html`<span class="badge good">new</span>`}</td>
              <td class="number">${count(user.training_events)}</td><td class="number">${user.live_events ? count(user.live_events) : "–"}</td>
              <td class="muted">${texts(user.features).map(([name, value]) => `${name} ${value}`).join(" · ") || "–"}</td>
            </tr>`)}</tbody>
          </table></div>` : html`<${Empty} icon="users" title="No users yet" />`} />
        ${pager}
      </section>
    </div>`;
}

export function User({ id }) {
  const [turn, setTurn] = useState(0);
  const [deleting, setDeleting] = useState(false);
  const [failure, setFailure] = useState(null);
  const user = useLoad((signal) => get(at("users", id), {}, signal), [id, turn]);
  const events = useLoad((signal) => get("/v1/events", { user_id: id, limit: 20 }, signal), [id, turn]);
  const list = useList({ user: id, k: 12, turn });
  useEvents((event) => event.user_id === id, () => setTurn((n) => n + 1));
  const undo = async (event) => {
    await takeBack(event.event_id).catch(setFailure);
    announce("Taken back");
    setTurn(turn + 1);
  };
  const drop = async () => {
    try {
      await remove(at("users", id));
      location.hash = link("users");
    } catch (error) {
      setFailure(error);
      setDeleting(false);
    }
  };
  return html`
    <${Head} title=${id} crumbs=${["Users", link("users")]} actions=${html`
      <a class="button" href=${`${link("try")}?${new URLSearchParams({ user: id })}`}><${Icon} name="try" />Try as this user</a>
      <button class="button danger" onClick=${() => setDeleting(true)}><${Icon} name="trash" />Delete</button>`} />
    ${failure && html`<${Failure} error=${failure} />`}
    <div class="side-main">
      <div class="stack">
        <section class="panel" aria-labelledby="about"><h2 id="about">About</h2>
          <${Loaded} state=${user} children=${(data) => html`<dl class="pairs">
            <dt>In the model</dt><dd>${data.in_model ? "yes" : "no: new since training"}</dd>
            <dt>Training</dt><dd>${plural(data.training_events, "event")}</dd>
            <dt>Live</dt><dd>${plural(data.live_events, "event")}</dd>
            ${texts(data.features).map(([name, value]) => html`<dt key=${name}>${name}</dt><dd>${String(value)}</dd>`)}
          </dl>`} />
        </section>
        <section class="panel" aria-labelledby="events"><h2 id="events">Events since training</h2>
          <${Loaded} state=${events} children=${(data) => data.events.length
            ? html`<${EventLines} events=${data.events} undo=${undo} />`
            : html`<p class="muted small">None. Feedback about this user appears here.</p>`} />
        </section>
      </div>
      <section class="stack close" aria-labelledby="list"><h2 id="list">The list now</h2>
        ${list.list?.notes.length > 0 && html`<p class="notice">${list.list.notes.join(" ")}</p>`}
        <${List} state=${list} />
      </section>
    </div>
    ${deleting && html`<${Dialog} title="Delete this user?" close=${() => setDeleting(false)}>
      <p>All events, lists and fields of <strong class="wrap">${id}</strong> go from the store, and answers treat the id as unknown. This cannot be undone.</p>
      <div class="row"><button class="button danger" onClick=${drop}>Delete for good</button></div>
    <//>`}`;
}
