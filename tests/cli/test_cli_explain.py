"""`palate explain`: both sides of one item, from a bundle, for people known and unknown."""

from __future__ import annotations

import pytest
from terminal import board, mistake, palate


@pytest.fixture(scope="module")
def shop(tmp_path_factory):
    folder = tmp_path_factory.mktemp("explain")
    (folder / "clicks.csv").write_text(board())
    (folder / "items.csv").write_text("item,title\n" + "".join(f"i{n},Thing {n}\n" for n in range(24)))
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        for recipe in ("ease", "bpr"):
            palate("train", recipe, "clicks.csv", "--items", "items.csv", "--split", "none", "--out", recipe).ok()
    return folder


@pytest.fixture(autouse=True)
def _here(shop, monkeypatch):
    monkeypatch.chdir(shop)


def number(row: dict) -> int:
    return int(row["item_id"][1:])


@pytest.mark.parametrize(("bundle", "how"), [("ease", "exact"), ("bpr", "leave-one-out")])
def test_a_new_user_with_both_tastes_hears_what_speaks_for_an_item(bundle, how):
    history = "i0,i1,i2,i3,i4,i5"
    told = palate("explain", bundle, "somebody", "i8", "--history", history, "--json").ok().json
    assert (told["user_id"], told["item_id"], told["title"]) == ("somebody", "i8", "Thing 8")
    assert (told["source"], told["method"], told["untested"]) == ("fold-in", how, 0)
    assert {number(row) for row in told["support"]} == {0, 2, 4}
    assert sum(row["share"] for row in told["support"]) == pytest.approx(1)
    assert all(row["effect"] > 0 for row in told["support"])
    assert all(row["effect"] < 0 for row in told["against"])
    if how == "exact":
        effects = [row["effect"] for row in (*told["support"], *told["against"])]
        assert sum(effects) + told["rest"] == pytest.approx(told["explained_score"], abs=1e-5)
    assert told["why"].startswith("because you liked Thing ")


def test_a_known_user_is_asked_by_title_and_the_tables_are_cut():
    shown = palate("explain", "ease", "u0", "thing 6", "--top", 2).ok().out
    assert shown.startswith("Thing 6 for u0: because you liked Thing ")
    assert "What supports it" in shown
    assert "9 more" in shown  # u0 had twelve things, of which Thing 6 itself says nothing
    assert "Exact: the effects add up" in shown
    assert len(palate("explain", "ease", "u0", "i6", "--top", 2, "--json").ok().json["support"]) == 2


def test_a_learned_vector_is_explained_as_the_new_user_it_would_be():
    shown = palate("explain", "bpr", "u0", "i6").ok().out
    assert "Leave-one-out" in shown
    assert "the score of a new user with this history" in shown


def test_an_unknown_user_is_told_how_popular_the_item_is():
    told = palate("explain", "ease", "nobody", "i3", "--json").ok().json
    assert told["why"] == "popular: 12 of 24 users had it"
    assert told["source"] == "popular"
    assert told["support"] == told["against"] == []
    assert "popular: 12 of 24" in palate("explain", "ease", "nobody", "i3").ok().out


def test_unknown_items_are_named():
    assert "unknown item 'Thing 99'" in mistake(palate("explain", "ease", "u0", "Thing 99"))
    result = palate("explain", "ease", "somebody", "i8", "--history", "i0,nothing", "--json").ok()
    assert "history items unknown to clicks (nothing): 1 row" in result.err
