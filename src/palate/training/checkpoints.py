"""The folder of a training run, which can be killed at any moment, moved, and asked again.

    run.json                    recipe, fields, seed, data and what else decides the weights
    epoch-00012-HASH.ckpt       the state after an epoch; the last two are kept
    best-00009-HASH.ckpt        the weights of the best epoch on the validation rows; the last two are kept
    .lock                       held by the process that trains

A file is named by its content, so a damaged one is noticed, and the one before it is taken. No file holds a path.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from palate import storage
from palate.errors import RecipeError, StorageError
from palate.progress import Progress, ProgressEvent

VERSION = 2
RUN, LOCK, KEPT = "run.json", ".lock", 2
# Names of this version and of the one before it.
OURS = re.compile(r"(epoch|best)-\d+-[0-9a-f]{16}\.ckpt|best-epoch=\d+(-v\d+)?\.ckpt|last(-v\d+)?\.ckpt")


@dataclass(frozen=True)
class Checkpoints:
    """The checkpoints in a folder."""

    folder: Path

    @contextmanager
    def claimed(self, about: Mapping[str, Any]) -> Iterator[None]:
        """Keep other processes out of the folder, and refuse one with the checkpoints of another run.

        Args:
            about: everything that the weights are a function of.

        Raises:
            RecipeError: the folder is of another run, its run.json is damaged, or another process trains in it.
        """
        self.folder.mkdir(parents=True, exist_ok=True)
        try:
            with storage.lock(self.folder / LOCK, wait=False):
                self._claim(json.loads(json.dumps({"version": VERSION, **about})))  # tuples become lists
                yield
        except StorageError:
            raise RecipeError(
                f"another process trains in {self.folder}: wait until it ends, or give another folder"
            ) from None

    def newest(self, progress: Progress) -> tuple[Path, dict[str, Any]] | None:
        """The last whole checkpoint and its content; None to start from the beginning."""
        for path in self._files("epoch"):
            content = self._load(path, progress)
            if content is not None:
                return path, content
        return None

    def write_epoch(self, epoch: int, save: Callable[[Path], object]) -> None:
        """Write the state after an epoch; older files are removed when it is on the disk."""
        storage.write_content(self.folder, f"epoch-{epoch:05}", ".ckpt", save)
        for kind in ("epoch", "best"):
            for path in self._files(kind)[KEPT:]:
                path.unlink(missing_ok=True)

    def write_best(self, epoch: int, weights: Mapping[str, Tensor]) -> None:
        """Write the weights of the best epoch so far, before the checkpoint that names it."""
        storage.write_content(self.folder, f"best-{epoch:05}", ".ckpt", lambda path: write(dict(weights), path))

    def best(self, epoch: int, progress: Progress) -> dict[str, Tensor] | None:
        """The weights of the best epoch, or None if their file is missing or damaged."""
        found = next((path for path in self._files("best") if _epoch(path) == epoch), None)
        return None if found is None else self._load(found, progress)

    def clear(self) -> None:
        """Remove what earlier runs have left, whole or half written."""
        for path in self.folder.iterdir():
            if OURS.fullmatch(path.name) or storage.is_temporary(path.name):
                path.unlink(missing_ok=True)

    def _claim(self, mine: dict[str, Any]) -> None:
        if not self._files("epoch"):
            self.clear()
            storage.write_json(self.folder / RUN, mine)
            return
        theirs = storage.read_json(self.folder / RUN)
        if not isinstance(theirs, dict):
            raise RecipeError(
                f"{self.folder / RUN} is missing or damaged, so the run of the checkpoints beside it is not known: "
                "give another folder, or delete this one"
            )
        different = sorted(key for key in mine if theirs.get(key) != mine[key])
        if different:
            raise RecipeError(
                f"{self.folder} holds a checkpoint of another run ({', '.join(different)} differ): "
                "give another folder, or delete this one"
            )
        for path in self.folder.iterdir():
            if storage.is_temporary(path.name):
                path.unlink(missing_ok=True)

    def _files(self, kind: str) -> list[Path]:
        """The files of a kind, the latest epoch first."""
        found = [path for path in self.folder.glob(f"{kind}-*.ckpt") if OURS.fullmatch(path.name) and _epoch(path) >= 0]
        return sorted(found, key=_epoch, reverse=True)

    def _load(self, path: Path, progress: Progress) -> Any:
        if storage.digest_file(path)[:16] == path.stem.rpartition("-")[2]:
            return torch.load(path, map_location="cpu", weights_only=True)
        progress(ProgressEvent("train", message=f"{path} is damaged: it is removed, and what it held is trained again"))
        path.unlink()  # it would count as one of the kept
        return None


def write(content: dict[str, Any], path: Path) -> None:
    """Write a checkpoint to ``path``; torch itself leaves a file open where the disk is full."""
    with path.open("wb") as file:
        torch.save(content, file)


def _epoch(path: Path) -> int:
    number = path.stem.split("-")[1]
    return int(number) if number.isdecimal() else -1
