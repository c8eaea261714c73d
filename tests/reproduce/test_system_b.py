"""System B: the network and the batches of the tutorial's repository, candidates without repeats, its four rows."""

from __future__ import annotations

import numpy as np
import torch

from palate.base import DataSpec
from palate.data.splits.split import Candidates, Split
from palate.reproduce.rows import Options
from palate.reproduce.system_b import TutorialMLP, each_once, tutorial_rows
from palate.training.negative_sampling import draw_candidates


def pairs(recipe: TutorialMLP, split: Split, epoch: int) -> tuple[list[tuple[int, int]], list[tuple[int, int]]]:
    """Positives and negatives of one epoch, in their order."""
    batches = list(recipe.batches(split.train, seed=3, epoch=epoch))
    found = [
        (int(user), int(item), float(target))
        for batch in batches
        for user, item, target in zip(batch.user, batch.item[:, 0], batch.target[:, 0], strict=True)
    ]
    return [(u, i) for u, i, t in found if t == 1], [(u, i) for u, i, t in found if t == 0]


def test_negatives_are_drawn_once_and_rows_shuffled_one_by_one(checkerboard: Split) -> None:
    rows = checkerboard.train.interactions
    seen = {*zip(rows.user.tolist(), rows.item.tolist(), strict=True)}
    (positive, negative), (later, again) = (pairs(TutorialMLP(batch_size=64), checkerboard, one) for one in (0, 1))
    assert sorted(positive) == sorted(later) == sorted(seen)
    assert len(negative) == 4 * len(seen)
    assert not seen & set(negative)
    assert sorted(again) == sorted(negative)
    assert again != negative, "the order is new in each epoch"
    _, anew = pairs(TutorialMLP(batch_size=64, redraw=True), checkerboard, 1)
    assert sorted(anew) != sorted(negative)
    first = next(iter(TutorialMLP(batch_size=64).batches(checkerboard.train, seed=3, epoch=0)))
    assert 0 < first.target.mean() < 1, "positives and negatives are mixed"


def test_tables_start_as_torch_starts_them() -> None:
    torch.manual_seed(0)
    model = TutorialMLP().build(DataSpec(900, 800))
    for embeddings in (model.user_table, model.item_table):
        assert abs(float(embeddings.weight.detach().std()) - 1) < 0.05


def test_a_repeated_negative_counts_once(checkerboard: Split) -> None:
    drawn = draw_candidates(checkerboard, 15, replace=True)
    once = each_once(drawn, checkerboard)
    own = dict(
        zip(checkerboard.test.interactions.user.tolist(), checkerboard.test.interactions.item.tolist(), strict=True)
    )
    assert isinstance(once, Candidates)
    for user, before, after in zip(
        drawn.users.tolist(), drawn.negatives.tolist(), once.negatives.tolist(), strict=True
    ):
        others = [item for item in after if item != own[user]]
        assert sorted(others) == sorted(set(before))


def test_the_best_epoch_is_never_behind_the_last_one(checkerboard: Split) -> None:
    split = checkerboard.with_candidates(draw_candidates(checkerboard, 10))
    recipe = TutorialMLP(epochs=3, batch_size=64, learning_rate=0.05)
    rows = list(tutorial_rows(split, Options(), "by hand", recipe, seeds=2))
    hits = {row.model.split("; ", 1)[1]: row for row in rows if row.metric == "HitRate"}
    assert list(hits) == [
        f"negatives drawn {when}; {epoch}"
        for when in ("once", "anew")
        for epoch in ("best epoch on the test rows", "last epoch")
    ]
    assert [row.seeds for row in hits.values()] == [2, 2, 1, 1]
    assert all(row.least <= row.value <= row.most for row in hits.values() if row.seeds > 1)
    for when in ("once", "anew"):
        best, last = (
            hits[f"negatives drawn {when}; {epoch}"] for epoch in ("best epoch on the test rows", "last epoch")
        )
        assert best.value >= last.value
    assert [row.published is not None for row in hits.values()] == [True, False, False, False]
    assert np.isfinite([row.low for row in rows]).all()
