"""IdMap: external id <-> row number, the only place where the two meet.

    users = IdMap.of(["bob", "ann", "bob"])     # ann is row 0, bob is row 1
    users.rows(["bob", "eve"])                  # [1, -1]
    users.external([0])                         # ["ann"]

An id is its text: the integer id 42 is found by "42", but not by "042", "+42" or " 42"; ``suggest`` names the id that
was probably meant.

Lookups are binary searches in NumPy arrays: over the ids themselves where they are integers, over 32-bit hashes of them
where they are strings. They need no thread pool, so they work in a forked process and in any number of threads.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import accumulate
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from palate.errors import DataError

CHUNK = 1 << 18  # ids looked up at a time
PART = 1 << 14  # strings hashed at a time: the temporary arrays stay in the cache, which halves the time
FEW = 64  # ids up to which a loop is faster than a dozen NumPy calls
INT64 = range(-(2**63), 2**63)
WORD = 2**64 - 1
UPPER = np.uint64(0xFFFFFFFF << 32)
# Soft hyphen, zero-width characters, marks of direction, byte order mark.
INVISIBLE = "[\u00ad\u200b-\u200f\u202a-\u202e\u2060-\u2064\u2066-\u2069\ufeff]"
PADDED = r"^\+?(-?)0*(\d+)(\.0*)?$"  # other spellings of an integer: 007, +7, 7.0
STEP, FIRST, SECOND = 0x9E3779B97F4A7C15, 0xBF58476D1CE4E5B9, 0x94D049BB133111EB


@dataclass(frozen=True)
class IdMap:
    """An append-only list of distinct external ids; the position of an id is its row number.

    Args:
        ids: distinct, non-null ids as Int64 or String, shape (n,).

    A new map is sorted, so it does not depend on the order of the rows it was made from. ``extend`` appends new ids
    after the old ones: a row number, once given, never changes.
    """

    ids: pl.Series

    def __post_init__(self) -> None:
        if self.ids.dtype not in (pl.Int64, pl.String):
            raise DataError(f"ids must be integers or strings, got {self.ids.dtype}: cast the column first")

    @classmethod
    def of(cls, values: pl.Series | Sequence[Any] | NDArray[Any]) -> IdMap:
        """The sorted distinct ids among ``values`` (nulls are not ids)."""
        return cls(_sorted(_as_ids(values).drop_nulls().unique().rename("id")))

    def __len__(self) -> int:
        return len(self.ids)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, IdMap) and self.ids.dtype == other.ids.dtype and self.ids.equals(other.ids)

    __hash__ = None  # type: ignore[assignment]

    def row(self, value: str | int) -> int:
        """Row number of one id; -1 where it is unknown. "42" finds the integer id 42, and 42 the text "42"."""
        if not self._textual:
            number = _as_integer(value)
            if number is None:
                return -1
            values, order = self._by_value
            place = int(values.searchsorted(np.int64(number)))
            if place == len(values) or values[place] != number:
                return -1
            return place if order is None else int(order[place])
        keys, row_of = self._by_hash
        text = str(value)
        key = np.uint32(_hash_one(text) >> 32)
        # Of ten million ids some 20,000 share their 32 bits with another, so the texts decide.
        for place in range(int(keys.searchsorted(key)), len(keys)):
            if keys[place] != key:
                break
            if self.ids[row := int(row_of[place])] == text:
                return row
        return -1

    def _few_rows(self, values: list[str | int]) -> NDArray[np.int32]:
        if self._textual and len(values) > 1 and len(self):
            keys, row_of = self._by_hash
            texts = [str(value) for value in values]
            if len(texts) > 8:
                raw = [text.encode() for text in texts]
                ends = np.array([0, *accumulate(map(len, raw))], np.int64)
                key = (_hash_bytes(ends, b"".join(raw)) >> np.uint64(32)).astype(np.uint32)
            else:
                key = np.array([_hash_one(text) >> 32 for text in texts], np.uint32)
            row = row_of[np.minimum(keys.searchsorted(key), len(keys) - 1)].astype(np.int32)
            # The texts are read at once: one call of polars instead of one per id. Another text at
            # the first place of a hash is rare, or the id is unknown: ``row`` finds out.
            found = zip(texts, self.ids[row].to_list(), row.tolist(), strict=True)
            return np.array([at if text == other else self.row(text) for text, other, at in found], np.int32)
        return np.array([self.row(value) for value in values], dtype=np.int32)

    def rows(self, values: pl.Series | Sequence[Any] | NDArray[Any]) -> NDArray[np.int32]:
        """Row number of each value, shape (len(values),); -1 where the id is unknown.

        Values of the other kind are converted ("42" finds the integer id 42), since a command line or a URL
        only has strings.
        """
        if len(values) <= FEW:
            few = values.to_list() if isinstance(values, pl.Series) else list(values)
            if all(type(value) in (str, int) for value in few):
                return self._few_rows(few)
        wanted = _as_ids(values)
        if wanted.dtype != self.ids.dtype:
            wanted = _converted(wanted, self.ids.dtype)
        find = self._find_integers if self.ids.dtype == pl.Int64 else self._find_texts
        found = np.full(len(wanted), -1, dtype=np.int32)
        for first in range(0, len(wanted), CHUNK):
            part = wanted.slice(first, CHUNK)
            given = part.is_not_null().to_numpy()
            place = slice(first, first + CHUNK)
            if given.all():
                found[place] = find(part)
            else:
                found[place][given] = find(part.drop_nulls())
        return found

    def external(self, rows: NDArray[np.integer[Any]] | Sequence[int]) -> pl.Series:
        """The external ids of row numbers, in their order; a negative row number gives null."""
        index = pl.Series("row", np.asarray(rows), dtype=pl.Int64)
        return self.ids.gather(index.set(index < 0, None)).rename("id")

    def extend(self, values: pl.Series | Sequence[Any] | NDArray[Any]) -> IdMap:
        """This map with the ids of ``values`` that it lacks appended in sorted order.

        Raises:
            DataError: the ids are integers and a new one is not.
        """
        given = _as_ids(values)
        if given.dtype != self.ids.dtype:
            found = _converted(given, self.ids.dtype)
            if found.null_count() > given.null_count():
                other = given.filter(found.is_null() & given.is_not_null())[0]
                raise DataError(f"the id {other!r} is no integer, as the ids here are: write it as one, such as 7")
            given = found
        new = _sorted(given.drop_nulls().unique())
        return IdMap(pl.concat([self.ids, new.filter(self.rows(new) < 0)]))

    def suggest(self, value: str | int) -> str | int | None:
        """The known id that an unknown one probably means, or None.

        It is equal but for blanks around it, invisible characters, Unicode form, case, or the spelling of an integer
        (007, +7, 7.0). All ids are compared, so ask for single ids.
        """
        meant = _loose(pl.Series([str(value)]))
        if not self._textual:
            row = self.row(meant[0])
            return None if row < 0 else int(self.ids[row])
        near = self.ids.filter(_loose(self.ids) == meant[0])
        return str(near[0]) if len(near) else None

    @property
    def hashes(self) -> NDArray[np.uint64]:
        """A 64-bit hash of each id's text, shape (n,), equal on every machine; 5 and "5" hash alike."""
        hashes = np.empty(len(self), dtype=np.uint64)
        for first in range(0, len(self), CHUNK):
            text = self.ids.slice(first, CHUNK).cast(pl.String)
            hashes[first : first + CHUNK] = _hash_texts(text)
        return hashes

    @cached_property
    def digest(self) -> str:
        """16 hex digits that identify the ids and their order; 5 and "5" count as the same id."""
        return hashlib.blake2b(self.hashes.tobytes(), digest_size=8).hexdigest()

    @cached_property
    def _textual(self) -> bool:
        return self.ids.dtype == pl.String  # comparing types of polars takes as long as the search

    # The tables below are built at the first lookup. Threads that come at the same time build equal tables, and one of
    # them stays: a lock would save that work but could be held by another thread at the moment of a fork.

    @cached_property
    def _by_hash(self) -> tuple[NDArray[np.uint32], NDArray[np.uint32]]:
        """Ascending upper halves of the hashes, and the row number of each: 8 bytes per id instead of 12."""
        packed = self.hashes
        packed &= UPPER
        packed |= np.arange(len(packed), dtype=np.uint64)
        packed.sort()  # sorting packed pairs is several times faster than argsort
        return (packed >> np.uint64(32)).astype(np.uint32), packed.astype(np.uint32)

    @cached_property
    def _by_value(self) -> tuple[NDArray[np.int64], NDArray[np.int64] | None]:
        """The integer ids ascending, and the row number of each (None where it is the position)."""
        ids = self.ids.to_numpy()
        if (ids[1:] > ids[:-1]).all():
            return ids, None
        order = np.argsort(ids)
        return ids[order], order

    def _find_integers(self, wanted: pl.Series | NDArray[np.int64]) -> NDArray[np.int64]:
        values, order = self._by_value
        if not len(values):
            return np.full(len(wanted), -1)
        numbers = wanted.to_numpy() if isinstance(wanted, pl.Series) else wanted
        lowest, highest = int(values[0]), int(values[-1])
        if highest - lowest < len(values):  # consecutive: the position is a subtraction
            place = np.clip(numbers, lowest, highest) - lowest
        elif len(numbers) > FEW:
            # Searching in ascending order walks through the table once instead of missing the cache each time.
            ascending = np.argsort(numbers)
            place = np.empty(len(numbers), dtype=np.int64)
            place[ascending] = values.searchsorted(numbers[ascending])
        else:
            place = values.searchsorted(numbers)
        place = np.minimum(place, len(values) - 1)
        found = place if order is None else order[place]
        return np.where(values[place] == numbers, found, -1)

    def _find_texts(self, wanted: pl.Series) -> NDArray[np.int64]:
        keys, row_of = self._by_hash
        packed = _hash_texts(wanted) & UPPER | np.arange(len(wanted), dtype=np.uint64)
        packed.sort()
        # Of the values not found yet: position in wanted, key, place among the keys.
        left, key = (packed & ~UPPER).astype(np.int64), (packed >> np.uint64(32)).astype(np.uint32)
        place = keys.searchsorted(key)
        found = np.full(len(wanted), -1, dtype=np.int64)
        while len(left):
            # Where the next id has another hash, the value is unknown; where it has the same, the texts decide.
            open_ = place < len(keys)
            open_[open_] = keys[place[open_]] == key[open_]
            left, key, place = left[open_], key[open_], place[open_]
            rows = row_of[place].astype(np.int64)
            # Not Series.gather, which goes through an expression: half a millisecond for a few rows.
            equal = (self.ids[rows] == wanted[left]).to_numpy()
            found[left[equal]] = rows[equal]
            left, key, place = left[~equal], key[~equal], place[~equal] + 1
        return found


def _sorted(ids: pl.Series) -> pl.Series:
    if len(ids) <= CHUNK or ids.dtype != pl.String:
        return ids.sort()
    # Comparing strings misses the cache at both ends, and ids often begin alike. Sixteen bytes behind the common
    # beginning, as two integers, decide nearly all comparisons: the sort takes a quarter of the time.
    low, high = (str(text).encode() for text in (ids.min(), ids.max()))
    start = next((place for place, (a, b) in enumerate(zip(low, high, strict=False)) if a != b), len(low))
    padded = pl.first().cast(pl.Binary).bin.slice(start, 16) + pl.lit(bytes(16))
    words = [padded.bin.slice(at, 8).bin.reinterpret(dtype=pl.UInt64, endianness="big") for at in (0, 8)]
    return ids.to_frame().sort(*words, pl.first()).to_series()


def _hash_texts(texts: pl.Series) -> NDArray[np.uint64]:
    """A 64-bit hash of each string, shape (n,): words of 8 bytes, each mixed into the hash of those before it."""
    if len(texts) > PART:
        return np.concatenate([_hash_texts(texts.slice(first, PART)) for first in range(0, len(texts), PART)])
    array = texts.alias("").rechunk().to_arrow()  # Arrow refuses names with NUL characters
    _, offsets, data = array.buffers()
    if not len(texts):
        return np.empty(0, dtype=np.uint64)
    return _hash_bytes(np.frombuffer(offsets, np.int64)[array.offset : array.offset + len(texts) + 1], data)


def _hash_bytes(ends: NDArray[np.int64], data: Any) -> NDArray[np.uint64]:
    """The hashes of strings that lie behind each other in ``data``, from ``ends[n]`` to ``ends[n + 1]``."""
    # A string may begin at any byte, and NumPy copies a whole array to read it unaligned: two aligned words are read
    # and shifted together, from a copy that ends in zeros so that the last read is inside.
    first, last = int(ends[0]) & ~7, int(ends[-1])
    raw = b"" if data is None else memoryview(data)[first:last]
    words = np.frombuffer(b"".join([raw, bytes(16 + -len(raw) % 8)]), "<u8")
    starts, lengths = ends[:-1] - first, np.diff(ends)
    hashes = mix(lengths.astype(np.uint64) + np.uint64(STEP))
    rows = np.flatnonzero(lengths)
    done = 0
    while len(rows):
        start = starts[rows] + done
        place, shift = start >> 3, (8 * (start & 7)).astype(np.uint64)
        # In two steps, since a shift by 64 is undefined.
        word = (words[place] >> shift) | ((words[place + 1] << (np.uint64(63) - shift)) << np.uint64(1))
        beyond = (64 - 8 * np.minimum(lengths[rows] - done, 8)).astype(np.uint64)
        hashes[rows] = mix(hashes[rows] ^ ((word << beyond) >> beyond))
        done += 8
        rows = rows[lengths[rows] > done]
    return hashes


def mix(x: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """The finalizer of SplitMix64 (Steele et al. 2014): every input bit reaches every output bit."""
    x = (x ^ (x >> np.uint64(30))) * np.uint64(FIRST)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(SECOND)
    return x ^ (x >> np.uint64(31))


def _hash_one(text: str) -> int:
    """``_hash_texts`` of one string, in plain integers: a dozen NumPy calls take longer than the lookup."""
    raw = text.encode()
    x = (len(raw) + STEP) & WORD
    for first in range(-8, len(raw), 8):  # the first round mixes the length
        if first >= 0:
            x ^= int.from_bytes(raw[first : first + 8], "little")
        x = ((x ^ (x >> 30)) * FIRST) & WORD
        x = ((x ^ (x >> 27)) * SECOND) & WORD
        x ^= x >> 31
    return x


def stable_hashes(texts: pl.Series) -> NDArray[np.uint64]:
    """BLAKE2b of each text, 64 bits, shape (n,): for seeds and hashed features, whose values must never change."""
    hashed = (hashlib.blake2b(text.encode(), digest_size=8).digest() for text in texts.cast(pl.String).to_list())
    return np.frombuffer(b"".join(hashed), dtype="<u8")


def _as_integer(value: str | int) -> int | None:
    """The integer that a value is or spells ("7", not "007"); None where it is none, or has more than 64 bits."""
    if isinstance(value, str):
        text = value
        # A text of thousands of digits would take long to convert, and longer ones than 4,300 raise.
        if len(text) > 20 or not (text.isascii() and text.removeprefix("-").isdigit()):
            return None
        value = int(text)
        if str(value) != text:
            return None
    return value if value in INT64 else None


def plain_text(text: pl.Series) -> pl.Series:
    """Texts without blanks around and invisible characters, in the normal form NFC."""
    return text.str.replace_all(INVISIBLE, "").str.strip_chars().str.normalize("NFC")


def _loose(text: pl.Series) -> pl.Series:
    return plain_text(text).str.to_lowercase().str.replace(PADDED, "$1$2")


def _converted(values: pl.Series, dtype: pl.DataType) -> pl.Series:
    """Ids of the other kind; null where a text is not written as an integer would be."""
    if dtype == pl.String:
        return values.cast(pl.String)
    numbers = values.cast(pl.Int64, strict=False)
    return numbers.set(numbers.cast(pl.String) != values, None)


def _as_ids(values: pl.Series | Sequence[Any] | NDArray[Any]) -> pl.Series:
    series = values if isinstance(values, pl.Series) else pl.Series("id", values)
    if series.dtype in (pl.Int64, pl.String):
        return series
    if series.dtype.is_integer():
        found = series.cast(pl.Int64, strict=False)
        if found.null_count() > series.null_count():
            large = series.filter(found.is_null() & series.is_not_null())[0]
            raise DataError(f"the id {large} does not fit into 64 bits: cast the ids to strings")
        return found
    if isinstance(series.dtype, pl.Categorical | pl.Enum) or series.dtype == pl.Boolean:
        return series.cast(pl.String)
    if series.dtype == pl.Null:
        return series.cast(pl.String)
    raise DataError(f"ids must be integers or strings, got {series.dtype}: cast the column first")
