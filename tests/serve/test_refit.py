"""Refit: rows of a bundle and stored events, taken as they are served; the comparison; the loop of a real server."""

from __future__ import annotations

import json
import shutil
import sys
import time
from dataclasses import replace

import numpy as np
import polars as pl
import pytest

from palate.base import TrainOptions
from palate.bundle import Bundle
from palate.cli import main
from palate.data.feedback import Feedback
from palate.errors import DataError
from palate.models.popularity import Popularity
from palate.serve import tables
from palate.serve.deployment import Deployment
from palate.serve.items import Item
from palate.serve.live import Live
from palate.serve.refit import Log, Refit, Weights, merge, rows_of_bundle
from palate.serve.refit_check import compare, served_lists
from palate.serve.service import read_log
from palate.serve.settings import EventType, Settings
from palate.serve.store import Store

START = 1.8e9  # after the training rows of the shop
TYPES = {**Settings().events, "old": EventType(lifetime_days=1), "teaser": EventType(weight=0.3, positive=False)}


def item(n):
    return f"i/{n:02} ä"


class Filled:
    """A real store with events, given as (user, item, type) or with value and hours after the start."""

    def __init__(self, path, events, deleted=(), items=()):
        self.store = Store(f"sqlite:///{path}/events.db")
        rows = []
        for place, (user, number, kind, *more) in enumerate(events):
            value, hours = (*more, None, None)[:2]
            moment = START + 60 * place if hours is None else START + 3600 * hours
            about = {"event_id": f"e{place}", "user_id": user, "item_id": item(number), "type": kind, "value": value}
            rows.append({**about, "time": moment, "received": moment, "undone": False})
        with self.store.engine.begin() as connection:
            connection.execute(tables.events.insert(), rows)
            for user in deleted:
                connection.execute(tables.users.insert(), {"user_id": user, "deleted": True, "updated": 0.0})
            for one in items:
                connection.execute(tables.items.insert(), one.row(0.0))
        self.log = self.store.read_now(Log.read)


def refit(bundle, log, types=TYPES):
    old = Bundle.load(bundle)
    return Refit(old, bundle, rows_of_bundle(old), log, types, TrainOptions(threads=1, device="cpu"))


def rows(bundle, log, now=START + 1e5):
    weights = Weights.of(Bundle.load(bundle), TYPES)
    return [(user, one, weight) for user, one, weight, *_ in weights.rows(log.events, now).iter_rows()]


def test_events_weigh_as_they_are_served(bundle, tmp_path):
    filled = Filled(
        tmp_path,
        [
            ("a", 1, "like"), ("a", 2, "view"), ("a", 3, "skip"), ("a", 4, "hide"), ("a", 5, "rating", 3.0),
            ("a", 6, "like"), ("a", 6, "dislike"), ("a", 7, "hide"), ("a", 7, "like"),
            ("a", 8, "old"), ("a", 9, "old", None, 24), ("a", 10, "teaser"), ("a", 11, "no such type"),
            ("$session:s", 1, "like"), ("gone", 1, "like"),
        ],
        deleted=["gone"],
    )  # fmt: skip
    found = rows(bundle, filled.log)
    assert found == [
        ("a", item(1), 1.0), ("a", item(2), 0.5), ("a", item(4), -1.0), ("a", item(5), 3.0),
        ("a", item(6), -1.0), ("a", item(7), 1.0), ("a", item(9), 1.0),
    ]  # fmt: skip
    assert sorted(note.rows for note in filled.log.notes) == [1, 1]
    ratings = replace(Weights.of(Bundle.load(bundle), TYPES), like=5.0, feedback=Feedback("rating", 4.0))
    rated = ratings.rows(filled.log.events.head(5), START)
    assert rated["weight"].to_list() == [5.0, 4.0, -5.0, 3.0]  # a view is a positive rating, a rating is what it is


def test_both_sources_are_merged_without_deleted_users(bundle, tmp_path):
    new = Item(item(77), "New jam", {"kind": "jam", "price": 2})
    told = Item(item(3), features={"price": 99.0})
    filled = Filled(tmp_path, [("u00", 77, "like"), ("zoe", 77, "click"), ("u01", 1, "view")], ["u02"], [new, told])
    job = refit(bundle, filled.log)
    old = job.old.recommender
    made = merge(job.base, job.log, job.rows(job.log.events))
    data = made.data
    texts = data.users.ids.to_list()
    assert texts == [user for user in old.users.ids.to_list() if user != "u02"] + ["zoe"]
    assert data.items.ids.to_list() == [*old.items.ids.to_list(), item(77)]
    assert data.titles[-1] == "New jam"
    assert data.item_features.row(-1, named=True) == {"kind": "jam", "price": 2.0}
    assert data.item_features["price"][data.items.row(item(3))] == 99.0
    assert data.user_features["side"].to_list()[-1] is None
    kept = len(old.seen.items) - len(old.seen.of(2))
    frame = pl.DataFrame({"user": data.interactions.user, "item": data.interactions.item})
    assert not frame.is_duplicated().any()
    assert len(frame) in (kept + 2, kept + 3)  # u01 may have had the item before
    assert data.history.of(texts.index("u00")).tolist()[-1] == data.items.row(item(77))
    for user in ("u03", "u38"):
        before = old.items.ids[old.seen.of(old.users.row(user))].to_list()
        assert data.items.ids[data.history.of(data.users.row(user))].to_list() == before


def test_what_a_refitted_bundle_has_learned_is_no_longer_live(bundle, tmp_path):
    rng = np.random.default_rng(1)
    users = [f"u{n:02}" for n in range(0, 12)] + ["zoe", "kim"]
    kinds = ["like", "view", "hide", "skip", "rating", "teaser", "purchase"]
    events = [
        (users[rng.integers(len(users))], int(rng.integers(30)), kinds[rng.integers(len(kinds))], 4.0)
        for _ in range(150)
    ]
    filled = Filled(tmp_path, events, deleted=["u04"])
    made = refit(bundle, filled.log).final()
    path = made.save(tmp_path / "new")
    loaded = Deployment.load(path)
    assert loaded.bundle.refit == made.refit
    old = Deployment.load(bundle)
    stored = filled.store.read_now(lambda connection: read_log(connection, 0, 1000))
    states = []
    for one in (old, loaded):
        one.join(filled.log.store)
        live = Live(TYPES, one)
        live.deleted.add("u04")
        live.apply(stored)
        states.append(live)
    assert loaded.trained_seq == 150
    before, after = states
    for user in users:
        was, now = before.view(old, user), after.view(loaded, user)
        hidden = [{one.ids[row] for row in view.hide} for one, view in ((old, was), (loaded, now))]
        assert hidden[0] == hidden[1], user
        # Everything that was read by the model or left out still is, from the training rows or as a live event.
        both = []
        for live, one, view in ((before, old, was), (after, loaded, now)):
            seen = one.recommender.seen.of(live.row(one, user)).tolist()
            read = [*seen, *(view.given.items.tolist() if view.given is not None else [])]
            out = [*seen, *view.seen.tolist()]
            both.append(({one.ids[row] for row in read}, {one.ids[row] for row in out}))
        assert both[0] == both[1], user
    known = after.view(loaded, "u00").given
    assert known is None or len(known.items) < len(before.view(old, "u00").given.items)
    # Nothing is counted twice: an event on an item of the training rows is one row of them.
    assert loaded.recommender.popularity.sum() <= old.recommender.popularity.sum()
    # With another store its places mean nothing.
    loaded.join("another")
    assert loaded.trained_seq == 0
    with pytest.raises(DataError, match="--data"):
        rows_of_bundle(loaded.bundle)


def shifted(rng, users, good, count):
    """Likes of users who now want other items than in training, one an hour."""
    return [
        (f"n{int(rng.integers(users)):02}", int(good[rng.integers(len(good))]), "like", None, float(hour))
        for hour in range(count)
    ]


def test_a_switch_is_recommended_where_the_world_has_moved(shop, tmp_path):
    model = Popularity().fit(shop, TrainOptions(threads=1))
    path = Bundle.of(Popularity(), model, shop).save(tmp_path / "plain")
    rng = np.random.default_rng(2)
    scarce = np.argsort(np.bincount(shop.interactions.item, minlength=30))[:6]
    filled = Filled(tmp_path, shifted(rng, 200, scarce, 700))
    found, report = compare(refit(path, filled.log), 0.2)
    assert found.recommended
    assert found.sentence.startswith("The switch is recommended: NDCG@10 ")
    assert found.events > 50
    assert found.users > 40
    assert found.test.low > 0
    assert report.value("NDCG@10") == pytest.approx(found.new)
    assert found.cut == START + 3600 * 560


def test_a_switch_to_an_equal_bundle_is_not_recommended(bundle, tmp_path):
    rng = np.random.default_rng(3)
    events = [(f"u{int(rng.integers(39)):02}", int(rng.integers(30)), "like") for _ in range(300)]
    found, _ = compare(refit(bundle, Filled(tmp_path, events).log), 0.2)
    assert not found.recommended
    assert "not recommended" in found.sentence
    (tmp_path / "few").mkdir()
    few, report = compare(refit(bundle, Filled(tmp_path / "few", events[:6]).log), 0.2)
    assert (few.recommended, report) == (None, None)
    assert "cannot be said: only" in few.sentence


@pytest.fixture
def palate(monkeypatch, capsys):
    """The command line in this process: its output, or its error."""

    def run(*words, code=0):
        monkeypatch.setattr(sys, "argv", ["palate", *map(str, words)])
        capsys.readouterr()
        ended = 0
        try:
            main()
        except SystemExit as end:
            ended = end.code
        out, err = capsys.readouterr()
        assert ended == code, err
        return out + err if code else out

    return run


def likes():
    """Events of new users with a taste that the training rows lack, and of an item that they lack; one a minute."""
    rng = np.random.default_rng(4)
    events = [
        {"user_id": f"new{number}", "item_id": item(int(one)), "type": "like"}
        for number in range(60)
        for one in rng.choice(10, 6, replace=False)
    ]
    events += [{"user_id": f"new{number}", "item_id": "jam", "type": "like"} for number in range(0, 60, 2)]
    rng.shuffle(events)
    return [{**event, "time": time.time() - 60 * place} for place, event in enumerate(reversed(events), 1)]


def popular(server):
    return {row["item_id"]: row["score"] for row in server.get("/v1/popular", k=30)["items"]}


def check_new_bundle(server, new, before, models):
    """What the new bundle has learned is in its lists, and nothing of it counts twice."""
    after = server.get("/v1/recommend", user_id="new1", k=10)
    assert after["model"] == new
    assert (before["list"]["items"][0]["source"], after["items"][0]["source"]) == ("fold-in", "model")
    assert [row["item_id"] for row in after["items"]] != [row["item_id"] for row in before["list"]["items"]]
    # The new item is listed; what was hidden and who was deleted stay so.
    assert "jam" in server.ids("fresh", k=31)
    assert item(20) not in server.ids("new1", k=20)
    assert server.client.get("/v1/users/u03").status_code == 404
    again = {row["item_id"]: row["score"] for row in server.get("/v1/popular", k=31)["items"]}
    assert again.pop("jam") == 30
    mine = Bundle.load(models / "shop").recommender
    gone = set(mine.items.ids[mine.seen.of(mine.users.row("u03"))].to_list())
    assert {one: score - (one in gone) for one, score in before["popular"].items()} == again
    return after["items"][0]["item_id"]


def check_lists_of_the_comparison(server, bundle, folder):
    """The old bundle answers in the comparison as the server does."""
    opened = Store(f"sqlite:///{folder}/palate-serve.db")
    job = refit(bundle, opened.read_now(Log.read))
    opened.engine.dispose()
    deployment = Deployment.load(bundle)
    users = ["u00", "u03", "new0", "new1", "new2", "nobody"]
    lists = served_lists(deployment, job, job.log.events, users, deployment, set(), 10)
    for user, rows in zip(users, lists, strict=True):
        assert [deployment.ids[row] for row in rows] == server.ids(user, k=10), user


def test_the_loop_of_a_server_that_learns(serving, bundle, tmp_path, palate):
    """Serve, take feedback, refit, load and activate over HTTP, another list, roll back."""
    models = tmp_path / "models"
    shutil.copytree(bundle, models / "shop")
    with serving(folder=tmp_path, PALATE_SERVE_MODELS=str(models)) as server:
        old = server.get("/v1/models")["active"]
        events = likes()
        assert server.post("/v1/feedback", {"events": events})["stored"] == len(events)
        server.client.put("/v1/items/jam", json={"title": "Plum jam"})
        server.post("/v1/feedback", {"user_id": "new1", "item_id": item(20), "type": "hide"})
        server.client.delete("/v1/users/u03")
        before = {"popular": popular(server), "list": server.get("/v1/recommend", user_id="new1", k=10)}
        assert "jam" not in server.ids("fresh", k=30)
        check_lists_of_the_comparison(server, bundle, tmp_path)
        store = f"sqlite:///{tmp_path}/palate-serve.db"
        words = ("refit", models / "shop", "--store", store, "--out", models / "shop-2", "--seed", "1")
        report = json.loads(palate(*words, "--json", "--activate", server.url))
        sizes = report["sizes"]
        assert sizes["new"]["items"] == sizes["old"]["items"] + 1
        assert sizes["new"]["users"] == sizes["old"]["users"] + 60 - 1
        assert report["activated"] is report["recommended"]
        assert report["unlisted"] > 0
        assert report["users"] >= 10
        (new,) = {one["version"] for one in server.get("/v1/models")["models"]} - {old}
        if not report["activated"]:
            server.post("/v1/models/activate", {"model": "shop-2"})
        first = check_new_bundle(server, new, before, models)
        # Feedback after the refit is live for the new bundle, too.
        server.post("/v1/feedback", {"user_id": "new1", "item_id": first, "type": "hide"})
        assert first not in server.ids("new1", k=20)
        assert server.post("/v1/models/rollback", None)["version"] == old
        assert first not in server.ids("new1", k=20)
        assert "jam" not in server.ids("fresh", k=30)
        # A second refit begins at the original rows, and no bundle is written over.
        words = ("refit", models / "shop-2", "--store", store)
        assert "--data" in palate(*words, "--out", models / "shop-3", code=2)
        assert "another folder" in palate(*words, "--out", models / "shop-2", code=2)
        shown = palate(*words, "--data", models / "shop", "--out", models / "shop-3")
        assert "The switch is" in shown
        made = [Bundle.info(models / name)["refit"]["events"] for name in ("shop-2", "shop-3")]
        assert made[1] == made[0] + 1  # the item that was hidden since
    assert "no store" in palate("refit", bundle, "--store", "sqlite:///none.db", "--out", "x", code=2)


def test_the_original_file_stands_in_for_the_rows_of_the_bundle(bundle, shop, tmp_path, palate):
    filled = Filled(tmp_path, [(f"u{n % 39:02}", n % 30, "like", None, n) for n in range(120)])
    shop.to_polars().vstack(
        pl.DataFrame([("held out", item(5), 1.0, 1.7e9)], schema=shop.to_polars().schema, orient="row")
    ).write_csv(tmp_path / "rows.csv")
    words = ("refit", bundle, "--store", f"sqlite:///{tmp_path}/events.db", "--data", tmp_path / "rows.csv")
    words = (*words, "--json", "--exit-code", "--out", tmp_path / "new")
    report = json.loads(palate(*words, code=1).partition("\n}")[0] + "}")
    assert not report["recommended"]
    made = Bundle.load(tmp_path / "new")
    assert made.recommender.users.row("held out") >= 0
    assert made.recommender.seen.feedback == Bundle.load(bundle).recommender.seen.feedback
    assert made.refit["seq"] == 120
    assert made.metrics[0]["metric"]
    filled.store.engine.dispose()
