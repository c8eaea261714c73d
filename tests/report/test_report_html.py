"""The page: every number in its place, nothing from outside, nothing that data can break, readable by anybody."""

from __future__ import annotations

import copy
import re
from html.parser import HTMLParser
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

pytest.importorskip("altair", reason="the page needs the report extra")
pytest.importorskip("vl_convert", reason="the page needs the report extra")

from palate.report.cells import measure
from palate.report.folds import results_tables
from palate.report.page import page
from palate.report.plots import Plots, fold, markers

VOID = {"meta", "link", "br"}
EVIL = '</td><script>alert("1")</script><img src=x onerror=alert(2)> & "quoted" {{ 7 * 7 }}'


class Reader(HTMLParser):
    """Collects tags, attributes and text, and complains about tags that are not closed in order."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.words: list[str] = []
        self.feed(text)
        assert not self.open

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if "style" not in self.open:
            self.words.append(data)

    def all(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.tags if name == tag]

    @property
    def text(self) -> str:
        return " ".join(" ".join(self.words).split())


def test_every_number_of_the_main_table_is_there_with_its_interval(made: dict[str, Any], text: str) -> None:
    words = Reader(text).text
    for one in made["models"]:
        for report in (one["full"], one["sampled"]):
            for metric in ("NDCG", "HitRate", "MRR"):
                found = measure(report, metric, 10)
                if found is not None:
                    assert f"{found['value']:.4f} {found['low']:.4f} to {found['high']:.4f}" in words


def test_full_and_sampled_numbers_stand_in_groups_of_their_own(text: str) -> None:
    main = text[text.index("All models on the same") : text.index("</thead>")]
    groups = re.findall(r'scope="colgroup" colspan="(\d+)"[^>]*><span>([^<:]*)', main)
    assert [name for _, name in groups] == ["Full ranking", "Sampled", "Cost"]
    labels = re.findall(r'scope="col" [^>]*>([^<]*)<', main)
    full, sampled = int(groups[0][0]), int(groups[1][0])
    assert labels[1 : 1 + full] == labels[1 + full : 1 + full + sampled]
    assert labels[1 + full + sampled :] == ["Training, s", "Scoring, s", "Memory, MB"]


def test_the_page_says_what_was_found_and_on_what(made: dict[str, Any], text: str) -> None:
    words = Reader(text).text
    assert "No clear winner." in words
    assert made["winner"]["why"] in words
    assert "broken failed and is not in the tables: memory ran out" in words
    assert made["split"]["fingerprint"] in words
    assert made["candidates"]["fingerprint"] in words
    for sentence in (*made["protocol"], *made["remarks"]):
        assert sentence in words


def test_examples_mark_the_hits(made: dict[str, Any], text: str) -> None:
    lists = [user["recommended"] for one in made["models"] for user in one["examples"]]
    hits = [item["title"] for listed in lists for item in listed if item["hit"]]
    assert hits
    assert len(re.findall('class="hit"', text)) == len(hits)
    assert f"{hits[0]} ✓" in text
    assert all(item["title"] in text for listed in lists for item in listed)


def test_nothing_comes_from_outside(text: str) -> None:
    assert set(re.findall(r"https?://[^\"'\s)]+", text)) <= {"http://www.w3.org/2000/svg"}
    reader = Reader(text)
    assert not {"script", "iframe", "object", "embed", "img", "base"} & {tag for tag, _ in reader.tags}
    links = [attributes["href"] for tag, attributes in reader.tags if "href" in attributes]
    assert all(link is not None and link.startswith(("#", "data:")) for link in links)
    assert not re.findall(r"url\((?!#)|@import|@font-face", text)


def test_every_link_of_the_contents_has_its_section(text: str) -> None:
    reader = Reader(text)
    ids = [attributes["id"] for _, attributes in reader.tags if "id" in attributes]
    assert len(ids) == len(set(ids))
    targets = {str(one["href"])[1:] for one in reader.all("a")}
    assert len(targets) == 11
    assert targets <= set(ids)


def planted(value: Any, text: str) -> Any:
    """The comparison with ``text`` in every name, title, id and sentence that comes from outside."""
    names = {
        "name",
        "title",
        "item",
        "user",
        "why",
        "how",
        "what",
        "remedy",
        "kind",
        "model",
        "baseline",
        "bin",
        "test",
    }
    if isinstance(value, dict):
        return {
            key: f"{one} {text}" if key in names and isinstance(one, str | int) else planted(one, text)
            for key, one in value.items()
        }
    if isinstance(value, list):
        return [f"{one} {text}" if isinstance(one, str) else planted(one, text) for one in value]
    return value


def test_nothing_that_comes_from_data_is_taken_for_markup(made: dict[str, Any], text: str) -> None:
    plain, reader = Reader(text), Reader(page(planted(made, EVIL)))
    assert not {"script", "img"} & {tag for tag, _ in reader.tags}
    assert not [name for _, attributes in reader.tags for name in attributes if name.startswith("on")]
    assert len(reader.all("td")) == len(plain.all("td"))
    assert reader.text.count('<script>alert("1")</script>') > 50
    assert "{{ 7 * 7 }}" in reader.text


def test_what_may_be_missing_leaves_its_section_out(comparison: dict[str, Any]) -> None:
    comparison |= {"candidates": None, "audit": None, "tests": [], "seeds": [0]}
    comparison["winner"] = {"name": "mf", "why": "It is better."}
    for one in comparison["models"]:
        one |= {"sampled": None, "ratings": None, "curve": [], "examples": [], "recipe": None, "tuned": None}
        one |= {"peak_memory_mb": None, "train_seconds": None, "score_seconds": None}
    text = page(comparison)
    ids = {attributes["id"] for _, attributes in Reader(text).tags if "id" in attributes}
    assert {"results", "lengths", "protocol", "words"} <= ids
    assert not {"tests", "ratings", "examples", "data"} & ids
    assert "<strong>The winner is mf.</strong> It is better." in text
    assert not re.search(r"\b(None|nan|NaN|undefined)\b", text)
    assert "ampled candidates are" not in text


def test_headings_tables_and_plots_can_be_read_without_eyes(made: dict[str, Any], text: str) -> None:
    reader = Reader(text)
    levels = [int(tag[1]) for tag, _ in reader.tags if re.fullmatch("h[1-6]", tag)]
    assert levels[0] == 1
    assert levels.count(1) == 1
    assert all(after <= before + 1 for before, after in pairwise(levels))
    assert reader.all("html")[0]["lang"] == "en"
    assert len(reader.all("caption")) == len(reader.all("table")) >= 8
    assert all(one["scope"] in {"col", "row", "colgroup"} for one in reader.all("th"))
    plots = reader.all("svg")
    assert len(plots) >= 14
    assert all(one["role"] == "img" and len(str(one["aria-label"])) > 20 and "viewbox" in one for one in plots)
    ndcg = measure(made["models"][0]["full"], "NDCG", 10)
    assert ndcg is not None
    assert f"popularity {ndcg['value']:.4f}" in str(plots[0]["aria-label"])


def test_a_plot_shows_the_number(comparison: dict[str, Any]) -> None:
    before = Plots(comparison).forest("full")
    changed = measure(comparison["models"][2]["full"], "NDCG", 10)
    assert changed is not None
    changed["value"] = changed["low"] + 0.9 * (changed["high"] - changed["low"])
    after = Plots(comparison).forest("full")
    assert before is not None
    assert after is not None
    drawn = [re.findall(r'<path [^>]*transform="translate\(([\d.]+),', one.svg) for one in (before, after)]
    assert len(drawn[0]) == len(drawn[1]) == len(comparison["models"])
    assert [a == b for a, b in zip(*drawn, strict=True)] == [True, True, False, True]


def test_a_large_comparison_is_drawn_into_a_small_file(comparison: dict[str, Any]) -> None:
    comparison["models"] = [
        {**copy.deepcopy(comparison["models"][place % 3]), "name": f"model {place}"} for place in range(8)
    ]
    text = page(comparison)
    assert len(text.encode()) < 3_000_000


def test_models_look_different() -> None:
    looks = markers([f"model {place}" for place in range(24)])
    assert len(set(looks.values())) == 24
    assert len({one.color for one in list(looks.values())[:8]}) == 8


@settings(deadline=None, max_examples=50)
@given(st.text(min_size=1, max_size=200))
def test_labels_are_folded_into_a_few_short_lines(label: str) -> None:
    lines = fold(label).split("\n")
    assert len(lines) <= 3
    assert max(map(len, lines)) <= 20


@pytest.fixture(scope="module")
def folded(made: dict[str, Any]) -> dict[str, Any]:
    """A comparison on three splits, with a baseline that was tuned on each."""

    def model(name: str, role: str, values: list[float], tuned: str | None) -> dict[str, Any]:
        one = {"value": sum(values) / 3, "low": min(values), "high": max(values), "by_fold": values}
        return {"name": name, "role": role, "tuned": [tuned] * 3, "full": one}

    split = {"how": "window", "fingerprint": "0123456789abcdef", "train_rows": 1234, "test_rows": 56, "test_users": 7}
    return {
        "palate": "0", "created": "2026-01-01T00:00:00+00:00", "data": EVIL, "metric": "NDCG", "k": 10, "users": 7,
        "seeds": [0], "folds": [{**split, "test_rows": 50 + n} for n in range(3)], "failed": [], "remarks": [EVIL],
        "models": [
            model(EVIL, "model", [0.3, 0.2, 0.1], None),
            model("ease (tuned)", "baseline", [0.11, 0.21, 0.22], "regularization=5: best NDCG@10 (0.3) of 3 settings"),
        ],
        "tests": [], "winner": made["winner"], "protocol": ["Three splits."],
    }  # fmt: skip


def test_the_page_of_several_splits_has_the_value_of_each_model_on_each_split(folded: dict[str, Any]) -> None:
    read = Reader(page(folded))
    rows = [" ".join(row.split()) for row in re.split("</tr>", page(folded)) if 'scope="row"' in row]
    for one in folded["models"]:
        shown = [f"{value:.4f}" for value in (one["full"]["value"], *one["full"]["by_fold"])]
        name = one["name"].partition("<")[0]
        assert [row for row in rows if name in row and [text for text in re.findall(r"0\.\d{4}", row) if text in shown]]
    labels = [attributes["aria-label"] for attributes in read.all("svg")]
    assert any("ease (tuned), split 3: 0.2200" in str(label) for label in labels)
    assert "regularization=5" in read.text
    assert not [attributes for tag, attributes in read.tags if tag in {"script", "img"}]


def test_on_each_split_its_best_model_is_marked(folded: dict[str, Any]) -> None:
    (table,) = results_tables(folded)
    best = [[cell.best for cell in row[1:]] for row in table.rows]
    assert best == [[True, True, False, False], [False, False, True, True]]
