"""Feature tables to arrays: a schema fitted on training rows, and the encoding it defines.

    schema = FeatureSchema.fit(train, users=("*",), items=("genres", "year", "title:text"))
    codes_NS, weights_NS, numbers_NF = schema.items.encode(train.item_features)

Every kind of column becomes one of two things. Values (categorical, multi-valued, hashed words of a text) become codes
of one shared table, with 0 for padding; numbers (numeric, given vectors) are standardized. A null, an empty list and a
value without training rows all encode to 0. ``indicators`` gives sparse matrices, for models linear in features.

Shape legend: N rows of a table, S slots for codes, F numbers, C categories of one column.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cache
from itertools import accumulate
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, Self, cast, get_args

import numpy as np
import polars as pl
from numpy.typing import NDArray
from scipy import sparse

from palate.data.dataset import Dataset
from palate.data.ids import IdMap, stable_hashes
from palate.errors import DataError

if TYPE_CHECKING:
    from pydantic import TypeAdapter

Kind = Literal["categorical", "multi", "text", "numeric", "vector"]
KINDS: tuple[Kind, ...] = get_args(Kind)
TEXT_BUCKETS = 4096
MAX_SLOTS = 32  # values of a list, or words of a text, that are kept of one row
MAX_VOCABULARY = 100_000
MOST_CATEGORIES = 100  # a text column with more holds names rather than categories
BINS = 8  # of a numeric column


class Encoded(NamedTuple):
    """A feature table as arrays: codes (N, S) int32, their weights (N, S) float32, numbers (N, F) float32.

    The weights of one column of one row sum to 1, so that a long list counts as much as a single value.
    """

    codes: NDArray[np.int32]
    weights: NDArray[np.float32]
    numbers: NDArray[np.float32]


@dataclass(frozen=True)
class Feature:
    """A column as fitted on training rows: its vocabulary, or mean and standard deviation.

    Args:
        name: of the column.
        kind: "categorical" (one value), "multi" (a list of values), "text" (words, hashed), "numeric" (a number or
            a date) or "vector" (given embeddings).
        vocabulary: distinct values as text, ascending.
        buckets: hash buckets of a text.
        slots: codes of one row at most; further values are left out.
        mean, std: per number, for standardizing.
    """

    name: str
    kind: Kind
    vocabulary: tuple[str, ...] = ()
    buckets: int = 0
    slots: int = 0
    mean: tuple[float, ...] = ()
    std: tuple[float, ...] = ()

    @property
    def codes(self) -> int:
        """Number of codes of the column in the shared table."""
        return self.buckets or len(self.vocabulary)

    @classmethod
    def fit(cls, column: pl.Series, kind: Kind) -> Self:
        """Fit vocabulary, slots, mean and standard deviation on the training values of a column.

        Raises:
            DataError: the values do not fit the kind, or are too many to be categories.
        """
        if kind in ("numeric", "vector"):
            numbers_NF = _numbers(column, kind, None)
            known_F = np.isfinite(numbers_NF).sum(axis=0)
            zeroed = np.nan_to_num(numbers_NF)
            mean_F = zeroed.sum(axis=0) / np.maximum(known_F, 1)
            square_F = (np.where(np.isfinite(numbers_NF), numbers_NF - mean_F, 0) ** 2).sum(axis=0)
            std_F = np.sqrt(square_F / np.maximum(known_F, 1))
            # A constant column has a deviation of rounding errors; dividing by it would blow up noise.
            std_F[std_F <= 1e-12 * np.maximum(1, np.abs(mean_F))] = 1
            return cls(column.name, kind, mean=tuple(mean_F.tolist()), std=tuple(std_F.tolist()))
        values = _values(column, kind)
        longest = np.bincount(values["row"].to_numpy(), minlength=1).max()
        slots = min(max(int(longest), 1), MAX_SLOTS)
        if kind == "text":
            return cls(column.name, kind, buckets=TEXT_BUCKETS, slots=slots)
        vocabulary = tuple(values["value"].unique().sort().to_list())
        if len(vocabulary) > MAX_VOCABULARY:
            raise DataError(
                f"feature {column.name!r} has {len(vocabulary):,} distinct values, at most {MAX_VOCABULARY:,} can be "
                f"categories: use '{column.name}:text', or leave it out"
            )
        return cls(column.name, kind, vocabulary, slots=slots)

    def encode(self, column: pl.Series) -> tuple[NDArray[np.int32], NDArray[np.float32]]:
        """Codes (N, slots), counted from 1 within this column, and their weights."""
        values = _values(column, self.kind)
        if self.kind == "text":
            words = IdMap.of(values["value"])
            hashed = (stable_hashes(words.ids) % np.uint64(self.buckets)).astype(np.int32)
            code = hashed[words.rows(values["value"])]
        else:
            code = IdMap(pl.Series("id", self.vocabulary, dtype=pl.String)).rows(values["value"])
        row = values["row"].to_numpy()[code >= 0]
        code = code[code >= 0]
        # Rows are ascending, so the first place of a row is where its values start: no loop over rows.
        starts = np.searchsorted(row, row)
        slot = np.arange(len(row)) - starts
        kept = slot < self.slots
        codes_NS = np.zeros((len(column), self.slots), dtype=np.int32)
        codes_NS[row[kept], slot[kept]] = code[kept] + 1
        filled_NS = codes_NS > 0
        weights_NS = filled_NS / np.maximum(filled_NS.sum(axis=1, keepdims=True), 1)
        return codes_NS, weights_NS.astype(np.float32)

    def standardize(self, column: pl.Series) -> NDArray[np.float32]:
        """Numbers (N, F): (x - mean) / std, and 0 where a value is missing."""
        numbers_NF = _numbers(column, self.kind, len(self.mean))
        scaled_NF = (numbers_NF - np.array(self.mean)) / np.array(self.std)
        return np.asarray(np.nan_to_num(scaled_NF), dtype=np.float32)


@dataclass(frozen=True)
class FeatureTable:
    """The features of one side, users or items."""

    columns: tuple[Feature, ...] = ()

    @property
    def slots(self) -> int:
        """S, codes of one row."""
        return sum(column.slots for column in self.columns)

    @property
    def codes(self) -> int:
        """Size of the shared table of codes, without the 0."""
        return sum(column.codes for column in self.columns)

    @property
    def numbers(self) -> int:
        """F, numbers of one row."""
        return sum(len(column.mean) for column in self.columns)

    @classmethod
    def fit(cls, frame: pl.DataFrame | None, wanted: Sequence[str], side: str) -> Self:
        """Fit the wanted columns: "name", "name:kind", or "*" for all, by the usual kind of their type.

        Raises:
            DataError: a column is missing, or an unknown or unfitting kind.
        """
        found = pl.DataFrame() if frame is None else frame
        requested = dict.fromkeys(found.columns, "") if "*" in wanted else {}
        requested |= dict(_name_and_kind(text) for text in wanted if text != "*")
        missing = [name for name in requested if name not in found.columns]
        if missing:
            raise DataError(
                f"no {side} feature {missing[0]!r}: the {side} features are {', '.join(found.columns) or 'none'}"
            )
        return cls(
            tuple(
                Feature.fit(found[name], cast(Kind, kind or _default_kind(found[name])))
                for name, kind in requested.items()
            )
        )

    def encode(self, frame: pl.DataFrame | None) -> Encoded:
        """Arrays for the rows of a table with (at least) the columns of the schema.

        Raises:
            DataError: a column is missing or of another type.
        """
        rows = 0 if frame is None else len(frame)
        found = pl.DataFrame() if frame is None else frame
        missing = [column.name for column in self.columns if column.name not in found.columns]
        if missing:
            raise DataError(f"feature column {missing[0]!r} is missing: the columns are {', '.join(found.columns)}")
        first = accumulate((column.codes for column in self.columns), initial=0)
        codes, weights = [np.zeros((rows, 0), np.int32)], [np.zeros((rows, 0), np.float32)]
        numbers = [np.zeros((rows, 0), np.float32)]
        for column, base in zip(self.columns, first, strict=False):
            if column.codes:
                code, weight = column.encode(found[column.name])
                codes.append(np.where(code > 0, code + base, 0).astype(np.int32))
                weights.append(weight)
            elif column.mean:
                numbers.append(column.standardize(found[column.name]))
        return Encoded(np.hstack(codes), np.hstack(weights), np.hstack(numbers))


@dataclass(frozen=True)
class FeatureSchema:
    """The features of users and items that a model reads; with it a bundle can rebuild the model."""

    users: FeatureTable = FeatureTable()
    items: FeatureTable = FeatureTable()

    @classmethod
    def fit(cls, train: Dataset, users: Sequence[str] = (), items: Sequence[str] = ()) -> Self:
        """Fit on the features of those users and items that have training rows.

        Raises:
            DataError: a wanted column is missing or of an unfitting kind.
        """
        seen_users, seen_items = np.unique(train.interactions.user), np.unique(train.interactions.item)
        user_rows = None if train.user_features is None else train.user_features[seen_users]
        item_rows = None if train.item_features is None else train.item_features[seen_items]
        return cls(FeatureTable.fit(user_rows, users, "user"), FeatureTable.fit(item_rows, items, "item"))

    def to_dict(self) -> dict[str, Any]:
        """Plain lists, texts and numbers, ready for JSON."""
        return asdict(self)

    @classmethod
    def from_dict(cls, plain: Mapping[str, Any]) -> FeatureSchema:
        """The schema of a ``to_dict`` result, also after a round trip through JSON.

        Raises:
            DataError: not a feature schema.
        """
        from pydantic import ValidationError

        try:
            return _adapter().validate_python(plain)
        except ValidationError as error:
            raise DataError(f"no feature schema ({error.errors()[0]['msg']}): fit the model again") from None


@cache  # it takes as long as the rest of loading a small bundle
def _adapter() -> TypeAdapter[FeatureSchema]:
    # Most processes read no schema, and pydantic takes a tenth of the start of a command.
    from pydantic import TypeAdapter

    return TypeAdapter(FeatureSchema)


def indicators(table: pl.DataFrame) -> list[sparse.csr_array]:
    """One block (N, C) per usable column; each row has length 1, or 0 if the value is missing.

    Texts, flags and lists of texts are categories; numbers are cut into bins of about equal size. Dates, and texts
    with more than 100 categories (names, postal codes), are left out.
    """
    blocks = []
    for column in table:
        categories = _categories(column)
        if categories is None:
            continue
        frame = pl.DataFrame({"row": np.arange(len(column)), "of": categories})
        frame = (frame.explode("of") if isinstance(categories.dtype, pl.List) else frame).drop_nulls().unique()
        names = frame["of"].unique().sort()
        if 1 < len(names) <= MOST_CATEGORIES:
            place = (frame["row"].to_numpy(), frame["of"].cast(pl.Enum(names)).to_physical().to_numpy())
            ones = np.ones(len(frame), np.float32)
            blocks.append(unit_rows(sparse.csr_array((ones, place), shape=(len(table), len(names)))))
    return blocks


def unit_rows(pattern: sparse.csr_array) -> sparse.csr_array:
    """A pattern of ones (N, C) with every row divided by the root of its count."""
    counts = np.diff(pattern.indptr)
    scale = np.repeat(1 / np.sqrt(np.maximum(counts, 1)), counts)
    return sparse.csr_array(((pattern.data * scale).astype(np.float32), pattern.indices, pattern.indptr), pattern.shape)


def _name_and_kind(text: str) -> tuple[str, str]:
    name, _, kind = text.rpartition(":")
    if not name:
        return text, ""
    if kind not in KINDS:
        raise DataError(f"feature {text!r} has the unknown kind {kind!r}: choose one of {', '.join(KINDS)}")
    return name, kind


def _default_kind(column: pl.Series) -> Kind:
    """The kind of a type; mostly unique texts are names, so they are split into words."""
    dtype = column.dtype
    if isinstance(dtype, pl.List | pl.Array):
        return "vector" if cast(pl.DataType, dtype.inner).is_float() else "multi"
    if dtype.is_numeric() or dtype.is_temporal():
        return "numeric"
    if dtype == pl.String and column.n_unique() > max(20, len(column) / 2):
        return "text"
    return "categorical"


def _values(column: pl.Series, kind: Kind) -> pl.DataFrame:
    """Columns row and value (text), row ascending, without nulls."""
    nested = isinstance(column.dtype, pl.List | pl.Array)
    if nested != (kind == "multi") or (kind == "text" and column.dtype != pl.String):
        raise DataError(f"feature {column.name!r} of type {column.dtype} cannot be {kind}: name another kind")
    table = pl.DataFrame({"row": np.arange(len(column)), "value": column})
    if kind == "text":
        words = pl.col("value").str.to_lowercase().str.extract_all(r"\w+")
        table = table.with_columns(words.list.unique(maintain_order=True)).explode("value")
    elif kind == "multi":
        table = table.explode("value")
    return table.drop_nulls().select("row", pl.col("value").cast(pl.String))


def _numbers(column: pl.Series, kind: Kind, width: int | None) -> NDArray[np.float64]:
    """(N, F) float64, NaN where a value is missing; ``width`` is the F that is expected."""
    nested = isinstance(column.dtype, pl.List | pl.Array)
    single = cast(pl.DataType, column.dtype.inner) if isinstance(column.dtype, pl.List | pl.Array) else column.dtype
    if nested != (kind == "vector") or not (single.is_numeric() or (single.is_temporal() and not nested)):
        raise DataError(f"feature {column.name!r} of type {column.dtype} cannot be {kind}: name another kind")
    if not nested:
        plain = column.cast(pl.Datetime("us")) if column.dtype == pl.Date else column
        numbers = plain.cast(pl.Int64) if plain.dtype.is_temporal() else plain
        return _finite(numbers.cast(pl.Float64).to_numpy(), column.name)[:, None]
    lists = column.cast(pl.List(pl.Float64))
    lengths = lists.list.len().drop_nulls().unique().to_list()
    width = lengths[0] if width is None and lengths else (width or 0)
    if lengths not in ([], [width]):
        raise DataError(
            f"vectors of feature {column.name!r} have lengths {lengths[:5]}: give all of them {width} numbers"
        )
    numbers_NF = np.full((len(lists), width), np.nan)
    numbers_NF[lists.is_not_null().to_numpy()] = lists.drop_nulls().explode().to_numpy().reshape(-1, width)
    return _finite(numbers_NF, column.name)


def _finite(numbers: NDArray[np.float64], name: str) -> NDArray[np.float64]:
    if np.isinf(numbers).any():
        raise DataError(
            f"feature {name!r} holds {int(np.isinf(numbers).sum())} infinite numbers: replace them by nulls"
        )
    return numbers


def _categories(column: pl.Series) -> pl.Series | None:
    """Strings or lists of strings, or None for a column of another kind."""
    dtype = column.dtype
    if isinstance(dtype, pl.List):
        return column if dtype.inner == pl.String else None
    if dtype.is_numeric():
        number = column.cast(pl.Float64).fill_nan(None)
        if number.drop_nulls().is_empty():
            return None
        edges = np.unique(np.quantile(number.drop_nulls().to_numpy(), np.arange(1, BINS) / BINS))
        place = pl.Series(np.searchsorted(edges, number.fill_null(0.0).to_numpy()))
        return place.cast(pl.String).set(number.is_null(), None)
    if dtype in (pl.String, pl.Boolean) or isinstance(dtype, pl.Categorical | pl.Enum):
        return column.cast(pl.String)
    return None
