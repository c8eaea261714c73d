// Who the visitor of "Try it" is, and what that person says.
import { post, remove } from "./api.js";

const USER = "palate.user";

const newName = () => "visitor-" + [...crypto.getRandomValues(new Uint8Array(4))].map((n) => n.toString(16).padStart(2, "0")).join("");

export function currentUser() {
  const saved = localStorage.getItem(USER);
  return saved ?? chooseUser(newName());
}

export function chooseUser(id) {
  localStorage.setItem(USER, id);
  return id;
}

export const startNew = () => chooseUser(newName());

export const isVisitor = (id) => id.startsWith("visitor-");

/** Store an event; the id by which it can be taken back. */
export async function say(user_id, item_id, type, recommendation_id) {
  const event = { user_id, item_id, type };
  if (recommendation_id) event.recommendation_id = recommendation_id;
  return (await post("/v1/feedback", event)).event_ids[0];
}

export const takeBack = (event_id) => remove(`/v1/feedback/${encodeURIComponent(event_id)}`);
