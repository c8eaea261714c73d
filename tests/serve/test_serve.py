"""A server as its clients see it."""

from __future__ import annotations

import httpx
import pytest

from palate.bundle import Bundle
from palate.recommend import Recommender


@pytest.fixture(scope="session")
def library(bundle) -> Recommender:
    return Bundle.load(bundle).recommender


def rows(frame) -> list[tuple]:
    return [(str(r["item_id"]), r["rank"], round(r["score"], 5), r["source"], r["title"]) for r in frame.to_dicts()]


def served(document) -> list[tuple]:
    return [(r["item_id"], r["rank"], round(r["score"], 5), r["source"], r["title"]) for r in document["items"]]


def test_a_list_names_its_model_its_request_and_the_source_of_each_row(server, library):
    answer = server.client.get("/v1/recommend", params={"user_id": "u00", "k": 4})
    document = answer.json()
    assert document["model"].startswith("shop-ials-")
    assert document["request_id"] == answer.headers["x-request-id"]
    assert served(document) == rows(library.recommend(["u00"], 4))


def test_feedback_is_in_the_next_answer(server, library):
    before = server.ids("u01", k=3)
    stored = server.post("/v1/feedback", {"user_id": "u01", "item_id": before[0], "type": "like", "event_id": "a1"})
    assert (stored["stored"], stored["repeated"]) == (1, 0)
    again = server.post("/v1/feedback", {"user_id": "u01", "item_id": before[0], "type": "like", "event_id": "a1"})
    assert (again["stored"], again["repeated"]) == (0, 1)
    after = server.get("/v1/recommend", user_id="u01", k=3)
    assert before[0] not in [row["item_id"] for row in after["items"]]
    like = float(library.recommend(["u01"], 1, histories={"u01": [before[0]]}, refold=True)["score"][0])
    assert {row["source"] for row in after["items"]} == {"fold-in"}
    expected = library.recommend(["u01"], 3, histories={"u01": [(before[0], 1.0)]}, refold=True)
    assert served(after) == rows(expected)
    assert like == pytest.approx(after["items"][0]["score"])


def test_cloud_events_and_segment_calls_are_understood(server):
    cloud = {
        "specversion": "1.0",
        "id": "1",
        "source": "/shop",
        "type": "like",
        "time": "2026-01-02T03:04:05Z",
        "data": {"user_id": "cloud", "item_id": "i/00 ä", "other": 1},
    }
    assert server.post("/v1/feedback", cloud)["stored"] == 1
    assert server.post("/v1/feedback", cloud)["repeated"] == 1
    track = {
        "type": "track",
        "event": "rating",
        "anonymousId": "segment",
        "messageId": "m1",
        "properties": {"item_id": "i/02 ä", "value": 4},
        "context": {},
    }
    assert server.post("/v1/feedback", track)["stored"] == 1
    (event,) = server.get("/v1/events", user_id="cloud")["events"]
    assert (event["type"], event["time"]) == ("like", 1767323045.0)
    assert {row["source"] for row in server.get("/v1/recommend", session_id="segment")["items"]} == {"fold-in"}
    assert server.client.post("/v1/feedback", json={**cloud, "type": "odd"}).status_code == 422


def test_negative_feedback_is_honored_whatever_the_request_says_and_can_be_taken_back(server):
    (first, *_) = server.ids("u03", k=3)
    server.post("/v1/feedback", {"user_id": "u03", "item_id": first, "type": "hide", "event_id": "hide/1 x"})
    assert first not in server.ids("u03", k=30)
    assert first not in server.ids("u03", k=30, exclude_seen=False)
    why = server.get("/v1/why-not", user_id="u03", item_id=first)
    assert why["stage"] == "feedback"
    assert server.client.delete("/v1/feedback/hide%2F1 x").status_code == 204
    assert server.client.delete("/v1/feedback/hide%2F1 x").status_code == 404
    assert server.ids("u03", k=3)[0] == first


def test_an_unknown_user_gets_popular_items_and_is_told_so_then_becomes_personal(server):
    document = server.get("/v1/recommend", user_id="new/user ?", k=5)
    assert {row["source"] for row in document["items"]} == {"popular"}
    assert "new/user ?" in document["notes"][0]
    server.post("/v1/feedback", {"events": [{"user_id": "new/user ?", "item_id": "i/00 ä", "type": "like"}]})
    document = server.get("/v1/recommend", user_id="new/user ?", k=3)
    assert {row["source"] for row in document["items"]} == {"fold-in"}
    assert all("Tea" in row["title"] for row in document["items"])


def test_the_next_page_goes_on_without_repeats(server):
    first = server.get("/v1/recommend", user_id="u05", k=4)
    second = server.get("/v1/recommend", recommendation_id=first["recommendation_id"])
    assert [row["rank"] for row in second["items"]] == [5, 6, 7, 8]
    both = [row["item_id"] for row in first["items"] + second["items"]]
    assert both == server.ids("u05", k=8)
    gone = server.client.get("/v1/recommend", params={"recommendation_id": "nothing"})
    assert gone.status_code == 410


def test_search_folds_case_and_diacritics(server):
    found = server.get("/v1/search", q="CREME num")["items"]
    assert found
    assert all("Crème" in row["title"] for row in found)
    assert server.get("/v1/search", q="xyz")["items"] == []


def test_an_item_is_found_by_an_id_with_a_slash_and_can_be_hidden(server):
    path = "/v1/items/i%2F28 ä"
    assert server.get(path)["title"] == "Tea number 28"
    assert "i/28 ä" in server.ids("u39", k=30)
    assert server.client.patch(path, json={"hidden": True}).status_code == 200
    assert "i/28 ä" not in server.ids("u39", k=30)
    assert "i/28 ä" not in [row["item_id"] for row in server.get("/v1/popular", k=30)["items"]]
    assert "i/28 ä" not in [row["item_id"] for row in server.get("/v1/similar", item_id="i/26 ä", k=29)["items"]]
    assert server.get("/v1/why-not", user_id="u39", item_id="i/28 ä")["stage"] == "unlisted"
    assert server.client.patch(path, json={"hidden": False}).status_code == 200
    assert "i/28 ä" in server.ids("u39", k=30)


def test_a_user_is_deleted_with_all_data(server):
    server.post("/v1/feedback", {"user_id": "u07", "item_id": "i/01 ä", "type": "like"})
    assert server.client.delete("/v1/users/u07").json() == {"events": 1}
    assert server.client.get("/v1/users/u07").status_code == 404
    assert server.get("/v1/events", user_id="u07")["events"] == []
    assert {row["source"] for row in server.get("/v1/recommend", user_id="u07")["items"]} == {"popular"}


def test_a_session_is_merged_into_an_account(server):
    server.post("/v1/feedback", {"session_id": "s1", "item_id": "i/03 ä", "type": "like"})
    assert {row["source"] for row in server.get("/v1/recommend", session_id="s1")["items"]} == {"fold-in"}
    assert server.post("/v1/sessions/merge", {"session_id": "s1", "user_id": "zoe"}) == {"moved": 1}
    assert {row["source"] for row in server.get("/v1/recommend", session_id="s1")["items"]} == {"popular"}
    assert {row["source"] for row in server.get("/v1/recommend", user_id="zoe")["items"]} == {"fold-in"}


def test_onboarding_asks_and_then_recommends(server):
    questions = server.get("/v1/onboarding", n=4)["items"]
    assert len(questions) == 4
    tea = [row["item_id"] for row in questions if "Tea" in row["title"]]
    document = server.post("/v1/onboarding", {"user_id": "newcomer", "known": tea[:1], "unknown": ["i/01 ä"], "k": 3})
    assert all("Tea" in row["title"] for row in document["items"])


BAD = [
    ("get", "/v1/recommend", {"params": {}}, 422),
    ("get", "/v1/recommend", {"params": {"user_id": "u00", "k": 0}}, 422),
    ("get", "/v1/recommend", {"params": {"user_id": "u00", "k": 31}}, 422),
    ("get", "/v1/recommend", {"params": {"user_id": "u00", "k": "many"}}, 422),
    ("get", "/v1/recommend", {"params": {"user_id": "u00", "at": "nan"}}, 422),
    ("get", "/v1/recommend", {"params": {"user_id": "u00", "scenario": "none"}}, 422),
    ("get", "/v1/recommend", {"params": {"user_id": "x" * 501}}, 422),
    ("post", "/v1/recommend", {"json": {"history": []}}, 422),
    ("post", "/v1/recommend", {"json": {"history": ["nothing", "known"]}}, 422),
    ("post", "/v1/recommend", {"json": {"user_id": "u00", "rules": {"denny": []}}}, 422),
    ("post", "/v1/recommend", {"json": {"user_id": "u00", "candidates": ["none"]}}, 422),
    ("post", "/v1/recommend", {"json": {"user_id": "u00", "other": 1}}, 422),
    ("post", "/v1/recommend", {"content": b'{"user_id": "a", "user_id": "b"}'}, 400),
    ("post", "/v1/recommend", {"content": b'{"user_id": "\xff"}'}, 400),
    ("post", "/v1/recommend", {"content": b'{"user_id": "a", "at": NaN}'}, 400),
    ("post", "/v1/recommend", {"content": b'{"rules":' * 50_000}, 400),
    ("post", "/v1/recommend", {"content": b"[" * 900 + b"]" * 900}, 400),
    ("post", "/v1/recommend", {"content": b" " * 2_000_000}, 413),
    ("post", "/v1/feedback", {"json": {"user_id": "a", "item_id": "i/00 ä", "type": "odd"}}, 422),
    ("post", "/v1/feedback", {"json": {"user_id": "a", "item_id": "i/00 ä", "type": "rating"}}, 422),
    ("post", "/v1/feedback", {"json": {"item_id": "i/00 ä", "type": "like"}}, 422),
    ("post", "/v1/feedback", {"json": {"user_id": "a\x00", "item_id": "i/00 ä", "type": "like"}}, 422),
    ("post", "/v1/feedback", {"json": {"events": []}}, 422),
    ("post", "/v1/feedback", {"json": {"user_id": "a", "item_id": "b", "type": "like", "time": 1.7e12}}, 422),
    ("get", "/v1/similar", {"params": {"item_id": "none"}}, 404),
    ("get", "/v1/why-not", {"params": {"item_id": "none", "user_id": "u00"}}, 404),
    ("get", "/v1/items/none", {}, 404),
    ("get", "/v1/none", {}, 404),
    ("put", "/v1/recommend", {}, 405),
]


@pytest.mark.parametrize(("method", "path", "more", "status"), BAD)
def test_bad_input_gets_a_problem_document(server, method, path, more, status):
    if "content" in more:
        more = {**more, "headers": {"content-type": "application/json"}}
    answer = server.client.request(method, path, **more)
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"] == "application/problem+json"
    problem = answer.json()
    assert problem["status"] == status
    assert problem["detail"]


@pytest.mark.parametrize(
    ("method", "path", "more", "detail"),
    [
        ("get", "/v1/recommend", {"params": {"usr_id": "u00"}}, "parameter 'usr_id' is unknown: did you mean user_id?"),
        ("get", "/v1/recommend", {"params": {"user_id": "u00", "k": [1, 2]}}, "k is there twice"),
        ("get", "/v1/popular", {"params": {"limit": 2}}, "the parameter 'limit' is unknown: there are k"),
        ("get", "/v1/nothing", {}, "there is no such address"),
        ("put", "/v1/recommend", {}, "see the Allow header"),
        ("post", "/v1/recommend", {"json": {"history": ["x", {"item_id": "a", "weight": "b"}]}}, "history.1.weight: "),
        ("post", "/v1/recommend", {"json": {"user_id": "a", "features": {"side": {}}}}, "body.features.side: Input"),
        ("post", "/v1/feedback", {"json": {"events": [{"user_id": "u"}]}}, "body.events.0.item_id: Field required"),
        ("post", "/v1/feedback", {"json": [1]}, "body: Input should be a valid dictionary"),
        (
            "post", "/v1/feedback", {"json": {"user_id": "a", "item_id": "b", "type": "like", "time": 1.7e12}},
            "body.time: is beyond the year 5000: give seconds since 1970, not milliseconds",
        ),
    ],
)  # fmt: skip
def test_a_problem_names_the_place_and_the_remedy(server, method, path, more, detail):
    answer = getattr(server.client, method)(path, **more)
    assert 400 <= answer.status_code < 500
    assert detail in answer.json()["detail"]
    assert "function-" not in answer.text


def test_another_host_or_origin_is_refused(server):
    assert server.client.get("/v1/version", headers={"host": "evil.example"}).status_code == 421
    bad = server.client.post("/v1/feedback", json={}, headers={"origin": "http://evil.example"})
    assert bad.status_code == 403


def test_every_answer_has_strict_headers(server):
    for path in ("/", "/v1/version", "/v1/none"):
        headers = server.client.get(path).headers
        assert "script-src 'self'" in headers["content-security-policy"]
        assert "unsafe" not in headers["content-security-policy"]
        assert headers["x-content-type-options"] == "nosniff"
        assert "server" not in headers


def test_the_store_is_read_again_at_start(serving, tmp_path):
    with serving("--store", "sqlite:///events.db", folder=tmp_path) as first:
        (liked, hidden, *_) = first.ids("u09", k=5)
        first.post("/v1/feedback", {"user_id": "u09", "item_id": liked, "type": "like"})
        first.post("/v1/feedback", {"user_id": "u09", "item_id": hidden, "type": "hide"})
        first.client.patch("/v1/items/i%2F01 ä", json={"hidden": True})
        before = first.get("/v1/recommend", user_id="u09", k=20)["items"]
        assert first.stop() == 0
    assert (tmp_path / "events.db").stat().st_mode & 0o777 == 0o600
    with serving("--store", "sqlite:///events.db", folder=tmp_path) as second:
        assert second.get("/v1/recommend", user_id="u09", k=20)["items"] == before


def test_health_says_which_bundle_answers(server):
    assert server.get("/v1/health/live") == {"status": "ok"}
    ready = server.get("/v1/health/ready")
    assert ready["model"] == server.get("/v1/version")["model"] == server.get("/v1/models")["active"]
    assert isinstance(httpx.get(server.url + "/").text, str)
