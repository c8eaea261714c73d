"""The folder of a comparison: its settings, the frozen split, and every finished result, each written atomically.

    run.json                    settings, with the fingerprints of split and candidates
    split/                      the split with its candidates, as ``Split.save`` writes it
    results/NAME-tuned.json     the setting chosen for a baseline
    results/NAME-seed0.json     reports of one model and seed; written last, so it is there once the result is whole
    results/NAME-seed0.full.parquet, .sampled.parquet     values per user
    comparison.json             everything together, once all are done
    log.txt                     output of the processes that train

A comparison that was killed is resumed: finished results are kept. A folder of another comparison is refused.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import polars as pl

from palate import storage
from palate.errors import EvaluationError, PalateError, StorageError

KIND, VERSION = "palate comparison", 1
RUN, SPLIT, RESULTS, COMPARISON, LOG, LOCK = "run.json", "split", "results", "comparison.json", "log.txt", ".lock"
# All that a comparison and its report write, and all that --fresh removes.
OURS = (RUN, SPLIT, RESULTS, COMPARISON, LOG, "report.html", "report.md")


@dataclass(frozen=True)
class RunFolder:
    """A folder with one comparison."""

    path: Path

    @property
    def split(self) -> Path:
        """The folder of the split."""
        return self.path / SPLIT

    @property
    def log(self) -> Path:
        """The output of the processes that train."""
        return self.path / LOG

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Keep other processes out of the folder, which is made if it does not exist.

        Raises:
            EvaluationError: another process works in it, or it is a file or holds something else.
        """
        if self.path.exists() and not self.path.is_dir():
            raise EvaluationError(f"{self.path} is a file: choose another folder (--out)")
        self.path.mkdir(parents=True, exist_ok=True)
        # Before the lock file is written: a folder of something else must stay as it was.
        foreign = sorted(name for name in os.listdir(self.path) if not _ours(name) and name != LOCK)
        if foreign and not (self.path / RUN).exists():
            raise EvaluationError(
                f"{self.path} is not empty and no comparison (it holds {foreign[0]}): choose another --out"
            )
        try:
            with storage.lock(self.path / LOCK, wait=False):
                yield
        except StorageError:
            raise EvaluationError(
                f"another process works in {self.path}: wait for it, or choose another folder (--out)"
            ) from None

    def claim(self, settings: Mapping[str, Any], *, fresh: bool = False) -> bool:
        """Check whose folder this is; True if it holds a comparison of the same settings.

        Raises:
            EvaluationError: the folder holds another comparison.
        """
        if fresh or not (self.path / RUN).exists():
            # Without its settings a run was killed before its first result: what it left is of no use.
            for name in filter(_ours, os.listdir(self.path)):
                path = self.path / name
                if path.is_dir():
                    shutil.rmtree(path)
                else:
                    path.unlink()
            return False
        try:
            before = storage.read_manifest(self.path / RUN, KIND, VERSION)["settings"]
        except PalateError as error:
            raise EvaluationError(f"{error}; or choose another --out, or start over with --fresh") from None
        differ = [
            f"{key} {str(before.get(key))[:40]} there, {str(value)[:40]} now"
            for key, value in _plain(settings).items()
            if before.get(key) != value
        ]
        if differ:
            raise EvaluationError(
                f"{self.path} holds another comparison ({'; '.join(differ)}): choose another --out, or start over with "
                "--fresh"
            )
        return True

    def begin(self, settings: Mapping[str, Any]) -> None:
        """Write the settings, once the split is in the folder."""
        (self.path / RESULTS).mkdir(exist_ok=True)
        storage.write_manifest(self.path / RUN, KIND, VERSION, {"settings": _plain(settings)})

    def result(self, name: str, stage: str, recipe: Any) -> dict[str, Any] | None:
        """A finished result, or None.

        Args:
            name: of the entry.
            stage: "tuned", or the seed.
            recipe: that the result must be of, as in JSON.

        Raises:
            EvaluationError: the result there is of another recipe, or its file is damaged.
        """
        path = self._file(name, f"{stage}.json")
        if not path.exists():
            return None
        found: dict[str, Any] | None = storage.read_json(path)
        if found is None:
            raise EvaluationError(f"{path} cannot be read: start over with --fresh")
        if found["recipe"] != _plain(recipe):
            raise EvaluationError(
                f"{self.path} holds a result of {name} with other settings: choose another --out, or start over with "
                "--fresh"
            )
        return found

    def save(self, name: str, stage: str, result: Mapping[str, Any], users: Mapping[str, pl.DataFrame]) -> None:
        """Write a result; its JSON comes last, so that it is there only once all is."""
        for ranking, frame in users.items():
            with storage.replacing(self._file(name, f"{stage}.{ranking}.parquet")) as temporary:
                frame.write_parquet(temporary)
        storage.write_json(self._file(name, f"{stage}.json"), result)

    def per_user(self, name: str, stage: str, ranking: str) -> pl.DataFrame:
        """Values per user of a finished result: user_id and a column per measure.

        Raises:
            EvaluationError: the file is missing or cut short.
        """
        path = self._file(name, f"{stage}.{ranking}.parquet")
        try:
            return pl.read_parquet(path)
        except (OSError, pl.exceptions.PolarsError) as error:
            raise EvaluationError(f"{path} cannot be read ({error}): start over with --fresh") from None

    def finish(self, document: Mapping[str, Any]) -> None:
        """Write the finished comparison."""
        storage.write_json(self.path / COMPARISON, document)

    def _file(self, name: str, rest: str) -> Path:
        """Names may hold characters that a file name must not, and Windows ignores case: a hash keeps names apart."""
        slug = re.sub(r"[^a-z0-9_-]+", "-", name.lower()).strip("-")
        if slug != name:
            slug += f"-{hashlib.blake2b(name.encode(), digest_size=3).hexdigest()}"
        return self.path / RESULTS / f"{slug}-{rest}"


def _ours(name: str) -> bool:
    """Whether a comparison writes it, or left it half written when it was killed."""
    return name in OURS or storage.is_temporary(name) or name.startswith(tuple(f".{one}." for one in OURS))


def _plain(value: Any) -> Any:
    """The value as it is read back from JSON: tuples become lists."""
    return json.loads(json.dumps(value))
