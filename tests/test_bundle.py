"""Bundle: what was saved comes back bit by bit, and anything else is refused in one sentence."""

from __future__ import annotations

import dataclasses
import json
import multiprocessing
import os
import pickletools
import random
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
import torch
from polars.testing import assert_frame_equal, assert_series_equal

from palate import storage
from palate.base import DataSpec, Query
from palate.bundle import FORMAT, Bundle
from palate.data.dataset import Dataset, Interactions
from palate.data.ids import IdMap
from palate.errors import BundleError, ModelError
from palate.models import RECIPES
from palate.models.neumf import GMF
from palate.models.two_tower import TwoTower, TwoTowerModel
from palate.retrieval import build_index

IDS: dict[str, Callable[[int], Any]] = {
    "int": lambda n: 7 * n - 3,
    "string": lambda n: f"u/{n}",
    "unicode": lambda n: f"élève-{n}-東京 \u0639\u0631\u0628\u064a",
}
PARTS = ["weights", "users", "items", "seen"]


def dataset(kind: str = "string", users: int = 12, items: int = 15, *, rich: bool = True, seed: int = 0) -> Dataset:
    rng = np.random.default_rng(seed)
    rows = 6 * users
    interactions = Interactions(
        rng.integers(users, size=rows).astype(np.int32),
        rng.integers(items, size=rows).astype(np.int32),
        rng.random(rows).astype(np.float32),
        rng.random(rows) * 1e9 if rich else None,
    )
    genres = pl.Series("genres", [["Drame", "Comédie"][: 1 + n % 2] for n in range(items)])
    return Dataset(
        "donnée",
        IdMap(pl.Series("id", [IDS[kind](n) for n in range(users)])),
        IdMap(pl.Series("id", [IDS[kind](n) for n in range(items)])),
        interactions,
        user_features=pl.DataFrame({"id": range(users), "seen": ["x"] * users}) if rich else None,
        item_features=pl.DataFrame({"title": np.arange(items) / 3, "genres": genres}) if rich else None,
        titles=pl.Series("title", [f"Amélie à Łódź n° {n}" if n else None for n in range(items)]) if rich else None,
    )


def bundle(name: str = "neumf", train: Dataset | None = None, seed: int = 0) -> Bundle:
    """An untrained network counts as fitted here: its weights are as arbitrary as any."""
    train = train or dataset()
    torch.manual_seed(seed)
    recipe = RECIPES[name].fast()
    model = recipe.fit(train) if name == "popularity" else recipe.build(DataSpec(train.n_users, train.n_items))
    model.trained_on = train.fingerprint
    metrics = [{"metric": "NDCG", "k": 10, "value": np.float32(0.5), "low": float("nan"), "users": np.int64(7)}]
    return Bundle.of(recipe, model, train, metrics, split_fingerprint="5" * 32)


def scores(saved: Bundle) -> torch.Tensor:
    n_users = len(saved.recommender.users)
    with torch.inference_mode():
        return saved.recommender.model.score(Query.of(np.arange(n_users)))


def same(one: Bundle, two: Bundle) -> bool:
    """Whether both hold the same weights, ids and histories."""
    a, b = one.recommender, two.recommender
    states = a.model.state_dict().values(), b.model.state_dict().values()  # type: ignore[attr-defined]
    weights = all(x.shape == y.shape and torch.equal(x, y) for x, y in zip(*states, strict=True))
    return weights and a.users == b.users and np.array_equal(a.seen.items, b.seen.items)


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    return bundle().save(tmp_path / "bundle")


def file_of(folder: Path, part: str) -> Path:
    return folder / Bundle.info(folder)["files"][part]["name"] if part in PARTS else folder / "manifest.json"


@pytest.mark.parametrize("kind", IDS)
@pytest.mark.parametrize("rich", [True, False])
def test_everything_comes_back(tmp_path: Path, kind: str, rich: bool) -> None:
    one = bundle(train=dataset(kind, rich=rich))
    two = Bundle.load(one.save(tmp_path / "deep" / "bundle"))
    a, b = one.recommender, two.recommender
    assert two.recipe == one.recipe
    assert (two.split, two.candidates, two.created, two.versions) == (one.split, None, one.created, one.versions)
    assert two.metrics == ({"metric": "NDCG", "k": 10, "value": 0.5, "low": None, "users": 7},)
    assert two.trained_on == one.trained_on
    assert one.trained_on is not None
    assert two.trained_on.record() == one.trained_on.record()  # type: ignore[union-attr]
    two.trained_on.check_same_ids(b.users, b.items)  # type: ignore[union-attr]
    assert one.trained_on.overlap(two.trained_on) == (72, 72)  # type: ignore[arg-type]
    assert (b.name, b.users, b.items) == (a.name, a.users, a.items)
    for field in ("offsets", "items", "weights", "times"):
        np.testing.assert_array_equal(getattr(b.seen, field), getattr(a.seen, field), strict=rich)
    np.testing.assert_array_equal(b.popularity, a.popularity, strict=True)
    if rich:
        assert_series_equal(b.titles, a.titles)
        assert_frame_equal(b.user_features, a.user_features)
        assert_frame_equal(b.item_features, a.item_features)
    else:
        assert (b.titles, b.user_features, b.item_features) == (None, None, None)
    assert torch.equal(scores(one), scores(two))
    assert two.recommender.seen.items.flags.writeable
    # What was loaded can be saved again, and is the same files.
    two.save(tmp_path / "copy")
    assert Bundle.info(tmp_path / "copy") == Bundle.info(tmp_path / "deep" / "bundle")


def test_weights_keep_their_type_and_tensors_may_share_memory(tmp_path: Path) -> None:
    one = bundle()
    model = one.recommender.model
    assert isinstance(model, torch.nn.Module)
    model.double()
    model.user_table.weight = torch.nn.Parameter(model.item_table.weight[:12])
    two = Bundle.load(one.save(tmp_path / "bundle"))
    assert scores(two).dtype == torch.float64
    assert torch.equal(scores(one), scores(two))


FRESH = """
import pickle, sys
from pathlib import Path
import polars as pl, torch
from palate.bundle import Bundle
from palate.models import RECIPES
from palate.models.two_tower import TwoTower, TwoTowerModel
from palate.recommend import Recommender
from palate.base import Query
def refuse(*args, **kwargs): raise AssertionError("pickle was used")
pickle.load = pickle.loads = pickle.Unpickler = torch.load = refuse
for folder in Path(sys.argv[1]).iterdir():
    recommender = Bundle.load(folder).recommender
    users = recommender.users.ids
    recommender.recommend(users, 5).write_parquet(folder.with_suffix(".lists"))
    with torch.inference_mode():
        score = recommender.model.score(Query.of(range(len(users)))).contiguous()
    folder.with_suffix(".scores").write_bytes(score.numpy().tobytes())
"""


def test_another_process_gives_the_same_bits_for_every_recipe_without_pickle(tmp_path: Path) -> None:
    saved = {name: bundle(name) for name in RECIPES}
    for name, one in saved.items():
        one.save(tmp_path / name)
    subprocess.run([sys.executable, "-c", FRESH, str(tmp_path)], check=True)
    for name, one in saved.items():
        assert (tmp_path / f"{name}.scores").read_bytes() == scores(one).contiguous().numpy().tobytes()
        expected = one.recommender.recommend(one.recommender.users.ids, 5)
        assert_frame_equal(pl.read_parquet(tmp_path / f"{name}.lists"), expected, check_exact=True)


def test_a_recipe_of_another_kind_or_shape_is_refused_when_built() -> None:
    train = dataset()
    model = bundle("gmf", train).recommender.model
    for recipe, message in [
        (RECIPES["popularity"].fast(), "recipe popularity builds a PopularityModel, which this .* does not fit"),
        (dataclasses.replace(RECIPES["gmf"].fast(), dim=3), r"has shape \(.*\) instead of \(.*3.*\); give the recipe"),
    ]:
        with pytest.raises(BundleError, match=message):
            Bundle.of(recipe, model, train)


def test_data_with_other_ids_are_refused_when_built() -> None:
    train = dataset()
    one = bundle("gmf", train)
    other = dataclasses.replace(train, users=IdMap(train.users.ids.reverse()))
    with pytest.raises(ModelError, match="ids of the users or their order differ"):
        Bundle.of(one.recipe, one.recommender.model, other)


def test_building_a_bundle_draws_no_random_numbers() -> None:
    one = bundle("neumf")
    torch.manual_seed(5)
    before = torch.get_rng_state()
    Bundle.of(one.recipe, one.recommender.model, dataset())
    assert torch.equal(before, torch.get_rng_state())


def test_a_bundle_shows_its_content_in_a_few_lines() -> None:
    lines = repr(bundle()).splitlines()
    assert len(lines) <= 5
    assert "NeuMF" in lines[0]
    assert "donnée, 12 users, 15 items, trained on 72 rows" in lines[1]
    assert "NDCG@10 0.5000" in lines[2]


@pytest.mark.skipif(sys.platform == "win32", reason="modes are POSIX")
def test_every_file_has_the_mode_of_the_umask(tmp_path: Path) -> None:
    before = os.umask(0o022)
    try:
        folder = bundle().save(tmp_path / "bundle")
    finally:
        os.umask(before)
    assert {path.stat().st_mode & 0o777 for path in folder.iterdir()} == {0o644}


def test_no_file_holds_pickle(saved: Path) -> None:
    files = list(saved.iterdir())
    assert sorted(file.suffix for file in files) == ["", ".json", ".parquet", ".parquet", ".parquet", ".safetensors"]
    for file in files:
        if file.name == ".lock":
            assert file.stat().st_size == 0
            continue
        with pytest.raises(ValueError, match=r"pickle|opcode|codec"):
            list(pickletools.genops(file.read_bytes()))


def test_info_needs_no_torch(saved: Path) -> None:
    code = (
        "import sys; from palate.bundle import Bundle; i = Bundle.info(sys.argv[1])\n"
        "assert 'torch' not in sys.modules; print(i['recipe']['name'], i['data'], i['sizes'], i['trained_on']['rows'])"
    )
    environment = {**os.environ, "PYTHONIOENCODING": "utf-8"}
    done = subprocess.run([sys.executable, "-c", code, str(saved)], capture_output=True, check=True, env=environment)
    assert done.stdout.decode().strip() == "neumf donnée {'users': 12, 'items': 15} 72"


# Damage.


@pytest.mark.parametrize("part", PARTS)
def test_a_changed_byte_anywhere_is_found(saved: Path, part: str) -> None:
    file = file_of(saved, part)
    good = file.read_bytes()
    places = random.Random(0).sample(range(len(good)), 20)
    for place in [0, len(good) - 1, *places]:
        file.write_bytes(good[:place] + bytes([good[place] ^ 1]) + good[place + 1 :])
        with pytest.raises(BundleError, match=f"{part}-.* was changed after it was saved"):
            Bundle.load(saved)
    file.write_bytes(good)
    Bundle.load(saved)


def test_a_changed_byte_of_the_manifest_is_found(saved: Path) -> None:
    file = saved / "manifest.json"
    good = file.read_bytes()
    for place in range(0, len(good), 3):
        file.write_bytes(good[:place] + bytes([good[place] ^ 1]) + good[place + 1 :])
        with pytest.raises(BundleError):
            Bundle.info(saved)
    for length in range(0, len(good), 29):
        file.write_bytes(good[:length])
        with pytest.raises(BundleError, match="cannot be read"):
            Bundle.info(saved)


@pytest.mark.parametrize("part", PARTS)
def test_a_truncated_or_missing_file_is_found(saved: Path, part: str) -> None:
    file = file_of(saved, part)
    good = file.read_bytes()
    for length in (0, len(good) // 2, len(good) - 1):
        file.write_bytes(good[:length])
        with pytest.raises(BundleError, match=f"has {length:,} bytes instead of {len(good):,}"):
            Bundle.load(saved)
    file.unlink()
    with pytest.raises(BundleError, match=rf"{part}-.* is missing"):
        Bundle.load(saved)


def forge(folder: Path, change: Callable[[dict[str, Any]], Any]) -> None:
    """Change the manifest and make its own checksum right again."""
    manifest = json.loads((folder / "manifest.json").read_text())
    change(manifest)
    del manifest["checksum"]
    (folder / "manifest.json").write_text(json.dumps({**manifest, "checksum": storage.digest_json(manifest)}))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda m: m.update(version=FORMAT + 1), "upgrade Palate"),
        (lambda m: m.update(kind="web page"), "not the manifest of a palate bundle"),
        (lambda m: m.pop("recipe"), "malformed"),
        (lambda m: m["files"].pop("seen"), "malformed"),
        (lambda m: m["feedback"].update(magic=1), "malformed"),
        (lambda m: m["recipe"].update(name="oracle"), "unknown recipe 'oracle'.*upgrade"),
        (lambda m: m["recipe"]["fields"].update(magic=1), "recipe neumf has no field 'magic'.*upgrade"),
        (lambda m: m["recipe"]["fields"].update(epochs="many"), "recipe neumf, field epochs='many'"),
        (lambda m: m["recipe"]["fields"].update(dim=3), "does not fit the recipe neumf"),
        (lambda m: m["sizes"].update(items=3), "15 items instead of 3"),
        (lambda m: m["files"]["seen"].update(name="../seen"), "outside itself"),
        (lambda m: m["files"].update(seen=m["files"]["items"]), "which no save writes"),
    ],
)
def test_a_forged_manifest_is_refused(saved: Path, change: Callable[[dict[str, Any]], Any], message: str) -> None:
    forge(saved, change)
    with pytest.raises(BundleError, match=message):
        Bundle.load(saved)


@pytest.mark.parametrize("name", RECIPES)
def test_no_recipe_swallows_unknown_fields(tmp_path: Path, name: str) -> None:
    folder = bundle(name).save(tmp_path / "bundle")
    forge(folder, lambda m: m["recipe"]["fields"].update(magic=1))
    with pytest.raises(BundleError, match="magic"):
        Bundle.load(folder)


def test_a_plain_edit_of_the_manifest_is_found(saved: Path) -> None:
    file = saved / "manifest.json"
    file.write_text(file.read_text().replace('"value": 0.5', '"value": 0.9'))
    with pytest.raises(BundleError, match=r"manifest\.json was changed after it was saved"):
        Bundle.load(saved)


def test_what_is_no_bundle_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_text("text")
    for path, message in [
        (file, "is a file"),
        (tmp_path / "none", "does not exist"),
        (tmp_path, "is not a palate bundle"),
    ]:
        with pytest.raises(BundleError, match=message):
            Bundle.load(path)
    with pytest.raises(BundleError, match="is a file: choose a folder"):
        bundle().save(file)
    with pytest.raises(BundleError, match=r"no bundle \(it holds file\): choose another folder"):
        bundle().save(tmp_path)
    file.unlink()
    (tmp_path / "manifest.json").write_text('{"name": "web page"}')
    with pytest.raises(BundleError, match=r"it holds manifest\.json"):
        bundle().save(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["manifest.json"]


def test_a_recipe_that_cannot_be_rebuilt_is_refused_before_anything_is_written(tmp_path: Path) -> None:
    class Mine(GMF):
        """A recipe that no other process knows by its name."""

    one = bundle("gmf")
    odd = dataclasses.replace(one, recipe=Mine(**dataclasses.asdict(one.recipe)))
    with pytest.raises(BundleError, match="is not the same when read back"):
        odd.save(tmp_path / "bundle")
    assert not (tmp_path / "bundle").exists()


# Overwriting, and dying while at it.


def test_a_new_bundle_replaces_the_old_and_leaves_other_files_alone(saved: Path) -> None:
    (saved / "README.md").write_text("mine")
    two = bundle("gmf", dataset("int", 9, 8, seed=1), seed=1)
    two.save(saved)
    assert torch.equal(scores(Bundle.load(saved)), scores(two))
    assert len(list(saved.iterdir())) == 7
    assert (saved / "README.md").read_text() == "mine"


def test_a_failed_save_keeps_the_old_bundle_and_leaves_no_litter(saved: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = sorted(saved.iterdir())
    calls = iter(range(100))
    real = os.fsync

    def full(handle: int) -> None:
        if next(calls) == 3:
            raise OSError(28, "No space left on device")
        real(handle)

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(BundleError, match="No space left on device"):
        bundle(seed=1).save(saved)
    assert sorted(saved.iterdir()) == before
    assert torch.equal(scores(Bundle.load(saved)), scores(bundle()))


def big(seed: int) -> Bundle:
    return bundle("neumf", dataset("int", 1_000, 500, seed=seed), seed=seed)


def big_indexed(seed: int) -> Bundle:
    one = bundle("bpr", dataset("int", 200, 500, seed=seed), seed=seed)
    index = build_index(one.recommender.model.item_vectors(), "ivf")  # type: ignore[attr-defined]
    return dataclasses.replace(one, recommender=dataclasses.replace(one.recommender, index=index))


def die_at_step(folder: str, step: int, make: Callable[[int], Bundle]) -> None:
    """Save over what is there and be killed right before the given system call that changes the disk."""
    calls = iter(range(1_000))

    def dying(real: Callable[..., Any]) -> Callable[..., Any]:
        def call(*args: Any, **kwargs: Any) -> Any:
            if next(calls) == step:
                os.kill(os.getpid(), signal.SIGKILL)
            return real(*args, **kwargs)

        return call

    one = make(1)
    os.fsync, os.replace, os.unlink = dying(os.fsync), dying(os.replace), dying(os.unlink)
    one.save(folder)


def save_forever(folder: str, started: Any) -> None:
    pair = big(0), big(1)
    started.set()
    while True:
        for one in pair:
            one.save(folder)


@pytest.fixture(scope="module")
def processes() -> Any:
    """Children of a server that has imported torch once; it runs nothing, so forking it is safe."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["palate.bundle", "palate.recommend", "palate.models"])
    return context


@pytest.mark.parametrize(("make", "files", "stride"), [(big, 6, 3), (big_indexed, 7, 7)])
def test_killed_before_any_step_the_old_or_the_new_bundle_is_whole(
    tmp_path: Path, processes: Any, make: Callable[[int], Bundle], files: int, stride: int
) -> None:
    folder = tmp_path / "bundle"
    old, new = make(0), make(1)
    found = []
    for step in range(0, 100, stride):
        old.save(folder)
        assert len(list(folder.iterdir())) == files
        child = processes.Process(target=die_at_step, args=(str(folder), step, make))
        child.start()
        child.join()
        loaded = Bundle.load(folder)
        found.append(same(loaded, new))
        assert found[-1] or same(loaded, old)
        if child.exitcode == 0:
            break
        assert child.exitcode == -signal.SIGKILL
    assert len(found) > 12 // stride
    assert found == sorted(found)  # one step turns the old bundle into the new one
    assert not found[0]
    assert found[-1]


def test_a_first_save_that_was_killed_can_be_repeated(tmp_path: Path, processes: Any) -> None:
    folder = tmp_path / "bundle"
    child = processes.Process(target=die_at_step, args=(str(folder), 5, big))
    child.start()
    child.join()
    assert len(list(folder.iterdir())) > 1
    with pytest.raises(BundleError, match=r"manifest\.json is missing"):
        Bundle.load(folder)
    big(0).save(folder)
    assert len(list(folder.iterdir())) == 6


def test_killed_at_random_moments_the_bundle_always_loads(tmp_path: Path, processes: Any) -> None:
    folder = tmp_path / "bundle"
    both = big(0), big(1)
    both[0].save(folder)
    for seed in range(5):
        started = processes.Event()
        child = processes.Process(target=save_forever, args=(str(folder), started))
        child.start()
        assert started.wait(60)
        time.sleep(random.Random(seed).uniform(0, 0.15))
        child.kill()
        child.join()
        loaded = Bundle.load(folder)
        assert any(same(loaded, one) for one in both)


def test_saves_and_loads_at_the_same_time(tmp_path: Path) -> None:
    folder = tmp_path / "bundle"
    both = bundle(seed=0), bundle(seed=1)
    both[0].save(folder)
    failures: list[BaseException] = []

    def save(one: Bundle) -> None:
        try:
            for _ in range(10):
                one.save(folder)
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=save, args=(one,)) for one in both]
    for thread in threads:
        thread.start()
    while any(thread.is_alive() for thread in threads):
        loaded = Bundle.load(folder)
        assert any(same(loaded, one) for one in both)
    for thread in threads:
        thread.join()
    assert not failures
    assert len(list(folder.iterdir())) == 6


# Index.


@pytest.fixture(params=["exact", "ivf", "hnsw"])
def indexed(request: pytest.FixtureRequest) -> Bundle:
    one = bundle("bpr", dataset(users=40, items=600))
    index = build_index(one.recommender.model.item_vectors(), request.param)  # type: ignore[attr-defined]
    return dataclasses.replace(one, recommender=dataclasses.replace(one.recommender, index=index))


def test_an_index_comes_back_and_answers_the_same(indexed: Bundle, tmp_path: Path) -> None:
    folder = indexed.save(tmp_path / "bundle")
    two = Bundle.load(folder)
    one, index = indexed.recommender.index, two.recommender.index
    assert one is not None
    assert index is not None
    assert index.info == one.info
    info = Bundle.info(folder)
    assert info["index"] == dataclasses.asdict(one.info)
    assert ("index" in info["files"]) == (one.info.kind != "exact")
    query = torch.randn(30, one.vectors.shape[1], generator=torch.Generator().manual_seed(0))
    for a, b in zip(one.search(query, 20), index.search(query, 20), strict=True):
        assert torch.equal(a, b)
    assert Bundle.info(two.save(tmp_path / "copy")) == info


def test_damage_to_an_index_is_found(indexed: Bundle, tmp_path: Path) -> None:
    folder = indexed.save(tmp_path / "bundle")
    if "index" in Bundle.info(folder)["files"]:
        file = folder / Bundle.info(folder)["files"]["index"]["name"]
        good = file.read_bytes()
        file.write_bytes(good[:-1] + bytes([good[-1] ^ 1]))
        with pytest.raises(BundleError, match=r"index-.* was changed after it was saved"):
            Bundle.load(folder)
        file.write_bytes(good[:-1])
        with pytest.raises(BundleError, match=r"index-.* bytes instead of"):
            Bundle.load(folder)
        file.write_bytes(good)
        forge(folder, lambda m: m["index"].update(dim=3))
        with pytest.raises(BundleError, match=r"index-.* holds 600 items .* but the model has 600 of width"):
            Bundle.load(folder)
        forge(folder, lambda m: m["files"].pop("index"))
        with pytest.raises(BundleError, match=r"records an index .* whose file it lacks"):
            Bundle.load(folder)
    forge(folder, lambda m: m["index"].update(magic=1))
    with pytest.raises(BundleError, match="index cannot be read"):
        Bundle.load(folder)


def test_an_index_over_other_vectors_is_not_saved(indexed: Bundle, tmp_path: Path) -> None:
    index = indexed.recommender.index
    assert index is not None
    more = dataclasses.replace(indexed.recommender, index=index.add(index.vectors[:1]))
    with pytest.raises(BundleError, match="holds 601 vectors that are not the 600 item vectors of the model"):
        dataclasses.replace(indexed, recommender=more).save(tmp_path / "bundle")
    assert not (tmp_path / "bundle").exists()


def test_a_save_without_an_index_takes_the_old_one_away(indexed: Bundle, tmp_path: Path) -> None:
    folder = indexed.save(tmp_path / "bundle")
    plain = dataclasses.replace(indexed, recommender=dataclasses.replace(indexed.recommender, index=None))
    plain.save(folder)
    assert len(list(folder.iterdir())) == 6
    assert Bundle.info(folder)["index"] is None
    assert Bundle.load(folder).recommender.index is None


# Features.


@pytest.fixture
def towers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[Bundle, Path]:
    """A model that reads features of users and items, as fitted and as saved."""
    monkeypatch.setitem(RECIPES, TwoTower.name, TwoTower)
    features = pl.DataFrame(
        {
            "genres": pl.Series([["Drame", "Comédie"][: 1 + n % 2] if n else None for n in range(15)]),
            "year": np.arange(1990, 2005) / 3,
            "place": pl.Series(["Łódź", None, "東京"] * 5),
        }
    )
    train = dataclasses.replace(dataset(), item_features=features)
    recipe = TwoTower(epochs=2, dim=8, layers=(8,), batch_size=32, user_features=("seen",), item_features=("*",))
    one = Bundle.of(recipe, recipe.fit(train), train)
    return one, one.save(tmp_path / "bundle")


def test_a_model_with_features_is_rebuilt_from_the_bundle_alone(towers: tuple[Bundle, Path]) -> None:
    one, folder = towers
    two = Bundle.load(folder)
    old, new = one.recommender.model, two.recommender.model
    assert isinstance(old, TwoTowerModel)
    assert isinstance(new, TwoTowerModel)
    assert two.recipe == one.recipe
    assert new.spec == old.spec
    assert new.spec.features is not None
    assert [column.name for column in new.spec.features.items.columns] == ["genres", "year", "place"]
    assert Bundle.info(folder)["sizes"].keys() == {"users", "items", "features"}
    assert torch.equal(scores(two), scores(one))
    stored = two.recommender.item_features
    with torch.inference_mode():
        # The stored table encodes to what the model was trained on, so new items can be told apart by it too.
        assert torch.equal(new.item_vectors(stored), old.item_vectors(one.recommender.item_features))
        assert len(new.item_vectors(stored).unique(dim=0)) > 1
    assert_frame_equal(two.recommender.recommend(["u/3", "x"], 5), one.recommender.recommend(["u/3", "x"], 5))


def test_a_forged_feature_schema_is_refused(towers: tuple[Bundle, Path]) -> None:
    _, folder = towers
    for change, message in [
        (lambda m: m["sizes"].update(features=5), r"holds no feature schema .*save the bundle again"),
        (lambda m: m["sizes"].pop("features"), "does not fit the recipe"),
    ]:
        forge(folder, change)
        with pytest.raises(BundleError, match=message):
            Bundle.load(folder)
