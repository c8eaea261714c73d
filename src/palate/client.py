"""A client of ``palate serve`` (extra ``client``).

    with Client("http://127.0.0.1:8000") as client:
        client.feedback("ann", "tea", "like")
        for row in client.recommend("ann", k=5).rows:
            print(row.item_id, row.title, row.source)

``AsyncClient`` has ``recommend``, ``feedback`` and ``events`` as coroutines. Reads, and feedback with an ``event_id``,
are repeated when the server does not answer or says 503: a repeated ``event_id`` is stored once.
"""

from __future__ import annotations

import asyncio
import secrets
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Self
from urllib.parse import quote

from palate.errors import PalateError

try:
    import httpx
except ModuleNotFoundError:  # pragma: no cover
    raise PalateError("palate.client needs httpx: pip install 'palate[client]'") from None

__all__ = ["AsyncClient", "Client", "Recommendations", "Row", "ServerError"]

History = Sequence[str | int | Mapping[str, Any]]
RETRIES = 3
RETRY_STATUS = (429, 503)


class ServerError(PalateError):
    """The server refused a request.

    Args:
        status: of HTTP.
        detail: the fact and the remedy, as the server says them.
    """

    def __init__(self, status: int, detail: str) -> None:
        super().__init__(f"{detail} (status {status})")
        self.status, self.detail = status, detail


@dataclass(frozen=True)
class Row:
    """A recommended item; fields that the request did not ask for are None."""

    item_id: str
    rank: int
    score: float
    source: str
    title: str | None = None
    rule: str | None = None
    why: str | None = None
    because: tuple[Mapping[str, Any], ...] = ()
    arm: str | None = None


@dataclass(frozen=True)
class Recommendations:
    """A list; ``id`` attributes feedback to it and asks for its next page.

    ``experiment`` and ``arm`` name those of the user; the arms of an interleaved list are those of its rows.
    """

    id: str
    model: str
    rows: tuple[Row, ...]
    notes: tuple[str, ...] = ()
    experiment: str | None = None
    arm: str | None = None

    @classmethod
    def of(cls, document: Mapping[str, Any]) -> Recommendations:
        """From the answer of the server."""
        rows = (Row(**{**row, "because": tuple(row.get("because") or ())}) for row in document["items"])
        name, notes = document["recommendation_id"], tuple(document["notes"])
        return cls(name, document["model"], tuple(rows), notes, document.get("experiment"), document.get("arm"))


@dataclass(frozen=True)
class _Call:
    """One request, apart from the way it is sent."""

    method: str
    path: str
    body: Any = None
    params: Mapping[str, Any] | None = None
    repeat: bool = True

    def arguments(self) -> dict[str, Any]:
        params = {name: value for name, value in (self.params or {}).items() if value is not None}
        return {"json": self.body, "params": params} if self.body is not None else {"params": params}


def _recommend(user: str | int | None, options: Mapping[str, Any]) -> _Call:
    body = {name: value for name, value in {"user_id": user, **options}.items() if value is not None}
    return _Call("POST", "/v1/recommend", body)


def _feedback(user: str | int, item: str | int, kind: str, options: Mapping[str, Any]) -> _Call:
    # An id of our own, so that a request may be repeated after a timeout without storing the event twice.
    event = {"user_id": user, "item_id": item, "type": kind, "event_id": secrets.token_urlsafe(15)}
    given = {name: value for name, value in options.items() if value is not None}
    return _Call("POST", "/v1/feedback", {**event, **given})


def _events(events: Sequence[Mapping[str, Any]]) -> _Call:
    named = [{"event_id": secrets.token_urlsafe(15), **event} for event in events]
    return _Call("POST", "/v1/feedback", {"events": named})


def _undo(event_id: str) -> _Call:
    return _Call("DELETE", _path("feedback", event_id), repeat=False)


def _similar(item: str | int, k: int) -> _Call:
    return _Call("GET", "/v1/similar", params={"item_id": item, "k": k})


def _search(text: str, limit: int) -> _Call:
    return _Call("GET", "/v1/search", params={"q": text, "limit": limit})


def _why_not(user: str | int, item: str | int, k: int) -> _Call:
    return _Call("GET", "/v1/why-not", params={"user_id": user, "item_id": item, "k": k})


def _path(kind: str, name: str | int) -> str:
    return f"/v1/{kind}/{quote(str(name), safe='')}"


def _result(answer: httpx.Response) -> Any:
    if answer.is_success:
        return answer.json() if answer.content else None
    try:
        detail = str(answer.json()["detail"])
    except (ValueError, KeyError, TypeError):
        detail = answer.text[:200] or answer.reason_phrase
    raise ServerError(answer.status_code, detail)


def _wait(answer: httpx.Response | None, turn: int) -> float:
    """Seconds until the next attempt."""
    after = None if answer is None else answer.headers.get("retry-after")
    return min(float(after), 10.0) if after and after.isdigit() else 0.2 * 2**turn


class Client:
    """A connection to a server.

    Args:
        url: of the server.
        key: an API key, where the server asks for one.
        timeout: seconds for an answer.
    """

    def __init__(
        self,
        url: str = "http://127.0.0.1:8000",
        key: str | None = None,
        *,
        timeout: float = 10.0,
    ) -> None:
        headers = {} if key is None else {"Authorization": f"Bearer {key}"}
        self._http = httpx.Client(base_url=url, headers=headers, timeout=timeout)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the connections."""
        self._http.close()

    def recommend(
        self, user: str | int | None = None, k: int | None = None, *, history: History | None = None, **options: Any
    ) -> Recommendations:
        """The best items for a user, or for a history without an account.

        Args:
            user: a user id.
            k: list length.
            history: item ids, or objects with item_id, weight and time; oldest first.
            options: the other fields of the request: exclude, rules, filter, scenario, explain, candidates ...

        Raises:
            ServerError: the server refused it.
        """
        return Recommendations.of(self._send(_recommend(user, {"k": k, "history": history, **options})))

    def more(self, listed: Recommendations, k: int | None = None) -> Recommendations:
        """The next page of a list, without repeats."""
        return Recommendations.of(self._send(_recommend(None, {"recommendation_id": listed.id, "k": k})))

    def feedback(self, user: str | int, item: str | int, type: str, **options: Any) -> None:
        """Store an event; when this returns, it is on the server's disk and in the next list.

        Args:
            user, item: ids.
            type: such as "click", "like", "rating" (with ``value``), "hide".
            options: the other fields: value, time, event_id, recommendation_id, context.

        Raises:
            ServerError: the server refused it.
        """
        self._send(_feedback(user, item, type, options))

    def events(self, events: Sequence[Mapping[str, Any]]) -> int:
        """Store many events; the number of new ones."""
        return int(self._send(_events(events))["stored"])

    def undo(self, event_id: str) -> None:
        """Take an event back."""
        self._send(_undo(event_id))

    def similar(self, item: str | int, k: int = 10) -> list[dict[str, Any]]:
        """The items most similar to an item."""
        return list(self._send(_similar(item, k))["items"])

    def search(self, text: str, limit: int = 20) -> list[dict[str, Any]]:
        """Items by their titles."""
        return list(self._send(_search(text, limit))["items"])

    def why_not(self, user: str | int, item: str | int, k: int = 10) -> dict[str, Any]:
        """Why an item is not listed."""
        return dict(self._send(_why_not(user, item, k)))

    def put_item(self, item: str | int, **fields: Any) -> dict[str, Any]:
        """Make an item, or set all its fields: title, features, hidden, in_stock, expires."""
        return dict(self._send(_Call("PUT", _path("items", item), fields)))

    def change_item(self, item: str | int, **fields: Any) -> dict[str, Any]:
        """Change some fields of an item."""
        return dict(self._send(_Call("PATCH", _path("items", item), fields)))

    def delete_user(self, user: str | int) -> None:
        """Delete a user with all data."""
        self._send(_Call("DELETE", _path("users", user)))

    def create_experiment(
        self, name: str, arms: Mapping[str, str], users: int, *, start: bool = True, **plan: Any
    ) -> dict[str, Any]:
        """Make an experiment of two loaded models, and start it.

        Args:
            name: of the experiment.
            arms: model by name of the arm: a version, or the name of the folder of its bundle.
            users: number of users per arm at which it is decided; of an interleaving, users in all.
            start: whether it answers at once.
            plan: the other fields: kind, metric, rule, effect, hours, types.

        Raises:
            ServerError: the server refused it.
        """
        both = [{"name": arm, "model": model} for arm, model in arms.items()]
        made = self._send(_Call("POST", "/v1/experiments", {"name": name, "arms": both, "users": users, **plan}))
        if start:
            made = self._send(_Call("POST", f"{_path('experiments', name)}/start", repeat=False))
        return dict(made)

    def experiment(self, name: str) -> dict[str, Any]:
        """An experiment with its results so far: figures of the arms, their difference, a sentence."""
        return dict(self._send(_Call("GET", _path("experiments", name))))

    def experiments(self) -> list[dict[str, Any]]:
        """All experiments, the latest first, without results."""
        return list(self._send(_Call("GET", "/v1/experiments"))["experiments"])

    def stop_experiment(self, name: str) -> None:
        """Stop an experiment; the active model answers again."""
        self._send(_Call("POST", f"{_path('experiments', name)}/stop", repeat=False))

    def load_model(self, name: str) -> str:
        """Load a bundle of the server's folder of models by its name; its version."""
        return str(self._send(_Call("POST", "/v1/models/load", {"model": name}))["version"])

    def activate_model(self, version: str) -> None:
        """Let a loaded bundle answer, by its version or the name of its folder."""
        self._send(_Call("POST", "/v1/models/activate", {"model": version}))

    def roll_back(self) -> str:
        """Let the bundle that answered before answer again; its version."""
        return str(self._send(_Call("POST", "/v1/models/rollback", repeat=False))["version"])

    def _send(self, call: _Call) -> Any:
        for turn in range(RETRIES + 1):
            last, answer = turn == RETRIES or not call.repeat, None
            try:
                answer = self._http.request(call.method, call.path, **call.arguments())
            except httpx.TransportError:
                if last:
                    raise
            if answer is not None and (last or answer.status_code not in RETRY_STATUS):
                return _result(answer)
            time.sleep(_wait(answer, turn))
        return None


class AsyncClient:
    """``Client`` with coroutines: the calls of a program that serves many users at once.

    Args:
        url: of the server.
        key: an API key, where the server asks for one.
        timeout: seconds for an answer.
    """

    def __init__(self, url: str = "http://127.0.0.1:8000", key: str | None = None, *, timeout: float = 10.0) -> None:
        headers = {} if key is None else {"Authorization": f"Bearer {key}"}
        self._http = httpx.AsyncClient(base_url=url, headers=headers, timeout=timeout)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._http.aclose()

    async def recommend(
        self, user: str | int | None = None, k: int | None = None, *, history: History | None = None, **options: Any
    ) -> Recommendations:
        """The best items for a user, or for a history without an account."""
        return Recommendations.of(await self._send(_recommend(user, {"k": k, "history": history, **options})))

    async def feedback(self, user: str | int, item: str | int, type: str, **options: Any) -> None:
        """Store an event."""
        await self._send(_feedback(user, item, type, options))

    async def events(self, events: Sequence[Mapping[str, Any]]) -> int:
        """Store many events; the number of new ones."""
        return int((await self._send(_events(events)))["stored"])

    async def more(self, listed: Recommendations, k: int | None = None) -> Recommendations:
        """The next page of a list, without repeats."""
        return Recommendations.of(await self._send(_recommend(None, {"recommendation_id": listed.id, "k": k})))

    async def undo(self, event_id: str) -> None:
        """Take an event back."""
        await self._send(_undo(event_id))

    async def similar(self, item: str | int, k: int = 10) -> list[dict[str, Any]]:
        """The items most similar to an item."""
        return list((await self._send(_similar(item, k)))["items"])

    async def search(self, text: str, limit: int = 20) -> list[dict[str, Any]]:
        """Items by their titles."""
        return list((await self._send(_search(text, limit)))["items"])

    async def why_not(self, user: str | int, item: str | int, k: int = 10) -> dict[str, Any]:
        """Why an item is not listed."""
        return dict(await self._send(_why_not(user, item, k)))

    async def put_item(self, item: str | int, **fields: Any) -> dict[str, Any]:
        """Make an item, or set all its fields: title, features, hidden, in_stock, expires."""
        return dict(await self._send(_Call("PUT", _path("items", item), fields)))

    async def change_item(self, item: str | int, **fields: Any) -> dict[str, Any]:
        """Change some fields of an item."""
        return dict(await self._send(_Call("PATCH", _path("items", item), fields)))

    async def delete_user(self, user: str | int) -> None:
        """Delete a user with all data."""
        await self._send(_Call("DELETE", _path("users", user)))

    async def _send(self, call: _Call) -> Any:
        for turn in range(RETRIES + 1):
            last, answer = turn == RETRIES or not call.repeat, None
            try:
                answer = await self._http.request(call.method, call.path, **call.arguments())
            except httpx.TransportError:
                if last:
                    raise
            if answer is not None and (last or answer.status_code not in RETRY_STATUS):
                return _result(answer)
            await asyncio.sleep(_wait(answer, turn))
        return None
