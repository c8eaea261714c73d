"""Lists without torch: the same as with it, row for row, and only where that is certain."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from terminal import mistake, palate

from palate.base import DataSpec
from palate.bundle import Bundle
from palate.cli.without_torch import DOT_PRODUCT, OF_RATINGS, lists
from palate.data.dataset import Dataset
from palate.data.frame import from_frame
from palate.models import RECIPES, make_recipe
from palate.models.dot_product import DotProductModel
from palate.recommend.cold_start import ColdStart

ANSWERED = (*DOT_PRODUCT, "ease", "edlae")


@pytest.fixture(scope="module")
def rows() -> Dataset:
    """Ratings from 1 to 5 of 30 users, with pairs that come twice; user u29 likes nothing; item titles."""
    rng = np.random.default_rng(7)
    user, item = rng.integers(0, 30, 600), (rng.random(600) ** 2 * 40).astype(int)
    rating = np.where(user == 29, 1, np.where((user + item) % 2, 5, rng.integers(1, 5, 600)))
    log = pl.DataFrame({"user_id": user, "item_id": item, "rating": rating, "timestamp": rng.permutation(600)})
    log = log.with_columns(pl.format("u{}", "user_id").alias("user_id"), pl.format("i{}", "item_id").alias("item_id"))
    data = from_frame(log)
    return replace(data, titles=pl.select(pl.format("Thing {}", data.items.ids)).to_series())


@pytest.fixture(scope="module")
def bundles(rows, tmp_path_factory):
    """A folder with one bundle per recipe that is answered without torch, each made in a moment."""
    folder = tmp_path_factory.mktemp("bundles")
    for name in ANSWERED:
        recipe = make_recipe(name, fast=True)
        few = {"dim": 6, "epochs": 2, "sweeps": 4, "burn_in": 2, "draws": 2, "item_features": ()}
        recipe = replace(recipe, **{key: value for key, value in few.items() if key in recipe.__dataclass_fields__})
        bundle = Bundle.of(recipe, recipe.fit(rows), rows)
        bundle.save(folder / name)
    return folder


def test_torch_is_not_imported(bundles):
    code = (
        "import sys\nfrom palate.cli import main\nmain()\n"
        "print([name for name in ('torch', 'scipy', 'pytorch_lightning') if name in sys.modules])"
    )
    for name in ("ials", "ease"):
        command = [sys.executable, "-c", code, "recommend", str(bundles / name), "u1", "u2", "-k", "3"]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        assert "Thing" in done.stdout
        assert done.stdout.splitlines()[-1] == "[]"


def test_every_dot_product_of_stored_vectors_is_answered():
    models = {name: make_recipe(name, fast=True).build(DataSpec(3, 4)) for name in RECIPES if name != "two-stage"}
    found = {name for name, model in models.items() if isinstance(model, DotProductModel)}
    assert found == set(DOT_PRODUCT)
    of_ratings = {name for name in found if getattr(models[name], "reads_ratings", False)}
    assert of_ratings - {"wals"} == set(OF_RATINGS)  # of wals it is a field


@pytest.mark.parametrize("name", ANSWERED)
def test_lists_equal_those_of_the_recommender(name, bundles):
    recommender = Bundle.load(bundles / name).recommender
    users = [f"u{n}" for n in (3, 1, 28, 3, 0, *range(5, 20))]
    for k, exclude_seen in ((1, True), (5, True), (100, True), (5, False), (100, False)):
        found = lists(bundles / name, users, k, exclude_seen=exclude_seen)
        expected = recommender.recommend(users, k, exclude_seen=exclude_seen)
        assert found is not None
        assert found.schema == expected.schema
        assert found.drop("score").equals(expected.drop("score"))
        np.testing.assert_allclose(found["score"], expected["score"], rtol=1e-4, atol=1e-6)


def test_less_plain_questions_are_left_to_the_recommender(bundles, rows, tmp_path):
    assert lists(bundles / "ials", ["u1", "nobody"], 3) is None
    assert lists(bundles / "ials", ["u1"], 0) is None
    assert lists(bundles / "ials", [f"u{n}" for n in range(200)], 3) is None
    assert lists(bundles / "bpr", ["u29"], 3) is None  # rows, but none of them positive
    assert lists(bundles / "mf", ["u29"], 3) is not None  # learns from low ratings too
    bundle = Bundle.load(bundles / "ials")
    replace(bundle, recommender=replace(bundle.recommender, cold=ColdStart(explore=0.5))).save(tmp_path / "explores")
    replace(bundle, recommender=bundle.recommender.indexed("exact")).save(tmp_path / "indexed")
    recent = make_recipe("ease", {"half_life_events": 5})
    Bundle.of(recent, recent.fit(rows), rows).save(tmp_path / "recent")
    for name in ("explores", "indexed", "recent", "missing"):
        assert lists(tmp_path / name, ["u1"], 3) is None


def test_the_command_answers_either_way(bundles, tmp_path):
    plain = palate("recommend", bundles / "ials", "u1", "-k", 4, "--json").ok().json
    with_reasons = palate("recommend", bundles / "ials", "u1", "-k", 4, "--json", "--why").ok().json
    assert [row["item_id"] for row in plain] == [row["item_id"] for row in with_reasons]
    both = palate("recommend", bundles / "ials", "u1", "nobody", "-k", 2, "--json").ok().json
    assert [row["source"] for row in both] == ["model", "model", "popular", "popular"]
    few = palate("recommend", bundles / "ials", "u1", "-k", 2, "--out", tmp_path / "lists.csv").ok()
    assert "2 rows written" in few.err


def test_a_damaged_bundle_is_refused_with_its_reason(bundles, rows, tmp_path):
    recipe = make_recipe("ials", {"dim": 4, "epochs": 1})
    model = recipe.fit(rows)
    model.item_table.weight.data[3] = float("nan")
    folder = Bundle.of(recipe, model, rows).save(tmp_path / "nan")
    assert "not finite" in mistake(palate("recommend", folder, "u1"))
    weights = next(Path(folder).glob("weights-*"))
    weights.write_bytes(weights.read_bytes()[:-1])
    assert "weights" in mistake(palate("recommend", folder, "u1"))
