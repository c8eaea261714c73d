"""Experiments: who sees which arm, what is logged, and results from feedback on a real server."""

from __future__ import annotations

import random
import time
from collections import Counter
from contextlib import contextmanager

import numpy as np
import pytest

from palate.base import TrainOptions
from palate.bundle import Bundle
from palate.client import Client
from palate.models.popularity import Popularity
from palate.serve import tables
from palate.serve.experiments import Arm, Experiment, Plan, place, team_draft
from palate.serve.outcomes import Served, observations, results, summarize
from palate.serve.settings import EVENTS
from palate.serve.store import Store

USERS = [f"v{n:03}" for n in range(60)]


def plan(**fields):
    arms = [Arm(name="old", model="m1"), Arm(name="new", model="m2")]
    return Plan(**{"name": "test", "arms": arms, "users": 400, "hours": 0, **fields})


# The hash and the draft.


def test_users_are_parted_evenly_for_ever_and_anew_by_each_experiment():
    one = np.array([place("one", f"u{n}") for n in range(20_000)])
    two = np.array([place("two", f"u{n}") for n in range(20_000)])
    assert place("one", "u7") == one[7]
    assert abs(one.mean() - 0.5) < 0.01
    counts = np.histogram(one, 10, (0, 1))[0]
    assert counts.min() > 1_850
    assert counts.max() < 2_150
    assert abs(np.corrcoef(one, two)[0, 1]) < 0.03


def test_a_team_draft_has_no_item_twice_and_takes_from_both_in_their_order():
    rng = random.Random(1)
    a, b = list("abcdefgh"), list("bazyxcde")
    for _ in range(200):
        drafted = team_draft([a, b], 6, rng)
        items = [[a, b][team][where] for team, where in drafted]
        assert len(set(items)) == 6
        assert Counter(team for team, _ in drafted) == {0: 3, 1: 3}
        for team in (0, 1):
            places = [where for one, where in drafted if one == team]
            assert places == sorted(places)
    assert {team_draft([a, b], 1, rng)[0][0] for _ in range(50)} == {0, 1}
    assert len(team_draft([["a"], ["a", "b", "c"]], 10, rng)) == 3
    assert team_draft([[], []], 3, rng) == []


def test_equal_rankers_share_the_credit_of_random_clicks():
    rng = random.Random(2)
    items = list("abcdefghij")
    credits = [0, 0]
    for _ in range(4_000):
        drafted = team_draft([items, items], 10, rng)
        credits[drafted[rng.randrange(3)][0]] += 1  # clicks go to the first places
    assert abs(credits[0] - credits[1]) < 4 * 4_000**0.5


# Generated worlds; tests/evaluation/test_online.py counts how often equal arms have a winner.


def world(rng, users, rates, plan):
    """Lists of users of both arms, where a user of arm n clicks in a list with a chance around rates[n]."""
    lists = []
    for number in range(users):
        arm = int(rng.random() < 0.5)
        own = rng.beta(8 * rates[arm], 8 * (1 - rates[arm]))  # users differ, and their lists depend on each other
        for _ in range(int(rng.integers(1, 6))):
            items = list("abcde")
            clicked = {items[int(rng.integers(5))]} if rng.random() < own else set()
            name = plan.arms[arm].name if plan.kind == "ab" else None
            lists.append(Served(f"u{number}", float(number), name, items, clicked=clicked))
    return lists


def decided(plan, lists):
    users, _ = observations(plan, lists)
    return summarize(Experiment(plan, "running", 0.0, 0.0), users)


@pytest.mark.parametrize("rule", ["fixed", "sequential"])
@pytest.mark.parametrize("metric", ["click_through", "ndcg"])
def test_a_better_arm_is_found(rule, metric):
    rng, one = np.random.default_rng(4), plan(rule=rule, metric=metric, users=600, effect=0.1)
    winners = [decided(one, world(rng, 1_400, (0.2, 0.35), one))["winner"] for _ in range(5)]
    assert Counter(winners)["new"] == 5


def test_before_its_size_a_fixed_experiment_tells_nothing():
    rng, one = np.random.default_rng(5), plan(users=400)
    early = decided(one, world(rng, 300, (0.1, 0.6), one))
    assert not early["decided"]
    assert early["winner"] is None
    assert early["difference"]["p"] is None
    assert early["sentence"].startswith("Not decided: ")
    assert "of 400 users" in early["sentence"]
    late = decided(one, world(rng, 1_200, (0.1, 0.6), one))
    assert late["winner"] == "new"
    assert late["complete"] == 400
    assert late["arms"][0]["users"] == 400
    # More users than were planned do not change the figures.
    lists = world(rng, 1_200, (0.1, 0.6), one)
    first = decided(one, lists)
    more = decided(one, [*lists, *(Served(f"x{n}", 1e6, "new", list("ab"), clicked={"a"}) for n in range(500))])
    assert more["difference"] == first["difference"]


def test_credit_of_an_interleaving_goes_to_the_arm_that_drafted_the_clicked_row():
    one = plan(kind="interleaving", users=300)
    rng, draw = np.random.default_rng(6), random.Random(6)
    lists = []
    for number in range(300):
        good, bad = list("abcdefghij"), list("jihgfedcba")
        drafted = team_draft([bad, good], 10, draw)
        items = [[bad, good][team][where] for team, where in drafted]
        arms = ["old" if team == 0 else "new" for team, _ in drafted]
        liked = {"abc"[int(rng.integers(3))]} if rng.random() < 0.5 else set()
        lists.append(Served(f"u{number}", float(number), None, items, arms, liked))
    found = decided(one, lists)
    assert found["winner"] == "new"
    assert found["arms"][1]["clicks"] > 3 * found["arms"][0]["clicks"]
    # The same with an arm against itself.
    lists = [Served(f"u{n}", float(n), None, ["a", "b"], draw.choice([["old", "new"], ["new", "old"]]), {"a"})
             for n in range(300)]  # fmt: skip
    assert decided(one, lists)["winner"] is None


def test_a_user_who_saw_both_arms_is_left_out():
    one = plan()
    lists = [Served("a", 1.0, "old", ["x"]), Served("a", 2.0, "new", ["x"]), Served("b", 3.0, "new", ["x"])]
    users, mixed = observations(one, lists)
    assert (len(users), mixed) == (1, 1)


# A real server.


@pytest.fixture(scope="module")
def two_models(serving, shop, tmp_path_factory):
    model = Popularity().fit(shop, TrainOptions(threads=1))
    other = Bundle.of(Popularity(), model, shop).save(tmp_path_factory.mktemp("other") / "plain")
    with serving(str(other)) as server:
        yield server


@contextmanager
def running(server, **fields):
    first, second = (one["version"] for one in server.get("/v1/models")["models"])
    arms = [{"name": "deep", "model": first}, {"name": "plain", "model": second}]
    name = f"test {time.monotonic_ns()}"
    body = {"name": name, "arms": arms, "users": 20, "hours": 0, **fields}
    made = server.client.post("/v1/experiments", json=body)
    assert made.status_code == 201, made.text
    assert made.json()["state"] == "draft"
    assert server.get("/v1/recommend", user_id="v000")["experiment"] is None
    server.post(f"/v1/experiments/{name}/start", None)
    try:
        yield name
    finally:
        server.client.post(f"/v1/experiments/{name}/stop")
        assert server.get("/v1/recommend", user_id="v000")["experiment"] is None


def logged(server, name, lists):
    """The results, once all lists are stored: that is after their answers."""
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        rows = [row for row in server.client.get("/v1/export/impressions").iter_lines() if name in row]
        if len(rows) >= lists:
            return server.get(f"/v1/experiments/{name}")["results"]
        time.sleep(0.05)
    raise AssertionError("the lists are not stored")


def test_an_ab_test_from_start_to_decision(two_models):
    server = two_models
    with running(server) as name:
        answers = {user: server.get("/v1/recommend", user_id=user, k=5) for user in USERS}
        arms = {user: answer["arm"] for user, answer in answers.items()}
        models = {answer["arm"]: answer["model"] for answer in answers.values()}
        assert 20 <= Counter(arms.values())["deep"] <= 40
        assert len(set(models.values())) == 2
        assert answers["v003"]["experiment"] == name
        again = server.get("/v1/recommend", user_id="v003", k=5)
        assert again["arm"] == arms["v003"]
        page = server.get("/v1/recommend", recommendation_id=again["recommendation_id"])
        assert (page["arm"], page["model"]) == (again["arm"], again["model"])
        assert page["items"][0]["rank"] == 6
        # Reasons are those of the arm: the first item of the list has the first place there, too.
        for user in USERS[:4]:
            first = answers[user]["items"][0]["item_id"]
            why = server.get("/v1/why-not", user_id=user, item_id=first)
            assert (why["model"], why["place"]) == (answers[user]["model"], 1)
        # A request that names a model, and one without a user, take no part.
        assert server.get("/v1/recommend", user_id="v003", model=answers["v003"]["model"])["experiment"] is None
        posted = server.post("/v1/recommend", {"history": ["i/00 ä"]})
        assert posted["experiment"] is None
        for user, answer in answers.items():
            if arms[user] == "plain":
                item = answer["items"][1]["item_id"]
                event = {"user_id": user, "item_id": item, "type": "click"}
                server.post("/v1/feedback", {**event, "recommendation_id": answer["recommendation_id"]})
        # Feedback of another user, and on an item that was not listed, is nobody's click.
        first = answers["v000"]
        for event in (
            {"user_id": "stranger", "item_id": first["items"][0]["item_id"]},
            {"user_id": "v000", "item_id": "nothing"},
        ):
            server.post("/v1/feedback", {**event, "type": "click", "recommendation_id": first["recommendation_id"]})
        found = logged(server, name, 62)
        assert found["decided"]
        assert found["winner"] == "plain"
        assert found["arms"][0]["clicks"] == 0
        assert found["arms"][1]["click_through"]["value"] > 0.9
        assert 0.5 < found["arms"][1]["ndcg"]["value"] < 0.65  # the second place
        assert found["complete"] == found["needed"] == 20
        assert found["difference"]["p"] < 0.01
        assert "plain is better than deep" in found["sentence"]
        assert server.client.delete(f"/v1/models/{models['plain']}").status_code == 409
        assert server.client.delete(f"/v1/experiments/{name}").status_code == 409
    assert server.client.post(f"/v1/experiments/{name}/start").status_code == 409
    listed = server.get("/v1/experiments")["experiments"]
    assert [one["state"] for one in listed if one["name"] == name] == ["stopped"]
    assert server.client.delete(f"/v1/experiments/{name}").status_code == 204
    assert server.client.get(f"/v1/experiments/{name}").status_code == 404


def test_interleaved_lists_go_on_and_credit_the_drafting_arm(two_models):
    server = two_models
    with running(server, kind="interleaving", users=10, rule="sequential") as name:
        for user in USERS[:12]:
            answer = server.get("/v1/recommend", user_id=user, k=6, explain=True)
            assert answer["arm"] is None
            assert Counter(row["arm"] for row in answer["items"]) == {"deep": 3, "plain": 3}
            assert [row["rank"] for row in answer["items"]] == [1, 2, 3, 4, 5, 6]
            page = server.get("/v1/recommend", recommendation_id=answer["recommendation_id"])
            both = [row["item_id"] for row in answer["items"] + page["items"]]
            assert len(set(both)) == 12
            assert page["items"][0]["rank"] == 7
            clicked = next(row for row in page["items"] if row["arm"] == "deep")
            event = {"user_id": user, "item_id": clicked["item_id"], "type": "purchase"}
            server.post("/v1/feedback", {**event, "recommendation_id": answer["recommendation_id"]})
        found = logged(server, name, 24)
        assert found["arms"][0] == {"name": "deep", "users": 10, "clicks": 10, "preferred_by": 10}
        assert found["difference"]["metric"] == "credit"
        assert found["difference"]["difference"] == -1


def test_users_are_complete_after_their_hours_and_gone_with_their_data(two_models):
    server = two_models
    with running(server, hours=24) as name:
        server.get("/v1/recommend", user_id="v001")
        found = logged(server, name, 1)
        assert (found["served_users"], found["incomplete_users"], found["complete"]) == (1, 1, 0)
        server.client.delete("/v1/users/v001")
        assert server.get(f"/v1/experiments/{name}")["results"]["served_users"] == 0


def test_the_client_makes_an_experiment_and_reads_its_results(two_models):
    server = two_models
    first, second = (one["version"] for one in server.get("/v1/models")["models"])
    with Client(server.url, timeout=60) as client:
        made = client.create_experiment("by client", {"old": first, "new": second}, 5, hours=0, metric="ndcg")
        try:
            assert made["state"] == "running"
            listed = client.recommend("by client", k=3)
            assert listed.experiment == "by client"
            assert listed.arm in ("old", "new")
            client.feedback("by client", listed.rows[0].item_id, "like", recommendation_id=listed.id)
            logged(server, "by client", 1)
            result = client.experiment("by client")["results"]
            assert sum(arm["clicks"] for arm in result["arms"]) == 1
            assert result["sentence"] == "Not decided: 0 of 5 users of each arm are complete."
        finally:
            client.stop_experiment("by client")
        assert client.experiments()[0]["state"] == "stopped"
        assert "Stopped before its rule" in client.experiment("by client")["results"]["sentence"]


def test_results_are_the_same_from_each_database(store):
    opened = Store(store)
    one = Experiment(plan(users=3, types=["click"]), "running", 0.0, 0.0)
    shown, events = [], []
    for number in range(8):
        arm = "new" if number % 2 else "old"
        about = {"recommendation_id": f"r{number}", "first_rank": 1, "user_id": f"u{number}", "time": float(number)}
        shown.append({**about, "model": "m", "items": '["a","b"]', "sources": "[]", "experiment": "test", "arm": arm})
        about = {"event_id": f"e{number}", "user_id": f"u{number}", "recommendation_id": f"r{number}", "item_id": "b"}
        kind = "click" if number < 6 else "skip"
        events.append({**about, "type": kind, "time": 9.0, "received": 9.0, "undone": number < 2})
    shown.append({**shown[0], "recommendation_id": "other", "experiment": "another"})
    with opened.engine.begin() as connection:
        connection.execute(tables.impressions.insert(), shown)
        connection.execute(tables.events.insert(), events)
    found = opened.read_now(lambda connection: results(connection, one, EVENTS))
    assert [(arm["users"], arm["clicks"]) for arm in found["arms"]] == [(3, 2), (3, 2)]  # 0 and 1 were taken back
    assert found["arms"][0]["click_through"]["value"] == pytest.approx(2 / 3)
    assert found["arms"][0]["ndcg"]["value"] == pytest.approx(2 / 3 / np.log2(3))
    assert found["decided"]
    assert found["winner"] is None
    opened.engine.dispose()


def test_a_plan_that_cannot_work_is_refused(two_models):
    server = two_models
    first, second = (one["version"] for one in server.get("/v1/models")["models"])
    arms = [{"name": "a", "model": first}, {"name": "b", "model": second}]
    good = {"name": "x", "arms": arms, "users": 10}
    for change, status, words in (
        ({"arms": [arms[0], {"name": "b", "model": "none"}]}, 404, "load it first"),
        ({"arms": [arms[0], {"name": "b", "model": first}]}, 422, "two different"),
        ({"arms": [{**arms[0], "share": 0.8}, arms[1]]}, 422, "sum to 1.3"),
        ({"arms": arms[:1]}, 422, "arms"),
        ({"users": 1}, 422, "users"),
        ({"types": ["nod"]}, 422, "nod"),
        ({"name": "a/b"}, 422, "name"),
    ):
        answer = server.client.post("/v1/experiments", json={**good, **change})
        assert answer.status_code == status, (change, answer.text)
        assert words in answer.json()["detail"]
    assert server.client.post("/v1/experiments", json={**good, "name": "twice"}).status_code == 201
    assert server.client.post("/v1/experiments", json={**good, "name": "twice"}).status_code == 409
    with running(server):
        other = server.client.post("/v1/experiments/twice/start")
        assert other.status_code == 409
        assert "stop it first" in other.json()["detail"]
    assert server.client.post("/v1/experiments/twice/stop").status_code == 409
    assert server.client.post("/v1/experiments/none/stop").status_code == 404
