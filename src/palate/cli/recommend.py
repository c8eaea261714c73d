"""`palate recommend` and `palate similar`: lists from a bundle."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from palate.cli import options
from palate.cli.console import console, frame_table, note, print_json
from palate.errors import DataError

__all__ = ["recommend", "similar"]

Folder = Annotated[Path, typer.Argument(help="Folder of a bundle.")]


def recommend(
    bundle: Folder,
    users: Annotated[list[str] | None, typer.Argument(help="User ids; unknown ones get popular items.")] = None,
    all_: Annotated[bool, typer.Option("--all", help="Every user of the training data, streamed to --out.")] = False,
    out: Annotated[Path | None, typer.Option("--out", help="A Parquet or CSV file instead of the terminal.")] = None,
    history: Annotated[
        str | None, typer.Option("--history", help="Comma-separated item ids, oldest first, that the one USER touched.")
    ] = None,
    keep_seen: Annotated[bool, typer.Option("--keep-seen", help="Leave items in that the user has had.")] = False,
    k: options.K = 10,
    json: options.Json = False,
) -> None:
    """The best items for one user, many, or all.

    Example: palate recommend bundles/demo 196 22 -k 5

    Example for a stranger: palate recommend bundles/demo somebody --history 50,181,172
    """
    from palate.bundle import Bundle

    recommender = Bundle.load(bundle).recommender
    if all_:
        if out is None or users:
            raise DataError("--all writes one file for every user: give --out lists.parquet and no user ids")
        if out.suffix == ".csv":
            raise DataError(f"--all streams to Parquet, not to {out}: give --out {out.with_suffix('.parquet')}")
        shown = not json and console(stderr=True).is_terminal
        written = recommender.recommend_all(out, k, exclude_seen=not keep_seen, progress=shown)
        note(f"{written:,} rows for {len(recommender.users):,} users written to {out}")
        if json:
            print_json({"rows": written, "users": len(recommender.users), "out": str(out)})
        return
    if not users:
        raise DataError("no users given: palate recommend BUNDLE USER [USER ...], or --all --out lists.parquet")
    histories = None
    if history is not None:
        if len(users) != 1:
            raise DataError(f"--history belongs to one user, {len(users)} were given: ask for one at a time")
        told = [part.strip() for part in history.split(",") if part.strip()]
        histories = {users[0]: told}
        unknown = recommender.unknown_items(histories)
        if unknown is not None:
            note(unknown)
    frame = recommender.recommend(users, k, exclude_seen=not keep_seen, histories=histories)
    if out is not None:
        try:
            frame.write_csv(out) if out.suffix == ".csv" else frame.write_parquet(out)
        except OSError as error:
            raise DataError(f"cannot write {out} ({error}): give a file in an existing, writable folder") from None
        note(f"{len(frame):,} rows written to {out}")
    elif json:
        print_json(frame.to_dicts())
    else:
        frame_table(f"Recommendations from {bundle}", frame)


def similar(
    bundle: Folder,
    item: Annotated[str, typer.Argument(help="An item id, or its title.")],
    k: options.K = 10,
    json: options.Json = False,
) -> None:
    """Items like one item.

    Example: palate similar bundles/demo "Toy Story (1995)"
    """
    from palate.bundle import Bundle

    frame = Bundle.load(bundle).recommender.similar(item, k)
    if json:
        print_json(frame.to_dicts())
    else:
        frame_table(f"Similar to {item}", frame)
