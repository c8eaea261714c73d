"""What each number means, for a reader who knows nothing of evaluation; the order in which numbers are shown."""

from __future__ import annotations

__all__ = ["ACCURACY", "BETTER", "BEYOND", "MEANING", "RATINGS"]

ACCURACY = ("NDCG", "HitRate", "Recall", "Precision", "MRR", "MAP")
BEYOND = ("Coverage", "Novelty", "Diversity", "Popularity", "Gini", "Calibration")
RATINGS = ("RMSE", "MAE", "MSE")

BETTER = {
    **dict.fromkeys(ACCURACY, "higher"),
    **dict.fromkeys(RATINGS, "lower"),
    "Coverage": "higher",
    "Novelty": "depends",
    "Diversity": "depends",
    "Popularity": "depends",
    "Gini": "lower",
    "Calibration": "lower",
}

MEANING = {
    "NDCG": "How near the top of the list the held-out items stand. 1 means they fill the first places; an item "
    "further down counts less, one outside the list counts nothing.",
    "HitRate": "The share of users whose list holds at least one of their held-out items.",
    "Recall": "The share of a user's held-out items that made it into the list, averaged over users.",
    "Precision": "The share of the places in the list that hold a held-out item. With one held-out item per user and "
    "ten places it cannot exceed 0.1.",
    "MRR": "1 divided by the place of the first held-out item in the list, 0 if there is none: 0.5 is second place.",
    "MAP": "The precision at the place of each held-out item, averaged: it rewards several hits near the top.",
    "Coverage": "The share of the catalog that stands in at least one user's list.",
    "Novelty": "How little known the listed items are, in bits: an item that one user in 8 has touched counts 3 bits.",
    "Diversity": "How different the items of one list are from each other by their features, such as genres: 0 is all "
    "alike.",
    "Popularity": "How often the listed items were touched in the training rows, on average.",
    "Gini": "How unevenly the places in the lists are spread over the catalog: 0 is evenly, 1 is all for one item.",
    "Calibration": "How far the mix of genres in a list is from the mix in the user's own history (Kullback-Leibler "
    "divergence): 0 is the same mix.",
    "RMSE": "The typical error of a predicted rating, in rating points; large errors weigh more.",
    "MAE": "The average error of a predicted rating, in rating points.",
    "MSE": "The average squared error of a predicted rating.",
}
