"""`palate why-not`: one item of one list, from a bundle, with and without rules."""

from __future__ import annotations

import pytest
from terminal import board, mistake, palate

ITEMS = "item,title,kind,in_stock\n" + "".join(
    f"i{n},Thing {n},{'tea' if n % 4 == 0 else 'jam'},{'false' if n == 6 else 'true'}\n" for n in range(24)
)
RULES = 'flags = ["in_stock"]\ncaps = {kind = 2}\n[deny]\nitem_id = ["i2", "gone"]\n[[pins]]\nitem = "i9"\nat = 1\n'


@pytest.fixture(scope="module")
def shop(tmp_path_factory):
    folder = tmp_path_factory.mktemp("why-not")
    (folder / "clicks.csv").write_text(board())
    (folder / "items.csv").write_text(ITEMS)
    (folder / "rules.toml").write_text(RULES)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        palate("train", "ease", "clicks.csv", "--items", "items.csv", "--split", "leave-one-out", "--out", "b").ok()
    return folder


@pytest.fixture(autouse=True)
def _here(shop, monkeypatch):
    monkeypatch.chdir(shop)


def test_every_item_is_in_the_list_or_has_a_stage():
    rules = ("--rules", "rules.toml", "-k", 4, "--json")
    listed = [row["item_id"] for row in palate("recommend", "b", "u1", *rules).ok().json]
    assert listed[0] == "i9" or "i9" not in listed
    stages = {}
    for item in ("i0", "i2", "i3", "i6", "i8", "i9", *listed):
        told = palate("why-not", "b", "u1", item, *rules).ok().json
        stages[item] = told["stage"]
        assert (told["place"] is not None) == (item in listed)
        assert told["place"] is None or listed[told["place"] - 1] == item
        assert 1 <= told["rank"] <= told["items"] == 24
    assert stages["i2"] == stages["i6"] == "rule"
    assert "seen" in stages.values()


def test_the_reason_comes_first_and_the_ranks_in_a_table():
    result = palate("why-not", "b", "u1", "thing 6", "--rules", "rules.toml").ok()
    assert result.out.splitlines()[0] == "Thing 6 is not among the 10 for u1: flag in_stock (it has false)"
    assert "Stage: rule" in result.out
    assert "all items" in result.out
    assert "deny item_id names what no item has (gone): 1 row" in result.err


def test_a_new_user_is_asked_for_with_a_history():
    told = palate("why-not", "b", "somebody", "i4", "--history", "i0,i2,i4,nothing", "--json").ok()
    assert told.json["stage"] == "seen"
    assert "history items unknown to clicks (nothing): 1 row" in told.err
    kept = (
        palate("why-not", "b", "somebody", "i4", "--history", "i0,i2,i4", "--include-seen", "-k", 24, "--json")
        .ok()
        .json
    )
    assert kept["stage"] == "listed"


def test_mistakes_are_told_in_one_line(shop):
    assert "unknown item 'i99': did you mean" in mistake(palate("why-not", "b", "u1", "i99"))
    (shop / "bad.toml").write_text("caps = {kinds = 2}\n")
    line = mistake(palate("why-not", "b", "u1", "i1", "--rules", "bad.toml"))
    assert "cap on kinds: the items have no column 'kinds': did you mean 'kind'?" in line
    line = mistake(palate("recommend", "b", "u1", "--rules", "gone.toml"))
    assert "cannot read the rules gone.toml" in line
