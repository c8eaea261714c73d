"""The report in a real browser with the network off, at the width of a phone and of a desk, on screen and on paper."""

from __future__ import annotations

import copy
import importlib
import re
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from palate.data.dataset import Dataset
from palate.data.splits.strategies import leave_one_out
from palate.report import write_html

pytest.importorskip("altair", reason="the page needs the report extra")
playwright = pytest.importorskip("playwright.sync_api", reason="a browser test needs playwright")

BROWSER = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
FLAGS = (
    "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
    "--disable-component-update", "--disable-sync",
)  # fmt: skip
EVIL = "<script>document.title = 'taken over'</script> a title without end " + "x" * 300
OVERFLOW = "() => document.documentElement.scrollWidth - document.documentElement.clientWidth"
# Texts of plots that stick out of their figure by more than two pixels.
CLIPPED = """() => [...document.querySelectorAll('figure')].flatMap(figure => {
  const box = figure.getBoundingClientRect();
  return [...figure.querySelectorAll('svg text')].filter(text => {
    const inside = text.getBoundingClientRect();
    return inside.width && (inside.left < box.left - 2 || inside.right > box.right + 2);
  }).map(text => text.textContent);
})"""
SMALLEST = """() => Math.min(...[...document.querySelectorAll('svg text')].map(text => {
  const svg = text.closest('svg');
  return parseFloat(getComputedStyle(text).fontSize) * svg.getBoundingClientRect().width / svg.viewBox.baseVal.width;
}))"""
# WCAG 2 contrast of every text of the page to the paper.
CONTRAST = """() => {
  const light = color => {
    const parts = color.match(/[\\d.]+/g).slice(0, 3).map(part => part / 255);
    const [r, g, b] = parts.map(v => v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4);
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
  };
  const paper = light(getComputedStyle(document.body).backgroundColor);
  const texts = [...document.querySelectorAll('p, td, th, small, a, li, figcaption, summary, .tag, svg text')];
  return Math.min(...texts.map(one => {
    const style = getComputedStyle(one);
    const ink = light(one.closest('svg') ? style.fill : style.color);
    return (Math.max(ink, paper) + 0.05) / (Math.min(ink, paper) + 0.05);
  }));
}"""


@pytest.fixture(scope="module")
def page_file(ml_100k: Dataset, tmp_path_factory: pytest.TempPathFactory) -> Path:
    sys.path.append(str(Path(__file__).parents[1] / "report"))
    make_comparison = importlib.import_module("comparison_maker").make_comparison
    made = make_comparison(leave_one_out(ml_100k, cold="keep"), ["popularity", "item-knn", "ease"])
    made["models"] += [{**copy.deepcopy(made["models"][2]), "name": f"another-long-named-model-{n}"} for n in range(5)]
    made["models"][0]["examples"][0]["recommended"][0]["title"] = EVIL
    made["data"]["name"] = f"ml-100k {EVIL}"
    return write_html(made, tmp_path_factory.mktemp("page") / "report.html")


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    if BROWSER is None:
        pytest.skip("no browser: none of chromium, chromium-browser, google-chrome is on the PATH")
    with playwright.sync_playwright() as start:
        found = start.chromium.launch(executable_path=BROWSER, args=FLAGS)
        yield found
        found.close()


@pytest.fixture(params=[390, 1280], ids=["phone", "desk"])
def shown(request: pytest.FixtureRequest, browser: Any, page_file: Path) -> Iterator[tuple[Any, list[str]]]:
    context = browser.new_context(viewport={"width": request.param, "height": 900}, offline=True)
    page, heard = context.new_page(), []
    page.on("request", lambda one: heard.append(one.url))
    page.on("console", lambda one: heard.append(one.text))
    page.on("pageerror", lambda one: heard.append(str(one)))
    page.goto(page_file.as_uri(), timeout=240_000)
    yield page, heard
    context.close()


def test_it_opens_without_a_network_and_asks_for_nothing(shown: tuple[Any, list[str]], page_file: Path) -> None:
    page, heard = shown
    assert [one for one in heard if not one.startswith("data:")] == [page_file.as_uri()]
    assert page.title().startswith("Recommenders on ml-100k <script>")
    assert page.locator("script").count() == 0


def test_only_wide_tables_scroll_and_no_label_is_cut(shown: tuple[Any, list[str]]) -> None:
    page, _ = shown
    for one in page.locator("summary").all():
        one.click()
    assert page.evaluate(OVERFLOW) <= 0
    assert page.evaluate(CLIPPED) == []
    assert page.evaluate(SMALLEST) >= 9.5


def test_links_of_the_contents_lead_to_their_sections(shown: tuple[Any, list[str]]) -> None:
    page, _ = shown
    page.get_by_role("link", name="Protocol").click()
    assert page.evaluate("() => document.querySelector('#protocol h2').getBoundingClientRect().top") < 900


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_every_text_stands_out_from_the_paper(browser: Any, page_file: Path, scheme: str) -> None:
    page = browser.new_page(color_scheme=scheme)
    page.goto(page_file.as_uri(), timeout=240_000)
    assert page.evaluate(CONTRAST) >= 4.5
    page.close()


def test_on_paper_everything_is_there_in_black_on_white(browser: Any, page_file: Path) -> None:
    page = browser.new_page(color_scheme="dark", viewport={"width": 690, "height": 900})
    page.goto(page_file.as_uri(), timeout=240_000)
    page.emulate_media(media="print")
    assert page.evaluate("() => getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"
    assert page.evaluate("() => getComputedStyle(document.body).color") == "rgb(0, 0, 0)"
    assert page.evaluate(OVERFLOW) <= 0
    hidden = "() => [...document.querySelectorAll('#examples li')].filter(one => !one.offsetHeight).length"
    assert page.evaluate(hidden) == 0
    pdf = page.pdf(format="A4")
    assert 5 <= len(re.findall(rb"/Type /Page\b", pdf)) <= 40
    page.close()
