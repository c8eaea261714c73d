"""The page in a real browser: what a visitor does, by mouse and keyboard, and every view at two widths and themes."""

from __future__ import annotations

import re
import shutil
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx
import pytest

from palate.base import TrainOptions
from palate.bundle import Bundle
from palate.models.item_knn import ItemKNN

playwright = pytest.importorskip("playwright.sync_api", reason="a browser test needs playwright")
expect = playwright.expect

BROWSER = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
FLAGS = (
    "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
    "--disable-component-update", "--disable-sync",
)  # fmt: skip
EVIL = "<script>document.title = 'taken over'</script><img src=x onerror=document.title='taken'>"
OVERFLOW = "() => document.documentElement.scrollWidth - document.documentElement.clientWidth"
AXE = Path(__file__).with_name("vendor") / "axe.min.js"
# The rules of WCAG 2.2 at levels A and AA.
RUN_AXE = """async () => {
  const rules = ['wcag2a', 'wcag2aa', 'wcag21a', 'wcag21aa', 'wcag22aa', 'best-practice'];
  const found = await axe.run(document, {runOnly: rules});
  return found.violations.filter(one => ['serious', 'critical', 'moderate'].includes(one.impact))
    .map(one => one.id + ': ' + one.nodes.map(node => node.html.slice(0, 200) + ' ' + node.failureSummary).join(' | '));
}"""
VIEWS = {
    "try": "#/try", "known": "#/try?user=u07", "overview": "#/overview", "users": "#/users", "user": "#/users/u07",
    "items": "#/items", "item": "#/items/i%2F03%20%C3%A4", "scenarios": "#/scenarios", "experiments": "#/experiments",
    "models": "#/models", "data": "#/data", "settings": "#/settings",
}  # fmt: skip
WAIT = 120_000


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    if BROWSER is None:
        pytest.skip("no browser: none of chromium, chromium-browser, google-chrome is on the PATH")
    with playwright.sync_playwright() as start:
        found = start.chromium.launch(executable_path=BROWSER, args=FLAGS)
        yield found
        found.close()


@pytest.fixture(scope="module")
def shop_server(serving, shop, tmp_path_factory) -> Iterator[Any]:
    """A server of two bundles with a scenario."""
    recipe = ItemKNN()
    model = recipe.fit(shop, TrainOptions(threads=1, device="cpu"))
    other = Bundle.of(recipe, model, shop).save(tmp_path_factory.mktemp("other") / "knn")
    config = tmp_path_factory.mktemp("config") / "serve.toml"
    config.write_text("[scenarios.mixed]\nk = 6\nrules = { caps = { kind = 2 } }\n")
    with serving(str(other), "--config", str(config)) as running:
        yield running


@pytest.fixture
def page(browser: Any, shop_server: Any) -> Iterator[Any]:
    """A fresh visitor whose browser complains about nothing at the end."""
    context = browser.new_context(viewport={"width": 1280, "height": 900}, reduced_motion="reduce")
    context.set_default_timeout(WAIT)
    expect.set_options(timeout=WAIT)
    opened = watched(context, shop_server.url)
    yield opened
    assert opened.complaints == []
    context.close()


def watched(context: Any, url: str) -> Any:
    """A page that notes errors, failed requests, other hosts and breaches of the content security policy."""
    page = context.new_page()
    page.complaints = []
    page.on("console", lambda one: page.complaints.append(one.text) if one.type in ("error", "warning") else None)
    page.on("pageerror", lambda one: page.complaints.append(str(one)))
    page.on("request", lambda one: None if one.url.startswith((url, "data:")) else page.complaints.append(one.url))
    page.on("dialog", lambda one: page.complaints.append(one.message))
    page.set_default_timeout(WAIT)
    page.base = url
    return page


def open_list(page: Any, hash: str = "#/try") -> Any:
    """The cards of the list, once they are there."""
    page.goto(f"{page.base}/{hash}")
    cards = page.locator("[aria-label=Recommendations] > .card")
    expect(cards.first).to_be_visible()
    return cards


def ids(cards: Any) -> list[str]:
    return cards.evaluate_all("cards => cards.map(card => card.dataset.item)")


def test_a_like_changes_the_list_and_undo_changes_it_back(page):
    cards = open_list(page)
    expect(cards.first.locator(".badge")).to_have_text("popular")
    expect(page.get_by_text("Nothing is known about you yet")).to_be_visible()
    before = ids(cards)
    tea = page.locator(".card", has_text="Tea").first
    liked = tea.get_attribute("data-item")
    tea.get_by_role("button", name="Like").click()
    expect(cards.first.locator(".badge").first).to_have_text("live")
    assert liked not in ids(cards)
    assert all("Tea" in title for title in cards.locator("h3").all_text_contents()[:3])
    expect(cards.first.get_by_text("Why this?")).to_be_visible()
    expect(page.locator("[aria-labelledby=said] li")).to_have_count(1)
    expect(page.locator("[aria-labelledby=said] li").first).to_contain_text("Tea")
    sizes = page.locator("svg").evaluate_all("icons => icons.map((icon) => icon.getBoundingClientRect().width)")
    assert max(sizes) <= 48  # an icon that no rule sizes would fill the panel
    page.locator(".toast").get_by_role("button", name="Undo").click()
    expect(cards.first.locator(".badge").first).to_have_text("popular")
    assert ids(cards) == before


def test_a_hidden_item_is_gone_for_good(page):
    cards = open_list(page, "#/try?user=u11")
    first = ids(cards)[0]
    cards.first.get_by_role("button", name=re.compile("^Hide")).click()
    expect(page.locator(f'.card[data-item="{first}"]')).to_have_count(0)
    page.reload()
    expect(cards.first).to_be_visible()
    assert first not in ids(cards)
    expect(page.locator("[aria-labelledby=said] li")).to_have_count(1)
    page.get_by_role("button", name=re.compile("^Take back")).click()
    expect(page.locator(f'.card[data-item="{first}"]')).to_have_count(1)


def test_questions_are_answered_one_after_the_other(page):
    cards = open_list(page)
    question = page.locator(".question h3")
    asked = []
    for button in ("I like it", "Not for me", "I don’t know it"):
        asked.append(question.text_content())
        page.locator(".question").get_by_role("button", name=button).click()
        expect(question).not_to_have_text(asked[-1])
    assert len(set(asked)) == 3
    assert page.get_by_role("progressbar").get_attribute("aria-valuenow") == "3"
    expect(cards.first.locator(".badge").first).to_have_text("live")
    expect(page.locator("[aria-labelledby=said] li")).to_have_count(3)


def test_searching_and_liking_needs_only_the_keyboard(page):
    cards = open_list(page)
    page.locator("body").press("Tab")
    expect(page.get_by_role("link", name="Skip to the content")).to_be_focused()
    page.keyboard.press("Enter")
    for _ in range(10):
        page.keyboard.press("Tab")
        if page.evaluate("document.activeElement.id") == "find":
            break
    page.keyboard.type("creme number 1")
    hits = page.get_by_role("list", name="Items found").get_by_role("listitem")
    expect(hits.first).to_be_visible()
    title = hits.first.locator(".title").text_content()
    page.keyboard.press("Tab")
    page.keyboard.press("Tab")
    expect(page.get_by_role("button", name=f"Like {title}").first).to_be_focused()
    page.keyboard.press("Enter")
    expect(cards.first.locator(".badge").first).to_have_text("live")
    assert all("Crème" in text for text in cards.locator("h3").all_text_contents()[:3])


def test_the_focus_goes_on_to_the_next_card(page):
    cards = open_list(page)
    second = ids(cards)[1]
    cards.first.get_by_role("button", name="Like").focus()
    page.keyboard.press("Enter")
    expect(cards.first.locator(".badge").first).to_have_text("live")
    page.wait_for_function("document.activeElement !== document.body")  # an effect, which comes after the new list
    assert page.evaluate("document.activeElement.closest('.card')?.dataset.item ?? 'gone'") in (second, "gone")


def test_why_not_says_why(page):
    open_list(page, "#/try?user=u04")
    page.get_by_label("Search titles").fill("creme")
    page.get_by_role("button", name=re.compile("^Why not")).first.click()
    dialog = page.get_by_role("dialog", name="Why not this?")
    expect(dialog.get_by_text("rank")).not_to_have_count(0)
    page.keyboard.press("Escape")
    expect(dialog).to_have_count(0)


def test_choosing_a_user_shows_that_list(page, shop_server):
    cards = open_list(page)
    page.get_by_role("button", name="Choose a user").click()
    page.get_by_label("User id").fill("u0")
    page.get_by_role("dialog").get_by_role("button", name=re.compile("u06")).click()
    expect(page.get_by_role("heading", name="u06")).to_be_visible()
    expect(cards.first.locator(".badge")).to_have_text("model")
    assert ids(cards)[:5] == shop_server.ids("u06", k=5)


def test_the_list_goes_on_and_can_be_filtered(page):
    cards = open_list(page, "#/try?user=u08")
    first = ids(cards)
    page.get_by_role("button", name="Show more").click()
    expect(cards).not_to_have_count(len(first))
    assert len(set(ids(cards))) == cards.count() > len(first)
    page.get_by_role("button", name="cream").click()
    expect(cards.first.locator("h3")).to_contain_text("Crème")
    assert all("Crème" in text for text in cards.locator("h3").all_text_contents())


def test_a_title_is_text_everywhere(page, shop_server):
    item = "i/28 ä"
    changed = shop_server.client.patch("/v1/items/i%2F28 ä", json={"title": EVIL})
    assert changed.status_code == 200
    try:
        open_list(page)
        page.get_by_label("Search titles").fill("script")
        expect(page.get_by_role("list", name="Items found")).to_contain_text("<script>")
        page.get_by_role("button", name=re.compile("^Like <script>")).first.click()
        expect(page.locator(".toast")).to_contain_text("<script>")
        for view in ("#/items/i%2F28%20%C3%A4", "#/overview"):
            page.goto(f"{page.base}/{view}")
            expect(page.locator("main")).to_contain_text("<script>")
        assert page.title() != "taken"
        assert page.locator("script:not([src])").count() == 0
    finally:
        shop_server.client.patch(f"/v1/items/{item.replace('/', '%2F')}", json={"title": "Tea number 28"})


def test_hiding_an_item_everywhere_and_listing_it_again(page, shop_server):
    page.goto(f"{page.base}/#/items/i%2F26%20%C3%A4")
    page.get_by_role("button", name="Hide everywhere").click()
    expect(page.locator("main .badge").first).to_have_text("hidden")
    assert "i/26 ä" not in shop_server.ids("brand-new", k=29)
    page.get_by_role("button", name="List it again").click()
    expect(page.locator("main .badge").first).to_have_text("listed")
    assert "i/26 ä" in shop_server.ids("brand-new", k=30)


def test_rules_can_be_tried_before_they_are_used(page):
    page.goto(f"{page.base}/#/scenarios")
    page.get_by_label("User id").fill("u02")
    page.get_by_label("Rules").fill('{"caps": {"kind": 1}}')
    page.get_by_role("button", name="Show the list").click()
    lists = page.locator(".preview ol")
    expect(lists).to_have_count(2)
    assert lists.nth(0).locator("li").count() == 10
    assert lists.nth(1).locator("li").count() == 2  # one of each kind
    page.get_by_label("Rules").fill("{nonsense")
    page.get_by_role("button", name="Show the list").click()
    expect(page.get_by_role("alert")).to_contain_text("not JSON")


def test_an_experiment_is_planned_started_decided_and_adopted(page, shop_server):
    old, new = (one["version"] for one in shop_server.get("/v1/models")["models"])
    page.goto(f"{page.base}/#/experiments")
    expect(page.get_by_text("No experiments yet")).to_be_visible()
    page.get_by_label("Name").fill("page test")
    page.get_by_role("button", name="NDCG").click()
    page.get_by_label("Users of each arm").fill("6")
    page.get_by_label("Hours a user is observed").fill("0")
    page.get_by_role("button", name="Make the plan").click()
    expect(page.get_by_role("heading", name="page test")).to_be_visible()
    page.get_by_role("button", name="Start").click()
    expect(page.get_by_role("heading", name="Not decided yet")).to_be_visible()
    try:
        for number in range(30):
            listed = shop_server.get("/v1/recommend", user_id=f"p{number}", k=5)
            if listed["arm"] == "new":
                event = {"user_id": f"p{number}", "item_id": listed["items"][0]["item_id"], "type": "like"}
                shop_server.post("/v1/feedback", {**event, "recommendation_id": listed["recommendation_id"]})
        expect(page.get_by_role("heading", name="new is better")).to_be_visible()  # it looks again by itself
        expect(page.get_by_role("img", name=re.compile("^new minus old: "))).to_be_visible()
        page.evaluate(AXE.read_text("utf-8"))
        assert page.evaluate(RUN_AXE) == []
        assert page.evaluate(OVERFLOW) <= 0
        page.get_by_role("button", name="Stop, and let new answer everybody").click()
        expect(page.get_by_text("stopped")).to_be_visible()
        assert shop_server.get("/v1/models")["active"] == new
        page.get_by_role("button", name="Delete").click()
        expect(page.get_by_text("No experiments yet")).to_be_visible()
    finally:
        shop_server.client.post("/v1/experiments/page test/stop")
        shop_server.post("/v1/models/activate", {"model": old})


def test_a_server_that_asks_for_keys_is_asked_for_one(browser, serving):
    with serving(PALATE_SERVE_REQUIRE_KEYS="true") as running:
        context = browser.new_context()
        page = watched(context, running.url)
        page.goto(running.url)
        expect(page.get_by_role("heading", name="An API key is needed")).to_be_visible(timeout=WAIT)
        page.get_by_label("API key").fill("palate_no.key")
        page.get_by_role("button", name="Use this key").click()
        expect(page.get_by_role("heading", name="An API key is needed")).to_be_visible(timeout=WAIT)
        assert all("401" in one for one in page.complaints)
        context.close()


def test_the_overview_shows_an_event_as_it_is_stored(page, shop_server):
    asked = []
    page.on("request", lambda one: asked.append(urlsplit(one.url).path))
    page.goto(f"{page.base}/#/overview")
    expect(page.get_by_text("Running for")).to_be_visible()
    before = asked.count("/v1/events")
    lines = page.locator("[aria-labelledby=events] li")
    for number in range(3):
        event = {"user_id": f"stream-{number}", "item_id": "i/04 ä", "type": "like", "event_id": f"live{number}"}
        shop_server.post("/v1/feedback", event)
        expect(lines.first).to_contain_text(f"stream-{number}")
    assert asked.count("/v1/events") == before
    assert "/v1/stats" not in asked
    shop_server.client.delete("/v1/feedback/live2")
    expect(lines.first).to_contain_text("stream-1")


def test_a_user_and_an_item_show_an_event_as_it_is_stored(page, shop_server):
    lines = page.locator("[aria-labelledby=events] li")
    page.goto(f"{page.base}/#/users/u08")
    expect(page.get_by_text("None. Feedback about this user")).to_be_visible()
    shop_server.post("/v1/feedback", {"user_id": "u08", "item_id": "i/05 ä", "type": "like", "event_id": "seen live"})
    expect(lines.first).to_contain_text("Crème number 5")
    shop_server.post("/v1/feedback", {"user_id": "u09", "item_id": "i/06 ä", "type": "like"})
    page.goto(f"{page.base}/#/items/i%2F06%20%C3%A4")
    expect(lines).to_have_count(1)
    shop_server.post("/v1/feedback", {"user_id": "u10", "item_id": "i/06 ä", "type": "like"})
    expect(lines.first).to_contain_text("u10")
    shop_server.client.delete("/v1/feedback/seen%20live")


def test_the_fields_of_an_item_can_be_changed(page, shop_server):
    page.goto(f"{page.base}/#/items/i%2F06%20%C3%A4")
    before = shop_server.get("/v1/items/i%2F06 ä")["features"]
    kind = page.get_by_label("kind", exact=True)
    expect(kind).to_have_value(before["kind"])
    kind.fill("odd")
    page.get_by_role("button", name="Save").click()
    expect(page.get_by_text("saved", exact=True)).to_be_visible()
    assert shop_server.get("/v1/items/i%2F06 ä")["features"] == {**before, "kind": "odd"}
    kind.fill(before["kind"])
    page.get_by_role("button", name="Save").click()
    expect(page.locator("[aria-labelledby=about] dd", has_text=before["kind"]).first).to_be_visible()


def test_exposure_tells_how_places_are_spread(page, shop_server):
    told = shop_server.get("/v1/stats/exposure")
    for number in range(4):
        shop_server.ids(f"u{number:02}", k=5)
    now = shop_server.get("/v1/stats/exposure", limit=3)
    assert (now["lists"] - told["lists"], now["places"] - told["places"]) == (4, 20)
    shares = [one["share"] for one in now["top"]]
    assert shares == sorted(shares)
    assert len(now["most_shown"]) == 3
    assert now["most_shown"][0]["places"] >= now["most_shown"][2]["places"] > 0
    page.goto(f"{page.base}/#/overview")
    expect(page.locator("[aria-labelledby=exposure]")).to_contain_text("top 50 % of items")


def test_the_overview_asks_where_there_is_no_stream(browser, serving):
    with serving(PALATE_SERVE_MAX_STREAMS="1") as running:
        context = browser.new_context()
        page = watched(context, running.url)
        with running.client.stream("GET", "/v1/stream"):
            page.goto(f"{running.url}/#/overview")
            expect(page.get_by_text("Running for")).to_be_visible(timeout=WAIT)
            event = {"user_id": "polled", "item_id": "i/04 ä", "type": "like"}
            httpx.post(f"{running.url}/v1/feedback", json=event, timeout=60)
            expect(page.locator("[aria-labelledby=events] li").first).to_contain_text("polled", timeout=WAIT)
        with page.expect_response(lambda one: one.url.endswith("/v1/stream") and one.ok, timeout=WAIT):
            pass  # the place is free again
        assert all("503" in one for one in page.complaints)
        context.close()


@pytest.fixture
def shop_page(shop_server) -> Iterator[str]:
    """A page of another server with the documented snippet; that server forwards to the API."""
    documented = (Path(__file__).parents[2] / "docs" / "serve.md").read_text()
    (snippet,) = re.findall(r"^```html\n(.*?)^```", documented, re.MULTILINE | re.DOTALL)

    class Shop(BaseHTTPRequestHandler):
        def answer(self, status: int, kind: str, content: bytes) -> None:
            self.send_response(status)
            self.send_header("Content-Type", kind)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        def forward(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
            headers = {"Content-Type": "application/json"}
            found = httpx.request(self.command, shop_server.url + self.path, content=body, headers=headers, timeout=60)
            self.answer(found.status_code, found.headers["Content-Type"], found.content)

        def do_GET(self) -> None:
            if self.path.startswith("/v1/"):
                self.forward()
            else:
                page = "<!doctype html><link rel=icon href=data:,>" + snippet
                self.answer(200, "text/html; charset=utf-8", page.encode())

        do_POST = forward

        def log_message(self, *_: Any) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Shop) as shop:
        threading.Thread(target=shop.serve_forever).start()
        yield f"http://127.0.0.1:{shop.server_port}"
        shop.shutdown()


def test_a_page_of_a_shop_lists_and_reports_clicks(browser, shop_page, shop_server):
    context = browser.new_context()
    page = watched(context, shop_page)
    page.goto(shop_page)
    rows = page.locator("#for-you a")
    expect(rows).to_have_count(4, timeout=WAIT)
    clicked = rows.nth(1).text_content()
    with page.expect_response(lambda one: one.url.endswith("/v1/feedback") and one.ok, timeout=WAIT):
        rows.nth(1).click()
    (event,) = shop_server.get("/v1/events", user_id="visitor")["events"]
    assert (event["title"], event["type"]) == (clicked, "click")
    assert event["recommendation_id"]
    assert page.complaints == []
    context.close()


@pytest.mark.parametrize(("width", "scheme"), [(390, "dark"), (1280, "light")])
def test_every_view_fits_and_is_accessible(browser, shop_server, width, scheme):
    context = browser.new_context(
        viewport={"width": width, "height": 900}, color_scheme=scheme, reduced_motion="reduce"
    )
    page = watched(context, shop_server.url)
    for name, hash in VIEWS.items():
        page.goto(f"{page.base}/{hash}")
        expect(page.locator("main h1")).to_be_visible(timeout=WAIT)
        expect(page.locator(".bone:not(.tall)")).to_have_count(0, timeout=WAIT)
        page.evaluate(AXE.read_text("utf-8"))
        assert page.evaluate(RUN_AXE) == [], name
        assert page.evaluate(OVERFLOW) <= 0, name
    assert page.complaints == []
    context.close()
