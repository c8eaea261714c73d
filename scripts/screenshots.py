"""Pictures of the page and of a report for the documentation, and of every view for a look, from examples/data.

    python scripts/screenshots.py                  # docs/img/*.png
    python scripts/screenshots.py --all FOLDER     # every view at 390 and 1280 px, light and dark
    python scripts/screenshots.py --report [--all FOLDER]     # the report alone

Needs the extras client, dev and serve, Pillow, and Debian's Chromium (`make browser`). A picture is made of a fresh
server with the same clicks each time; its colors are reduced, so that it stays below 200 kB.
"""

from __future__ import annotations

import argparse
import io
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
from PIL import Image
from playwright.sync_api import Page, sync_playwright

ROOT = Path(__file__).resolve().parents[1]
DATA = ROOT / "examples" / "data"
FLAGS = ("--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-background-networking", "--disable-sync")
VIEWS = {
    "try": "#/try", "known": "#/try?user=u0313", "overview": "#/overview", "users": "#/users", "user": "#/users/u0313",
    "items": "#/items", "item": "#/items/p001", "scenarios": "#/scenarios", "experiments": "#/experiments",
    "experiment": "#/experiments/neighbors", "models": "#/models", "data": "#/data", "settings": "#/settings",
}  # fmt: skip
CONFIG = """
[scenarios.home]
k = 12
rules = { caps = { category = 3 } }

[scenarios.gifts]
k = 8
rules = { allow = { category = ["gifts", "sweets"] } }
"""


@contextmanager
def serving(folder: Path) -> Iterator[str]:
    """The URL of a server of two bundles of the shop."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT / "src"), "OMP_NUM_THREADS": "1"}
    palate = [sys.executable, "-m", "palate"]
    for recipe in ("ials", "item-knn"):
        files = [str(DATA / "clicks.csv"), "--items", str(DATA / "items.csv")]
        command = [*palate, "train", recipe, *files, "--out", str(folder / recipe)]
        subprocess.run(command, check=True, capture_output=True, env=environment)
    (folder / "serve.toml").write_text(CONFIG)
    command = [*palate, "serve", "ials", "item-knn", "--config", "serve.toml", "--port", "0"]
    log = folder / "log"
    with log.open("w") as stream:
        process = subprocess.Popen(command, stderr=stream, cwd=folder, env=environment)
    try:
        while (found := re.search(r"listens on (http://\S+)", log.read_text())) is None:
            if process.poll() is not None:
                raise SystemExit(log.read_text())
            time.sleep(0.1)
        yield found[1]
    finally:
        process.terminate()
        process.wait(60)


def traffic(url: str, seconds: float) -> None:
    """Visitors, so that the overview has something to show."""
    with httpx.Client(base_url=url, timeout=60) as client:
        end, number = time.monotonic() + seconds, 0
        while time.monotonic() < end:
            user = f"u{1 + number * 37 % 390:04}"
            rows = client.get("/v1/recommend", params={"user_id": user, "k": 5}).json().get("items", [])
            if rows and number % 3 == 0:
                item = rows[number % len(rows)]["item_id"]
                kind = ("like", "view", "cart", "purchase", "hide")[number % 5]
                client.post("/v1/feedback", json={"user_id": user, "item_id": item, "type": kind})
            number += 1
            time.sleep(0.05 + 0.04 * (number // 20 % 3))


def trial(url: str) -> None:
    """An experiment whose users click more often in the lists of one arm."""
    arms = [{"name": "factors", "model": "ials"}, {"name": "neighbors", "model": "item-knn"}]
    plan = {"name": "neighbors", "arms": arms, "users": 150, "hours": 0}
    with httpx.Client(base_url=url, timeout=60) as client:
        for name in ("neighbors", "interleaved lists"):
            client.post("/v1/experiments", json={**plan, "name": name}).raise_for_status()
        client.post("/v1/experiments/neighbors/start").raise_for_status()
        for number in range(360):
            user = f"u{1 + number % 390:04}"
            answer = client.get("/v1/recommend", params={"user_id": user, "k": 10}).json()
            if number % 100 < (22 if answer["arm"] == "factors" else 41):
                clicked = answer["items"][number * 7 % 4]["item_id"]
                event = {"user_id": user, "item_id": clicked, "type": "click"}
                client.post("/v1/feedback", json={**event, "recommendation_id": answer["recommendation_id"]})
    time.sleep(1)  # lists are stored after their answers


def still(page: Page) -> None:
    """Wait until nothing loads."""
    page.wait_for_selector("main h1")
    page.wait_for_function("() => !document.querySelector('main .bone')")
    page.wait_for_load_state("networkidle") if "overview" not in page.url else page.wait_for_timeout(2500)
    page.wait_for_timeout(400)


def save(page: Page, path: Path, full: bool = False) -> None:
    """A picture with 128 colors: the page has few, and the file becomes a third as large."""
    picture = Image.open(io.BytesIO(page.screenshot(full_page=full))).convert("RGB")
    picture.quantize(128, method=Image.Quantize.MAXCOVERAGE, dither=Image.Dither.NONE).save(path, optimize=True)
    print(f"{path.name}: {path.stat().st_size / 1000:.0f} kB")


def like(page: Page, title: str) -> None:
    """Search a title and like it."""
    page.get_by_label("Search titles").fill(title)
    page.get_by_role("button", name=f"Like {title}").first.click()
    page.locator(".toast").wait_for()
    still(page)


def report(browser: Any, everything: Path | None) -> None:
    """The top of the report of a comparison for the documentation, or all of it at two widths in two themes."""
    out = everything or ROOT / "docs" / "img"
    out.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as folder:
        options = ["--recipes", "item-knn,ease,ials,popularity", "--no-baselines", "--split", "leave-one-out"]
        command = [sys.executable, "-m", "palate", "compare", str(DATA / "clicks.csv"), *options, "--out", folder]
        environment = {**os.environ, "PYTHONPATH": str(ROOT / "src"), "OMP_NUM_THREADS": "1"}
        subprocess.run(command, check=True, capture_output=True, env=environment)
        for width in (390, 1280) if everything else (1280,):
            for scheme in ("light", "dark") if everything else ("light",):
                page = browser.new_page(viewport={"width": width, "height": 1300}, color_scheme=scheme)
                page.goto((Path(folder) / "report.html").as_uri())
                name = f"report-{width}-{scheme}.png" if everything else "report.png"
                save(page, out / name, full=everything is not None)
                page.close()


def for_docs(browser: Any, url: str, out: Path) -> None:
    """The pictures of the documentation."""
    out.mkdir(parents=True, exist_ok=True)

    def fresh(width: int, height: int, scheme: str) -> Page:
        context = browser.new_context(
            viewport={"width": width, "height": height},
            color_scheme=scheme,
            reduced_motion="reduce",
            is_mobile=width < 500,
        )
        return context.new_page()

    page = fresh(1280, 860, "light")
    page.goto(f"{url}/#/try")
    still(page)
    like(page, "Deluxe chai")
    like(page, "Organic green tea")
    page.get_by_label("Search titles").fill("")
    page.locator(".reasons summary").first.click()
    page.mouse.move(0, 0)
    save(page, out / "page-try.png")
    page = fresh(1280, 760, "dark")
    page.goto(f"{url}/#/overview")
    still(page)
    save(page, out / "page-overview.png")
    page = fresh(390, 844, "light")
    page.goto(f"{url}/#/try?user=u0313")
    still(page)
    page.locator("#list").scroll_into_view_if_needed()
    page.evaluate("() => window.scrollBy(0, document.querySelector('#list').getBoundingClientRect().top - 70)")
    save(page, out / "page-phone.png")
    trial(url)
    page = fresh(1280, 860, "light")
    page.goto(f"{url}/#/experiments/neighbors")
    still(page)
    save(page, out / "page-experiment.png")


def every_view(browser: Any, url: str, out: Path) -> None:
    """Every view at two widths in two themes."""
    out.mkdir(parents=True, exist_ok=True)
    for width in (390, 1280):
        for scheme in ("light", "dark"):
            context = browser.new_context(viewport={"width": width, "height": 900}, color_scheme=scheme)
            page = context.new_page()
            for name, hash in VIEWS.items():
                page.goto(f"{url}/{hash}")
                still(page)
                save(page, out / f"{name}-{width}-{scheme}.png", full=True)
            context.close()


def main() -> None:
    """Train, serve, click, save."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--all", type=Path, metavar="FOLDER", help="every view, into this folder")
    parser.add_argument("--report", action="store_true", help="the report alone, without a server")
    arguments = parser.parse_args()
    everything: Path | None = arguments.all
    browser_path = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=browser_path, args=FLAGS)
        report(browser, everything)
        browser.close()
    if arguments.report:
        return
    with tempfile.TemporaryDirectory() as folder, serving(Path(folder)) as url, sync_playwright() as playwright:
        traffic(url, 60)
        browser = playwright.chromium.launch(executable_path=browser_path, args=FLAGS)
        if everything is None:
            for_docs(browser, url, ROOT / "docs" / "img")
        else:
            trial(url)
            every_view(browser, url, everything)
        browser.close()


if __name__ == "__main__":
    main()
