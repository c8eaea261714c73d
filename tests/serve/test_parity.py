"""For the same state the server's answer equals the library's, row for row: over all recipes, histories and rules."""

from __future__ import annotations

import asyncio
from functools import cache

import numpy as np
import orjson
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from conftest import ITEMS, USERS, make_shop
from palate.base import TrainOptions
from palate.bundle import Bundle
from palate.errors import PalateError
from palate.models import RECIPES
from palate.rules import Rules
from palate.serve.answers import Answers
from palate.serve.batcher import answer
from palate.serve.deployment import Deployment, LiveEvent
from palate.serve.items import Items
from palate.serve.live import Live
from palate.serve.schemas import RecommendRequest
from palate.serve.settings import Settings

NAMES = sorted(RECIPES)


class Silent:
    """A store that takes no impressions."""

    def later(self, _):
        return True


@cache
def answers(recipe: str) -> Answers:
    shop = make_shop()
    try:
        made = RECIPES[recipe].fast()
        model = made.fit(shop, TrainOptions(threads=1, device="cpu"))
    except PalateError as error:
        pytest.skip(f"{recipe} refuses this shop: {error}")
    deployment = Deployment(Bundle.of(made, model, shop), None, recipe)
    settings_ = Settings()
    return Answers(settings_, deployment, Items(deployment), Live(settings_.events, deployment), Silent())


items = st.integers(0, ITEMS - 1).map(lambda n: f"i/{n:02} ä")
users = st.integers(0, USERS + 1).map(lambda n: f"u{n:02}")
events = st.lists(st.tuples(items, st.sampled_from(["like", "click", "dislike", "view"])), max_size=6)
rules = st.sampled_from(
    [
        None,
        {"deny": {"kind": ["tea"]}},
        {"caps": {"kind": 2}},
        {"pins": [{"item": "i/05 ä", "at": 2}]},
        {"exclude": "none"},
    ]
)


@pytest.mark.parametrize("recipe", NAMES)
@settings(max_examples=5, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    asked=st.lists(st.tuples(users, events, rules, st.booleans(), st.lists(items, max_size=2)), min_size=1, max_size=4),
    k=st.integers(1, 12),
)
def test_the_server_answers_what_the_library_answers(recipe, asked, k):
    served = answers(recipe)
    deployment = served.deployment
    library = deployment.recommender
    served.live.users.clear()
    deployment.reset()
    bodies, seq = [], 0
    for user, events_, rules_, seen, out in {one[0]: one for one in asked}.values():
        for item, kind in events_:
            seq += 1
            served.live.add(user, LiveEvent(seq, item, kind, None, 1.8e9 + seq))
        bodies.append(RecommendRequest(user_id=user, k=k, rules=rules_, exclude_seen=seen, exclude=out))

    async def ask_all():
        return await asyncio.gather(*(served.recommend(body, "r") for body in bodies))

    for body, raw in zip(bodies, asyncio.run(ask_all()), strict=True):
        rows = [(r["item_id"], r["source"]) for r in orjson.loads(raw)["items"]]
        scores = [r["score"] for r in orjson.loads(raw)["items"]]
        view = served.live.view(deployment, body.user_id)
        histories = None
        hidden = library.items.ids[view.hide].to_list()
        if view.given is not None:
            ids = library.items.ids[view.given.items].to_list()
            columns = (ids, view.given.weights.tolist(), view.given.times.tolist())
            histories = {body.user_id: list(zip(*columns, strict=True))}
        exclude_seen = body.exclude_seen
        if exclude_seen and not view.plain and not (body.rules and "exclude" in body.rules):
            # A viewed item is learned from and may be listed all the same.
            exclude_seen = False
            own = library.seen.of(library.users.row(body.user_id))
            hidden += library.items.ids[np.concatenate([own, view.seen])].to_list()
        expected = library.recommend(
            [body.user_id],
            k,
            exclude_seen=exclude_seen,
            histories=histories,
            exclude=[*body.exclude, *hidden],
            rules=None if body.rules is None else Rules.of(body.rules),
            refold=True,
        )
        assert rows == list(zip(expected["item_id"].to_list(), expected["source"].to_list(), strict=True))
        assert scores == pytest.approx(expected["score"].to_list(), rel=1e-3, abs=1e-4)


def test_a_batch_answers_as_its_parts():
    served = answers("ials")
    asks = [
        served.ask(served.deployment, RecommendRequest(user_id=f"u{n:02}", k=5, exclude=[f"i/{n:02} ä"]))[0]
        for n in range(6)
    ]
    assert len({ask.key for ask in asks}) == 1
    together = answer(asks)
    for one, ask in zip(together, asks, strict=True):
        (alone,) = answer([ask])
        assert one.items.tolist() == alone.items.tolist()
        assert one.scores.tolist() == pytest.approx(alone.scores.tolist(), rel=1e-5)
