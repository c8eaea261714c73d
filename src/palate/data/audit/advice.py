"""Why each kind of finding matters and what to do about it; docs/check.md tells the same at more length."""

from __future__ import annotations

from typing import NamedTuple

__all__ = ["ADVICE", "Advice"]


class Advice(NamedTuple):
    """Two sentences that do not depend on the data."""

    why: str
    remedy: str


ADVICE: dict[str, Advice] = {
    "dropped-rows": Advice(
        "What is dropped is in no number that follows, and training refuses unreadable values.",
        "Correct these rows at their source, or drop them knowingly with --drop-invalid.",
    ),
    "equal-rows": Advice(
        "A log that writes an event twice, or a file joined twice, counts it twice.",
        "Remove the copies at their source; --duplicates last (the default) keeps one row per user and item.",
    ),
    "duplicates": Advice(
        "A repeat may stand in training and test, where it is known before it is asked for.",
        "Decide with --duplicates: last keeps the latest, sum adds the weights, error refuses, keep leaves them.",
    ),
    "equal-users": Advice(
        "Copied accounts and robots let a model look up the answer in the twin's rows.",
        "Find out where they come from; leave all but one of each group out.",
    ),
    "equal-items": Advice(
        "One thing under two ids splits its history, and a list may show it twice.",
        "Join the ids before training, where the titles do mean the same thing.",
    ),
    "sentinels": Advice(
        "A mark such as -1 for not rated, read as a rating, moves every mean and every error.",
        "Pass --sentinel VALUE to drop such rows (the named set anime does so by itself), or correct their source.",
    ),
    "row-number-ids": Advice(
        "Where every row has an id of its own there is no history to learn from: often the wrong column.",
        "Name the right column with --user or --item.",
    ),
    "short-history": Advice(
        "For users with a handful of rows a model can say little more than what is popular.",
        "Look at results by user activity, or ask for more with min_interactions.",
    ),
    "rows-per-user": Advice(
        "A few users, robots or shops among them, may dominate training.",
        "Look at the busiest users before training; leave out those that are no persons.",
    ),
    "concentration": Advice(
        "The more unequal, the better a list of popular items scores, and the less a good number says.",
        "Compare against popularity, and read coverage and novelty beside accuracy.",
    ),
    "density": Advice(
        "Very thin data teach little; in very full data there is hardly anything left to recommend.",
        "If too thin, leave out users and items with one or two rows; if too full, predict ratings instead.",
    ),
    "ratings": Advice(
        "Where one rating is nearly all there is, a constant predicts well and errors say little.",
        "Compare errors with those of the means, or rank instead of predicting ratings.",
    ),
    "activity": Advice(
        "Impossible times break every order; a day that holds most rows is an import, not behavior.",
        "Correct the times, check their unit, or leave out the imported rows before splitting by time.",
    ),
    "ties": Advice(
        "Another order of the same file holds out other rows and gives other numbers.",
        "Use finer times where there are any; always name the tie rule, and compare models on one saved split.",
    ),
    "leak": Advice(
        "The model has seen what the user did later, so the number promises more than real use gives.",
        "Hold out the latest rows: --split time, or --split leave-one-out.",
    ),
    "global-leak": Advice(
        "The model has seen what others did later: trends and new items are known in advance.",
        "Split by time (--split time) where the number is to say what happens in use.",
    ),
    "trained-rows": Advice(
        "Such a row is known in advance: left in lists it is an easy hit, removed as seen it is a sure miss.",
        "Deduplicate before splitting (--duplicates last), or leave such test rows out.",
    ),
    "unknown-users": Advice(
        "Nothing personal can be said about them: kept they are answered with popular items, dropped they are missing.",
        "Say which of the two it is beside the number; for new users measure recommending from a given history.",
    ),
    "unknown-items": Advice(
        "Most models cannot recommend them: kept they are sure misses, dropped they are missing.",
        "Say which of the two it is beside the number; for new items use a model that reads features.",
    ),
    "listed-positives": Advice(
        "A right answer among the negatives competes with itself, and the tie costs it a place.",
        "Draw new candidates for comparisons of your own (--negatives); keep the list to repeat published numbers.",
    ),
    "few-test-users": Advice(
        "With few users the intervals are so wide that most models cannot be told apart.",
        "Hold out rows of more users (leave-one-out, or a larger --share), and read the intervals.",
    ),
}
