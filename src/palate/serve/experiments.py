"""Experiments: two bundles that answer side by side, chosen by the hash of the user or interleaved in one list.

    draft -> running -> stopped

An experiment is a row of the store: its plan, which states before the start how it will be decided, its state and three
times. At most one runs; it answers requests of a user or session that name no model.
"""

from __future__ import annotations

import random
import time
from collections.abc import Mapping, Sequence
from hashlib import blake2b
from typing import Annotated, Any, Literal, NamedTuple

from pydantic import Field, StringConstraints, model_validator
from sqlalchemy import Connection, delete, select, update

from palate.serve import tables
from palate.serve.problems import Problem
from palate.serve.schemas import RecommendRequest, Strict

State = Literal["draft", "running", "stopped"]
Name = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9 ._-]{0,99}$")]


class Arm(Strict):
    """A loaded model, by its version or the name of its folder, and its share of the users."""

    name: Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9 ._-]{0,39}$")]
    model: Annotated[str, StringConstraints(min_length=1, max_length=200)]
    share: Annotated[float, Field(gt=0, le=1)] = 0.5


class Plan(Strict):
    """An experiment as it is stated before it starts.

    Args:
        name: of the experiment; it salts the hash, so that each experiment splits the users independently.
        kind: "ab", each user has one arm; "interleaving", each list is a team draft of both.
        arms: two. Of an interleaving, the sum of the shares takes part.
        metric: "click_through" or "ndcg" decides an A/B test; the credit of clicks an interleaving.
        rule: "fixed", one test when ``users`` are complete; "sequential", an always-valid test after each user, up to
            ``users``.
        users: of each arm; of an interleaving, in all.
        effect: of a sequential test, a difference worth finding; see ``evaluation.online``.
        hours: a user is complete so long after the first list, and later lists and events do not count; 0 counts
            users at once and everything.
        types: event types that count as success. Default: the positive types of the settings.
    """

    name: Name
    kind: Literal["ab", "interleaving"] = "ab"
    arms: Annotated[list[Arm], Field(min_length=2, max_length=2)]
    metric: Literal["click_through", "ndcg"] = "click_through"
    rule: Literal["fixed", "sequential"] = "fixed"
    users: Annotated[int, Field(ge=2, le=100_000_000)]
    effect: Annotated[float, Field(gt=0, le=1)] = 0.05
    hours: Annotated[float, Field(ge=0, le=10_000)] = 24.0
    types: list[Annotated[str, StringConstraints(min_length=1, max_length=100)]] | None = None

    @model_validator(mode="after")
    def _check(self) -> Plan:
        first, second = self.arms
        if first.name == second.name or first.model == second.model:
            raise ValueError("the arms have the same name or model: give two different ones")
        if first.share + second.share > 1 + 1e-9:
            raise ValueError(f"the shares sum to {first.share + second.share:g}: at most 1")
        return self


class Experiment(NamedTuple):
    """A plan with its state; times in seconds since 1970, None where that has not happened."""

    plan: Plan
    state: State
    created: float
    started: float | None = None
    stopped: float | None = None

    def describe(self, loaded: Mapping[str, Any]) -> dict[str, Any]:
        """As it is answered; ``loaded`` holds the versions that this server has."""
        plan = self.plan.model_dump()
        for arm in plan["arms"]:
            arm["loaded"] = arm["model"] in loaded
        times = {"created": self.created, "started": self.started, "stopped": self.stopped}
        return {**plan, "state": self.state, **times}


class Trial(NamedTuple):
    """The part of one request in an experiment.

    Args:
        experiment: its name.
        arm: of the user; None where the list is interleaved.
        names: of the arms whose models answer, one or two.
        models: their versions.
    """

    experiment: str
    arm: str | None
    names: tuple[str, ...]
    models: tuple[str, ...]


def place(experiment: str, user: str) -> float:
    """The place of a user in [0, 1): the same for ever, and independent between experiments."""
    digest = blake2b(user.encode(), digest_size=8, salt=blake2b(experiment.encode(), digest_size=16).digest()).digest()
    return int.from_bytes(digest) / 2**64


def team_draft(lists: Sequence[Sequence[str]], k: int, rng: random.Random) -> list[tuple[int, int]]:
    """Interleave two lists: (which list, place in it) of each row, at most k.

    Team-draft interleaving (Radlinski, Kurup & Joachims 2008, "How Does Clickthrough Data Reflect Retrieval Quality?",
    CIKM): in each round both lists pick their best item that is not taken yet, and a coin decides who is first.
    """
    taken: set[str] = set()
    places, picks, drafted = [0, 0], [0, 0], list[tuple[int, int]]()
    while len(drafted) < k:
        turn = rng.randrange(2) if picks[0] == picks[1] else int(picks[0] > picks[1])
        for team in (turn, 1 - turn):  # a list that has ended leaves the rest to the other
            items = lists[team]
            while places[team] < len(items) and items[places[team]] in taken:
                places[team] += 1
            if places[team] < len(items):
                break
        else:
            break
        taken.add(items[places[team]])
        drafted.append((team, places[team]))
        picks[team] += 1
    return drafted


class Experiments:
    """All experiments of the store, in memory."""

    def __init__(self) -> None:
        self.known: dict[str, Experiment] = {}
        self.running: Experiment | None = None

    def load(self, connection: Connection) -> None:
        """Read them again: other servers start and stop them, too."""
        table = tables.experiments
        rows = connection.execute(select(table).order_by(table.c.created)).all()
        self.known = {
            row.name: Experiment(
                Plan.model_validate_json(row.content), row.state, row.created, row.started, row.stopped
            )
            for row in rows
        }
        self.running = next((one for one in self.known.values() if one.state == "running"), None)

    def get(self, name: str) -> Experiment:
        """One by its name.

        Raises:
            Problem: there is none.
        """
        if name not in self.known:
            raise Problem(404, f"no experiment {name[:100]!r}: see GET /v1/experiments")
        return self.known[name]

    def uses(self, version: str) -> bool:
        """Whether the running experiment has an arm with this model."""
        return self.running is not None and any(arm.model == version for arm in self.running.plan.arms)

    def join(self, asked: RecommendRequest, user: str | None, loaded: Mapping[str, Any]) -> Trial | None:
        """The part of a request in the running experiment; None where it has none."""
        if self.running is None or user is None or asked.model is not None:
            return None
        plan = self.running.plan
        if any(arm.model not in loaded for arm in plan.arms):
            return None
        at, first, second = place(plan.name, user), *plan.arms
        if at >= first.share + second.share:
            return None
        if plan.kind == "interleaving":
            return Trial(plan.name, None, (first.name, second.name), (first.model, second.model))
        arm = first if at < first.share else second
        return Trial(plan.name, arm.name, (arm.name,), (arm.model,))


def create(connection: Connection, plan: Plan) -> None:
    """Store a plan as a draft.

    Raises:
        Problem: the name is taken.
    """
    table = tables.experiments
    if connection.execute(select(table.c.name).where(table.c.name == plan.name)).first() is not None:
        raise Problem(409, f"there is an experiment {plan.name!r} already: choose another name")
    row = {"name": plan.name, "content": plan.model_dump_json(), "state": "draft", "created": time.time()}
    connection.execute(table.insert(), row)


def start(connection: Connection, name: str) -> None:
    """Let a draft answer.

    Raises:
        Problem: it is no draft, or another one runs.
    """
    table = tables.experiments
    other = connection.execute(select(table.c.name).where(table.c.state == "running")).scalar()
    if other is not None:
        raise Problem(409, f"the experiment {other!r} runs: stop it first")
    change = update(table).where(table.c.name == name, table.c.state == "draft")
    if not connection.execute(change.values(state="running", started=time.time())).rowcount:
        raise Problem(409, f"the experiment {name!r} was stopped: make a new one, so that its figures are its own")


def stop(connection: Connection, name: str) -> None:
    """End a running experiment; the active model answers again.

    Raises:
        Problem: it does not run.
    """
    table = tables.experiments
    change = update(table).where(table.c.name == name, table.c.state == "running")
    if not connection.execute(change.values(state="stopped", stopped=time.time())).rowcount:
        raise Problem(409, f"the experiment {name!r} does not run")


def remove(connection: Connection, name: str) -> None:
    """Delete a draft or a stopped experiment; its impressions stay.

    Raises:
        Problem: it runs.
    """
    table = tables.experiments
    if not connection.execute(delete(table).where(table.c.name == name, table.c.state != "running")).rowcount:
        raise Problem(409, f"the experiment {name!r} runs: stop it first")
