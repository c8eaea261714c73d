"""The time that a model is asked at in an evaluation: that of each user's first held-out row."""

from __future__ import annotations

import polars as pl
import torch

from palate.base import Query
from palate.data.frame import from_frame
from palate.data.splits.strategies import by_time
from palate.evaluation.evaluate import REQUEST_TIME, evaluate


class Clock:
    """Ranks item t first at the time 100 + t."""

    reads_request_time = True

    def __init__(self, items: list[int]) -> None:
        self.item = torch.tensor(items, dtype=torch.float64)
        self.asked: dict[int, float] = {}

    def score(self, query: Query, items: torch.Tensor | None = None) -> torch.Tensor:
        assert query.at is not None
        self.asked |= dict(zip(query.user.tolist(), query.at.tolist(), strict=True))
        score = -(query.at[:, None] - 100 - self.item).abs()
        return score if items is None else score.gather(1, items)

    def can_personalize(self, query: Query) -> torch.Tensor:
        return torch.ones(len(query), dtype=torch.bool)


def test_a_model_is_asked_at_the_first_of_several_held_out_rows() -> None:
    """In the order of the file the first row is neither first nor last in time, for one user and the other."""
    known = [(user, item, float(item)) for user in (0, 1) for item in range(10)]
    held = [(0, 6, 106.0), (0, 4, 104.0), (0, 8, 108.0), (1, 7, 107.0), (1, 9, 109.0), (1, 5, 105.0)]
    frame = pl.DataFrame(known + held, schema=["user_id", "item_id", "timestamp"], orient="row")
    split = by_time(from_frame(frame), date=100.0)
    clock = Clock(split.train.items.ids.to_list())
    report = evaluate(clock, split, k=1, exclude_seen=False)
    assert report.protocol.endswith(REQUEST_TIME)
    assert clock.asked == {0: 104.0, 1: 105.0}
    # The item of that time is ranked first, and it alone is relevant in a split of that row.
    first = by_time(from_frame(frame.filter(pl.col("timestamp") < 106)), date=100.0)
    assert evaluate(Clock(first.train.items.ids.to_list()), first, k=1, exclude_seen=False).value("HitRate", 1) == 1
