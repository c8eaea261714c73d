"""What events and items mean to a bundle: ratings below its rule, new items with features, changed features."""

from __future__ import annotations

import asyncio
from dataclasses import replace

import numpy as np
import orjson
import pytest

from conftest import ITEMS, make_shop
from palate.base import TrainOptions
from palate.bundle import Bundle
from palate.data.feedback import Feedback
from palate.models.ials import IALS
from palate.models.two_tower import TwoTower
from palate.serve.deployment import Deployment
from palate.serve.items import Item
from palate.serve.live import UNDO, Live
from palate.serve.schemas import FeedbackEvent, RecommendRequest
from palate.serve.service import Service
from palate.serve.settings import Settings
from palate.serve.store import Event, Stored

OPTIONS = TrainOptions(threads=1, device="cpu", seed=1)
KINDS = ("click", "rating", "hide")


def deployment(recipe, shop) -> Deployment:
    return Deployment(Bundle.of(recipe, recipe.fit(shop, OPTIONS), shop), None, recipe.name)


@pytest.fixture(scope="module")
def rated() -> Deployment:
    """Ratings from 1 to 5, of which 4 and 5 are likes."""
    shop = make_shop()
    rows = shop.interactions
    ratings = np.where(np.arange(len(rows.user)) % 5, 5.0, 2.0).astype(np.float32)
    rows = replace(rows, weight=ratings)
    return deployment(IALS(dim=4, epochs=4), replace(shop, interactions=rows, feedback=Feedback("rating", 4.0)))


@pytest.fixture
def ask(tmp_path):
    """Run a conversation with a service: ``ask(deployment, coroutine of (service, recommend))``."""

    def run(served: Deployment, talk):
        async def inside():
            service = Service(Settings(store=f"sqlite:///{tmp_path}/{served.version}.db"), [served])
            await service.start()

            async def recommend(user, **more):
                found = await service.answers.recommend(RecommendRequest(user_id=user, **more), "r")
                return orjson.loads(found)["items"]

            try:
                return await talk(service, recommend)
            finally:
                await service.stop()

        served.reset()
        return asyncio.run(inside())

    return run


def event(user, item, kind, value=None):
    return FeedbackEvent(user_id=user, item_id=item, type=kind, value=value)


TEA, OTHER_TEA = "i/00 ä", "i/02 ä"


def test_a_rating_below_the_rule_is_seen_and_no_like(rated, ask):
    async def talk(service, recommend):
        row = rated.items.row(TEA)
        before = float(rated.recommender.popularity[row])
        await service.feedback([event("low", TEA, "rating", 2.0)])
        rows = await recommend("low", k=10)
        assert {one["source"] for one in rows} == {"popular"}  # nothing that the user likes is known
        assert TEA not in [one["item_id"] for one in await recommend("low", k=ITEMS)]
        assert rated.recommender.popularity[row] == before
        await service.feedback([event("high", TEA, "rating", 4.0)])
        rows = await recommend("high", k=5)
        assert {one["source"] for one in rows} == {"fold-in"}
        assert all("Tea" in one["title"] for one in rows)
        assert rated.recommender.popularity[row] == before + 1

    ask(rated, talk)


def test_the_latest_rating_of_an_item_counts(rated, ask):
    async def talk(service, recommend):
        await service.feedback([event("both", TEA, "like"), event("both", "i/01 ä", "rating", 5.0)])
        mixed = await recommend("both", k=10)
        await service.feedback([event("both", TEA, "rating", 1.0)])
        cream = await recommend("both", k=10)
        await service.feedback([event("only", "i/01 ä", "rating", 5.0)])
        expected = [one["item_id"] for one in await recommend("only", k=ITEMS) if one["item_id"] != TEA]
        assert [one["item_id"] for one in cream] == expected[:10]
        assert [one["item_id"] for one in mixed] != [one["item_id"] for one in cream]
        await service.feedback([event("both", TEA, "rating", 4.0)])
        assert [one["item_id"] for one in await recommend("both", k=10)] != expected[:10]

    ask(rated, talk)


@pytest.fixture(scope="module")
def featured() -> Deployment:
    """A model that reads the kinds of items."""
    return deployment(TwoTower(dim=8, epochs=30, item_features=("kind",), learning_rate=0.05), make_shop())


async def put(service, item_id, **fields):
    await service.answers.items.save(service.store, Item(item_id, **fields))


def test_a_new_item_is_listed_at_once_by_its_features(featured, ask):
    async def talk(service, recommend):
        await service.feedback([event("x", "new tea", "like")])  # it may be liked before it is described
        await put(service, "new tea", title="New tea", features={"kind": "tea"})
        await put(service, "new cream", title="New cream", features={"kind": "cream"})
        places = {}
        for user in ("u00", "u01"):
            rows = await recommend(user, k=len(featured.items), exclude_seen=False)
            places[user] = {one["item_id"]: one["rank"] for one in rows}
            sources = {one["item_id"]: one["source"] for one in rows}
            assert (sources["new tea"], sources[TEA]) == ("new-item", "model")
        assert places["u00"]["new tea"] < places["u00"]["new cream"]
        assert places["u01"]["new cream"] < places["u01"]["new tea"]
        assert featured.recommender.popularity[featured.items.row("new tea")] == 1
        assert service.answers.items.search("new te", 5) == ["new tea"]
        assert service.answers.items.page(None, ITEMS + 2)[0][-2:] == ["new tea", "new cream"]
        # A like of a new item is learned from, and rules see its features.
        await service.feedback([event("y", "new tea", "like")])
        rows = await recommend("y", k=5)
        assert {one["source"] for one in rows} == {"fold-in"}
        assert "new tea" not in [one["item_id"] for one in rows]
        rows = await recommend("u00", k=ITEMS, rules={"deny": {"kind": ["tea"]}})
        assert {one["title"].split()[0] for one in rows} <= {"Crème", "New"}
        assert "new tea" not in [one["item_id"] for one in rows]
        # Other features move it; hidden or deleted, it is in no list.
        await put(service, "new tea", title="New tea", features={"kind": "cream"})
        rows = await recommend("u01", k=ITEMS, rules={"allow": {"kind": ["cream"]}}, exclude_seen=False)
        assert "new tea" in [one["item_id"] for one in rows]
        await put(service, "new tea", title="New tea", features={"kind": "tea"}, hidden=True)
        assert "new tea" not in [one["item_id"] for one in await recommend("u00", k=ITEMS)]
        await service.answers.items.delete(service.store, "new cream")
        assert service.answers.items.get("new cream") is None
        assert "new cream" not in [one["item_id"] for one in await recommend("u01", k=ITEMS)]

    async def again(service, recommend):
        assert featured.added.keys() == {"new tea", "new cream"}
        assert "new tea" not in [one["item_id"] for one in await recommend("u00", k=ITEMS)]
        await put(service, "new tea", title="New tea", features={"kind": "tea"})
        assert "new tea" in [one["item_id"] for one in await recommend("u00", k=ITEMS)]

    ask(featured, talk)
    ask(featured, again)


def test_features_that_do_not_fit_are_told(featured, ask):
    async def talk(service, recommend):
        await put(service, "odd", features={"kind": "tea", "price": {"not": "a number"}})
        described = service.answers.items.describe(service.answers.items.get("odd"))
        assert "price" in described["unused_features"]
        assert not described["in_model"]
        await put(service, "odd", features={"kind": "tea", "price": 2})
        described = service.answers.items.describe(service.answers.items.get("odd"))
        assert described["in_model"]
        assert "unused_features" not in described

    ask(featured, talk)


def test_rules_see_changed_features(rated, ask):
    async def talk(service, recommend):
        rules = {"deny": {"kind": ["cream"]}}
        assert "i/01 ä" not in [one["item_id"] for one in await recommend("u00", k=ITEMS, rules=rules)]
        await put(service, "i/01 ä", features={"kind": "tea"})
        await put(service, OTHER_TEA, features={"kind": "cream"})
        listed = [one["item_id"] for one in await recommend("u00", k=ITEMS, rules=rules, exclude_seen=False)]
        assert "i/01 ä" in listed
        assert OTHER_TEA not in listed
        await put(service, OTHER_TEA, features={})
        listed = [one["item_id"] for one in await recommend("u00", k=ITEMS, rules=rules, exclude_seen=False)]
        assert OTHER_TEA in listed

    ask(rated, talk)


def test_many_events_are_counted_at_once_as_one_after_the_other(rated):
    rng = np.random.default_rng(5)
    users = [f"new{n}" for n in rng.integers(0, 40, 500)]
    known = rated.ids[:6]
    events = [
        Event(f"e{n}", user, [*known, "unknown"][n % 7], KINDS[n % len(KINDS)], 1.0 + n % 5, 1.8e9 + 1e5 * n, 0.0)
        for n, user in enumerate(users)
    ]
    # A place in the log is taken back in the midst: what stands before it must have been counted.
    events[300] = Event("undo", users[280], "", UNDO, 280.0, 0.0, 0.0)
    counts = []
    for step in (1, 500):
        rated.reset()
        live = Live(Settings().events, rated)
        for first in range(0, len(events), step):
            live.apply([Stored(first + n, one) for n, one in enumerate(events[first : first + step])])
        popularity = rated.recommender.popularity.copy()
        counts.append((popularity, rated.recent, live.total, dict(rated._early)))
    rated.reset()
    assert counts[0][0].sum() > rated.recommender.popularity.sum()
    np.testing.assert_allclose(counts[0][0], counts[1][0])
    np.testing.assert_allclose(counts[0][1], counts[1][1], rtol=1e-6)
    assert counts[0][2:] == counts[1][2:]
