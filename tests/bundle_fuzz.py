"""Random changes of bundles with right digests: a BundleError, equal answers, or a bundle as a save would write it.

    python tests/bundle_fuzz.py 2000 [first seed]

A change is a function of its number alone, so that a failure can be repeated: ``python tests/bundle_fuzz.py 1 NUMBER``.
The changes run in a process of their own: one that ends it, such as a fault in a library of C++, is a failure, too.
"""

from __future__ import annotations

import faulthandler
import json
import random
import re
import resource
import shutil
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import torch
from safetensors.torch import load_file, save_file

from palate import storage
from palate.bundle import Bundle
from palate.data.dataset import Dataset
from palate.errors import BundleError

JUNK: list[Any] = [
    None, True, -1, 0, 1, 2**31, 2**63, 10**12, 10**30, -(2**63), 0.5, float("nan"), float("inf"), -1e308, "", "x",
    "é\0", "../../etc/passwd", [], [[]], {}, {"x": 1}, [1, "a", None], "9" * 400, "x" * 10_000,
]  # fmt: skip
KINDS = ("manifest", "manifest", "column", "column", "column", "weights", "bytes")
TREES = "ranker._extra_state"
SECONDS = 120  # a change that takes longer is a failure


def deep() -> Any:
    value: Any = 1
    for _ in range(90):
        value = [value]
    return value


def made(folder: Path) -> list[Path]:
    """Small bundles of several kinds of model, with features, titles and times."""
    rng = np.random.default_rng(0)
    rows = 300
    table = pl.DataFrame({
        "user_id": [f"u{n}" for n in rng.integers(0, 20, rows)],
        "item_id": [f"i{n}" for n in rng.integers(0, 24, rows)],
        "rating": rng.integers(1, 6, rows), "timestamp": rng.integers(0, 10**6, rows),
    })  # fmt: skip
    import palate

    data = palate.from_frame(table)
    genres = pl.Series("genres", [["a", "b"][: 1 + n % 2] for n in range(data.n_items)])
    data = Dataset(
        data.name, data.users, data.items, data.interactions, data.feedback,
        item_features=pl.DataFrame({"genres": genres, "year": range(data.n_items)}),
        titles=pl.Series("title", [f"Title {n}" for n in range(data.n_items)]),
    )  # fmt: skip
    found = []
    for name in ("item-knn", "bpr", "two-tower", "popularity", "two-stage"):
        fields: dict[str, Any] = {"epochs": 1} if name in ("bpr", "two-tower") else {}
        fields |= {"item_features": ("*",)} if name == "two-tower" else {}
        two = {"members": ("popularity", "item-knn"), "n_candidates": 20, "rounds": 3, "slice_size": 0.3}
        fields |= two if name == "two-stage" else {}
        recipe = palate.make_recipe(name, fields, fast=True)
        metrics = [{"metric": "NDCG", "k": 10, "value": 0.5}]
        bundle = Bundle.of(recipe, recipe.fit(data, palate.TrainOptions(threads=1)), data, metrics)
        found.append(bundle.save(folder / name))
    wide = palate.from_frame(
        pl.DataFrame({"user": rng.integers(0, 40, 4000), "item": rng.permutation(np.arange(4000) % 800)})
    )
    recipe = palate.make_recipe("bpr", {"epochs": 1, "dim": 8}, fast=True)
    bundle = Bundle.of(recipe, recipe.fit(wide, palate.TrainOptions(threads=1)), wide)
    for kind in ("ivf", "hnsw"):
        indexed = replace(bundle, recommender=bundle.recommender.indexed(kind, recall=0.5))
        found.append(indexed.save(folder / kind))
    return found


def answers(bundle: Bundle) -> pl.DataFrame:
    """Lists of known and new users, which read all tables; scores that are not finite are an error there."""
    data = bundle.recommender
    repr(bundle)
    users = [*data.users.ids[:2].to_list(), "new" if data.users.ids.dtype == pl.String else -7]
    history = data.items.ids[:2].to_list()
    # Folding in by gradients takes half a second: the others stand for it.
    quick = type(data.model).__name__ in ("ItemKNNModel", "PopularityModel")
    lists = data.recommend(users, 5, histories={users[-1]: history} if quick else None, reasons=int(quick))
    assert bool(lists["score"].is_finite().all()), "scores that are not finite"
    data.similar(history[0], 3)
    return lists


def change(folder: Path, rng: random.Random) -> str:
    """Change one thing in a bundle and make all digests right again; what was changed, in words."""
    manifest = json.loads((folder / "manifest.json").read_text())
    kinds = KINDS + (("index",) * 3 if "index" in manifest["files"] else ())
    kind = rng.choice(kinds + (("trees",) * 3 if manifest["recipe"]["name"] == "two-stage" else ()))
    part = {"index": "index", "weights": "weights", "trees": "weights"}.get(kind, "")
    if kind == "manifest":
        said = _json(manifest, rng)
    else:
        part = part or rng.choice(["users", "items", "seen", *(["weights"] if kind == "bytes" else [])])
        path = folder / manifest["files"][part]["name"]
        if kind == "column":
            frame, said = _table(pl.read_parquet(path), rng)
            frame.write_parquet(path)
        elif kind == "weights":
            state, said = _state(load_file(path), rng)
            save_file(state, path)
        elif kind == "trees":
            state = load_file(path)
            text, said = _text(bytes(state[TREES].numpy()), rng)
            save_file({**state, TREES: torch.tensor(list(text), dtype=torch.uint8)}, path)
        else:
            content, said = (_numbers if kind == "index" else _bytes)(path.read_bytes(), rng)
            path.write_bytes(content)
        manifest["files"][part] = storage.file_record(path)
    del manifest["checksum"]
    (folder / "manifest.json").write_text(json.dumps({**manifest, "checksum": storage.digest_json(manifest)}))
    return f"{kind} {part} {said}"


def _json(manifest: dict[str, Any], rng: random.Random) -> str:
    places: list[tuple[Any, Any, str]] = []

    def walk(value: Any, path: str) -> None:
        for key, inner in value.items() if isinstance(value, dict) else enumerate(value):
            if path or key not in ("checksum", "kind", "version"):
                places.append((value, key, f"{path}.{key}"))
            if isinstance(inner, dict | list):
                walk(inner, f"{path}.{key}")

    walk(manifest, "")
    value, key, path = rng.choice(places)
    # Bundles of older versions lack the rule of feedback and fields of recipes, which have defaults then.
    older = path == ".feedback" or path.startswith(".recipe.fields.")
    if rng.random() < 0.2 and not older:
        del value[key]
        return f"{path} removed"
    value[key] = junk = deep() if rng.random() < 0.05 else rng.choice(JUNK)
    return f"{path} = {str(junk)[:40]}"


def _table(frame: pl.DataFrame, rng: random.Random) -> tuple[pl.DataFrame, str]:
    name = rng.choice(frame.columns)
    column = frame[name]
    row = rng.randrange(frame.height)
    other = rng.randrange(frame.height)
    how = rng.choice(
        ["drop", "null", "copy", "junk", "cast", "all", "short", "long", "swap", "rename", "empty", "sort"]
    )
    values = column.to_list()
    if how == "drop":
        return frame.drop(name), f"{name} dropped"
    if how in ("short", "long", "empty", "swap", "sort"):
        cut = {
            "short": frame[:row],
            "long": pl.concat([frame, frame[: row + 1]]),
            "empty": frame[:0],
            "swap": frame.select(reversed(frame.columns)),
            "sort": frame.sample(fraction=1, shuffle=True, seed=row),
        }
        return cut[how], how
    if how == "rename":
        return frame.rename({name: rng.choice(["x", "feature:x", "id ", ""])}), f"{name} renamed"
    if how == "cast":
        kind = rng.choice([pl.String, pl.Int64, pl.Int32, pl.Float64, pl.Float32, pl.Int8, pl.Boolean, pl.Binary])
        try:
            return frame.with_columns(column.cast(kind, strict=False)), f"{name} as {kind}"
        except pl.exceptions.PolarsError:
            return frame, "nothing"
    new = None if how == "null" else values[other] if how in ("copy", "all") else _other(column, rng)
    values = [new] * len(values) if how == "all" else [*values[:row], new, *values[row + 1 :]]
    try:
        return frame.with_columns(pl.Series(name, values, dtype=column.dtype)), f"{name}[{row}] {how} {str(new)[:30]}"
    except (pl.exceptions.PolarsError, TypeError, OverflowError):
        return frame.with_columns(pl.Series(name, [str(one) for one in values])), f"{name} as text"


def _other(column: pl.Series, rng: random.Random) -> Any:
    if column.dtype.is_float():
        return rng.choice([float("nan"), float("inf"), -1.0, 1e38, -1e38])
    if column.dtype.is_integer():
        return rng.choice([-1, 2**31 - 1, -(2**31), 10**6] + ([2**62, -(2**63)] if column.dtype == pl.Int64 else []))
    return rng.choice(["", "x", "é\0", "x" * 10_000]) if column.dtype == pl.String else rng.choice(JUNK)


def _state(state: dict[str, torch.Tensor], rng: random.Random) -> tuple[dict[str, torch.Tensor], str]:
    name = rng.choice(sorted(state))
    tensor = state[name].clone()
    how = rng.choice(["drop", "add", "type", "shape", "value", "value", "flat", "empty"])
    if how == "drop":
        return {key: value for key, value in state.items() if key != name}, f"{name} dropped"
    if how == "add":
        return {**state, f"{name}.x": tensor}, f"{name}.x added"
    if how == "type":
        kind = rng.choice([torch.float64, torch.float16, torch.bfloat16, torch.int64, torch.int32, torch.bool])
        return {**state, name: tensor.to(kind)}, f"{name} as {kind}"
    if how == "shape":
        return {**state, name: torch.cat([tensor, tensor[:1]]) if tensor.ndim else tensor.reshape(1)}, f"{name} longer"
    if how == "flat":
        return {**state, name: tensor.flatten()}, f"{name} flat"
    if how == "empty":
        return {**state, name: tensor[:0] if tensor.ndim else tensor}, f"{name} empty"
    if tensor.numel():
        place = rng.randrange(tensor.numel())
        numbers = (
            [-1, 2**31 - 1, -(2**31), 255] if not tensor.is_floating_point() else [float("nan"), float("inf"), 1e30]
        )
        new = rng.choice(numbers)
        if tensor.dtype == torch.uint8:
            new %= 256
        tensor.view(-1)[place] = new
        return {**state, name: tensor}, f"{name}[{place}] = {new}"
    return state, "nothing"


def _bytes(content: bytes, rng: random.Random) -> tuple[bytes, str]:
    how, at = rng.choice(["flip", "flip", "cut", "insert", "zero", "head"]), rng.randrange(len(content))
    if how == "flip":
        return content[:at] + bytes([content[at] ^ (1 << rng.randrange(8))]) + content[at + 1 :], f"flip at {at}"
    if how == "cut":
        return content[:at], f"cut at {at}"
    if how == "insert":
        return content[:at] + rng.randbytes(8) + content[at:], f"insert at {at}"
    if how == "zero":
        return content[:at] + bytes(8) + content[at + 8 :], f"zeros at {at}"
    return rng.randbytes(8) + content[8:], "another beginning"


def _numbers(content: bytes, rng: random.Random) -> tuple[bytes, str]:
    """A number of the binary format changed, mostly in the part before the rows, or any byte."""
    if rng.random() < 0.3:
        return _bytes(content, rng)
    size = rng.choice([4, 8])
    at = rng.randrange(min(200, len(content)) if rng.random() < 0.6 else len(content)) // 4 * 4
    value = rng.choice([0, 1, -1, 2, 2**31 - 1, 2**20, *([2**33, 2**40, 2**62] if size == 8 else [])])
    return content[:at] + value.to_bytes(size, "little", signed=True) + content[at + size :], f"{value} at {at}"


def _text(content: bytes, rng: random.Random) -> tuple[bytes, str]:
    """One number or one line of the trees changed, or any byte."""
    how = rng.choice(["number", "number", "number", "line", "twice", "bytes"])
    if how == "bytes":
        return _bytes(content, rng)
    if how == "number":
        found = list(re.finditer(rb"-?\d+(\.\d+)?(e-?\d+)?", content))
        one = rng.choice(found)
        value = rng.choice(
            [b"-1", b"0", b"1", b"7", b"1000000", b"2147483647", b"-2147483648", b"1e400", b"nan", b"", b"x"]
        )
        return content[: one.start()] + value + content[one.end() :], f"{value!r} at {one.start()}"
    lines = content.split(b"\n")
    at = rng.randrange(len(lines))
    lines[at : at + 1] = [] if how == "line" else [lines[at]] * 2
    return b"\n".join(lines), f"line {at} {'removed' if how == 'line' else 'twice'}"


def written(folder: Path) -> dict[str, Any]:
    """The content of a bundle as a save writes it: tables, tensors, index and manifest, without digests."""
    manifest = storage.read_json(folder / "manifest.json")
    files = {part: folder / record["name"] for part, record in manifest.pop("files").items()}
    tables = {part: pl.read_parquet(files[part]) for part in ("users", "items", "seen")}
    state = {name: (one.dtype, one.shape, one.numpy().tobytes()) for name, one in load_file(files["weights"]).items()}
    index = files["index"].read_bytes() if "index" in files else b""
    del manifest["checksum"]
    manifest = json.loads(json.dumps(manifest), parse_int=float)  # a whole number may be read as a float
    return {**tables, "weights": state, "index": index, "manifest": manifest}


def difference(changed: Path, bundle: Bundle, saved: Path) -> str:
    """The first part of a changed bundle that differs from a save of the bundle that was loaded from it, or ""."""
    shutil.rmtree(saved, ignore_errors=True)
    before, after = written(changed), written(bundle.save(saved))
    for name, value in before.items():
        other = after[name]
        same = value.equals(other, null_equal=True) if isinstance(value, pl.DataFrame) else value == other
        if not same:
            return name
    return ""


def attempt(number: int, bundles: Sequence[Path], before: Mapping[Path, pl.DataFrame], scratch: Path) -> str:
    """Try one change: "refused", "as before" or "another bundle".

    Raises:
        AssertionError: it led to anything else.
    """
    rng = random.Random(number)
    good = rng.choice(bundles)
    folder = scratch / "changed"
    shutil.rmtree(folder, ignore_errors=True)
    shutil.copytree(good, folder, copy_function=shutil.copyfile)
    said = f"change {number} ({good.name}: {change(folder, rng)})"
    try:
        bundle = Bundle.load(folder)
    except BundleError as error:
        if "\n" in str(error):
            raise AssertionError(f"{said}: {error}") from error
        return "refused"
    except BaseException as error:
        raise AssertionError(f"{said}: load: {error!r}") from error
    try:
        if answers(bundle).equals(before[good]):
            return "as before"
        other = difference(folder, bundle, scratch / "saved")
    except BaseException as error:
        raise AssertionError(f"{said}: answer: {error!r}") from error
    if other:
        raise AssertionError(f"{said}: it answers otherwise, and {other} is not as a save would write it")
    return "another bundle"


def run(numbers: range, keep_going: bool = False) -> Counter[str]:
    """Try changes; how many were refused, answered as before, and were another bundle, as a save would write it.

    Args:
        numbers: of the changes.
        keep_going: print what failed, and count it as "failed".

    Raises:
        AssertionError: a change led to anything else, with its number.
    """
    counts: Counter[str] = Counter()
    memory = Path("/dev/shm")  # in memory where there is such a folder: each change writes a bundle
    with tempfile.TemporaryDirectory(dir=memory if memory.is_dir() else None) as temporary:
        bundles = made(Path(temporary))
        before = {path: answers(Bundle.load(path)) for path in bundles}
        for number in numbers:
            if keep_going:
                print(number, end=" ", file=sys.stderr, flush=True)
                faulthandler.dump_traceback_later(SECONDS, exit=True)
            try:
                counts[attempt(number, bundles, before, Path(temporary))] += 1
            except AssertionError as error:
                if not keep_going:
                    raise
                print(f"\n{error}"[:600], flush=True)
                counts["failed"] += 1
    return counts


def main() -> int:
    """Run changes in processes, a new one where one ends by a change."""
    count, first = int(sys.argv[1]), int(sys.argv[2]) if len(sys.argv) > 2 else 0
    numbers, total = range(first, first + count), Counter[str]()
    while numbers:
        code = f"import bundle_fuzz, json; print(json.dumps(bundle_fuzz.run({numbers!r}, keep_going=True)))"
        with tempfile.TemporaryFile("w+") as errors:
            # Bounded memory: what asks for more than a small bundle needs must not take that of the machine.
            done = subprocess.run(
                ["bash", "-c", 'ulimit -v 16000000; exec "$0" -c "$1"', sys.executable, code],
                stdout=subprocess.PIPE, stderr=errors, text=True, check=False,
            )  # fmt: skip
            errors.seek(0)
            tried = [int(word) for word in errors.read().split() if word.isdigit()]
        lines = done.stdout.splitlines()
        print(*lines[: -1 if done.returncode == 0 else None], sep="\n")
        if done.returncode == 0:
            total.update(json.loads(lines[-1]))
            break
        assert tried, "the process cannot start"
        print(f"change {tried[-1]} ended the process with {done.returncode}", flush=True)
        total["failed"] += 1
        numbers = range(tried[-1] + 1, numbers.stop)
    print(dict(total), f"{resource.getrusage(resource.RUSAGE_CHILDREN).ru_utime:.1f} CPU seconds")
    return int(total["failed"] > 0)


if __name__ == "__main__":
    sys.exit(main())
