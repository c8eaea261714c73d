"""The reason and the remedy of each kind of finding, as shown beside it."""

from __future__ import annotations

from typing import NamedTuple


class Advice(NamedTuple):
    """The reason why a kind matters and its remedy; both are independent of the data."""

    why: str
    remedy: str


ADVICE: dict[str, Advice] = {
    "dropped-rows": Advice(
        "Dropped rows are missing from all results, and training refuses unreadable values.",
        "Correct these rows at their source, or drop them explicitly with --drop-invalid.",
    ),
    "missing-ids": Advice(
        "Rows of many people would become one user, the largest of the data.",
        "Drop them with --drop-invalid, correct them at their source, or keep a real id with --valid-id.",
    ),
    "alike-ids": Advice(
        "One person or item under two ids has its history split.",
        "Make ids with blanks or invisible characters one with --strip; merge ids that differ in case at their source.",
    ),
    "dominant-ids": Advice(
        "A robot or a shop account says nothing about taste, and fills the co-occurrences of all items.",
        "Look at these ids, and remove those that are no people or no items before training.",
    ),
    "quotes": Advice(
        "A stray quotation mark can swallow the rows that follow.",
        "Compare the number of rows with the lines of the file, and correct the quotation marks at their source.",
    ),
    "time-units": Advice(
        "Times in several units, or without a date, put rows into another order, or say nothing about their age.",
        "Write all times in one unit; name the unit of numbers with --time-unit.",
    ),
    "equal-rows": Advice(
        "An event that was logged twice, or a file that was joined twice, counts twice.",
        "Remove the copies at their source; --duplicates last keeps one row per user and item.",
    ),
    "duplicates": Advice(
        "A pair that is repeated may be in both training and test, so the model has already seen the test row.",
        "Repeat purchases need no correction: --duplicates sum adds them up, last keeps the latest, keep leaves them.",
    ),
    "equal-users": Advice(
        "With copied accounts or robots, a model can find a test item in the rows of the copy.",
        "Find their origin; remove all but one user of each group.",
    ),
    "equal-items": Advice(
        "One item under two ids has its history split, and a list may show it twice.",
        "Merge the ids before training if the titles mean the same item.",
    ),
    "sentinels": Advice(
        'A code such as -1 for "not rated", read as a rating, changes every mean and every error.',
        "Pass --sentinel VALUE to drop such rows (the data set anime does it by default), or correct their source.",
    ),
    "not-positive": Advice(
        "Such rows are seen, so their items are not listed again, but no ranking recipe learns them as positives.",
        "Check the rule: --min-rating auto, any or a number; drop rows that are no interactions with --sentinel VALUE.",
    ),
    "row-number-ids": Advice(
        "If every row has a different id, there is no history to learn from: often the wrong column was read.",
        "Name the right column with --user or --item.",
    ),
    "short-history": Advice(
        "For users with few rows, a model can hardly do better than recommending popular items.",
        "Report results by user activity, or require more rows with min_interactions.",
    ),
    "rows-per-user": Advice(
        "A few users, possibly robots or shops, may dominate training.",
        "Inspect the most active users before training; remove those that are not people.",
    ),
    "concentration": Advice(
        "The more unequal the distribution, the higher a list of popular items scores.",
        "Compare with the popularity baseline, and report coverage and novelty beside accuracy.",
    ),
    "density": Advice(
        "Very sparse data contain little to learn; in very dense data few items are left to recommend.",
        "If too sparse, remove users and items with one or two rows; if too dense, predict ratings instead.",
    ),
    "ratings": Advice(
        "If nearly all values are equal, a constant predicts well and errors hardly differ between models.",
        "Compare errors with those of the mean predictors, or rank items instead of predicting ratings.",
    ),
    "activity": Advice(
        "Impossible times corrupt every order by time; a day with most rows is an import, not user behavior.",
        "Correct the times, check their unit, or remove the imported rows before splitting by time.",
    ),
    "ties": Advice(
        "Another order of the same file holds out different rows and gives different results.",
        "Use finer times if available; report the tie rule, and compare models on one saved split.",
    ),
    "leak": Advice(
        "The model was trained on later rows of the user, so the result is better than in real use.",
        "Hold out the latest rows: --split time, or --split leave-one-out.",
    ),
    "global-leak": Advice(
        "The model was trained on later rows of other users: it knows trends and new items in advance.",
        "Split by time (--split time) if the result is to predict performance in real use.",
    ),
    "trained-rows": Advice(
        "The model has seen the test row: it is an easy hit, or a certain miss if seen items are excluded.",
        "Deduplicate before splitting (--duplicates last), or remove such test rows.",
    ),
    "unknown-users": Advice(
        "They get no personal recommendations: kept rows measure popular items, dropped rows are not measured.",
        "Report whether they are kept or dropped; for new users, measure recommendations from a given history.",
    ),
    "unknown-items": Advice(
        "Most models cannot recommend them: kept rows are certain misses, dropped rows are not measured.",
        "Report whether they are kept or dropped; for new items, use a model that reads features.",
    ),
    "listed-positives": Advice(
        "A relevant item among the negatives competes with itself, and the tie lowers its rank.",
        "Draw new candidates for your own comparisons (--negatives); keep the list to reproduce published results.",
    ),
    "few-test-users": Advice(
        "With few users, confidence intervals are so wide that most models cannot be distinguished.",
        "Hold out rows of more users (leave-one-out, or a larger --test-size), and read the intervals.",
    ),
}
