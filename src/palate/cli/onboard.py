"""`palate onboard`: what to ask somebody new, and the lists that the answers give."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from palate.cli import options
from palate.cli.console import frame_table, note, print_json

if TYPE_CHECKING:
    from palate.recommend import Recommender

__all__ = ["onboard"]

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
    """Items for somebody new to rate, chosen to tell tastes apart; with --ask the lists that the answers give.

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
            frame_table(f"Ask somebody new about these, from {bundle}", frame)
        return
    told = _interview(recommender, answers)
    somebody = _nobody(recommender)
    frame = recommender.recommend([somebody], k, histories={somebody: list(told.items())}).drop("user_id")
    if json:
        given = [{"item_id": item, "weight": weight} for item, weight in told.items()]
        print_json({"answers": given, "recommendations": frame.to_dicts()})
    else:
        frame_table(f"Recommendations after {len(told)} answers", frame)


def _interview(recommender: Recommender, wanted: int) -> dict[int | str, float]:
    """Weights of the items that were liked or disliked; the questions go to stderr, the replies come from stdin."""
    import numpy as np

    from palate.recommend.onboarding import Interview, Tastes, like_weight

    tastes = Tastes.of(recommender)
    interview, like = Interview(tastes), like_weight(recommender)
    told: dict[int | str, float] = {}
    note("l like, d dislike, Enter don't know, q stop")
    while len(told) < wanted:
        place = interview.next()
        if place[0] < 0:
            note("there is nothing left to ask about")
            break
        row = tastes.item[place]
        item = recommender.items.external(row)[0]
        name = item if recommender.titles is None else recommender.titles[int(row[0])] or item
        reply = _reply(f"{len(told) + 1} of {wanted}: {name}? ")
        if reply == "stop":
            break
        if reply != "unknown":
            told[item] = like if reply == "like" else -1.0
        interview.answer(place, np.array([float(reply != "unknown")]))
    return told


def _reply(question: str) -> Reply:
    """What was typed, asked for again until it means something; the end of the input stops."""
    while True:
        sys.stderr.write(question)
        sys.stderr.flush()
        line = sys.stdin.readline()
        if not line:
            return "stop"
        if (key := line.strip().lower()) in KEYS:
            return KEYS[key]
        note(f"{key!r} is no answer: type l, d, Enter or q")


def _nobody(recommender: Recommender) -> str:
    """An id that no user of the training data has."""
    name = "you"
    while recommender.users.rows([name])[0] >= 0:
        name += "'"
    return name
