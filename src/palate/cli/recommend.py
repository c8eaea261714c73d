"""`palate recommend` and `palate similar`: lists from a bundle."""

from __future__ import annotations

from contextlib import suppress
from datetime import UTC, datetime
from math import isfinite
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from palate.cli import options
from palate.cli.cold_start import told_features, with_new_items, with_policy
from palate.cli.console import console, frame_table, note, print_json
from palate.errors import DataError

if TYPE_CHECKING:
    import polars as pl

    from palate.recommend import Recommender
    from palate.rules import CompiledRules

__all__ = ["recommend", "similar"]

REASONS = 3  # items of the history that --why names with each row

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
    rules_file: Annotated[
        Path | None, typer.Option("--rules", help="A TOML file: allow, deny, caps, pins, diversity and more.")
    ] = None,
    user_features: Annotated[
        list[str] | None,
        typer.Option("--user-features", help="column=value about the one USER, if unknown; as often as wanted."),
    ] = None,
    new_items: Annotated[
        Path | None, typer.Option("--new-items", help="A table of items that came after training: ids and features.")
    ] = None,
    cold: Annotated[
        Literal["popular", "recent"] | None, typer.Option("--cold", help="What strangers get: popular or recent.")
    ] = None,
    segment: Annotated[
        str | None, typer.Option("--segment", help="A user feature: strangers get what is popular among their like.")
    ] = None,
    explore: Annotated[
        float | None, typer.Option("--explore", help="Share of the places that less known items get, such as 0.1.")
    ] = None,
    at: Annotated[
        str | None,
        typer.Option(
            "--at", help="When the list is asked for: 2026-11-28, 2026-11-28T18:30 (UTC), or seconds since 1970."
        ),
    ] = None,
    why: Annotated[bool, typer.Option("--why", help="Say what of the history supports each row.")] = False,
    k: options.K = 10,
    json: options.Json = False,
) -> None:
    """The best items for one user, many, or all.

    Example: palate recommend bundles/demo 196 22 -k 5

    Example for a stranger: palate recommend bundles/demo somebody --history 50,181,172

    --at matters to rules that count days and to models that read the time of the request. Left out, rules count from
    the latest training row.
    """
    from palate.bundle import Bundle

    recommender = with_policy(Bundle.load(bundle).recommender, fallback=cold, segment=segment, explore=explore)
    recommender = with_new_items(recommender, new_items)
    now = _moment(at)
    rules = _rules(rules_file, recommender, now)
    if all_:
        if out is None or users:
            raise DataError("--all writes one file for every user: give --out lists.parquet and no user ids")
        if why:
            raise DataError("--all does not say why: ask for some users with --why, or palate explain for one item")
        _everybody(recommender, out, k, not keep_seen, rules, now, json)
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
    frame = recommender.recommend(
        users,
        k,
        exclude_seen=not keep_seen,
        histories=histories,
        features=told_features(users, user_features),
        rules=rules,
        at=now,
        reasons=REASONS if why else 0,
    )
    if why and not json and (out is None or out.suffix == ".csv"):
        frame = frame.drop("because")  # lists: the words say the same
    if out is not None:
        _write(frame, out)
    elif json:
        print_json(frame.to_dicts())
    else:
        frame_table(f"Recommendations from {bundle}", frame)


def _everybody(
    recommender: Recommender,
    out: Path,
    k: int,
    exclude_seen: bool,
    rules: CompiledRules | None,
    at: float | None,
    json: bool,
) -> None:
    """The lists of all known users, streamed to one file."""
    if out.suffix == ".csv":
        raise DataError(f"--all streams to Parquet, not to {out}: give --out {out.with_suffix('.parquet')}")
    shown = not json and console(stderr=True).is_terminal
    written = recommender.recommend_all(out, k, exclude_seen=exclude_seen, rules=rules, at=at, progress=shown)
    note(f"{written:,} rows for {len(recommender.users):,} users written to {out}")
    if json:
        print_json({"rows": written, "users": len(recommender.users), "out": str(out)})


def _write(frame: pl.DataFrame, out: Path) -> None:
    try:
        frame.write_csv(out) if out.suffix == ".csv" else frame.write_parquet(out)
    except OSError as error:
        raise DataError(f"cannot write {out} ({error}): give a file in an existing, writable folder") from None
    note(f"{len(frame):,} rows written to {out}")


def _moment(text: str | None) -> float | None:
    """Seconds since 1970 of a date, a time or a number; what names no zone is UTC."""
    if text is None:
        return None
    with suppress(ValueError):
        if isfinite(seconds := float(text)):
            return seconds
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        raise DataError(
            f"--at {text}: no moment; write 2026-11-28, 2026-11-28T18:30, 2026-11-28T18:30+01:00 or seconds since 1970"
        ) from None
    return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()


def _rules(path: Path | None, recommender: Recommender, at: float | None) -> CompiledRules | None:
    """The rules of a file, bound to the catalog; what is odd about them is noted."""
    if path is None:
        return None
    from palate.rules import Rules

    bound = recommender.bind(Rules.load(path), at)
    assert bound is not None
    for line in bound.notes:
        note(line)
    return bound


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
