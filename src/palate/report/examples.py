"""Example users side by side: what they touched, what was held out, and what each model would have shown them."""

from __future__ import annotations

from typing import Any

__all__ = ["examples"]

HISTORY = 12  # of each example user, the latest


def examples(comparison: dict[str, Any]) -> list[dict[str, Any]]:
    """The example users, each with history, held-out items and the list of every model that has one.

    Long histories are cut to their latest items; ``earlier`` says how many came before.
    """
    users: dict[str, dict[str, Any]] = {}
    for model in comparison["models"]:
        for one in model["examples"]:
            history = one["history"]
            user = users.setdefault(
                str(one["user"]),
                {
                    "user": one["user"],
                    "history": history[-HISTORY:],
                    "earlier": max(0, len(history) - HISTORY),
                    "held_out": one["held_out"],
                    "lists": [],
                },
            )
            user["lists"].append({"model": model["name"], "recommended": one["recommended"]})
    return list(users.values())
