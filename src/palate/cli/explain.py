"""`palate explain`: the items of a history that support an item, and those that speak against it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from palate.cli import options
from palate.cli.console import console, frame_table, print_json
from palate.cli.request import Request, asks

if TYPE_CHECKING:
    from palate.recommend.explain import Why


@asks
def explain(
    bundle: Annotated[Path, typer.Argument(help="Folder of a bundle.")],
    user: Annotated[str, typer.Argument(help="A user id, known or not.")],
    item: Annotated[str, typer.Argument(help="An item id, or its title.")],
    request: Request = Request(),
    top: Annotated[int, typer.Option("--top", min=1, help="Items of the history shown on each side.")] = 10,
    k: options.K = 10,
    json: options.Json = False,
) -> None:
    """Why an item suits a user: the items of the history that support it, and those that speak against it.

    Score and source are those of the list that palate recommend gives under the same options.

    Example: palate explain bundles/quickstart u0001 p001
    """
    recommender = request.recommender(bundle)
    why = recommender.explain(user, item, k, **request.arguments(recommender, [user]))
    if json:
        print_json(why.to_dict(top))
    else:
        _show(why, top)


def _show(why: Why, top: int) -> None:
    """The answer, a table for each side, and the method."""
    to, known = console(), why.explanation
    to.print(f"{why.title or why.item} for {why.user}: {why.text}", style="bold", markup=False, soft_wrap=True)
    to.print(f"score {why.score:,.4f}, source {why.source}", style="dim")
    if known is None:
        return
    for support, title in ((True, "What supports it"), (False, "What speaks against it")):
        side = why.side(support)
        if len(side):
            shown = side.head(top) if support else side.head(top).drop("share")
            frame_table(title, shown, f"{len(side) - top:,} more" if len(side) > top else None)
    if known.method == "exact":
        total = float(known.effects["effect"].sum())
        line = f"Exact: the effects add up to {total:,.4f}, with a rest of {known.rest:,.4f} to {known.score:,.4f}"
    else:
        line = f"Leave-one-out: an effect is the part of a score of {known.score:,.4f} that is lost without the item"
    if abs(known.score - why.score) > 1e-4 * abs(why.score):
        line += ", the score of a new user with this history"
    if known.untested:
        line += f"; the oldest {known.untested:,} items of the history were not tested"
    to.print(line + ".", style="dim", markup=False, soft_wrap=True)
