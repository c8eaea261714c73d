"""`palate why-not`: the rule, stage or score that kept an item out of a list."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from palate.cli import options
from palate.cli.console import console, note, print_json, table

if TYPE_CHECKING:
    from palate.recommend.why_not import WhyNot

__all__ = ["why_not"]


def why_not(
    bundle: Annotated[Path, typer.Argument(help="Folder of a bundle.")],
    user: Annotated[str, typer.Argument(help="A user id, known or not.")],
    item: Annotated[str, typer.Argument(help="An item id, or its title.")],
    history: Annotated[
        str | None, typer.Option("--history", help="Comma-separated item ids, oldest first, that USER touched.")
    ] = None,
    keep_seen: Annotated[bool, typer.Option("--keep-seen", help="Leave items in that the user has had.")] = False,
    rules: Annotated[Path | None, typer.Option("--rules", help="A TOML file, as for palate recommend.")] = None,
    k: options.K = 10,
    json: options.Json = False,
) -> None:
    """Why an item is not among the best for a user: which rule, stage or score kept it out, and its rank.

    Example: palate why-not bundles/demo 196 "Toy Story (1995)"
    """
    from palate.bundle import Bundle
    from palate.recommend.why_not import why_not as asked
    from palate.rules import Rules

    recommender = Bundle.load(bundle).recommender
    bound = recommender.bind(None if rules is None else Rules.load(rules))
    for line in () if bound is None else bound.notes:
        note(line)
    histories = None
    if history is not None:
        histories = {user: [part.strip() for part in history.split(",") if part.strip()]}
        unknown = recommender.unknown_items(histories)
        if unknown is not None:
            note(unknown)
    told = asked(recommender, user, item, bound, k, exclude_seen=not keep_seen, histories=histories)
    if json:
        print_json(told.to_dict())
    else:
        _show(told)


def _show(told: WhyNot) -> None:
    """The reason in a line, and the figures in a table."""
    name = told.title or told.item
    verdict = "is" if told.place is not None else "is not"
    console().print(
        f"{name} {verdict} among the {told.k} for {told.user}: {told.reason}",
        style="bold",
        markup=False,
        soft_wrap=True,
    )
    rows = [
        ("all items", told.rank, told.items, told.score),
        ("left by history and rules", told.rank_left, told.items_left, None if told.rank_left is None else told.score),
        (f"the list of {told.k}", told.place, None, told.score_at_k),
    ]
    table(f"Stage: {told.stage}", ("among", "rank", "of", "score"), rows)
