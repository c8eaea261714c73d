"""`palate explain`: what of a history supports an item, and what speaks against it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from palate.cli import options
from palate.cli.console import console, frame_table, note, print_json

if TYPE_CHECKING:
    from palate.recommend.explain import Why

__all__ = ["explain"]


def explain(
    bundle: Annotated[Path, typer.Argument(help="Folder of a bundle.")],
    user: Annotated[str, typer.Argument(help="A user id; anybody with --history.")],
    item: Annotated[str, typer.Argument(help="An item id, or its title.")],
    history: Annotated[
        str | None, typer.Option("--history", help="Comma-separated item ids, oldest first, that USER touched.")
    ] = None,
    top: Annotated[int, typer.Option("--top", min=1, help="Items of the history shown on each side.")] = 10,
    json: options.Json = False,
) -> None:
    """Why an item suits a user: what in the history supports it, and what speaks against it.

    Example: palate explain bundles/demo 196 "Toy Story (1995)"
    """
    from palate.bundle import Bundle
    from palate.recommend.explain import explain as explained

    recommender = Bundle.load(bundle).recommender
    histories = None
    if history is not None:
        histories = {user: [part.strip() for part in history.split(",") if part.strip()]}
        unknown = recommender.unknown_items(histories)
        if unknown is not None:
            note(unknown)
    why = explained(recommender, user, item, histories=histories)
    if json:
        print_json(why.to_dict(top))
    else:
        _show(why, top)


def _show(why: Why, top: int) -> None:
    """The answer, a table for each side, and how it was computed."""
    to, told = console(), why.explanation
    to.print(f"{why.title or why.item} for {why.user}: {why.text}", style="bold", markup=False, soft_wrap=True)
    to.print(f"score {why.score:,.4f}, source {why.source}", style="dim")
    if told is None:
        return
    for support, title in ((True, "What supports it"), (False, "What speaks against it")):
        side = why.side(support)
        if len(side):
            shown = side.head(top) if support else side.head(top).drop("share")
            frame_table(title, shown, f"{len(side) - top:,} more" if len(side) > top else None)
    to.print(_how(why), style="dim", markup=False, soft_wrap=True)


def _how(why: Why) -> str:
    told = why.explanation
    assert told is not None
    if told.method == "exact":
        total = float(told.effects["effect"].sum())
        line = f"Exact: the effects add up to {total:,.4f}, with a rest of {told.rest:,.4f} to {told.score:,.4f}"
    else:
        line = f"Leave-one-out: an effect is what a score of {told.score:,.4f} loses without the item"
    if abs(told.score - why.score) > 1e-4 * abs(why.score):
        line += ", the score of a stranger with this history"
    if told.untested:
        line += f"; the oldest {told.untested:,} items of the history were not tested"
    return line + "."
