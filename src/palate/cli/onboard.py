"""`palate onboard`: items to ask a new user about, and the lists that follow from the answers."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from palate.cli import options
from palate.cli.console import frame_table, note, print_json

if TYPE_CHECKING:
    from palate.recommend import Recommender

Reply = Literal["like", "dislike", "unknown", "stop"]
KEYS: dict[str, Reply] = {
    "l": "like", "like": "like",
    "d": "dislike", "dislike": "dislike",
    "": "unknown", "n": "unknown", "no": "unknown",
    "q": "stop", "quit": "stop",
}  # fmt: skip


def onboard(
    bundle: Annotated[Path, typer.Argument(help="Folder of a bundle.")],
    n: Annotated[int, typer.Option("-n", "--items", min=1, help="How many items the list has.")] = 10,
    ask: Annotated[bool, typer.Option("--ask", help="Ask item by item, then recommend.")] = False,
    answers: Annotated[int, typer.Option("--answers", min=1, help="With --ask: likes and dislikes to stop after.")] = 5,
    k: options.K = 10,
    json: options.Json = False,
) -> None:
    """Items for a new user to rate, chosen to separate tastes; with --ask, lists from the answers.

    Example: palate onboard bundles/demo -n 12

    Example: palate onboard bundles/demo --ask
    """
    from palate.bundle import Bundle
    from palate.recommend.onboarding import onboarding_items

    recommender = Bundle.load(bundle).recommender
    if not ask:
        frame = onboarding_items(recommender, n)
        if json:
            print_json(frame.to_dicts())
        else:
            frame_table(f"Items to ask a new user about, from {bundle}", frame)
        return
    weights = _interview(recommender, answers)
    user = "you"
    while recommender.users.rows([user])[0] >= 0:  # the id must be unknown, or the training rows would count too
        user += "'"
    frame = recommender.recommend([user], k, histories={user: list(weights.items())}).drop("user_id")
    if json:
        given = [{"item_id": item, "weight": weight} for item, weight in weights.items()]
        print_json({"answers": given, "recommendations": frame.to_dicts()})
    else:
        frame_table(f"Recommendations after {len(weights)} answers", frame)


def _interview(recommender: Recommender, wanted: int) -> dict[int | str, float]:
    """Weights of the items that were liked or disliked; the questions go to stderr, the replies come from stdin."""
    import numpy as np

    from palate.recommend.onboarding import Interview, Tastes

    tastes = Tastes.of(recommender)
    interview, like = Interview(tastes), recommender.like_weight
    weights: dict[int | str, float] = {}
    note("l like, d dislike, Enter don't know, q stop")
    while len(weights) < wanted:
        place = interview.next()
        if place[0] < 0:
            note("there is nothing left to ask about")
            break
        row = tastes.item[place]
        item = recommender.items.external(row)[0]
        name = item if recommender.titles is None else recommender.titles[int(row[0])] or item
        reply = _reply(f"{len(weights) + 1} of {wanted}: {name}? ")
        if reply == "stop":
            break
        if reply != "unknown":
            weights[item] = like if reply == "like" else -1.0
        interview.answer(place, np.array([float(reply != "unknown")]))
    return weights


def _reply(question: str) -> Reply:
    """The reply to a question, which is repeated until the reply is valid; the end of the input stops."""
    while True:
        sys.stderr.write(question)
        sys.stderr.flush()
        line = sys.stdin.readline()
        if not line:
            return "stop"
        if (key := line.strip().lower()) in KEYS:
            return KEYS[key]
        note(f"{key!r} is no answer: type l, d, Enter or q")
