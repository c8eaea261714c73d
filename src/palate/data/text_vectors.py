"""Texts of items as vectors, for recipes that read item features: titles, descriptions, tags.

    shelf = palate.text_vectors(shelf, ["title", "description"])       # a column text_vector beside the others
    data = palate.from_frame(clicks, item_features=shelf)
    palate.make_recipe("feature-ials", {"item_features": ("text_vector",)}).fit(data)

Any column of lists of numbers of equal length is read as vectors; this function only makes one.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from importlib import import_module
from typing import Any, Protocol

import numpy as np
import polars as pl

from palate.errors import DataError

MODEL = "sentence-transformers/all-MiniLM-L6-v2"


class Encoder(Protocol):
    """What turns texts into vectors, such as a ``SentenceTransformer``."""

    def encode(self, texts: list[str]) -> Any:
        """An array (texts, width)."""


def text_vectors(
    table: pl.DataFrame,
    columns: str | Sequence[str],
    encoder: Encoder | Callable[[list[str]], Any] | str = MODEL,
    *,
    name: str = "text_vector",
) -> pl.DataFrame:
    """The table with a column of vectors of the texts in some columns, joined by a full stop.

    Args:
        table: one row per item.
        columns: of texts, or of lists of texts.
        encoder: an object with ``encode``, a function of a list of texts, or the name or folder of a model for
            sentence-transformers, which is downloaded unless it is there. Default: "all-MiniLM-L6-v2", 384 numbers.
        name: of the new column.

    Returns:
        The table with the column ``name``, lists of float32; null where a row has no text.

    Raises:
        DataError: a column is missing or holds no texts, sentence-transformers is not installed, or the encoder gives
            something else than a row of finite numbers for each text.
    """
    wanted = [columns] if isinstance(columns, str) else list(columns)
    for column in wanted:
        if column not in table.columns:
            raise DataError(f"no column {column!r}: there are {', '.join(table.columns)}")
        dtype = table[column].dtype
        if dtype not in (pl.String, pl.List(pl.String), pl.Categorical) and not isinstance(dtype, pl.Enum):
            raise DataError(f"column {column!r} of type {dtype} holds no texts: leave it out")
    texts = table.select(
        pl.concat_str(
            [
                pl.col(column).list.join(", ")
                if table[column].dtype == pl.List(pl.String)
                else pl.col(column).cast(pl.String)
                for column in wanted
            ],
            separator=". ",
            ignore_nulls=True,
        ).str.strip_chars()
    ).to_series()
    there = (texts.fill_null("") != "").to_numpy()
    known = texts.filter(pl.Series(there)).to_list()
    encode = _encoder(encoder)
    vectors = np.asarray(encode(known), dtype=np.float32) if known else np.zeros((0, 0), np.float32)
    if vectors.ndim != 2 or len(vectors) != len(known) or not np.isfinite(vectors).all():
        raise DataError(
            f"the encoder gave {vectors.shape} for {len(known):,} texts: a row of finite numbers each is needed"
        )
    found = pl.Series(name, vectors).cast(pl.List(pl.Float32)) if known else pl.Series(name, [], pl.List(pl.Float32))
    place = pl.Series(np.cumsum(there) - 1).set(pl.Series(~there), None)
    return table.with_columns(found.gather(place))


def _encoder(encoder: Any) -> Callable[[list[str]], Any]:
    if not isinstance(encoder, str):
        found: Callable[[list[str]], Any] = encoder.encode if hasattr(encoder, "encode") else encoder
        return found
    try:
        library = import_module("sentence_transformers")
    except ImportError:
        raise DataError(
            f"encoder {encoder!r} needs sentence-transformers: pip install sentence-transformers, or pass a function "
            "that takes a list of texts and gives an array"
        ) from None
    loaded: Callable[[list[str]], Any] = library.SentenceTransformer(encoder).encode
    return loaded
