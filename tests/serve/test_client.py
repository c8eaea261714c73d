"""``palate.client`` against a real server."""

from __future__ import annotations

import asyncio

import pytest

from palate.client import AsyncClient, Client, ServerError


def test_a_client_recommends_learns_and_goes_on(server):
    with Client(server.url, timeout=60) as client:
        first = client.recommend("u11", k=3, explain=True)
        assert [row.rank for row in first.rows] == [1, 2, 3]
        assert first.rows[0].why
        second = client.more(first)
        assert [row.rank for row in second.rows] == [4, 5, 6]
        client.feedback("u11", first.rows[0].item_id, "hide", event_id="client-1", recommendation_id=first.id)
        assert first.rows[0].item_id not in [row.item_id for row in client.recommend("u11", k=30).rows]
        client.undo("client-1")
        event = {"user_id": "u11", "item_id": "i/00 ä", "type": "skip", "event_id": "client-2"}
        assert client.events([event, event]) == 1
        assert client.recommend(history=["i/00 ä"], k=1).rows[0].source == "fold-in"
        assert client.search("crème")[0]["title"].startswith("Crème")
        assert client.similar("i/00 ä", 2)
        assert client.why_not("u11", "i/00 ä")["stage"]
        assert client.put_item("client/1", title="Made")["title"] == "Made"
        assert client.change_item("client/1", hidden=True)["hidden"]
        client.delete_user("client-user")


def test_an_error_is_what_the_server_says(server):
    with Client(server.url, timeout=60) as client:
        with pytest.raises(ServerError, match="scenario") as found:
            client.recommend("u11", scenario="none")
        assert found.value.status == 422


def test_the_same_with_coroutines(server):
    async def ask():
        async with AsyncClient(server.url, timeout=60) as client:
            await client.feedback("async", "i/01 ä", "like")
            assert await client.events([{"user_id": "async", "item_id": "i/03 ä", "type": "like"}]) == 1
            lists = await asyncio.gather(*(client.recommend("async", k=k) for k in (1, 2, 3)))
            assert [row.rank for row in (await client.more(lists[2])).rows] == [4, 5, 6]
            await client.feedback("async", "i/05 ä", "hide", event_id="async-1")
            await client.undo("async-1")
            assert (await client.search("crème", 1))[0]["title"].startswith("Crème")
            assert len(await client.similar("i/00 ä", 2)) == 2
            assert (await client.why_not("async", "i/01 ä"))["stage"] == "seen"
            assert (await client.put_item("async/1", title="Made"))["title"] == "Made"
            assert (await client.change_item("async/1", hidden=True))["hidden"]
            await client.delete_user("async")
            return lists

    assert [len(found.rows) for found in asyncio.run(ask())] == [1, 2, 3]


def test_an_experiment_from_the_client(server, tmp_path):
    with Client(server.url, timeout=60) as client:
        (active,) = {one["version"] for one in server.get("/v1/models")["models"]}
        with pytest.raises(ServerError, match="no loaded model"):
            client.create_experiment("client", {"old": active, "new": "missing"}, 10)
        assert client.experiments() == []
        assert client.recommend("u12").experiment is None
        client.activate_model("shop")
        with pytest.raises(ServerError, match="no other model"):
            client.roll_back()
