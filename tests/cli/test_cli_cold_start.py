"""`palate cold-start`, and what `palate recommend` does for people and items that came after training."""

from __future__ import annotations

import pytest
from terminal import board, mistake, palate


@pytest.fixture(scope="module")
def shop(tmp_path_factory):
    """A folder with clicks.csv, items.csv with a color that says even or odd, and the two-tower bundle b."""
    folder = tmp_path_factory.mktemp("shop")
    color = ("black", "white")
    (folder / "clicks.csv").write_text(board())
    lines = [f"i{n},Thing {n},{color[n % 2]}\n" for n in range(24)]
    (folder / "items.csv").write_text("item,title,color\n" + "".join(lines))
    (folder / "new.csv").write_text("item,title,color\nz0,New black,black\nz1,New white,white\n")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        fields = ("dim=8", "epochs=20", "batch_size=64", "learning_rate=0.05", 'item_features=["color"]')
        sets = [word for field in fields for word in ("--set", field)]
        palate("train", "two-tower", "clicks.csv", "--items", "items.csv", "--split", "none", "--out", "b", *sets).ok()
    return folder


@pytest.fixture(autouse=True)
def _here(shop, monkeypatch):
    monkeypatch.chdir(shop)


def test_new_items_of_a_file_are_recommended_by_their_features():
    result = palate("recommend", "b", "u0", "u1", "-k", 24, "--new-items", "new.csv", "--json").ok()
    assert "2 new items of new.csv join 24" in result.err
    rank = {(row["user_id"], row["item_id"]): row["rank"] for row in result.json}
    assert rank["u0", "z0"] < rank["u0", "z1"]
    assert rank["u1", "z1"] < rank["u1", "z0"]
    new = [row for row in result.json if row["item_id"].startswith("z")]
    assert {row["source"] for row in new} == {"new-item"}
    assert {row["title"] for row in new} == {"New black", "New white"}


def test_new_users_may_get_recent_items_and_less_known_ones():
    recent = palate("recommend", "b", "nobody", "-k", 4, "--cold", "recent", "--json").ok().json
    assert {row["source"] for row in recent} == {"recent"}
    half = palate("recommend", "b", "nobody", "-k", 10, "--explore", "0.5", "--json").ok().json
    assert [row["source"] for row in half].count("explore") == 5
    assert palate("recommend", "b", "nobody", "-k", 10, "--explore", "0.5", "--json").ok().json == half


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("u0", "u1", "--user-features", "age=3"), "--user-features belong to one user, 2 were given"),
        (("u0", "--user-features", "age"), "--user-features 'age' is not column=value"),
        (("ann", "--user-features", "age=3"), "no user feature 'age': the user features are none"),
        (("ann", "--segment", "age"), "segment='age' is no user feature"),
        (("u0", "--explore", "2"), "explore=2.0: must be at most 1"),
        (("u0", "--new-items", "items.csv"), "items 'i0', 'i1', 'i2' are in the catalog already"),
    ],
)
def test_mistakes_end_with_one_line(words, message):
    assert message in mistake(palate("recommend", "b", *words))


def test_a_recipe_is_measured_on_what_it_has_never_met():
    words = ("clicks.csv", "--items", "items.csv", "--cold-users", "0.3", "--cold-items", "0.2", "--history", 2)
    found = palate("cold-start", "ease", *words, "--json").ok().json
    measured = {(row["group"], row["provided"], row["source"]) for row in found["rows"]}
    assert ("cold users", "first 2 rows", "fold-in") in measured
    assert ("cold users", "all rows but the latest", "fold-in") in measured
    assert ("cold items", "among cold items", "model") in measured
    shown = palate("cold-start", "ease", *words).ok()
    assert "cold start" in shown.out
    assert "ease has no item tower" in shown.err
