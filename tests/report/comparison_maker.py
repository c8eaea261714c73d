"""A comparison as `palate compare` writes it, made of real evaluations in this process."""

from __future__ import annotations

import time
from typing import Any

import numpy as np

from palate.base import Query, TrainOptions
from palate.data.splits.split import Split
from palate.evaluation.evaluate import evaluate
from palate.evaluation.rating_prediction import evaluate_ratings
from palate.models import make_recipe
from palate.top_k import top_k
from palate.training.negative_sampling import draw_candidates

LENGTHS = [1, 5, 10, 20, 50]
BASELINES = {"popularity", "recent-popularity", "item-knn", "ease", "ials"}


def make_comparison(
    split: Split, names: list[str], *, negatives: int = 99, lengths: list[int] = LENGTHS
) -> dict[str, Any]:
    """Fit and measure the named recipes on a split; the tests and the winner are filled in by hand."""
    candidates = draw_candidates(split, negatives)
    models = [_model(split, candidates, name, lengths) for name in names]
    reports = [one["full"] for one in models]
    rows = len(split.train) + len(split.test)
    return {
        "palate": "0.1.0",
        "created": "2026-11-22T05:00:00+00:00",
        "data": {"name": split.train.name, "rows": rows, "users": split.train.n_users, "items": split.train.n_items},
        "split": {
            "how": split.how,
            "fingerprint": reports[0]["fingerprints"]["split"],
            "train_rows": len(split.train),
            "test_rows": len(split.test),
            "test_users": reports[0]["users"],
            "notes": [str(note) for note in split.notes],
        },
        "k": 10,
        "lengths": lengths,
        "candidates": {"how": candidates.how, "fingerprint": models[0]["sampled"]["fingerprints"]["candidates"]},
        "seeds": [0, 1],
        "protocol": [f"Rows were held out by {split.how}.", "Ties count against the model.", "Seen items are removed."],
        "models": models,
        "tests": [_paired(one["name"], ranking) for one in models[1:] for ranking in ("full", "sampled")],
        "winner": {"name": None, "why": "The best two are too close: the difference may be luck, p = 0.3 (Holm)."},
        "remarks": ["The order of the models depends on the candidates."],
        "failed": [{"name": "broken", "why": "memory ran out"}],
        "audit": AUDIT,
    }


def _model(split: Split, candidates: Any, name: str, lengths: list[int]) -> dict[str, Any]:
    losses: list[dict[str, float]] = []
    recipe = make_recipe(name, fast=True)
    run = TrainOptions(progress=lambda event: losses.append({"epoch": event.done, **event.values}))
    begin = time.perf_counter()
    model = recipe.fit(split.train, run)
    seconds = time.perf_counter() - begin
    full = evaluate(model, split, k=lengths, name=name, resamples=200)
    sampled = evaluate(model, split, k=lengths, candidates=candidates, name=name, resamples=200).to_dict()
    ratings = evaluate_ratings(model, split, name=name, resamples=50).to_dict() if hasattr(model, "predict") else None
    headline = {f"{metric}@10": full.value(metric, 10) for metric in ("NDCG", "HitRate")}
    return {
        "name": name,
        "role": "baseline" if name in BASELINES else "model",
        "recipe": {"recipe": name, "fields": dict(vars(recipe))},
        "tuned": "best of 4 half-lives on validation rows" if name == "recent-popularity" else None,
        "train_seconds": seconds,
        "score_seconds": full.seconds,
        "peak_memory_mb": 512.0,
        "curve": losses,
        "full": full.to_dict(),
        "sampled": sampled,
        "ratings": ratings,
        "seeds": [{"seed": seed, "full": headline, "sampled": None, "train_seconds": seconds} for seed in (0, 1)],
        "examples": _examples(split, model),
    }


def _examples(split: Split, model: Any, users: int = 3) -> list[dict[str, Any]]:
    found = []
    for user in split.test_users[:users]:
        seen = split.train.history.of(int(user))
        held = set(split.test.interactions.item[split.test.interactions.user == user].tolist())
        scores = model.score(Query.of(np.array([user]), None))
        scores[0, np.array(seen)] = -np.inf
        listed = top_k(scores, 10)[1][0].tolist()
        found.append(
            {
                "user": split.train.users.ids[int(user)],
                "history": [_item(split, item) for item in seen.tolist()],
                "held_out": [_item(split, item) for item in sorted(held)],
                "recommended": [
                    {"rank": place + 1, **_item(split, item), "hit": item in held} for place, item in enumerate(listed)
                ],
            }
        )
    return found  # fmt: skip


def _item(split: Split, item: int) -> dict[str, Any]:
    titles = split.train.titles
    return {"item": split.train.items.ids[item], "title": None if titles is None else titles[item]}


def _paired(name: str, ranking: str) -> dict[str, Any]:
    return {
        "model": name, "baseline": "popularity", "metric": "NDCG", "k": 10, "ranking": ranking, "difference": 0.0123,
        "low": 0.004, "high": 0.021, "p": 0.00001, "p_holm": 0.003, "test": "sign-flip permutation", "better": True,
    }  # fmt: skip


def _finding(kind: str, severity: str, what: str, examples: list[str]) -> dict[str, Any]:
    return {
        "kind": kind, "severity": severity, "what": what, "count": 317, "share": 0.336, "examples": examples,
        "why": "Which of the equally late rows is held out is arbitrary, and so is what is measured.",
        "remedy": "Hold out by time, or say in the report how many users are concerned.",
    }  # fmt: skip


AUDIT = {
    "data": "MovieLens 100K", "rows": 100_000, "users": 943, "items": 1_682, "split": "leave one out",
    "findings": [
        _finding("density", "info", "6.3 % of all user-item pairs have a row.", []),
        _finding("ties", "problem", "317 of 943 users have several rows at their latest time.", ["user 7", "user 12"]),
        _finding("duplicates", "ok", "No row stands twice.", []),
    ],
    "profile": {
        "ratings": [{"value": stars, "rows": rows} for stars, rows in enumerate((6110, 11370, 27145, 34174, 21201), 1)],
        "ratings_per_user": [{"low": 2**n, "high": 2 ** (n + 1) - 1, "users": 20 * (n + 1) ** 2} for n in range(4, 10)],
        "popularity": [{"items": n / 20, "rows": (n / 20) ** 4} for n in range(21)],
        "activity": [{"start": f"1997-{n:02}-01", "rows": 9000 + 1500 * (n % 5)} for n in range(5, 13)],
    },
}  # fmt: skip
