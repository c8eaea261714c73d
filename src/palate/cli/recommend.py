"""`palate recommend` and `palate similar`: lists from a bundle."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from palate import signals, storage
from palate.cli import options, without_torch
from palate.cli.console import frame_table, note, print_json, show_progress
from palate.cli.request import Request, asks
from palate.errors import DataError

if TYPE_CHECKING:
    import polars as pl

    from palate.recommend import Recommender

REASONS = 3  # items of the history that --why names with each row

Folder = Annotated[Path, typer.Argument(help="Folder of a bundle.")]


@asks
def recommend(
    bundle: Folder,
    users: Annotated[list[str] | None, typer.Argument(help="User ids; unknown ones get popular items.")] = None,
    all_: Annotated[bool, typer.Option("--all", help="Every user of the training data, streamed to --out.")] = False,
    out: Annotated[
        Path | None, typer.Option("--out", help="A file instead of the terminal: .parquet, .csv or .trec (a run file).")
    ] = None,
    request: Request = Request(),
    why: Annotated[bool, typer.Option("--why", help="Name the items of the history that support each row.")] = False,
    k: options.K = 10,
    json: options.Json = False,
) -> None:
    """The best items for one user, many, or all.

    Example: palate recommend bundles/demo 196 22 -k 5

    Example for a new user: palate recommend bundles/demo new-user --history 50,181,172

    --at matters to rules that count days and to models that read the time of the request. Left out, rules count from
    the latest training row.
    """
    frame = None
    if users and not (all_ or why) and replace(request, exclude_seen=True) == Request():
        frame = without_torch.lists(bundle, users, k, exclude_seen=request.exclude_seen)
    if frame is None:
        recommender = request.recommender(bundle)
        if all_:
            if out is None or users:
                raise DataError("--all writes one file for every user: give --out lists.parquet and no user ids")
            if why:
                raise DataError("--all gives no reasons: ask for some users with --why, or palate explain for one item")
            _write_all(recommender, out, request, k, json)
            return
        if not users:
            raise DataError("no users given: palate recommend BUNDLE USER [USER ...], or --all --out lists.parquet")
        arguments = request.arguments(recommender, users)
        frame = recommender.recommend(users, k, **arguments, reasons=REASONS if why else 0)
    empty = [user for user in dict.fromkeys(users or ()) if user not in set(frame["user_id"])]
    for user in empty:
        note(f"user {user}: {_nothing_left(request)}")
    if why and not json and (out is None or out.suffix == ".csv"):
        frame = frame.drop("because")  # a column of lists; ``why`` has the same in words
    if out is not None:
        _write(frame, out)
        note(f"{len(frame):,} rows written to {out}")
    elif json:
        left = [{"user_id": user, "item_id": None, "note": _nothing_left(request)} for user in empty]
        print_json([*frame.to_dicts(), *left])
    else:
        frame_table(f"Recommendations from {bundle}", frame)


def _write(lists: pl.DataFrame, out: Path) -> None:
    """The lists as a file, whose ending selects the format."""
    from palate.evaluation.run_files import ENDINGS, write_run

    try:
        if not out.parent.is_dir():  # a slip of a letter must not make folders
            raise FileNotFoundError(f"there is no folder {out.parent}")
        if out.suffix in ENDINGS:
            write_run(lists, out)
            return
        with storage.replacing(out) as temporary:
            lists.write_csv(temporary) if out.suffix == ".csv" else lists.write_parquet(temporary)
    except OSError as error:
        raise DataError(f"cannot write {out} ({error}): give a file in an existing, writable folder") from None


def _nothing_left(request: Request) -> str:
    """Why a list is empty, and the option that fills it."""
    limits = [name for name, given in (("--items", request.items), ("--rules", request.rules)) if given]
    under = f" under {' and '.join(limits)}" if limits else ""
    return f"nothing left to recommend{under}" + (
        ": --include-seen lists seen items too" if request.exclude_seen else ""
    )


def _write_all(recommender: Recommender, out: Path, request: Request, k: int, json: bool) -> None:
    """The lists of all known users, streamed to one file."""
    if out.suffix == ".csv":
        raise DataError(f"--all streams to Parquet, not to {out}: give --out {out.with_suffix('.parquet')}")
    arguments = request.arguments(recommender, ())
    for name in ("items", "histories", "features"):
        if arguments.pop(name) is not None:
            raise DataError(f"--all takes no {name} of a request: leave them out, or name the users")
    signals.on_stop(f"the same command resumes {out}")
    with show_progress() as progress:
        written = recommender.recommend_all(out, k, **arguments, progress=progress)
    note(f"{written:,} rows for {len(recommender.users):,} users written to {out}")
    if json:
        print_json({"rows": written, "users": len(recommender.users), "out": str(out)})


def similar(
    bundle: Folder,
    item: Annotated[str, typer.Argument(help="An item id, or its title.")],
    k: options.K = 10,
    json: options.Json = False,
) -> None:
    """Items like one item.

    Example: palate similar bundles/quickstart p001
    """
    from palate.bundle import Bundle

    frame = Bundle.load(bundle).recommender.similar(item, k)
    if json:
        print_json(frame.to_dicts())
    else:
        frame_table(f"Similar to {item}", frame)
