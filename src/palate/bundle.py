"""Bundle: a fitted model with all it needs to recommend, as one folder without pickle.

    manifest.json               recipe, metrics, fingerprints, versions; name, size and SHA-256 of each file below
    weights-<sha>.safetensors   the model's state, and the sketch of the rows it was trained on
    users-<sha>.parquet         id, seen (events of the user in the file below), features
    items-<sha>.parquet         id, popularity, title, features
    seen-<sha>.parquet          item, weight, time of every training row, grouped by user, oldest first
    index-<sha>.faiss           the codes of an approximate index over the item vectors, if there is one

A save writes new files beside the old ones and then replaces ``manifest.json``: that single step turns the old bundle
into the new one, so a save that is killed, at whatever moment, leaves one of the two whole. POSIX systems only.
"""

from __future__ import annotations

import json
import platform
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import numpy as np
import polars as pl

from palate.bundle_files import (
    KIND,
    MANIFEST,
    PARTS,
    check_target,
    checked,
    digest,
    locked,
    read_manifest,
    write_manifest,
    write_part,
)
from palate.data.dataset import Dataset, Fingerprint, History
from palate.data.ids import IdMap
from palate.errors import BundleError, DataError, RecipeError

# torch, and what imports it, comes in when a model is loaded or saved: reading a manifest must stay light.
if TYPE_CHECKING:
    from torch import Tensor

    from palate.base import Model, Recipe
    from palate.recommend import Recommender
    from palate.recommend.cold_start import ColdStart
    from palate.retrieval import Approximate

__all__ = ["Bundle"]

FORMAT = 1
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
        from palate.recommend import Recommender

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
        check_target(folder)
        try:
            folder.mkdir(parents=True, exist_ok=True)
            with locked(folder) as sync:
                files = {part: write_part(folder, part, content) for part, content in self._parts()}
                sync()
                write_manifest(folder, {**about, "files": files})
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

        Keys: kind, format, created, data, recipe (name, fields), sizes (users, items, and features where the
        model reads any), trained_on (rows, digest, users, items, ids), split, candidates, metrics, versions, index
        (what it was measured to find, or null) and cold (the policy for strangers), both absent in older bundles,
        files (name, sha256, bytes of each), self.

        Raises:
            BundleError: the folder is missing, no bundle, changed, or made by a newer Palate.
        """
        folder = Path(path)
        if not folder.is_dir():
            what = "is a file" if folder.exists() else "does not exist"
            raise BundleError(f"bundle {folder} {what}: give the folder that was saved to")
        manifest = read_manifest(folder)
        if manifest is None:
            raise BundleError(f"{folder} is no bundle, or its {MANIFEST} is missing or damaged: save it again")
        if not isinstance(manifest.get("format"), int) or manifest["format"] > FORMAT:
            raise BundleError(
                f"bundle {folder} has format {manifest.get('format')} but this Palate reads up to {FORMAT}, "
                "it was made by a newer Palate: upgrade palate"
            )
        if manifest.get("self") != digest(manifest):
            raise BundleError(f"bundle {folder}: {MANIFEST} was changed after it was saved: save the bundle again")
        return manifest

    def _about(self) -> dict[str, Any]:
        from pydantic_core import to_json

        from palate.retrieval.build import index_record

        model, data = self.recommender.model, self.recommender
        recipe = {"name": self.recipe.name, "fields": asdict(cast(Any, self.recipe))}
        trained = model.trained_on
        about = {
            "kind": KIND,
            "format": FORMAT,
            "created": self.created,
            "data": data.name,
            "recipe": recipe,
            "sizes": _sizes(data),
            "trained_on": None if trained is None else trained.record(),
            "split": self.split,
            "candidates": self.candidates,
            "metrics": self.metrics,
            "versions": dict(self.versions),
            "index": None if data.index is None else index_record(data.index, model),
            "cold": asdict(data.cold),
        }
        plain: dict[str, Any] = json.loads(to_json(about, inf_nan_mode="null", fallback=lambda number: number.item()))
        if _recipe(plain["recipe"]) != self.recipe:
            raise BundleError(
                f"{self.recipe} is not the same when read back: its fields must be plain numbers or texts"
            )
        return plain

    def _parts(self) -> Iterator[tuple[str, pl.DataFrame | dict[str, Tensor] | Approximate]]:
        from torch import from_numpy, nn

        from palate.retrieval import Approximate

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
        if isinstance(data.index, Approximate):
            yield "index", data.index

    @classmethod
    def _read(cls, folder: Path, manifest: dict[str, Any], device: str) -> Bundle:
        from palate.recommend import Recommender
        from palate.retrieval.build import index_of_record

        parts = [*PARTS, *(part for part in ("index",) if part in manifest["files"])]
        files = {part: checked(folder, manifest["files"][part]) for part in parts}
        recipe = _recipe(manifest["recipe"])
        users, items, seen = (pl.read_parquet(files[part]) for part in ("users", "items", "seen"))
        model = _model(recipe, files["weights"], manifest, device)
        about_index = manifest.get("index")
        recommender = Recommender(
            model=model,
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
            index=None if about_index is None else index_of_record(about_index, model, files.get("index")),
            cold=_policy(manifest.get("cold", {})),
        )
        about = (manifest[key] for key in ("split", "candidates", "versions", "created"))
        return cls(recipe, recommender, tuple(manifest["metrics"]), *about)


# Recipe and model.


def _recipe(record: Mapping[str, Any]) -> Recipe[Any]:
    from palate.models import make_recipe

    try:
        return make_recipe(record["name"], record["fields"])
    except RecipeError as error:
        raise BundleError(f"{error}: the bundle needs another Palate, upgrade palate") from None


def _policy(record: Mapping[str, Any]) -> ColdStart:
    from pydantic import TypeAdapter, ValidationError

    from palate.recommend.cold_start import ColdStart

    try:
        return TypeAdapter(ColdStart).validate_python(dict(record))
    except (ValidationError, DataError) as error:
        reason = " ".join(str(error).split())
        raise BundleError(f"{MANIFEST} holds no policy for strangers ({reason}): upgrade palate") from None


def _sizes(data: Recommender) -> dict[str, Any]:
    """Sizes of the tables, and the features that the model reads."""
    from palate.base import ReadsFeatures

    counts = {"users": len(data.users), "items": len(data.items)}
    features = data.model.spec.features if isinstance(data.model, ReadsFeatures) else None
    return counts if features is None else {**counts, "features": features.to_dict()}


def _model(recipe: Recipe[Any], path: Path, manifest: Mapping[str, Any], device: str) -> Model:
    import torch
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    from palate.base import DataSpec
    from palate.data.features import FeatureSchema

    sizes = manifest["sizes"]
    features = sizes.get("features")
    try:
        schema = None if features is None else FeatureSchema.from_dict(features)
    except DataError as error:
        raise BundleError(f"{MANIFEST} holds {error}, then save the bundle again") from None
    model = recipe.build(DataSpec(sizes["users"], sizes["items"], schema))
    try:
        # Copies: the loaded tensors lie in the mapped file, which must not be able to change under a running server.
        state = {name: tensor.clone() for name, tensor in load_file(path).items()}
        sketch = state.pop(SKETCH, None)
        model.load_state_dict(state, strict=True, assign=True)
    except (SafetensorError, RuntimeError) as error:
        raise BundleError(
            f"{path.name} does not fit the recipe {recipe.name} ({' '.join(str(error).split())}): save the bundle again"
        ) from None
    trained = manifest["trained_on"]
    if trained is not None and sketch is not None:
        model.trained_on = Fingerprint(**trained, sketch=sketch.numpy().view(np.uint64))
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
