"""Split: which rows train, which rows test, and which candidates the test items are ranked among.

    split = palate.by_time(dataset)
    split.save("splits/march")
    palate.Split.load("splits/march").fingerprint

A split is a value. It says how it was made, counts every row that was left out, and has a fingerprint. On the disk it
is a folder:

    split.json                          how, notes, names, fingerprint; name, size and SHA-256 of each file
    users.parquet, items.parquet        id (and title), in the order of the row numbers
    train.parquet, test.parquet         user, item, weight, time: row numbers, in the order of the rows
    validation, user_features, item_features, candidates (.parquet)    where the split has them
"""

from __future__ import annotations

import glob
import hashlib
import os
import secrets
import shutil
import time
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from palate.data.dataset import Dataset, Interactions, Note, html_table, lines
from palate.data.feedback import Feedback, MinRating, as_min_rating
from palate.data.ids import IdMap
from palate.errors import BundleError, DataError
from palate.storage import (
    backup_of,
    file_record,
    read_json,
    read_manifest,
    replace_folder,
    replacing,
    verify_file,
    write_manifest,
)

MANIFEST = "split.json"
KIND = "palate split"
VERSION = 2
STALE = 3600.0  # seconds after which the folder of an unfinished save is left over


@dataclass(frozen=True, eq=False)
class Candidates:
    """The listed negatives that each test user's relevant items are ranked among.

    Args:
        users: (T,) int32 row numbers of the test users, ascending and distinct.
        negatives: (T, n) int32 row numbers of items.
        how: where the negatives come from, in words.
    """

    users: NDArray[np.int32]
    negatives: NDArray[np.int32]
    how: str

    def __post_init__(self) -> None:
        if self.negatives.ndim != 2 or len(self.negatives) != len(self.users) or not self.negatives.shape[1]:
            raise DataError(
                f"{len(self.users)} users but negatives of shape {self.negatives.shape}: give (users, n), n at least 1"
            )
        if (np.diff(self.users) <= 0).any():
            raise DataError("users of candidates must be ascending and distinct: sort them with their negatives")

    def fingerprint(self, users: IdMap, items: IdMap) -> str:
        """Identity by external ids, 16 hex digits; neither the order of users nor that of negatives matters."""
        names = users.hashes[self.users]
        listed = np.column_stack([names, np.sort(items.hashes[self.negatives], axis=1)])
        return hashlib.blake2b(listed[np.argsort(names)].tobytes(), digest_size=8).hexdigest()


@dataclass(frozen=True, eq=False, repr=False)
class Split:
    """Training and test rows over the same id maps, and how they came about.

    Args:
        train, test: the two sets of rows; maps, features and titles are the same objects in both.
        how: the protocol in words, with its tie rule and the treatment of cold rows.
        notes: counts of rows that were dropped, kept aside or are cold.
        candidates: listed negatives for every test user, or None where the whole catalog is ranked.
        validation: rows to choose settings by, where they were given; None takes them out of the training rows.
    """

    train: Dataset
    test: Dataset
    how: str
    notes: tuple[Note, ...] = ()
    candidates: Candidates | None = None
    validation: Dataset | None = None

    def __post_init__(self) -> None:
        for name, part in (("test", self.test), ("validation", self.validation)):
            for kind in ("users", "items"):
                ours, theirs = getattr(self.train, kind), getattr(part or self.train, kind)
                if ours is not theirs and ours != theirs:
                    raise DataError(f"train and {name} number their {kind} differently: give both the same IdMap")
        if self.candidates is None:
            return
        if not np.array_equal(self.candidates.users, self.test_users):
            raise DataError("candidates are not those of the test users of this split: draw them from this split")
        if self.candidates.negatives.min() < 0 or self.candidates.negatives.max() >= self.train.n_items:
            raise DataError(f"candidates name items beyond the {self.train.n_items} of this split: draw them from it")

    @cached_property
    def test_users(self) -> NDArray[np.int32]:
        """Row numbers of the users with test rows, ascending, shape (T,)."""
        return distinct(self.test.interactions.user)

    @property
    def fingerprint(self) -> str:
        """Identity of the training and test rows by external ids, 16 hex digits; ``how`` plays no part."""
        parts = "|".join(f"{d.rows}:{d.digest}" for d in (self.train.fingerprint, self.test.fingerprint))
        return hashlib.blake2b(parts.encode(), digest_size=8).hexdigest()

    def __repr__(self) -> str:
        facts = {
            "train": f"{len(self.train):,} rows, {self.train.n_users:,} users, {self.train.n_items:,} items",
            "test": f"{len(self.test):,} rows of {len(self.test_users):,} users",
            "how": self.how,
        }
        if self.validation is not None:
            facts["validation"] = f"{len(self.validation):,} rows"
        if self.candidates is not None:
            facts["candidates"] = self.candidates.how
        return lines(f"Split of {self.train.name}", facts)

    def _repr_html_(self) -> str:
        test = self.test.facts() | {"users": f"{len(self.test_users):,}"}
        return html_table(f"Split of {self.train.name}: {self.how}", {"train": self.train.facts(), "test": test})

    def with_candidates(self, candidates: Candidates) -> Split:
        """The same rows with these candidates; raises DataError if they belong to other test users."""
        return replace(self, candidates=candidates)

    def with_min_rating(self, min_rating: MinRating) -> Split:
        """The same rows under another rule for what is positive, found from the training rows.

        Raises:
            DataError: no training row is as high.
        """
        train = self.train.with_min_rating(min_rating)
        validation = self.validation and replace(self.validation, feedback=train.feedback)
        return replace(self, train=train, test=replace(self.test, feedback=train.feedback), validation=validation)

    def relevant(self, min_rating: MinRating = "auto") -> Split:
        """Only the test rows that are relevant in evaluation, all positive; the same split where all are.

        Args:
            min_rating: "auto", the rule of the data set for positive rows; "any", every row; or rows of this weight or
                more. Default: "auto".

        Raises:
            DataError: none is left.
        """
        weight, chosen = self.test.interactions.weight, as_min_rating(min_rating)
        if chosen == "any":
            return replace(self, test=self.test.with_min_rating("any"))
        rule = self.test.feedback if chosen == "auto" else replace(self.test.feedback, min_rating=float(chosen))
        kept = rule.positive(weight)
        if chosen == "auto" and kept.all():
            return self
        if not kept.any():
            highest = f"highest weight {weight.max():g}" if len(weight) else "none to choose from"
            raise DataError(
                f"none of {len(weight):,} test rows is relevant ({rule.rule}; {highest}): lower min_rating "
                "(--min-rating), or cut elsewhere"
            )
        test = replace(self.test, interactions=self.test.interactions.take(kept), feedback=rule)
        candidates = self.candidates
        if candidates is not None:
            stay = np.isin(candidates.users, distinct(test.interactions.user))
            candidates = replace(candidates, users=candidates.users[stay], negatives=candidates.negatives[stay])
        lost = len(self.test_users) - len(distinct(test.interactions.user))
        users = (
            ""
            if not lost
            else f", {lost:,} {'user has no other and is' if lost == 1 else 'users have no other and are'} not measured"
        )
        notes = counted((f"test rows that are not relevant, the rule is {rule.rule}{users}", int((~kept).sum())))
        how = f"{self.how}; relevant: {rule.rule}"
        return Split(self.train, test, how, (*self.notes, *notes), candidates, self.validation)

    def save(self, folder: str | os.PathLike[str]) -> None:
        """Write the split to a folder; an older split there is replaced, anything else is left alone.

        All is written to a folder beside it and renamed into place, so that a process that is killed leaves the older
        split or the new one.

        Raises:
            BundleError: the folder holds something else, or cannot be written.
        """
        target = Path(folder).resolve()
        if target.exists() and not _replaceable(target):
            raise BundleError(f"{target} exists and is not a split: choose another folder or remove it")
        stage = target.with_name(f".{target.name}.new-{secrets.token_hex(4)}")
        try:
            _sweep(target)
            stage.mkdir(parents=True)
            self._write(stage)
            replace_folder(stage, target)
        except OSError as error:
            raise BundleError(f"could not write a split to {target} ({error}): choose another folder") from error
        finally:
            shutil.rmtree(stage, ignore_errors=True)

    @classmethod
    def load(cls, folder: str | os.PathLike[str]) -> Split:
        """Read a saved split after checking every file of it.

        Raises:
            BundleError: a file is missing, changed, cut short, or of a newer format.
        """
        path = Path(folder).resolve()
        if not path.exists() and backup_of(path).exists():
            path = backup_of(path)  # a save was killed between its two renames: the older split is whole
        manifest = read_manifest(path / MANIFEST, KIND, VERSION)
        try:
            files = {part: verify_file(path, record) for part, record in manifest["files"].items()}
            return cls._read({part: pl.read_parquet(file) for part, file in files.items()}, manifest)
        except (KeyError, TypeError, AttributeError, DataError, pl.exceptions.PolarsError) as error:
            raise BundleError(f"{path} is not a usable split ({error}): save it again") from error

    def _write(self, folder: Path) -> None:
        data, items = self.train, self.train.items.ids.to_frame("id")
        parts = {
            "users": data.users.ids.to_frame("id"),
            "items": items if data.titles is None else items.with_columns(data.titles.alias("title")),
            "train": _columns(data.interactions),
            "test": _columns(self.test.interactions),
            "user_features": data.user_features,
            "item_features": data.item_features,
        }
        if self.validation is not None:
            parts["validation"] = _columns(self.validation.interactions)
        if self.candidates is not None:
            columns = {"user": self.candidates.users, "negatives": self.candidates.negatives}
            parts["candidates"] = pl.DataFrame(columns)
        files = {}
        for part, frame in parts.items():
            if frame is not None:
                with replacing(folder / f"{part}.parquet") as temporary:
                    frame.write_parquet(temporary)
                files[part] = file_record(folder / f"{part}.parquet")
        content = {
            "how": self.how,
            "notes": [asdict(note) for note in self.notes],
            "train": _about(self.train),
            "test": _about(self.test),
            "candidates": None if self.candidates is None else self.candidates.how,
            "validation": None if self.validation is None else _about(self.validation),
            "fingerprint": self.fingerprint,
            "files": files,
        }
        write_manifest(folder / MANIFEST, KIND, VERSION, content)

    @classmethod
    def _read(cls, parts: dict[str, pl.DataFrame], manifest: dict[str, Any]) -> Split:
        items = parts["items"]
        train = Dataset(
            users=IdMap(parts["users"]["id"]),
            items=IdMap(items["id"]),
            interactions=_interactions(parts["train"]),
            user_features=parts.get("user_features"),
            item_features=parts.get("item_features"),
            titles=items["title"] if "title" in items.columns else None,
            **_labels(manifest["train"]),
        )
        test = replace(train, interactions=_interactions(parts["test"]), **_labels(manifest["test"]))
        candidates = None
        if manifest["candidates"] is not None:
            listed = parts["candidates"]
            candidates = Candidates(listed["user"].to_numpy(), listed["negatives"].to_numpy(), manifest["candidates"])
        validation = None
        if manifest.get("validation") is not None:
            rows = _interactions(parts["validation"])
            validation = replace(train, interactions=rows, **_labels(manifest["validation"]))
        return cls(train, test, manifest["how"], _notes(manifest["notes"]), candidates, validation)


def distinct(rows: NDArray[np.int32]) -> NDArray[np.int32]:
    """The row numbers that occur, ascending."""
    return np.flatnonzero(np.bincount(rows)).astype(np.int32)


def counted(*counts: tuple[str, int]) -> tuple[Note, ...]:
    """A note for each count above 0."""
    return tuple(Note(text, rows) for text, rows in counts if rows)


def _replaceable(folder: Path) -> bool:
    """An empty folder, or one whose manifest says that it is a split, even a damaged or newer one."""
    if not folder.is_dir():
        return False
    manifest = read_json(folder / MANIFEST)
    return manifest.get("kind") == KIND if isinstance(manifest, dict) else not any(folder.iterdir())


def _sweep(target: Path) -> None:
    """Remove the folders that killed saves have left; a save that is running is younger."""
    for left in target.parent.glob(f".{glob.escape(target.name)}.new-*"):
        if time.time() - left.stat().st_mtime > STALE:
            shutil.rmtree(left, ignore_errors=True)


def _about(rows: Dataset) -> dict[str, Any]:
    notes = [asdict(note) for note in rows.notes]
    return {"name": rows.name, "feedback": rows.feedback.record(), "notes": notes, "columns": rows.columns}


def _labels(about: dict[str, Any]) -> dict[str, Any]:
    # Splits of older versions say only whether the weights are ratings; all their rows were positive.
    feedback = about.get("feedback") or {"kind": "rating" if about["explicit"] else "quantity"}
    notes = _notes(about["notes"])
    return {
        "name": about["name"],
        "feedback": Feedback(**feedback),
        "notes": notes,
        "columns": about.get("columns", ""),
    }


def _notes(entries: list[dict[str, Any]]) -> tuple[Note, ...]:
    return tuple(Note(**entry) for entry in entries)


def _columns(rows: Interactions) -> pl.DataFrame:
    columns = {"user": rows.user, "item": rows.item, "weight": rows.weight, "time": rows.time}
    return pl.DataFrame({name: column for name, column in columns.items() if column is not None})


def _interactions(frame: pl.DataFrame) -> Interactions:
    columns = {column.name: column.to_numpy(writable=True) for column in frame.get_columns()}
    return Interactions(columns["user"], columns["item"], columns["weight"], columns.get("time"))
