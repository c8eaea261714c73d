"""Bundle: a fitted model with all it needs to recommend, as one folder without pickle.

    manifest.json               recipe, metrics, fingerprints, versions; name, size and SHA-256 of each file below
    weights-<sha>.safetensors   the model's state, and the sketch of the rows it was trained on
    users-<sha>.parquet         id, seen (events of the user in the file below), features
    items-<sha>.parquet         id, popularity, title, features
    seen-<sha>.parquet          item, weight, time of every training row, grouped by user, oldest first

A save writes new files beside the old ones and then replaces ``manifest.json``: that single step turns the old bundle
into the new one, so a save that is killed, at whatever moment, leaves one of the two whole. POSIX systems only.
"""

from __future__ import annotations

import hashlib
import json
import os
import platform
import re
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import numpy as np
import polars as pl

from palate.data.dataset import Dataset, Fingerprint, History
from palate.data.ids import IdMap
from palate.errors import BundleError

# torch, and what imports it, comes in when a model is loaded or saved: reading a manifest must stay light.
if TYPE_CHECKING:
    from torch import Tensor

    from palate.pipeline import Recommender
    from palate.protocols import Model, Recipe

__all__ = ["Bundle"]

FORMAT = 1
KIND = "palate bundle"
MANIFEST = "manifest.json"
SUFFIXES = {"weights": "safetensors", "users": "parquet", "items": "parquet", "seen": "parquet"}
CONTENT_NAME = re.compile(rf"({'|'.join(SUFFIXES)})-[0-9a-f]{{16}}\.(safetensors|parquet)")
LEFTOVER = re.compile(rf"\.({'|'.join([*SUFFIXES, MANIFEST])})\.tmp")
SKETCH = "palate.sketch"
FEATURE = "feature:"


def _versions() -> dict[str, str]:
    found = {name: version(name) for name in ("palate", "torch", "numpy", "polars")}
    return {**found, "python": platform.python_version()}


@dataclass(frozen=True, eq=False)
class Bundle:
    """A fitted model, its recipe and ids, and what is known about its quality and origin.

    Args:
        recipe: the hyperparameters.
        recommender: the model with ids, histories and titles; ``recommender.name`` is the name of the data.
        metrics: rows of a report, kept as they are (NaN becomes null).
        split, candidates: fingerprints of what the metrics were measured on, or None.
        versions: of Palate, Python and the libraries it was made with.
        created: UTC, ISO 8601.
    """

    recipe: Recipe[Any]
    recommender: Recommender
    metrics: tuple[dict[str, Any], ...] = ()
    split: str | None = None
    candidates: str | None = None
    versions: Mapping[str, str] = field(default_factory=_versions)
    created: str = field(default_factory=lambda: datetime.now(UTC).isoformat(timespec="seconds"))

    @classmethod
    def of(
        cls,
        recipe: Recipe[Any],
        model: Model,
        train: Dataset,
        metrics: Iterable[Mapping[str, Any]] = (),
        *,
        split_fingerprint: str | None = None,
        candidates_fingerprint: str | None = None,
    ) -> Bundle:
        """The bundle of a model and the rows it was trained on."""
        from palate.pipeline import Recommender

        rows = tuple(dict(row) for row in metrics)
        return cls(recipe, Recommender.of(model, train), rows, split_fingerprint, candidates_fingerprint)

    @property
    def trained_on(self) -> Fingerprint | None:
        """Fingerprint of the training rows."""
        return self.recommender.model.trained_on

    def save(self, path: str | Path) -> Path:
        """Write to the folder ``path``, made if need be; a bundle that is there is replaced in one step.

        Raises:
            BundleError: ``path`` is a file, holds something else than a bundle, or cannot be written, or the recipe
                cannot be rebuilt from its fields.
        """
        folder = Path(path)
        about = self._about()
        _check_target(folder)
        try:
            folder.mkdir(parents=True, exist_ok=True)
            with _locked(folder) as sync:
                files = {part: _write(folder, part, content) for part, content in self._parts()}
                sync()
                manifest = {**about, "files": files}
                _replace(folder, MANIFEST, json.dumps({**manifest, "self": _digest(manifest)}, indent=2).encode())
                sync()
        except OSError as error:
            raise BundleError(
                f"cannot write the bundle {folder} ({error}): free space or choose another folder"
            ) from None
        return folder

    @classmethod
    def load(cls, path: str | Path, device: str = "cpu") -> Bundle:
        """Read a bundle after checking every file of it, with the model on ``device``.

        Raises:
            BundleError: the folder is missing, no bundle, incomplete, changed, or made by a newer Palate.
        """
        folder = Path(path)
        while True:
            manifest = cls.info(folder)
            try:
                return cls._read(folder, manifest, device)
            except OSError as error:
                # A save that ended meanwhile has taken the files away: read what it wrote instead.
                if cls.info(folder)["self"] == manifest["self"]:
                    raise BundleError(f"bundle {folder} is incomplete ({error}): copy or save it again") from None
            except (KeyError, pl.exceptions.PolarsError) as error:
                raise BundleError(
                    f"bundle {folder} is malformed ({type(error).__name__}: {error}): save it again"
                ) from None

    @staticmethod
    def info(path: str | Path) -> dict[str, Any]:
        """The manifest, checked, without reading the rest and without importing torch.

        Keys: kind, format, created, data, recipe (name, fields), sizes (users, items), trained_on (rows, digest),
        split, candidates, metrics, versions, files (name, sha256, bytes of each), self.

        Raises:
            BundleError: the folder is missing, no bundle, changed, or made by a newer Palate.
        """
        folder = Path(path)
        if not folder.is_dir():
            what = "is a file" if folder.exists() else "does not exist"
            raise BundleError(f"bundle {folder} {what}: give the folder that was saved to")
        manifest = _manifest(folder)
        if manifest is None:
            raise BundleError(f"{folder} is no bundle, or its {MANIFEST} is missing or damaged: save it again")
        if not isinstance(manifest.get("format"), int) or manifest["format"] > FORMAT:
            raise BundleError(
                f"bundle {folder} has format {manifest.get('format')} but this Palate reads up to {FORMAT}, "
                "it was made by a newer Palate: upgrade palate"
            )
        if manifest.get("self") != _digest(manifest):
            raise BundleError(f"bundle {folder}: {MANIFEST} was changed after it was saved: save the bundle again")
        return manifest

    def _about(self) -> dict[str, Any]:
        from pydantic_core import to_json

        model, data = self.recommender.model, self.recommender
        recipe = {"name": self.recipe.name, "fields": asdict(cast(Any, self.recipe))}
        trained = model.trained_on
        about = {
            "kind": KIND,
            "format": FORMAT,
            "created": self.created,
            "data": data.name,
            "recipe": recipe,
            "sizes": {"users": len(data.users), "items": len(data.items)},
            "trained_on": None if trained is None else {"rows": trained.rows, "digest": trained.digest},
            "split": self.split,
            "candidates": self.candidates,
            "metrics": self.metrics,
            "versions": dict(self.versions),
        }
        plain: dict[str, Any] = json.loads(to_json(about, inf_nan_mode="null", fallback=lambda number: number.item()))
        if _recipe(plain["recipe"]) != self.recipe:
            raise BundleError(
                f"{self.recipe} is not the same when read back: its fields must be plain numbers or texts"
            )
        return plain

    def _parts(self) -> Iterator[tuple[str, pl.DataFrame | dict[str, Tensor]]]:
        from torch import from_numpy, nn

        data = self.recommender
        assert isinstance(data.model, nn.Module)
        state = _unshared(data.model.state_dict())
        if data.model.trained_on is not None:
            state[SKETCH] = from_numpy(data.model.trained_on.sketch.view(np.int64).copy())
        yield "weights", state
        users = pl.DataFrame({"id": data.users.ids, "seen": data.seen.counts})
        yield "users", _with_features(users, data.user_features)
        items = pl.DataFrame({"id": data.items.ids, "popularity": data.popularity})
        items = items if data.titles is None else items.with_columns(title=data.titles)
        yield "items", _with_features(items, data.item_features)
        seen = pl.DataFrame({"item": data.seen.items, "weight": data.seen.weights})
        yield "seen", seen if data.seen.times is None else seen.with_columns(time=pl.Series(data.seen.times))

    @classmethod
    def _read(cls, folder: Path, manifest: dict[str, Any], device: str) -> Bundle:
        from palate.pipeline import Recommender

        files = {part: _checked(folder, manifest["files"][part]) for part in SUFFIXES}
        recipe = _recipe(manifest["recipe"])
        users, items, seen = (pl.read_parquet(files[part]) for part in ("users", "items", "seen"))
        recommender = Recommender(
            model=_model(recipe, files["weights"], manifest, device),
            users=IdMap(users["id"]),
            items=IdMap(items["id"]),
            seen=History(
                np.concatenate([[0], np.cumsum(users["seen"].to_numpy())]).astype(np.int64),
                seen["item"].to_numpy(writable=True),
                seen["weight"].to_numpy(writable=True),
                seen["time"].to_numpy(writable=True) if "time" in seen.columns else None,
            ),
            popularity=items["popularity"].to_numpy(writable=True),
            titles=items["title"] if "title" in items.columns else None,
            user_features=_features(users),
            item_features=_features(items),
            name=manifest["data"],
        )
        about = (manifest[key] for key in ("split", "candidates", "versions", "created"))
        return cls(recipe, recommender, tuple(manifest["metrics"]), *about)


# Recipe and model.


def _recipe(record: Mapping[str, Any]) -> Recipe[Any]:
    from pydantic import TypeAdapter, ValidationError

    from palate.models import RECIPES

    name = record["name"]
    if name not in RECIPES:
        raise BundleError(f"unknown recipe {name!r} (known: {', '.join(RECIPES)}): upgrade palate")
    try:
        recipe: Recipe[Any] = TypeAdapter(RECIPES[name]).validate_json(json.dumps(record["fields"]))
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        raise BundleError(f"recipe {name}, field {where!r}: {first['msg']}: the bundle needs another Palate") from None
    return recipe


def _model(recipe: Recipe[Any], path: Path, manifest: Mapping[str, Any], device: str) -> Model:
    import torch
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    from palate.protocols import Sizes

    model = recipe.build(Sizes(manifest["sizes"]["users"], manifest["sizes"]["items"]))
    try:
        # Copies: the loaded tensors lie in the mapped file, which must not be able to change under a running server.
        state = {name: tensor.clone() for name, tensor in load_file(path).items()}
        sketch = state.pop(SKETCH, None)
        model.load_state_dict(state, strict=True, assign=True)
    except (SafetensorError, RuntimeError) as error:
        raise BundleError(
            f"{path.name} does not fit the recipe {recipe.name} ({error}): save the bundle again"
        ) from None
    trained = manifest["trained_on"]
    if trained is not None and sketch is not None:
        model.trained_on = Fingerprint(trained["rows"], trained["digest"], sketch.numpy().view(np.uint64))
    model.to(torch.device(device))
    loaded: Model = model.eval()
    return loaded


def _unshared(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Contiguous tensors with memory of their own, as the file format demands."""
    taken: set[int] = set()
    result = {}
    for name, tensor in state.items():
        whole = tensor.detach().cpu().contiguous()
        memory = whole.untyped_storage().data_ptr()
        result[name] = whole.clone() if memory in taken else whole
        taken.add(memory)
    return result


def _with_features(frame: pl.DataFrame, features: pl.DataFrame | None) -> pl.DataFrame:
    return frame if features is None else frame.with_columns(features.rename(lambda name: FEATURE + name))


def _features(frame: pl.DataFrame) -> pl.DataFrame | None:
    columns = [name for name in frame.columns if name.startswith(FEATURE)]
    return frame.select(pl.col(columns).name.map(lambda name: name.removeprefix(FEATURE))) if columns else None


# Files.


def _digest(manifest: Mapping[str, Any]) -> str:
    content = {key: value for key, value in manifest.items() if key != "self"}
    return hashlib.sha256(json.dumps(content, sort_keys=True, separators=(",", ":")).encode()).hexdigest()


def _manifest(folder: Path) -> dict[str, Any] | None:
    """What manifest.json says, unchecked; None if it is missing, unreadable or somebody else's."""
    try:
        manifest = json.loads((folder / MANIFEST).read_bytes())
    except (OSError, ValueError):
        return None
    return manifest if isinstance(manifest, dict) and manifest.get("kind") == KIND else None


def _ours(folder: Path) -> set[str]:
    """Names in the folder that saves of bundles have written, finished or not."""
    return {name for name in os.listdir(folder) if CONTENT_NAME.fullmatch(name) or LEFTOVER.fullmatch(name)}


def _sweep(folder: Path) -> None:
    """Remove what saves have written and the manifest does not name: the old bundle, or half a new one."""
    named = {record["name"] for record in (_manifest(folder) or {"files": {}})["files"].values()}
    for name in _ours(folder) - named:
        (folder / name).unlink()


def _check_target(folder: Path) -> None:
    if folder.exists() and not folder.is_dir():
        raise BundleError(f"{folder} is a file: choose a folder for the bundle")
    if folder.is_dir() and _manifest(folder) is None:
        foreign = sorted(set(os.listdir(folder)) - _ours(folder))
        if foreign:
            raise BundleError(
                f"{folder} is not empty and no bundle (it holds {foreign[0]}): choose another folder or delete it"
            )


@contextmanager
def _locked(folder: Path) -> Iterator[Any]:
    """Keep other saves out of the folder and leave no litter; gives a function that makes its entries durable."""
    import fcntl

    handle = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield lambda: os.fsync(handle)
    finally:
        _sweep(folder)
        os.close(handle)


def _write(folder: Path, part: str, content: pl.DataFrame | dict[str, Tensor]) -> dict[str, Any]:
    """Write one part under the name of its content; its record for the manifest."""
    from safetensors.torch import save_file

    temporary = folder / f".{part}.tmp"
    if isinstance(content, pl.DataFrame):
        content.write_parquet(temporary)
    else:
        save_file(content, temporary)
    with open(temporary, "rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
        os.fsync(file.fileno())
    name = f"{part}-{digest[:16]}.{SUFFIXES[part]}"
    os.replace(temporary, folder / name)
    return {"name": name, "sha256": digest, "bytes": (folder / name).stat().st_size}


def _replace(folder: Path, name: str, content: bytes) -> None:
    temporary = folder / f".{name}.tmp"
    with open(temporary, "wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    os.replace(temporary, folder / name)


def _checked(folder: Path, record: Mapping[str, Any]) -> Path:
    """The path of a file that has the size and checksum of its record."""
    if not CONTENT_NAME.fullmatch(record["name"]):
        raise BundleError(f"bundle {folder} names a file {record['name']!r}, which no save writes: save it again")
    path = folder / str(record["name"])
    size = path.stat().st_size
    if size != record["bytes"]:
        raise BundleError(f"{path} has {size:,} bytes instead of {record['bytes']:,}: copy or save the bundle again")
    with open(path, "rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    if digest != record["sha256"]:
        raise BundleError(f"{path} was changed after it was saved (checksum differs): copy or save the bundle again")
    return path
