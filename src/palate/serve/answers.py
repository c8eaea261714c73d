"""Recommendations as they are answered: a request in, a document out, through the integer door of the library.

For the same state the rows equal those of ``Recommender.recommend`` with ``refold=True``, the live events as history
and the hidden items excluded.

Shape legend: I items, S items that are left out.
"""

from __future__ import annotations

import asyncio
import math
import random
import time
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import numpy as np
import orjson
import polars as pl
from numpy.typing import NDArray

from palate.data.dataset import History
from palate.recommend import request, top_n
from palate.recommend.top_n import SOURCES, Answer, RecommendOptions
from palate.rules import CompiledRules, Rules
from palate.rules.rerank import traces
from palate.serve import tracing
from palate.serve.batcher import EMPTY, Ask, Batcher
from palate.serve.deployment import Deployment
from palate.serve.experiments import Experiments, Trial, team_draft
from palate.serve.exposure import Exposure
from palate.serve.impressions import ImpressionLog
from palate.serve.items import Items
from palate.serve.live import Live, View
from palate.serve.problems import Problem
from palate.serve.schemas import HistoryEvent, RecommendRequest
from palate.serve.settings import Scenario, Settings
from palate.serve.store import Store
from palate.serve.tokens import token

SESSION = "$session:"
PAGES = 100_000  # lists that may be continued, at most
REASONS = 3
PLAIN = Scenario()


class Page(NamedTuple):
    """A list that may be continued: its request, versions, rows in the catalog of each, number of rows, time, trial."""

    asked: RecommendRequest
    versions: tuple[str, ...]
    listed: tuple[NDArray[np.int64], ...]
    length: int
    made: float
    trial: Trial | None


class Made(NamedTuple):
    """The list of one deployment."""

    deployment: Deployment
    ask: Ask
    answer: Answer
    rows: list[dict[str, Any]]
    notes: list[str]


@dataclass(eq=False)
class Answers:
    """All that an answer reads. ``deployment`` and ``items`` are replaced together when another bundle is activated."""

    settings: Settings
    deployment: Deployment
    items: Items
    live: Live
    store: Store

    def __post_init__(self) -> None:
        self.batcher = Batcher()
        self.pages: OrderedDict[str, Page] = OrderedDict()
        self.features: dict[str, Mapping[str, Any]] = {}  # of users, since training
        self.scenario_rules = {
            name: Rules.of(one.rules) if one.rules else None for name, one in self.settings.scenarios.items()
        }
        self.exposure = Exposure()
        self.impressions = ImpressionLog(self.store, self.settings.impressions)
        self.loaded: Mapping[str, Deployment] = {self.deployment.version: self.deployment}
        self.experiments = Experiments()
        self._catalogs: dict[str, tuple[Items, int, Items]] = {}

    def pick(self, version: str | None) -> tuple[Deployment, Items]:
        """The deployment that is asked for and its catalog; without a version those that answer.

        Raises:
            Problem: no loaded bundle has this version.
        """
        if version is None or version == self.deployment.version:
            return self.deployment, self.items
        other = self.loaded.get(version)
        if other is None:
            raise Problem(404, f"no loaded model {version[:100]!r}: see GET /v1/models")
        # The catalog of a bundle that does not answer is made again only after a change of an item.
        known = self._catalogs.get(version)
        if (
            known is None
            or known[0] is not self.items
            or known[1] != self.items.edits
            or known[2].deployment is not other
        ):
            known = self._catalogs[version] = self.items, self.items.edits, Items(other, self.items.changes.values())
        return other, known[2]

    async def recommend(self, asked: RecommendRequest, request_id: str) -> bytes:
        """The document of a list.

        Raises:
            Problem: the request does not fit the catalog or the limits.
            PalateError: likewise, as the library says it.
        """
        page, name = None, asked.recommendation_id
        if name is not None:
            page = self._page(name)
            asked = page.asked.model_copy(update={"k": asked.k or page.asked.k, "explain": asked.explain})
        user = self.who(asked)
        trial = page.trial if page is not None else self.experiments.join(asked, user, self.loaded)
        first, name = 0 if page is None else page.length, name or token()
        if trial is None or trial.arm is not None:
            lists = [await self._made(asked, asked.model if trial is None else trial.models[0], page, 0)]
            rows = lists[0].rows
        else:
            both = (self._made(asked, model, page, place) for place, model in enumerate(trial.models))
            lists = await asyncio.gather(*both)
            rows = _drafted(lists, trial)
        for rank, row in enumerate(rows, first + 1):
            row["rank"] = rank
        versions = tuple(one.deployment.version for one in lists)
        listed = _listed(lists, rows, page)
        self.pages[name] = Page(asked, versions, listed, first + len(rows), time.time(), trial)
        self.pages.move_to_end(name)
        if len(self.pages) > PAGES:
            self.pages.popitem(last=False)
        self.exposure.add(rows)
        one_answer = lists[0].answer if len(lists) == 1 else None
        self.impressions.add(name, first, user, " + ".join(versions), asked.scenario, rows, one_answer, trial)
        notes = list(dict.fromkeys(note for one in lists for note in one.notes))
        ask = lists[0].ask
        if user is not None and ask.row < 0 and ask.given is None and not lists[0].answer.personal.any():
            notes.append(f"user {user!r} has no events here: {rows[0]['source'] if rows else 'popular'} items")
        return orjson.dumps(
            {
                "recommendation_id": name,
                "request_id": request_id,
                "model": " + ".join(versions),
                "user_id": user,
                "scenario": asked.scenario,
                "experiment": None if trial is None else trial.experiment,
                "arm": None if trial is None else trial.arm,
                "items": rows,
                "notes": notes,
            }
        )

    async def _made(self, asked: RecommendRequest, version: str | None, page: Page | None, place: int) -> Made:
        """The list of one version; ``place`` is its own among the versions of a list that is continued."""
        deployment, items = self.pick(version)
        if page is not None and page.versions[place] != deployment.version:
            raise Problem(410, f"the list was made by {page.versions[place]}, which is replaced: ask for a new list")
        items.expire()
        with tracing.span("validate"):
            ask, notes = self.ask(deployment, asked, None if page is None else page.listed[place])
        with tracing.span("score"):
            answer = await self.batcher.ask(ask)
        rows = self._rows(items, answer)
        if asked.explain:
            self._explain(deployment, ask, answer, rows)
        return Made(deployment, ask, answer, rows, notes)

    def who(self, asked: RecommendRequest) -> str | None:
        """The key of the user in live state and store: the user id, or the session id behind ``$session:``."""
        if asked.user_id is not None:
            return self.deployment.canonical(self.deployment.users, asked.user_id)
        return None if asked.session_id is None else SESSION + asked.session_id

    def ask(
        self, deployment: Deployment, asked: RecommendRequest, listed: NDArray[np.int64] | None = None
    ) -> tuple[Ask, list[str]]:
        """A request in rows of the deployment, and notes for the answer."""
        settings, notes = self.settings, list[str]()
        state = deployment.recommender
        if asked.user_id is not None and asked.session_id is not None:
            raise Problem(422, "user_id and session_id are both given: give one")
        user = self.who(asked)
        if user is None and asked.history is None:
            raise Problem(422, "no user is given: pass user_id, session_id or a history")
        scenario, rules = self._scenario(asked)
        k = asked.k or min(scenario.k, len(state.items))
        if k > settings.max_k:
            raise Problem(422, f"k={k:,} is above the limit of {settings.max_k:,}: ask for a shorter list, then go on")
        if k > len(state.items):
            raise Problem(422, f"k={k:,}, but the catalog has {len(state.items):,} items: ask for at most so many")
        row = -1 if user is None else self.live.row(deployment, user)
        view = self.live.view(deployment, user) if user is not None else None
        posted = None if asked.history is None else self._history(deployment, asked.history, notes)
        given = _joined(None if view is None else view.given, posted)
        hide = self._hide(deployment, asked, notes)
        exclude_seen = scenario.exclude_seen if asked.exclude_seen is None else asked.exclude_seen
        bound = state.bind(rules, asked.at)
        if view is not None:
            exclude_seen, hide = left_out(deployment, row, view, posted, exclude_seen, bound, hide)
        if listed is not None:
            hide = np.concatenate([hide, listed.astype(np.int32)])
        cold = state.cold
        if scenario.explore is not None or scenario.explore_among is not None:
            share, among = scenario.explore, scenario.explore_among
            share, among = cold.explore if share is None else share, among or cold.explore_among
            cold = replace(cold, explore=share, explore_among=among)
        allowed = self._allowed(deployment, asked)
        options = RecommendOptions(k, exclude_seen, bound, asked.at, cold, allowed, refold=True)
        key = None if asked.candidates is not None else (k, exclude_seen, id(bound), asked.at, cold)
        features = self._features(deployment, user or "-", row, asked)
        return Ask(state, row, user or "-", options, key, given, hide, features), notes

    def _scenario(self, asked: RecommendRequest) -> tuple[Scenario, Rules | None]:
        scenario, rules = PLAIN, None
        if asked.scenario is not None:
            known = self.settings.scenarios
            if asked.scenario not in known:
                raise Problem(422, f"unknown scenario {asked.scenario!r}: there are {', '.join(known) or 'none'}")
            scenario, rules = known[asked.scenario], self.scenario_rules[asked.scenario]
        plain: list[Mapping[str, Any]] = [asked.rules] if asked.rules else []
        if asked.filter:
            plain.append(
                {"allow": {name: value if isinstance(value, list) else [value] for name, value in asked.filter.items()}}
            )
        for one in plain:
            more = Rules.of(one)
            rules = more if rules is None else rules.merged(more)
        return scenario, rules

    def _history(self, deployment: Deployment, events: list[str | HistoryEvent], notes: list[str]) -> History:
        if not events:
            raise Problem(422, "the history is empty: give items, or a user_id")
        if len(events) > self.settings.max_history:
            raise Problem(
                422, f"a history of {len(events):,} events: at most {self.settings.max_history:,}, the latest"
            )
        like = deployment.recommender.default_weight
        plain: list[request.Event] = [
            one
            if isinstance(one, str)
            else (one.item_id, like if one.weight is None else one.weight, math.nan if one.time is None else one.time)
            for one in events
        ]
        user = pl.Series("user_id", ["-"])
        found = request.given_events(user, {"-": plain}, deployment.items, like)
        if not len(found.items):
            raise Problem(422, f"none of the {len(events):,} items of the history is in the catalog: give known items")
        unknown = len(events) - len(found.items)
        if unknown:
            notes.append(f"{unknown:,} of {len(events):,} history items are not in the catalog and left out")
        return found

    def _hide(self, deployment: Deployment, asked: RecommendRequest, notes: list[str]) -> NDArray[np.int32]:
        if not asked.exclude:
            return EMPTY
        if len(asked.exclude) > self.settings.max_exclude:
            most = self.settings.max_exclude
            raise Problem(422, f"{len(asked.exclude):,} items to exclude: at most {most:,}, use rules for more")
        rows = deployment.items.rows(asked.exclude)
        if (rows < 0).any():
            notes.append(f"{int((rows < 0).sum()):,} items to exclude are not in the catalog")
        return rows[rows >= 0]

    def _allowed(self, deployment: Deployment, asked: RecommendRequest) -> NDArray[Any] | None:
        """The items that may be listed: those of the catalog, or the candidates of the request, without hidden ones."""
        if asked.candidates is None:
            return None if deployment.all_listed else deployment.listed_I
        if len(asked.candidates) > self.settings.max_exclude:
            raise Problem(422, f"{len(asked.candidates):,} candidates: at most {self.settings.max_exclude:,}")
        rows = deployment.items.rows(asked.candidates)
        rows = rows[rows >= 0]
        if not len(rows):
            raise Problem(422, f"none of the {len(asked.candidates):,} candidates is in the catalog: give known items")
        return rows[deployment.listed_I[rows]]

    def _features(self, deployment: Deployment, user: str, row: int, asked: RecommendRequest) -> pl.DataFrame | None:
        table = deployment.recommender.user_features
        stored = self.features.get(user)
        values = dict(asked.features or {})
        if stored and table is not None:
            values = {**{name: one for name, one in stored.items() if name in table.columns}, **values}
        if not values:
            return None
        asked_ids = pl.Series("user_id", [user])
        return request.features_of(table, asked_ids, np.array([row]), {user: values})

    def _rows(self, items: Items, answer: Answer) -> list[dict[str, Any]]:
        ids, titles, changed = items.deployment.ids, items.deployment.titles, items.changes
        rows: list[dict[str, Any]] = []
        columns = (answer.items.tolist(), answer.scores.tolist(), answer.sources.tolist())
        for item, score, source in zip(*columns, strict=True):
            row = {"item_id": ids[item], "rank": 0, "score": score, "source": SOURCES[source]}
            if titles is not None or changed:
                row["title"] = items.title(ids[item]) if ids[item] in changed else titles and titles[item]
            rows.append(row)
        if answer.moved is not None and answer.by_score is not None:
            for row, text in zip(rows, traces(answer.by_score, answer.moved, answer.ranks).to_list(), strict=True):
                row["rule"] = text
        return rows

    def _explain(self, deployment: Deployment, ask: Ask, answer: Answer, rows: list[dict[str, Any]]) -> None:
        state = deployment.recommender
        query = top_n.ask(state, np.array([ask.row]), ask.options, ask.given, ask.features).query
        reasons = state.explainer.reasons(query, answer.owners, answer.items, answer.personal, REASONS)
        for row, because, why in zip(rows, *reasons, strict=True):
            row["why"] = why
            row["because"] = [{**one, "item_id": str(one["item_id"])} for one in because]

    def _page(self, name: str) -> Page:
        page = self.pages.get(name)
        if page is None or page.made < time.time() - self.settings.page_seconds:
            self.pages.pop(name, None)
            raise Problem(410, f"recommendation_id {name[:40]!r} is unknown or has expired: ask for a new list")
        return page


def _drafted(lists: Sequence[Made], trial: Trial) -> list[dict[str, Any]]:
    """One list of two, each row with the arm that drafted it."""
    ids = [[row["item_id"] for row in one.rows] for one in lists]
    drafted = team_draft(ids, max(map(len, ids)), random.Random())
    return [{**lists[team].rows[place], "arm": trial.names[team]} for team, place in drafted]


def _listed(lists: Sequence[Made], rows: list[dict[str, Any]], page: Page | None) -> tuple[NDArray[np.int64], ...]:
    """All rows of a list so far, in the catalog of each deployment."""
    if len(lists) == 1:
        new = [lists[0].answer.items]
    else:
        found = [one.deployment.items.rows([row["item_id"] for row in rows]) for one in lists]
        new = [one[one >= 0].astype(np.int64) for one in found]
    return tuple(new if page is None else map(np.concatenate, zip(page.listed, new, strict=True)))


def _joined(one: History | None, two: History | None) -> History | None:
    """The events of one user: those of the live state and behind them those of the request."""
    if one is None or two is None:
        return one if two is None else two
    pairs = ((one.items, two.items), (one.weights, two.weights), (one.times, two.times))
    columns: list[Any] = [np.concatenate(pair) for pair in pairs]  # type: ignore[arg-type]
    return History(np.array([0, len(columns[0])], np.int64), *columns)


def left_out(
    deployment: Deployment,
    row: int,
    view: View,
    posted: History | None,
    exclude_seen: bool,
    rules: CompiledRules | None,
    hide: NDArray[np.int32],
) -> tuple[bool, NDArray[np.int32]]:
    """Whether ``top_n`` excludes the history by itself, and all rows to leave out besides."""
    hide = np.concatenate([hide, view.hide]) if len(view.hide) else hide
    decided = rules is not None and rules.rules.exclude is not None
    if view.plain or decided or not exclude_seen:
        return exclude_seen, hide
    # Some event types do not mark their item as seen, or mark it without being learned from: the history that the
    # model reads and the items that are left out differ, so the latter are named one by one.
    parts = [hide, view.seen, deployment.recommender.seen.of(row)]
    if posted is not None:
        parts.append(posted.items)
    return False, np.concatenate(parts)
