"""`palate onboard`: the list of questions, and an interview through stdin that ends in recommendations."""

from __future__ import annotations

import io
import subprocess

import pytest
from terminal import COMMAND, board, mistake, palate


@pytest.fixture(scope="module")
def shop(tmp_path_factory):
    """A folder with the bundle b of a checkerboard: even users touch even items, odd users odd ones."""
    folder = tmp_path_factory.mktemp("shop")
    (folder / "clicks.csv").write_text(board())
    (folder / "items.csv").write_text("item,title\n" + "".join(f"i{n},Thing {n}\n" for n in range(24)))
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        palate("train", "ease", "clicks.csv", "--set", "regularization=5", "--items", "items.csv",
               "--split", "none", "--out", "b").ok()  # fmt: skip
    return folder


@pytest.fixture(autouse=True)
def _here(shop, monkeypatch):
    monkeypatch.chdir(shop)


def test_the_list_has_both_kinds_and_says_why():
    rows = palate("onboard", "b", "-n", 4, "--json").ok().json
    assert list(rows[0]) == ["item_id", "rank", "share", "why", "title"]
    assert {int(row["item_id"][1:]) % 2 for row in rows} == {0, 1}
    assert all(row["share"] == 0.5 for row in rows)
    assert all("speaks for Thing" in row["why"] and "against Thing" in row["why"] for row in rows)


def test_the_table_shows_titles_and_ten_items():
    shown = palate("onboard", "b").ok().out
    assert shown.count("speaks for") == 10
    assert "Thing" in shown


def interview(monkeypatch, replies: list[str], *words: object):
    monkeypatch.setattr("sys.stdin", io.StringIO("".join(f"{reply}\n" for reply in replies)))
    return palate("onboard", "b", "--ask", *words)


def test_likes_give_lists_of_their_kind(monkeypatch):
    first = palate("onboard", "b", "-n", 1, "--json").ok().json[0]
    kind = int(first["item_id"][1:]) % 2
    result = interview(monkeypatch, ["l"] * 3, "--answers", 3, "-k", 4, "--json").ok()
    given = [row["item_id"] for row in result.json["answers"]]
    assert given[0] == first["item_id"]
    assert len(given) == 3
    assert all(row["weight"] == 1.0 for row in result.json["answers"])
    # Having liked one of a kind, somebody is asked about that kind.
    assert {int(item[1:]) % 2 for item in given} == {kind}
    listed = result.json["recommendations"]
    assert {int(row["item_id"][1:]) % 2 for row in listed} == {kind}
    assert {row["source"] for row in listed} == {"fold-in"}
    assert not {row["item_id"] for row in listed} & set(given)


def test_a_dislike_turns_the_list_around(monkeypatch):
    liked = interview(monkeypatch, ["l"], "--answers", 1, "-k", 3, "--json").ok().json
    disliked = interview(monkeypatch, ["d"], "--answers", 1, "-k", 3, "--json").ok().json
    assert disliked["answers"][0]["item_id"] == liked["answers"][0]["item_id"]
    assert disliked["answers"][0]["weight"] < 0
    kinds = [{int(row["item_id"][1:]) % 2 for row in one["recommendations"]} for one in (liked, disliked)]
    assert len(kinds[0]) == 1
    assert kinds[0] != kinds[1]


def test_nothing_known_gives_popular_items_and_typing_errors_are_asked_again(monkeypatch):
    result = interview(monkeypatch, ["what?", "", "n", "q"], "-k", 2, "--json").ok()
    assert "'what?' is no answer" in result.err
    assert result.err.count("1 of 5: Thing") == 4
    assert result.json["answers"] == []
    assert {row["source"] for row in result.json["recommendations"]} == {"popular"}


def test_the_questions_end_with_the_catalog_and_the_input(monkeypatch):
    result = interview(monkeypatch, ["n"] * 30, "--json").ok()
    assert "nothing left to ask about" in result.err
    assert interview(monkeypatch, []).ok().out.startswith("Recommendations after 0 answers")


def test_a_real_process_asks_on_stderr_and_answers_on_stdout(shop):
    words = (*COMMAND, "onboard", "b", "--ask", "--answers", "2", "-k", "3")
    done = subprocess.run(words, check=False, cwd=shop, input="l\nl\n", capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    assert "2 of 2: Thing" in done.stderr
    assert "of 2:" not in done.stdout
    assert "fold-in" in done.stdout


def test_mistakes_are_one_line():
    assert "does not exist" in mistake(palate("onboard", "nowhere"))
    assert "-n" in mistake(palate("onboard", "b", "-n", 0))
