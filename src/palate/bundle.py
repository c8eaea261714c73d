"""Bundle: a fitted model with all it needs to recommend, as one folder without pickle.

    manifest.json               recipe, metrics, fingerprints, versions; name, size and SHA-256 of each file below
    weights-<sha>.safetensors   the model's state, and sketches of the rows it was trained on
    users-<sha>.parquet         id, seen (events of the user in the file below), features
    items-<sha>.parquet         id, popularity, title, features
    seen-<sha>.parquet          item, weight, time of every training row, grouped by user, oldest first
    index-<sha>.faiss           the codes of an approximate index over the item vectors, if there is one
    signature.json              of the manifest, if it is signed (``palate bundle sign``)
    .lock                       held by the process that saves

A save writes new files beside the old ones and then replaces ``manifest.json``: that single step turns the old bundle
into the new one, so a save that is killed, at any moment, leaves one of the two whole.
"""

from __future__ import annotations

import json
import platform
import re
import shutil
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from functools import cache, partial
from importlib.metadata import version
from numbers import Real
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import numpy as np
import polars as pl

from palate import storage
from palate.bundle_checks import check_manifest, check_tables, check_weights, read_table
from palate.data.dataset import Dataset, Fingerprint, History
from palate.data.feedback import Feedback
from palate.data.ids import IdMap
from palate.errors import BundleError, DataError, PalateError, RecipeError
from palate.parallel import needs_polars
from palate.signature import SIGNATURE, check_signature, private_key, public_keys, sign_manifest

# torch is imported when a model is loaded or saved: reading a manifest must stay light.
if TYPE_CHECKING:
    import torch
    from pydantic import TypeAdapter
    from torch import Tensor

    from palate.base import DataSpec, Model, Recipe
    from palate.recommend import Recommender
    from palate.recommend.cold_start import ColdStart

__all__ = ["Bundle"]

KIND = "palate bundle"
FORMAT = 1
MANIFEST = "manifest.json"
LOCK = ".lock"
PARTS = ("weights", "users", "items", "seen")
OUR_FILES = re.compile(
    r"(weights|users|items|seen|index)-[0-9a-f]{16}\.(safetensors|parquet|faiss)|signature\.json|\.lock"
)
SKETCH, PAIRS = "palate.sketch", "palate.pairs"
FEATURE = "feature:"
DRAWS = (
    "normal_",
    "uniform_",
    "trunc_normal_",
    "xavier_uniform_",
    "xavier_normal_",
    "kaiming_uniform_",
    "kaiming_normal_",
)


@dataclass(frozen=True, eq=False)
class Bundle:
    """A fitted model with its recipe, ids, metrics and origin.

    Args:
        recipe: the hyperparameters.
        recommender: the model with ids, histories and titles; ``recommender.name`` is the name of the data.
        metrics: rows of a report, kept as they are (NaN becomes null).
        split, candidates: fingerprints of the rows and candidates of the metrics, or None.
        versions: of Palate, Python and the libraries it was made with.
        created: UTC, ISO 8601.
        refit: of a bundle made by ``palate refit``: name of the store, newest place in its log (seq), rows from it.
    """

    recipe: Recipe[Any]
    recommender: Recommender
    metrics: tuple[dict[str, Any], ...] = ()
    split: str | None = None
    candidates: str | None = None
    versions: Mapping[str, str] = field(
        default_factory=lambda: {
            **{name: version(name) for name in ("palate", "torch", "numpy", "polars")},
            "python": platform.python_version(),
        }
    )
    created: str = field(default_factory=lambda: datetime.now(UTC).isoformat(timespec="seconds"))
    refit: Mapping[str, Any] | None = None

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
        """The bundle of a model and the rows it was trained on.

        Args:
            recipe: the recipe that ``model`` was fitted with.
            model: a fitted model.
            train: its training rows.
            metrics: rows of a report (``report.rows()``), stored as they are.
            split_fingerprint, candidates_fingerprint: of the rows and candidates that the metrics were measured on.

        Raises:
            BundleError: the recipe does not build a model of this kind and shape, so it could not be loaded again.
            ModelError: the ids of ``train`` are not those that the model was trained on.
        """
        from palate.recommend import Recommender

        recommender = Recommender.of(model, train)
        # Values that were chosen by the data are stored: the rows alone would not tell a later version.
        recipe = recipe.for_data(train)
        _check_rebuilds(recipe, recommender)
        rows = tuple(dict(row) for row in metrics)
        return cls(recipe, recommender, rows, split_fingerprint, candidates_fingerprint)

    def __repr__(self) -> str:
        data, trained = self.recommender, self.trained_on
        measured = [
            f"{row.get('metric')}@{row['k']} {row['value']:.4f}"
            for row in self.metrics[:3]
            if row.get("k") and isinstance(row.get("value"), Real)  # null where it was no number
        ]
        return "\n".join(
            [
                f"Bundle({self.recipe})",
                f"  data: {data.name}, {len(data.users):,} users, {len(data.items):,} items"
                + ("" if trained is None else f", trained on {trained.rows:,} rows"),
                f"  metrics: {', '.join(measured) or 'none'}",
                f"  created: {self.created}, palate {self.versions.get('palate', 'unknown')}",
            ]
        )

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
            with storage.lock(folder / LOCK):
                try:
                    files = {
                        part: storage.write_content(folder, part, ending, write)
                        for part, ending, write in self._parts()
                    }
                    storage.write_manifest(folder / MANIFEST, KIND, FORMAT, {**about, "files": files})
                finally:
                    _sweep(folder)
        except OSError as error:
            raise BundleError(
                f"cannot write the bundle {folder} ({error.strerror or error}): free space or choose another folder"
            ) from None
        return folder

    @classmethod
    def load(cls, path: str | Path, device: str = "cpu", *, trusted_key: str | Path | None = None) -> Bundle:
        """Read a bundle after checking every file of it, with the model on ``device``.

        Args:
            path: the folder.
            device: as for torch.
            trusted_key: a file of public keys in PEM form, one of which must have signed the bundle. Default: None, any
                bundle is read.

        Raises:
            BundleError: the folder is missing, no bundle, incomplete, changed, made by a newer Palate, or not signed.
            DataError: ``trusted_key`` holds no public key, or ``cryptography`` is not installed.
            ModelError: this process was forked from one in which polars has run: it would wait without end.
        """
        needs_polars("loading a bundle needs")
        folder = Path(path)
        if trusted_key is not None:
            # A copy of its own: who can write the folder could change a file between the check and its use.
            with tempfile.TemporaryDirectory(prefix="palate-", ignore_cleanup_errors=True) as copy:
                try:
                    _copy_signed(folder, Path(copy), Path(trusted_key))
                    return cls.load(copy, device)
                except BundleError as error:
                    raise BundleError(str(error).replace(copy, str(folder))) from None
        while True:
            manifest = cls.info(folder)
            try:
                return cls._read(folder, manifest, device)
            except (Exception, pl.exceptions.PanicException) as error:
                # A save that ended meanwhile has removed the files of the old manifest: read the new one instead.
                if cls.info(folder) != manifest:
                    continue
                if isinstance(error, PalateError) and not isinstance(error, DataError):
                    raise
                reason = " ".join(f"{type(error).__name__}: {error}".split())[:300]
                raise BundleError(f"bundle {folder} is malformed ({reason}): save it again") from None

    def push_to_hub(
        self, repo: str, *, private: bool = True, revision: str | None = None, token: str | None = None
    ) -> str:
        """Upload to a repository of the Hugging Face hub in one commit, with a model card made from the evaluation.

        A bundle holds ids and histories of its users, so a repository that does not exist yet is made private.

        Args:
            repo: "owner/name", or "name" of the token's owner. Files of an earlier bundle there are removed.
            private: of a repository that is made. Default: True.
            revision: branch, made if need be. Default: the main one.
            token: of the hub. Default: that of ``hf auth login`` or HF_TOKEN.

        Returns:
            The address of the commit.

        Raises:
            BundleError: ``huggingface_hub`` is not installed, or the hub refuses or does not answer.
        """
        from palate import hub

        with tempfile.TemporaryDirectory(prefix="palate-") as folder:
            path = self.save(Path(folder) / "bundle")
            return hub.push(path, Bundle.info(path), repo, private=private, revision=revision, token=token)

    @classmethod
    def from_hub(
        cls,
        repo: str,
        *,
        revision: str | None = None,
        token: str | None = None,
        device: str = "cpu",
        trusted_key: str | Path | None = None,
    ) -> Bundle:
        """Download a bundle from the Hugging Face hub into its cache, and load it with all checks of ``load``.

        Args:
            repo: "owner/name".
            revision: branch, tag or commit. Default: the newest of the main branch.
            token: of the hub, for private repositories. Default: that of ``hf auth login`` or HF_TOKEN.
            device, trusted_key: as for ``load``.

        Raises:
            BundleError: ``huggingface_hub`` is not installed, the hub refuses or does not answer, or as ``load``.
            DataError, ModelError: as ``load``.
        """
        from palate import hub

        return cls.load(hub.pull(repo, revision=revision, token=token), device, trusted_key=trusted_key)

    @staticmethod
    def info(path: str | Path) -> dict[str, Any]:
        """The manifest, checked, without reading the rest and without importing torch.

        Keys: kind, version, created, data, recipe (name, fields), sizes (users, items, and features where the
        model reads any), trained_on (rows, digest, users, items, ids), split, candidates, metrics, versions, index
        (its measured recall, or null), cold (the cold-start policy), feedback (the rule for positive rows), refit (the
        store that ``palate refit`` read, or null), files (name, sha256, bytes of each).

        Raises:
            BundleError: the folder is missing, no bundle, changed, or made by a newer Palate.
        """
        folder = Path(path)
        if not folder.is_dir():
            problem = "is a file" if folder.exists() else "does not exist"
            raise BundleError(f"bundle {folder} {problem}: give the folder that was saved to")
        return storage.read_manifest(folder / MANIFEST, KIND, FORMAT)

    @staticmethod
    def sign(path: str | Path, key: str | Path) -> str:
        """Sign a saved bundle, after checking the digests of its files; an earlier signature is replaced.

        Args:
            path: the folder.
            key: a file with an Ed25519 private key, as ``palate bundle keygen`` writes it.

        Returns:
            The fingerprint of the public key.

        Raises:
            BundleError: it is no whole bundle, or cannot be written.
            DataError: the key cannot be used, or ``cryptography`` is not installed.
        """
        folder, private = Path(path), private_key(Path(key))
        Bundle.info(folder)
        try:
            with storage.lock(folder / LOCK):
                return sign_manifest(folder, _verified(folder), private)
        except OSError as error:
            raise BundleError(
                f"cannot write the signature of {folder} ({error.strerror or error}): check rights and free space"
            ) from None

    @staticmethod
    def verify(path: str | Path, trusted_key: str | Path) -> str:
        """Check the signature of a bundle and the digests of its files, without reading their content.

        Args:
            path: the folder.
            trusted_key: a file of public keys in PEM form, one of which must have signed the bundle.

        Returns:
            The fingerprint of the key that has signed it.

        Raises:
            BundleError: it is not signed by one of the keys, incomplete or changed.
            DataError: ``trusted_key`` holds no public key, or ``cryptography`` is not installed.
        """
        keys, manifest = public_keys(Path(trusted_key)), _verified(Path(path))
        return check_signature(Path(path), manifest, keys)

    def _about(self) -> dict[str, Any]:
        from pydantic_core import to_json

        from palate.retrieval.build import index_record

        model, data = self.recommender.model, self.recommender
        recipe = {"name": self.recipe.name, "fields": asdict(cast(Any, self.recipe))}
        trained = model.trained_on
        about = {
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
            "feedback": data.seen.feedback.record(),
            "refit": None if self.refit is None else dict(self.refit),
        }
        plain: dict[str, Any] = json.loads(to_json(about, inf_nan_mode="null", fallback=lambda number: number.item()))
        if _recipe(plain["recipe"]) != self.recipe:
            raise BundleError(
                f"{self.recipe} is not the same when read back: its fields must be plain numbers or texts"
            )
        return plain

    def _parts(self) -> Iterator[tuple[str, str, Callable[[Path], object]]]:
        """Name, ending and writer of each file; one at a time, so that only one table is in memory."""
        from safetensors.torch import save_file
        from torch import from_numpy, nn

        from palate.retrieval import Approximate

        data = self.recommender
        assert isinstance(data.model, nn.Module)
        state = _unshared(data.model.state_dict())
        if data.model.trained_on is not None:
            trained = data.model.trained_on
            for key, sketch in ((SKETCH, trained.sketch), (PAIRS, trained.pairs)):
                if sketch is not None:
                    state[key] = from_numpy(sketch.view(np.int64).copy())
        yield "weights", ".safetensors", partial(save_file, state)
        users = pl.DataFrame({"id": data.users.ids, "seen": data.seen.counts})
        yield "users", ".parquet", _with_features(users, data.user_features).write_parquet
        items = pl.DataFrame({"id": data.items.ids, "popularity": data.popularity})
        items = items if data.titles is None else items.with_columns(title=data.titles)
        yield "items", ".parquet", _with_features(items, data.item_features).write_parquet
        seen = pl.DataFrame({"item": data.seen.items, "weight": data.seen.weights})
        seen = seen if data.seen.times is None else seen.with_columns(time=pl.Series(data.seen.times))
        yield "seen", ".parquet", seen.write_parquet
        if isinstance(data.index, Approximate):
            yield "index", ".faiss", data.index.codes.write

    @classmethod
    def _read(cls, folder: Path, manifest: dict[str, Any], device: str) -> Bundle:
        from palate.recommend import Recommender
        from palate.retrieval.build import index_of_record

        check_manifest(manifest)
        parts = [*PARTS, *(part for part in ("index",) if part in manifest["files"])]
        files = {part: storage.verify_file(folder, manifest["files"][part]) for part in parts}
        recipe = _recipe(manifest["recipe"])
        users, items, seen = (read_table(files[part]) for part in ("users", "items", "seen"))
        check_tables(users, items, seen, manifest["sizes"])
        model = _model(recipe, files["weights"], manifest, device)
        about_index = manifest["index"]
        if about_index is None and "index" in files:
            raise BundleError(f"{MANIFEST} does not describe {files['index'].name}: save the bundle again")
        recommender = Recommender(
            model=model,
            users=IdMap(users["id"]),
            items=IdMap(items["id"]),
            seen=history_of(users, seen, manifest),
            popularity=items["popularity"].to_numpy(writable=True),
            titles=items["title"] if "title" in items.columns else None,
            user_features=_features(users),
            item_features=_features(items),
            name=manifest["data"],
            index=None if about_index is None else index_of_record(about_index, model, files.get("index")),
            cold=_policy(manifest["cold"]),
        )
        if not recommender.cold.is_plain:
            recommender.fallback(recommender.cold)  # a policy that does not fit the tables shows here
        about = {key: manifest[key] for key in ("split", "candidates", "versions", "created")}
        return cls(recipe, recommender, tuple(manifest["metrics"]), **about, refit=manifest.get("refit"))


def history_of(users: pl.DataFrame, seen: pl.DataFrame, manifest: Mapping[str, Any]) -> History:
    """The training rows of a bundle, from two of its tables and its manifest."""
    return History(
        np.concatenate([[0], np.cumsum(users["seen"].to_numpy())]).astype(np.int64),
        seen["item"].to_numpy(writable=True),
        seen["weight"].to_numpy(writable=True),
        seen["time"].to_numpy(writable=True) if "time" in seen.columns else None,
        # A bundle of an older version has no rule: its model took every row as positive.
        _feedback(manifest.get("feedback", {})),
    )


# Files.


def _our_files(folder: Path) -> set[str]:
    """Names in the folder that saves of bundles have written, finished or not."""
    names = {path.name for path in folder.iterdir()}
    return {name for name in names if OUR_FILES.fullmatch(name) or storage.is_temporary(name)}


def _verified(folder: Path) -> dict[str, Any]:
    """The manifest of a bundle whose files all have the sizes and digests that it names."""
    manifest = Bundle.info(folder)
    check_manifest(manifest)
    for record in manifest["files"].values():
        storage.verify_file(folder, record)
    return manifest


def _copy_signed(folder: Path, copy: Path, trusted_key: Path) -> None:
    """Copy a bundle to an empty folder: the manifest and its signature, then the files that it names."""
    keys = public_keys(trusted_key)
    Bundle.info(folder)
    try:
        for name in (MANIFEST, SIGNATURE):
            if (folder / name).is_file():  # nothing else; a pipe would be waited for without end
                shutil.copyfile(folder / name, copy / name)
        manifest = Bundle.info(copy)
        check_signature(copy, manifest, keys)
        for record in manifest["files"].values():
            shutil.copyfile(folder / record["name"], copy / record["name"])
    except OSError as error:
        raise BundleError(
            f"cannot copy {error.filename or folder} to check the signature ({error.strerror or error}): "
            "check that it is there, its rights and the free space"
        ) from None


def _sweep(folder: Path) -> None:
    """Remove the files that the manifest does not name: those of the old bundle, or half a new one."""
    manifest = storage.read_json(folder / MANIFEST) or {"files": {}}
    kept = {LOCK, *(record["name"] for record in manifest["files"].values())}
    for name in _our_files(folder) - kept:
        # On Windows a file that a reader has mapped cannot be removed: the next save will.
        with suppress(PermissionError):
            (folder / name).unlink()


def check_target(folder: Path) -> None:
    """Refuse a file, and a folder that holds something else: also before training, whose result could not be saved.

    Raises:
        BundleError: a bundle cannot be saved there.
    """
    if folder.exists() and not folder.is_dir():
        raise BundleError(f"{folder} is a file: choose a folder for the bundle")
    manifest = storage.read_json(folder / MANIFEST)
    if folder.is_dir() and not (isinstance(manifest, dict) and manifest.get("kind") == KIND):
        foreign = sorted({path.name for path in folder.iterdir()} - _our_files(folder))
        if foreign:
            raise BundleError(
                f"{folder} is not empty and no bundle (it holds {foreign[0]}): choose another folder or delete it"
            )


# Recipe and model.


def _recipe(record: Mapping[str, Any]) -> Recipe[Any]:
    from palate.models import make_recipe

    try:
        return make_recipe(record["name"], record["fields"])
    except RecipeError as error:
        raise BundleError(f"{error}: the bundle needs another Palate, upgrade palate") from None


@cache
def _adapter(kind: Any) -> TypeAdapter[Any]:
    from pydantic import TypeAdapter

    return TypeAdapter(kind)  # made in 8 ms, as long as the rest of a small load


def _feedback(record: Mapping[str, Any]) -> Feedback:
    made: Feedback = _adapter(Feedback).validate_python(asdict(Feedback(**record)))
    return made


def _policy(record: Mapping[str, Any]) -> ColdStart:
    from pydantic import ValidationError

    from palate.recommend.cold_start import ColdStart

    try:
        made: ColdStart = _adapter(ColdStart).validate_python(dict(record))
        return made
    except (ValidationError, DataError) as error:
        reason = " ".join(str(error).split())
        raise BundleError(f"{MANIFEST} holds no cold-start policy ({reason}): upgrade palate") from None


def _sizes(data: Recommender) -> dict[str, Any]:
    """Sizes of the tables, and the features that the model reads."""
    from palate.base import ReadsFeatures

    counts = {"users": len(data.users), "items": len(data.items)}
    features = data.model.spec.features if isinstance(data.model, ReadsFeatures) else None
    return counts if features is None else {**counts, "features": features.to_dict()}


def _spec(sizes: Mapping[str, Any]) -> DataSpec:
    from palate.base import DataSpec
    from palate.data.features import FeatureSchema

    features = sizes.get("features")
    try:
        schema = None if features is None else FeatureSchema.from_dict(features)
    except DataError as error:
        raise BundleError(f"{MANIFEST} holds {error}, then save the bundle again") from None
    return DataSpec(sizes["users"], sizes["items"], schema)


def _shapes_of(recipe: Recipe[Any], sizes: Mapping[str, Any]) -> torch.nn.Module:
    """The model that the recipe builds, without memory: on the device "meta" even a large one takes milliseconds."""
    import torch
    from torch.overrides import TorchFunctionMode

    class NoDraws(TorchFunctionMode):
        def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            # There is nothing to write into, and torch would import its compiler for it, which takes seconds.
            if getattr(func, "__name__", "") in DRAWS:
                return args[0] if args else kwargs["tensor"]
            if func is torch.eye:
                return torch.empty(args[0], args[-1])
            if getattr(func, "__name__", "") in ("mul", "__mul__", "__rmul__") and isinstance(args[1], float):
                return args[0]
            if func is torch.randn:
                return torch.empty(*args)
            if func is torch.Tensor.repeat:
                one, *times = args
                shape = [*[1] * (len(times) - one.ndim), *one.shape]
                return torch.empty([size * count for size, count in zip(shape, times, strict=True)], dtype=one.dtype)
            return func(*args, **(kwargs or {}))

    with torch.random.fork_rng(devices=[]), torch.device("meta"), NoDraws():
        built: torch.nn.Module = recipe.build(_spec(sizes))
    return built


def _check_rebuilds(recipe: Recipe[Any], data: Recommender) -> None:
    """Refuse a recipe that cannot rebuild the model: the mistake shows here, not when the bundle is loaded."""
    import torch

    state = cast(torch.nn.Module, data.model).state_dict()
    built: Any = _shapes_of(recipe, _sizes(data))
    # Extra state (``nn.Module.get_extra_state``), such as the trees of a ranker, has a size of its own in each fit.
    shapes, wanted = (
        {name: tuple(tensor.shape) for name, tensor in one.items() if not name.endswith("_extra_state")}
        for one in (state, built.state_dict())
    )
    if type(built) is not type(data.model) or shapes != wanted:
        name = next((name for name in sorted({*shapes, *wanted}) if shapes.get(name) != wanted.get(name)), "")
        differ = f": {name} has shape {shapes.get(name)} instead of {wanted.get(name)}" if name else ""
        raise BundleError(
            f"recipe {recipe.name} builds a {type(built).__name__}, "
            f"which this {type(data.model).__name__} does not fit{differ}; "
            "give the recipe that the model was fitted with"
        )


def _model(recipe: Recipe[Any], path: Path, manifest: Mapping[str, Any], device: str) -> Model:
    import torch
    from safetensors.torch import load_file

    from palate.base import ChecksState
    from palate.training.layers import NoInitialValues

    # Without memory at first: a recipe may ask for more than the file has.
    built = _shapes_of(recipe, manifest["sizes"])
    check_weights(path, recipe.name, built.state_dict(), (SKETCH, PAIRS))
    with NoInitialValues():
        model = recipe.build(_spec(manifest["sizes"]))
    # Copies: the loaded tensors lie in the mapped file, which must not be able to change under a running server.
    state = {name: tensor.clone() for name, tensor in load_file(path).items()}
    for name, tensor in state.items():
        # One pass: a sum is finite only if all values are, unless it overflows.
        fine = not tensor.is_floating_point() or tensor.sum().isfinite() or torch.isfinite(tensor).all()
        if not bool(fine):
            raise BundleError(f"{path.name}: {name} holds values that are not finite: save the bundle again")
    sketch, pairs = (state.pop(key, None) for key in (SKETCH, PAIRS))
    try:
        model.load_state_dict(state, strict=True, assign=True)
    except PalateError:
        raise
    except Exception as error:  # what a ranker of another library makes of its own text
        raise BundleError(
            f"{path.name} does not fit the recipe {recipe.name} ({' '.join(str(error).split())}): save the bundle again"
        ) from None
    for part in cast(torch.nn.Module, model).modules():
        if isinstance(part, ChecksState) and (problem := part.state_problem()):
            raise BundleError(f"{path.name}: {problem}: save the bundle again")
    trained = manifest["trained_on"]
    if trained is not None and sketch is not None:
        known = None if pairs is None else pairs.numpy().view(np.uint64)
        model.trained_on = Fingerprint(**trained, sketch=sketch.numpy().view(np.uint64), pairs=known)
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
