"""Run files, in which tools of information retrieval keep lists: those of TREC and of ranx.

    u1 Q0 p7 1 0.93 name          TREC: user, a constant, item, rank, score, name of the run; separated by blanks
    {"u1": {"p7": 0.93}}          JSON of ranx: scores of items by user
    q_id, doc_id, score           Parquet of ranx

As there, the scores decide the order and the ranks are not read.
"""

from __future__ import annotations

import json
from pathlib import Path

import polars as pl

from palate import storage
from palate.data.readers import read_table
from palate.errors import DataError

ENDINGS = (".trec", ".run")
TREC = ("user_id", "_", "item_id", "_", "score", "_")
RANX = {"q_id": "user_id", "doc_id": "item_id"}


def read_run(path: Path) -> pl.DataFrame | None:
    """The lists of a run file, best first: user_id, item_id, score; None where the file is no run file.

    Args:
        path: a TREC run (.trec, .run), or JSON or Parquet as ranx writes it.

    Raises:
        DataError: it cannot be read, or a score is no number.
    """
    if path.suffix in ENDINGS:
        frame = read_table(path, separator="blank", header=False, names=TREC)
    elif path.suffix == ".json":
        frame = _of_json(path)
    elif path.suffix == ".parquet":
        frame = read_table(path)
        if not {*RANX, "score"} <= set(frame.columns):
            return None
        frame = frame.rename(RANX).select("user_id", "item_id", "score")
    else:
        return None
    if not frame["score"].dtype.is_numeric() or frame["score"].has_nulls():
        raise DataError(f"{path.name}: a score is no number: a run has lines such as 'u1 Q0 p7 1 0.93 name'")
    return frame.sort("score", descending=True, maintain_order=True)


def write_run(lists: pl.DataFrame, path: Path, name: str = "palate") -> None:
    """Write lists as a TREC run.

    Args:
        lists: user_id, item_id, rank and score, as ``Recommender.recommend`` returns them.
        path: the file; one that is there is replaced.
        name: of the run, the last column.

    Raises:
        DataError: an id or the name holds a blank, which the format cannot hold.
    """
    ids = pl.concat([lists[column].cast(pl.String).rename("id") for column in ("user_id", "item_id")])
    blank = [name] if len(name.split()) != 1 else ids.filter(ids.str.contains(r"\s")).head(1).to_list()
    if blank:
        raise DataError(f"a run of TREC cannot hold the blank in {blank[0]!r}: write .csv or .parquet")
    rows = lists.select(
        "user_id",
        pl.lit("Q0").alias("constant"),
        "item_id",
        "rank",
        # The score of a place rather than of the model: in a list of several sources only the ranks compare.
        (1 / pl.col("rank")).alias("score"),
        pl.lit(name).alias("name"),
    )
    with storage.replacing(path) as temporary:
        rows.write_csv(temporary, separator=" ", include_header=False, quote_style="never")


def _of_json(path: Path) -> pl.DataFrame:
    try:
        lists = json.loads(path.read_text(encoding="utf-8"))
        cells = [(user, item, float(score)) for user, items in lists.items() for item, score in items.items()]
    except (OSError, ValueError, AttributeError, TypeError) as error:
        raise DataError(
            f'{path.name}: no run of ranx ({error}): it has scores by user and item, {{"u1": {{"p7": 0.93}}}}'
        ) from None
    frame = pl.DataFrame(cells, schema=["user_id", "item_id", "score"], orient="row")
    # As in a text file: ids are integers where all of them are written so.
    numbers = [frame[name].cast(pl.Int64, strict=False) for name in ("user_id", "item_id")]
    for column in numbers:
        if len(column) and not column.has_nulls() and (column.cast(pl.String) == frame[column.name]).all():
            frame = frame.with_columns(column)
    return frame
