"""docs/serve.md is true: every request in it is answered, in its order, and every setting is listed."""

from __future__ import annotations

import json
import re
from dataclasses import fields
from pathlib import Path

import polars as pl
import pytest
import typer.main

import palate
from conftest import start
from palate.cli import app
from palate.serve.settings import EVENTS, Settings

PAGE = (Path(__file__).parents[2] / "docs" / "serve.md").read_text()
GOODS = (("tea", "milk", "sugar", "cup", "spoon", "honey"), ("jam", "bread", "butter", "knife", "plate", "cheese"))
PEOPLE = ("ann", "bob", "eve", "cem", "dan", "fay")


def blocks(kind):
    return re.findall(rf"^```{kind}\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL)


@pytest.fixture(scope="module")
def shop_server(tmp_path_factory):
    folder = tmp_path_factory.mktemp("docs")
    rows = [
        (user, item, 1_600_000_000 + 3_600 * (11 * place + 5 * number))
        for number, user in enumerate(PEOPLE)
        for place, item in enumerate(GOODS[number // 3][: 4 + number % 2] + GOODS[1 - number // 3][: 1 + number % 3])
    ]
    log = palate.from_frame(pl.DataFrame(rows, schema=["user_id", "item_id", "timestamp"], orient="row"), name="shop")
    recipe = palate.IALS(dim=2, epochs=3)
    model = recipe.fit(log, palate.TrainOptions(threads=1, device="cpu"))
    palate.Bundle.of(recipe, model, log).save(folder / "shop")
    plain = palate.make_recipe("popularity")
    palate.Bundle.of(plain, plain.fit(log), log).save(folder / "popular")
    server = start("shop", "popular", folder=folder)
    yield server
    server.stop()
    assert "Traceback" not in server.log.read_text()


def test_every_documented_request_is_answered(shop_server):
    requests = []
    for line in "\n".join(blocks("http")).splitlines():
        if re.match(r"[A-Z]+ /", line):
            requests.append([*line.split(" ", 1), None])
        elif line.strip():
            requests[-1][2] = json.loads(line)
    assert len(requests) > 20
    for method, path, body in requests:
        answer = (
            shop_server.client.request(method, path, json=body) if body else shop_server.client.request(method, path)
        )
        assert answer.is_success, (method, path, answer.text)


def test_the_documented_client_code_runs(shop_server, capsys):
    for text in blocks("python client"):
        exec(compile(text, "serve.md", "exec"), {"url": shop_server.url})
    assert "because" in capsys.readouterr().out


def test_every_setting_is_a_flag_a_variable_and_a_row_of_the_table():
    rows = re.findall(r"^\| `(\w+)` \| `(--[a-z-]+)` \| `(\w+)` \| `?([^`|]*?)`? \|", PAGE, re.MULTILINE)
    settings = {one.name: one.default for one in fields(Settings) if one.name not in ("events", "scenarios")}
    assert [row[0] for row in rows] == [*settings]
    help_ = typer.main.get_command(app).commands["serve"]
    flags = {name for one in help_.params if one.param_type_name == "option" for name in one.opts}
    for name, flag, variable, default in rows:
        assert flag == "--" + name.replace("_", "-")
        assert flag in flags
        assert variable == f"PALATE_SERVE_{name.upper()}"
        assert default.lower() == ("" if settings[name] in ((), None) else str(settings[name]).lower()), name
    assert len(flags - {"--config", "--check"}) == len(rows)


def test_every_event_type_and_route_is_documented(shop_server):
    assert all(f"`{name}`" in PAGE for name in EVENTS)
    for path in shop_server.get("/openapi.json")["paths"]:
        assert path.partition("{")[0].rstrip("/") in PAGE, path
