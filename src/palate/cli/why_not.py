"""`palate why-not`: the rule, stage or score that kept an item out of a list."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from palate.cli import options
from palate.cli.console import console, print_json, table
from palate.cli.request import Request, asks


@asks
def why_not(
    bundle: Annotated[Path, typer.Argument(help="Folder of a bundle.")],
    user: Annotated[str, typer.Argument(help="A user id, known or not.")],
    item: Annotated[str, typer.Argument(help="An item id, or its title.")],
    request: Request = Request(),
    k: options.K = 10,
    json: options.Json = False,
) -> None:
    """Why an item is not among the best for a user: the rule, stage or score that kept it out, and its rank.

    The list is that of palate recommend under the same options.

    Example: palate why-not bundles/quickstart u0001 p001
    """
    recommender = request.recommender(bundle)
    found = recommender.why_not(user, item, k=k, **request.arguments(recommender, [user]))
    if json:
        print_json(found.to_dict())
        return
    is_listed = "is" if found.place is not None else "is not"
    line = f"{found.title or found.item} {is_listed} among the {found.k} for {found.user}: {found.reason}"
    console().print(line, style="bold", markup=False, soft_wrap=True)
    left = None if found.rank_left is None else found.score
    rows = [
        ("all items", found.rank, found.items, found.score),
        ("left by history and rules", found.rank_left, found.items_left, left),
        (f"the list of {found.k}", found.place, None, found.score_at_k),
    ]
    table(f"Stage: {found.stage}", ("among", "rank", "of", "score"), rows)
