"""Recommender: from a fitted model to lists of external ids, for people known, new and unknown.

    recommender = Recommender.of(model, train)
    recommender.recommend([196, 22], k=10)      # user_id, item_id, rank, score, source, title

Every row says where it came from: "model" (a user of the training data), "fold-in" (somebody else, known by a
history that was given with the request) or "popular" (nothing personal can be said, so the most popular items answer).

Shape legend: B users of a chunk, H history events of a chunk, I items, D width of a vector.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import chain
from pathlib import Path
from typing import Any, cast

import numpy as np
import polars as pl
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from palate.data.dataset import Dataset, History, Interactions, Note
from palate.data.ids import IdMap
from palate.data.split import Split
from palate.errors import DataError, ModelError
from palate.protocols import Model, Query
from palate.ranking import top_k
from palate.similar import SimilarItems

__all__ = ["Recommender"]

Id = int | str
Ids = Id | Sequence[Id] | NDArray[Any] | pl.Series

SOURCES = pl.Series(["popular", "fold-in", "model"])
# What one chunk of users may take while it is scored: a score, its copy, and the sort keys of top_k per cell.
CHUNK_BYTES = 256 << 20
CELL_BYTES = 48


@dataclass(frozen=True, eq=False)
class Recommender:
    """A fitted model with the ids, histories and titles that turn its scores into lists.

    It needs no training data, and answering changes nothing in it, so threads may share one.

    Args:
        model: a fitted model; it is put into evaluation mode.
        users, items: the id maps of the training data.
        seen: the training history, one (perhaps empty) history per user row.
        popularity: (I,) float32 interactions per item, the answer when nothing personal can be said.
        titles: one readable name per item row, or None.
        user_features, item_features: one row per id in map order, or None.
        name: the name of the data set.
    """

    model: Model
    users: IdMap
    items: IdMap
    seen: History
    popularity: NDArray[np.float32]
    titles: pl.Series | None = None
    user_features: pl.DataFrame | None = None
    item_features: pl.DataFrame | None = None
    name: str = ""

    def __post_init__(self) -> None:
        cast(nn.Module, self.model).eval()

    @classmethod
    def of(cls, model: Model, train: Dataset) -> Recommender:
        """The recommender of a model and the rows it was trained on, which are what counts as seen."""
        return cls(
            model=model,
            users=train.users,
            items=train.items,
            seen=train.history,
            popularity=np.bincount(train.interactions.item, minlength=train.n_items).astype(np.float32),
            titles=train.titles,
            user_features=train.user_features,
            item_features=train.item_features,
            name=train.name,
        )

    def recommend(
        self,
        users: Ids,
        k: int = 10,
        *,
        exclude_seen: bool = True,
        histories: Mapping[Any, Sequence[Id]] | None = None,
    ) -> pl.DataFrame:
        """The k best items of each user, best first: user_id (as asked), item_id, rank, score, source, title.

        Args:
            users: one id or many; an id asked for twice is answered once. Unknown ids are answered too.
            k: list length. Lists are shorter where fewer items are left after ``exclude_seen``.
            exclude_seen: leave out what the user had in the training rows or has in ``histories``.
            histories: item ids per asked user, oldest first. They introduce an unknown user; for a known one they
                come after the training history. Items that the catalogue lacks are left out: see ``unknown_items``.

        Scores compare within one list only; for "popular" they are the model's own if it is not personal at all, and
        interaction counts otherwise. ``title`` is there if titles are known.

        Raises:
            DataError: k is below 1, an id is neither integer nor string, or ``histories`` names somebody not asked for.
        """
        _check_k(k)
        asked = _series("user_id", users).unique(maintain_order=True)
        rows = self.users.rows(asked)
        given = None if histories is None else self._given(asked, histories)
        parts = (
            self._answer(
                asked[part],
                rows[part],
                None if given is None else given.select(np.arange(len(rows))[part]),
                k,
                exclude_seen,
            )
            for part in self._chunks(len(rows))
        )
        return pl.concat([self._empty(asked.dtype), *parts])

    def recommend_all(self, path: str | Path, k: int = 10, *, exclude_seen: bool = True, progress: bool = False) -> int:
        """Write the lists of all known users to one Parquet file in bounded memory; the number of rows written.

        The file appears under its name only when it is whole; a file of that name is replaced.

        Raises:
            DataError: k is below 1, or ``path`` cannot be written.
        """
        import pyarrow.parquet as pq
        from rich.progress import track

        _check_k(k)
        written = 0
        schema = _arrow(self._empty(self.users.ids.dtype)).schema
        parts = list(self._chunks(len(self.users)))
        with _replacing(Path(path)) as temporary, pq.ParquetWriter(temporary, schema, compression="zstd") as writer:
            for part in track(parts, "Recommending", disable=not progress):
                rows = np.arange(part.start, part.stop, dtype=np.int32)
                frame = self._answer(self.users.ids[part], rows, None, k, exclude_seen)
                writer.write_table(_arrow(frame))
                written += len(frame)
        return written

    def similar(self, item: Id, k: int = 10) -> pl.DataFrame:
        """The k items most like one item, by cosine: item_id, rank, score, source, title.

        Source "model": cosine of the model's item vectors. Source "co-occurrence", for models without item vectors:
        the share of users two items have in common, n_ij / sqrt(n_i n_j), where only items with n_ij > 0 are listed.

        Args:
            item: an item id, or a title (in any case) that belongs to exactly one item.
            k: list length.

        Raises:
            DataError: k is below 1, or the item is unknown; the message names what was perhaps meant.
        """
        _check_k(k)
        return self._similar.to(item, k)

    def against(self, test: Dataset) -> Split:
        """A split with this recommender's history as its training side and ``test``, in its row numbers, as the other.

        Rows of users or items that it does not know are dropped and counted.

        Raises:
            DataError: no row is left.
        """
        rows = test.interactions
        user, item = self.users.rows(test.users.ids)[rows.user], self.items.rows(test.items.ids)[rows.item]
        known = (user >= 0) & (item >= 0)
        if not known.any():
            raise DataError(
                f"none of the {len(rows):,} rows of {test.name} has a user and an item known to {self.name}: "
                "use rows of the same source"
            )
        owner = np.repeat(np.arange(len(self.seen), dtype=np.int32), self.seen.counts)
        seen = Interactions(owner, self.seen.items, self.seen.weights, self.seen.times)
        train = Dataset(self.name, self.users, self.items, seen, explicit=test.explicit, titles=self.titles)
        held = replace(rows, user=user, item=item).take(known)
        notes = (
            Note("test rows of unknown users dropped", int((user < 0).sum())),
            Note("test rows of unknown items dropped", int(((item < 0) & (user >= 0)).sum())),
        )
        how = f"all {len(held):,} rows of {test.name} with known users and items"
        shown = tuple(note for note in notes if note.rows)
        return Split(train, replace(train.with_rows(held), name=test.name), how, shown)

    def unknown_items(self, histories: Mapping[Any, Sequence[Id]]) -> Note | None:
        """A note on the history items that the catalogue lacks (``recommend`` leaves them out), or None."""
        asked = _series("item_id", list(chain.from_iterable(histories.values())))
        unknown = asked.filter(self.items.rows(asked) < 0).cast(pl.String)
        if unknown.is_empty():
            return None
        names = ", ".join(unknown.unique(maintain_order=True).fill_null("null").head(5))
        return Note(f"history items unknown to {self.name or 'the catalogue'} ({names})", len(unknown))

    # Answering one chunk of users.

    def _answer(
        self, asked: pl.Series, rows: NDArray[np.int32], given: History | None, k: int, exclude_seen: bool
    ) -> pl.DataFrame:
        history = self.seen.select(rows)
        # Somebody without a training row has no learned parameters, in the map or not: a stranger.
        rows_B = np.where(history.counts > 0, rows, -1)
        if given is not None:
            history = _append(history, given)
        query = Query.of(rows_B, history).to(self._device)
        with torch.inference_mode():
            score_BI, personal_B = self._score(query)
            if exclude_seen and query.items is not None:
                owner_H = torch.repeat_interleave(torch.arange(len(query), device=self._device), query.counts())
                score_BI[owner_H, query.items] = -torch.inf
            values, index = (found.cpu().numpy() for found in top_k(score_BI, k))
        who, place = np.nonzero(values > -np.inf)
        item = index[who, place]
        source_B = np.where(personal_B.cpu().numpy(), np.where(rows_B >= 0, 2, 1), 0)
        frame = pl.DataFrame(
            {
                "user_id": asked.gather(who),
                "item_id": self.items.external(item),
                "rank": pl.Series(place + 1, dtype=pl.Int32),
                "score": pl.Series(values[who, place], dtype=pl.Float32),
                "source": SOURCES.gather(source_B[who]),
            }
        )
        return self._with_titles(frame, item)

    def _score(self, query: Query) -> tuple[Tensor, Tensor]:
        """Scores (B, I) that the caller may write to, and whether they are personal (B,)."""
        knows_B = self.model.knows(query)
        if self._is_personal and not knows_B.any():
            return self._popular.repeat(len(query), 1), knows_B
        # The copy: a model may answer with a view of its own table, or one row expanded over all users.
        score_BI = self.model.score(query).to(torch.float32, copy=True, memory_format=torch.contiguous_format)
        if score_BI.shape != (len(query), len(self.items)):
            raise ModelError(
                f"the model scored {score_BI.shape[1]:,} items but the catalogue has {len(self.items):,}: "
                "use the data set it was trained on"
            )
        if score_BI.isnan().any():
            raise ModelError("the model's scores are not numbers (NaN): train it again with a lower learning rate")
        if self._is_personal:
            score_BI[~knows_B] = self._popular
        return score_BI, knows_B

    def _given(self, asked: pl.Series, histories: Mapping[Any, Sequence[Id]]) -> History:
        """The known items of ``histories``, one history per asked user."""
        lists = {str(user): items for user, items in histories.items()}
        names = asked.cast(pl.String).to_list()
        for user in lists.keys() - set(names):
            raise DataError(f"histories names user {user!r}, who is not asked for: add the id to users")
        per_user = [lists.get(name, ()) for name in names]
        if any(isinstance(items, str) for items in per_user):
            raise DataError("a history must be a list of item ids, got one string: put it into a list")
        items = self.items.rows(_series("item_id", list(chain.from_iterable(per_user))))
        owner = np.repeat(np.arange(len(per_user)), [len(items) for items in per_user])
        counts = np.bincount(owner[items >= 0], minlength=len(per_user))
        items = items[items >= 0]
        # What is given happened after the training rows; which second it was is not known.
        times = None if self.seen.times is None else np.full(len(items), self.seen.times.max(initial=0.0))
        offsets = np.concatenate([[0], np.cumsum(counts)]).astype(np.int64)
        return History(offsets, items, np.ones(len(items), np.float32), times)

    def _chunks(self, users: int) -> Iterator[slice]:
        step = max(1, CHUNK_BYTES // (CELL_BYTES * max(1, len(self.items))))
        return (slice(start, min(start + step, users)) for start in range(0, users, step))

    def _empty(self, user_type: pl.DataType) -> pl.DataFrame:
        columns = {"user_id": user_type, "item_id": self.items.ids.dtype}
        frame = pl.DataFrame(schema={**columns, "rank": pl.Int32(), "score": pl.Float32(), "source": pl.String()})
        return self._with_titles(frame, np.zeros(0, np.int64))

    def _with_titles(self, frame: pl.DataFrame, items: NDArray[Any]) -> pl.DataFrame:
        return frame if self.titles is None else frame.with_columns(title=self.titles.gather(items))

    @cached_property
    def _device(self) -> torch.device:
        module = cast(nn.Module, self.model)
        first = next(chain(module.parameters(), module.buffers()), None)
        return torch.device("cpu") if first is None else first.device

    @cached_property
    def _popular(self) -> Tensor:
        return torch.tensor(self.popularity, device=self._device)

    @cached_property
    def _is_personal(self) -> bool:
        """Whether the model says anything personal to the user it has most rows of."""
        if not len(self.seen):
            return True
        most = np.array([self.seen.counts.argmax()])
        with torch.inference_mode():
            return bool(self.model.knows(Query.of(most, self.seen.select(most)).to(self._device)).item())

    @cached_property
    def _similar(self) -> SimilarItems:
        return SimilarItems(self.model, self.items, self.seen, self.titles)


def _check_k(k: int) -> None:
    if k < 1:
        raise DataError(f"k={k}: ask for at least 1 item")


def _series(name: str, values: Ids | Iterable[Id]) -> pl.Series:
    """Ids as a Series of Int64 or String, in their order."""
    if isinstance(values, str | int | np.integer):
        values = [values]
    try:
        series = pl.Series(name, values)
    except TypeError as error:
        raise DataError(f"{name} mixes kinds of ids ({error}): give all integers or all strings") from None
    if series.dtype.is_float():
        raise DataError(f"{name} holds {series.dtype} numbers: ids must be integers or strings, cast them first")
    return series.cast(pl.Int64 if series.dtype.is_integer() else pl.String)


def _append(first: History, second: History) -> History:
    """Per user, the events of ``first`` and behind them those of ``second``."""
    owner = np.concatenate([np.repeat(np.arange(len(part)), part.counts) for part in (first, second)])
    order = np.argsort(owner, kind="stable")
    times = None
    if first.times is not None and second.times is not None:
        times = np.concatenate([first.times, second.times])[order]
    return History(
        first.offsets + second.offsets,
        np.concatenate([first.items, second.items])[order],
        np.concatenate([first.weights, second.weights])[order],
        times,
    )


def _arrow(frame: pl.DataFrame) -> Any:
    return frame.to_arrow(compat_level=pl.CompatLevel.oldest())


@contextmanager
def _replacing(path: Path) -> Iterator[Path]:
    """A temporary sibling that takes the place of ``path`` if the block ends well, and vanishes if it does not."""
    if path.is_dir():
        raise DataError(f"cannot write {path}, it is a folder: give the name of a file")
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        temporary.touch()
        yield temporary
        with open(temporary, "rb") as done:
            os.fsync(done.fileno())
        os.replace(temporary, path)
    except OSError as error:
        raise DataError(f"cannot write {path} ({error}): give a file in an existing, writable folder") from None
    finally:
        if temporary.exists():
            temporary.unlink()
