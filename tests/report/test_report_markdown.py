"""The Markdown version: the same numbers as the page, in tables that stay tables whatever the data are called."""

from __future__ import annotations

import re
from typing import Any

from palate.report.cells import measure
from palate.report.files import markdown

CELLS = re.compile(r"(?<!\\)\|")


def tables(text: str) -> list[list[str]]:
    """The lines of each table."""
    return [block.splitlines() for block in re.findall(r"(?:^\|.*\n)+", text, re.MULTILINE)]


def test_all_numbers_of_the_page_are_in_it(made: dict[str, Any]) -> None:
    text = markdown(made)
    for one in made["models"]:
        for k in made["lengths"]:
            found = measure(one["full"], "MAP", k)
            assert found is not None
            assert f"{found['value']:.4f}" in text
    rating = measure(made["models"][2]["ratings"]["all"], "RMSE", None)
    assert rating is not None
    assert f"{rating['value']:.4f}" in text


def test_every_row_has_the_columns_of_its_head(made: dict[str, Any]) -> None:
    found = tables(markdown(made))
    assert len(found) >= 9
    for lines in found:
        assert len({len(CELLS.findall(line)) for line in lines}) == 1
        assert re.fullmatch(r"\|(-+:?\|)+", lines[1])


def test_full_and_sampled_numbers_are_told_apart_in_the_head(made: dict[str, Any]) -> None:
    head = tables(markdown(made))[0][0]
    assert head.count("NDCG@10, full ranking") == head.count("NDCG@10, sampled") == 1


def test_names_cannot_break_a_table_or_become_markup(comparison: dict[str, Any]) -> None:
    name = "a|b\n# c <script>*d*</script> `e` [f](g)"
    plain = tables(markdown(comparison))
    comparison["models"][0]["name"] = name
    comparison["models"][0]["examples"][0]["recommended"][0]["title"] = name
    text = markdown(comparison)
    assert [len(lines) for lines in tables(text)] == [len(lines) for lines in plain]
    assert r"a\|b \# c \<script\>\*d\*\</script\> \`e\` \[f\](g)" in text
    assert "<script" not in text.replace(r"\<script", "")


def test_it_says_the_verdict_the_protocol_and_the_examples(made: dict[str, Any]) -> None:
    text = markdown(made)
    assert text.startswith("# Comparison of recommenders on board\n\n**No clear winner.** The best two are too close")
    assert f"- {made['protocol'][1]}" in text
    assert "### User 0" in text
    assert re.search(r"\*\*Title of \d+\*\* \(hit\)", text)


def test_what_is_missing_is_left_out(comparison: dict[str, Any]) -> None:
    comparison |= {"audit": None, "tests": [], "candidates": None, "seeds": [0]}
    for one in comparison["models"]:
        one |= {"sampled": None, "ratings": None, "examples": [], "recipe": None}
    text = markdown(comparison)
    assert not re.search(r"\b(None|nan)\b", text)
    assert not set(re.findall("^## (.*)", text, re.MULTILINE)) & {
        "Predicted ratings",
        "Example recommendations",
        "Data audit",
    }
