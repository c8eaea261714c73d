"""Live state: the events of each user since training, ready to be joined to a request.

    live.apply(stored)                 # after the commit, for events that are new
    view = live.view(deployment, "ann")      # arrays for ``top_n``, kept until the next event of the user

A user with live events is folded in from the training rows and these events together, by every recipe: dot-product
models solve for a new vector, networks of pairs descend on it, sequence and item-based models read the longer history.

A bundle that was refitted from this store has some of the events in its training rows: those up to its place in the log
whose item is in the user's training rows. They are no longer live for it, but what they hide stays hidden.

Shape legend: H events of one user, S items.
"""

from __future__ import annotations

import time
from collections.abc import Iterable
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from palate.data.dataset import History
from palate.recommend import Recommender
from palate.recommend.cold_start import DAY
from palate.serve.deployment import Deployment, LiveEvent
from palate.serve.settings import EventType
from palate.serve.store import Event, Stored

UNDO, MERGE, DELETE_USER = "$undo", "$merge", "$delete-user"
CHANGES = frozenset({UNDO, MERGE, DELETE_USER})
NEVER = float("inf")


class View(NamedTuple):
    """The live events of a user in rows of one deployment.

    Args:
        given: one history with the events that the model reads, oldest first; None without any.
        hide: (S,) rows that are never listed.
        seen: (S,) rows that count as seen by live events.
        plain: whether ``seen`` holds just the items of ``given``, so that ``top_n`` excludes them by itself.
        until: the moment at which an event reaches the end of its lifetime.
    """

    given: History | None
    hide: NDArray[np.int32]
    seen: NDArray[np.int32]
    plain: bool
    until: float


NOTHING = View(None, np.zeros(0, np.int32), np.zeros(0, np.int32), True, NEVER)


class LiveUser:
    """The events of one user in the order of the log."""

    __slots__ = ("events", "of", "view")

    def __init__(self) -> None:
        self.events: list[LiveEvent] = []
        self.view: View | None = None
        self.of: Recommender | None = None


class Live:
    """The events of all users since training.

    Args:
        types: the table of event types.
        deployment: whose counts the events change.
    """

    def __init__(self, types: dict[str, EventType], deployment: Deployment) -> None:
        self.types = types
        self.deployment = deployment
        self.users: dict[str, LiveUser] = {}
        self.deleted: set[str] = set()
        self.seq = 0
        self.total = 0
        self._names: dict[str, str] = {}  # item ids and types, each kept once

    def apply(self, rows: Iterable[Stored]) -> None:
        """Take events over into the state, in the order of the log."""
        names = self._names
        counted = list[LiveEvent]()
        for seq, event in rows:
            self.seq = max(self.seq, seq)
            if event.type in CHANGES:
                self.deployment.count_items(counted)  # first: what is taken back must have been counted
                counted = []
                self._change(event)
                continue
            item_id, kind = names.setdefault(event.item_id, event.item_id), names.setdefault(event.type, event.type)
            one = LiveEvent(seq, item_id, kind, event.value, event.time)
            self._keep(event.user_id, one)
            if self._counts(event.user_id, one):
                counted.append(one)
        self.deployment.count_items(counted)

    def add(self, user_id: str, event: LiveEvent) -> None:
        """Add one event."""
        self._keep(user_id, event)
        if self._counts(user_id, event):
            self.deployment.count_items([event])

    def _keep(self, user_id: str, event: LiveEvent) -> None:
        user = self.users.get(user_id)
        if user is None:
            user = self.users[user_id] = LiveUser()
        user.events.append(event)
        user.view = None
        self.total += 1

    def _change(self, event: Event) -> None:
        """Apply an entry of the log that changes earlier ones."""
        if event.type == UNDO:
            self._undo(event.user_id, int(event.value or 0))
        elif event.type == MERGE:
            self._merge(event.item_id, event.user_id)
        else:
            self.forget(event.user_id)

    def forget(self, user_id: str) -> None:
        """Drop a user: the live events, and the training rows for all answers to come."""
        for event in self._pop(user_id):
            self._uncount(user_id, event)
        self.deleted.add(user_id)

    def row(self, deployment: Deployment, user_id: str) -> int:
        """The row of a user in a deployment; -1 for users that it does not know or that were deleted."""
        return -1 if user_id in self.deleted else deployment.users.row(user_id)

    def view(self, deployment: Deployment, user_id: str) -> View:
        """The live events of a user as arrays."""
        user = self.users.get(user_id)
        if user is None:
            return NOTHING
        # The state is another one after new items have joined the catalog.
        state = deployment.recommender
        if user.view is None or user.of is not state or time.time() >= user.view.until:
            trained = self._trained(deployment, user_id) if deployment.trained_seq else frozenset()
            user.view, user.of = self._view(deployment, user.events, trained), state
        return user.view

    def adopt(self, deployment: Deployment) -> None:
        """Count all live events in another deployment, which takes the place of the old one."""
        deployment.reset()  # it may have counted events before
        self.deployment = deployment
        deployment.count_items(
            [event for user_id, user in self.users.items() for event in user.events if self._counts(user_id, event)]
        )

    def _trained(self, deployment: Deployment, user_id: str) -> frozenset[int]:
        """Items of the training rows of a user."""
        return frozenset(deployment.recommender.seen.of(self.row(deployment, user_id)).tolist())

    def _view(self, deployment: Deployment, events: list[LiveEvent], trained: frozenset[int]) -> View:
        now, until = time.time(), NEVER
        feedback = deployment.recommender.seen.feedback
        kept: list[tuple[float, int, float, EventType]] = []
        learned: set[int] = set()  # places in ``kept`` of events that the model was trained on
        for event in events:
            kind = self.types.get(event.type)
            row = deployment.items.row(event.item_id)
            if kind is None or row < 0:
                continue
            if kind.lifetime_days is not None:
                end = event.time + kind.lifetime_days * DAY
                if end <= now:
                    continue
                until = min(until, end)
            weight = self._weight(deployment, kind, event.value)
            if event.seq <= deployment.trained_seq and row in trained:
                learned.add(len(kept))
            kept.append((event.time, row, weight, kind))
        if not kept:
            return NOTHING._replace(until=until)

        def tells(one: tuple[float, int, float, EventType]) -> bool:
            # The lowest rating of a scale that begins at 0 tells something; any other 0 is stored only.
            return bool(one[2]) or (one[3].rated and feedback.kind == "rating")

        # The latest word on an item counts: an earlier like of an item that is disliked now, or rated low, is no
        # longer learned from.
        liked = {one[1]: feedback.positive(one[2]) for one in kept if tells(one)}
        hidden = {row: kind.hides for _, row, weight, kind in kept if weight or kind.hides}
        hide = np.array([row for row, hides in hidden.items() if hides], np.int32)
        fresh = kept if not learned else [one for place, one in enumerate(kept) if place not in learned]
        scored = [one for one in fresh if tells(one) and feedback.positive(one[2]) == liked[one[1]]]
        scored.sort(key=lambda one: one[0])  # stable: equal times stay in the order of the log
        seen = {row for _, row, _, kind in fresh if kind.seen}
        given = None
        if scored:
            given = History(
                np.array([0, len(scored)], np.int64),
                np.array([one[1] for one in scored], np.int32),
                np.array([one[2] for one in scored], np.float32),
                np.array([one[0] for one in scored], np.float64),
            )
        plain = seen == {one[1] for one in scored}
        return View(given, hide, np.array(sorted(seen), np.int32), plain, until)

    def _weight(self, deployment: Deployment, kind: EventType, value: float | None) -> float:
        if kind.rated and value is not None:
            return value
        weight = kind.weight * deployment.like_weight
        # Where the training data are ratings, an event below the rule would be a low rating and no positive.
        least = deployment.recommender.seen.feedback.min_rating
        return weight if least is None or weight <= 0 else max(weight, least)

    def _counts(self, user_id: str, event: LiveEvent) -> bool:
        """Whether an event counts in what is popular: a positive one that the training rows do not hold."""
        kind, deployment = self.types.get(event.type), self.deployment
        if kind is None or not kind.positive:
            return False
        # A rating below the rule of the bundle is no like.
        if kind.rated and event.value is not None and not deployment.recommender.seen.feedback.positive(event.value):
            return False
        old = event.seq <= deployment.trained_seq
        return not (old and deployment.items.row(event.item_id) in self._trained(deployment, user_id))

    def _uncount(self, user_id: str, event: LiveEvent) -> None:
        if self._counts(user_id, event):
            self.deployment.count_item(event.item_id, event.time, -1)

    def _undo(self, user_id: str, seq: int) -> None:
        user = self.users.get(user_id)
        if user is None:
            return
        for place, event in enumerate(user.events):
            if event.seq == seq:
                del user.events[place]
                user.view = None
                self.total -= 1
                self._uncount(user_id, event)
                break
        if not user.events:
            del self.users[user_id]

    def _merge(self, session: str, user_id: str) -> None:
        moved = self._pop(session)
        if not moved:
            return
        user = self.users.setdefault(user_id, LiveUser())
        user.events = sorted(user.events + moved)
        user.view = None
        self.total += len(moved)

    def _pop(self, user_id: str) -> list[LiveEvent]:
        user = self.users.pop(user_id, None)
        if user is None:
            return []
        self.total -= len(user.events)
        return user.events
