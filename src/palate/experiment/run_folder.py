"""The folder of a comparison: what it is about, the frozen split, and every finished result, each written in one step.

    run.json                    settings, with the fingerprints of split and candidates
    split/                      the split with its candidates, as ``Split.save`` writes it
    results/NAME-tuned.json     the setting chosen for a baseline
    results/NAME-seed0.json     reports of one model and seed; there once it is whole
    results/NAME-seed0.full.parquet, .sampled.parquet     values per user
    comparison.json             everything together, once all are done
    log.txt                     what the processes that train said

A run that was killed goes on here: what is there is not done again. A folder of another comparison is refused.
"""

from __future__ import annotations

import fcntl
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

from palate.errors import EvaluationError

__all__ = ["RunFolder", "read_json", "write_json"]

KIND = "palate comparison"
RUN, SPLIT, RESULTS, COMPARISON, LOG = "run.json", "split", "results", "comparison.json", "log.txt"
# All that a comparison and its report write, and all that --fresh removes.
OURS = (RUN, SPLIT, RESULTS, COMPARISON, LOG, "report.html", "report.md")


@dataclass(frozen=True)
class RunFolder:
    """A folder with one comparison."""

    path: Path

    @property
    def split(self) -> Path:
        """Where the split is."""
        return self.path / SPLIT

    @property
    def log(self) -> Path:
        """Where the processes that train write what they have to say."""
        return self.path / LOG

    @property
    def comparison(self) -> Path:
        """Where the finished comparison is."""
        return self.path / COMPARISON

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Keep other processes out of the folder, which is made if need be.

        Raises:
            EvaluationError: another process works in it, or it is a file or holds something else.
        """
        if self.path.exists() and not self.path.is_dir():
            raise EvaluationError(f"{self.path} is a file: choose another folder (--out)")
        self.path.mkdir(parents=True, exist_ok=True)
        handle = os.open(self.path, os.O_RDONLY)
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            yield
        except BlockingIOError:
            raise EvaluationError(
                f"another process works in {self.path}: wait for it, or choose another folder (--out)"
            ) from None
        finally:
            os.close(handle)

    def claim(self, settings: Mapping[str, Any], *, fresh: bool = False) -> bool:
        """Write down what this folder is about, or check it; True if it was claimed before, by the same settings.

        Raises:
            EvaluationError: the folder holds another comparison, or something else.
        """
        if fresh:
            self._clear()
        before = read_json(self.path / RUN)
        if before is None:
            foreign = sorted(name for name in os.listdir(self.path) if not _ours(name))
            if foreign:
                raise EvaluationError(
                    f"{self.path} is not empty and no comparison (it holds {foreign[0]}): choose another --out"
                )
            self._clear()  # what a run left that was killed before it could write down what it is about
            return False
        differ = [
            f"{key} {_short(before['settings'].get(key))} there, {_short(value)} now"
            for key, value in _plain(settings).items()
            if before["settings"].get(key) != value
        ]
        if before.get("kind") != KIND or differ:
            raise EvaluationError(
                f"{self.path} holds another comparison ({'; '.join(differ) or 'of another kind'}): "
                "choose another --out, or begin anew there with --fresh"
            )
        return True

    def begin(self, settings: Mapping[str, Any]) -> None:
        """Write down what this folder is about, once the split is in it."""
        (self.path / RESULTS).mkdir(exist_ok=True)
        write_json(self.path / RUN, {"kind": KIND, "settings": settings})

    def result(self, name: str, stage: str, recipe: Any) -> dict[str, Any] | None:
        """A finished result, or None.

        Args:
            name: of the entrant.
            stage: "tuned", or the seed.
            recipe: what the result must be of, as JSON holds it.

        Raises:
            EvaluationError: the result there is of another recipe.
        """
        found: dict[str, Any] | None = read_json(self._file(name, f"{stage}.json"))
        if found is not None and found["recipe"] != _plain(recipe):
            raise EvaluationError(
                f"{self.path} holds a result of {name} with other settings: choose another --out, or begin anew there "
                "with --fresh"
            )
        return found

    def save(self, name: str, stage: str, result: Mapping[str, Any], users: Mapping[str, pl.DataFrame]) -> None:
        """Write a result; its JSON comes last, so that it is there only once all is."""
        for ranking, frame in users.items():
            with _in_one_step(self._file(name, f"{stage}.{ranking}.parquet")) as temporary:
                frame.write_parquet(temporary)
        write_json(self._file(name, f"{stage}.json"), result)

    def per_user(self, name: str, stage: str, ranking: str) -> pl.DataFrame:
        """Values per user of a finished result: user_id and a column per measure.

        Raises:
            EvaluationError: the file is gone or cut short.
        """
        path = self._file(name, f"{stage}.{ranking}.parquet")
        try:
            return pl.read_parquet(path)
        except (OSError, pl.exceptions.PolarsError) as error:
            raise EvaluationError(f"{path} cannot be read ({error}): begin anew with --fresh") from None

    def _file(self, name: str, rest: str) -> Path:
        """Names may hold what a file name must not: the hash keeps such names apart."""
        slug = re.sub(r"[^A-Za-z0-9_-]+", "-", name).strip("-")
        if slug != name:
            slug += f"-{hashlib.blake2b(name.encode(), digest_size=3).hexdigest()}"
        return self.path / RESULTS / f"{slug}-{rest}"

    def _clear(self) -> None:
        for name in filter(_ours, os.listdir(self.path)):
            path = self.path / name
            if path.is_dir():
                shutil.rmtree(path)
            else:
                path.unlink()


def write_json(path: Path, content: Any) -> None:
    """Put a JSON file into the place of an older one in one step."""
    with _in_one_step(path) as temporary:
        temporary.write_text(json.dumps(content, indent=1, ensure_ascii=False), encoding="utf-8")


def read_json(path: Path) -> Any:
    """What a JSON file holds; None where it is missing."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    except ValueError as error:
        raise EvaluationError(f"{path} cannot be read ({error}): begin anew with --fresh") from None


def _ours(name: str) -> bool:
    """What a comparison writes, or half wrote under a name with a dot before it was killed."""
    return name in OURS or name.startswith(tuple(f".{one}." for one in OURS))


@contextmanager
def _in_one_step(path: Path) -> Iterator[Path]:
    temporary = path.with_name(f".{path.name}.tmp")
    yield temporary
    with temporary.open("rb") as file:
        os.fsync(file.fileno())
    os.replace(temporary, path)


def _plain(value: Any) -> Any:
    """As it will be when read back: tuples become lists."""
    return json.loads(json.dumps(value))


def _short(value: Any) -> str:
    return str(value)[:40]
