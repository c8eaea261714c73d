"""``refold``, ``exclude`` and ``hide``: a known user with events of the request, and items that must not be listed."""

from __future__ import annotations

import numpy as np
import pytest
from polars.testing import assert_frame_equal
from test_one_answer import MODELS, recommender, shop

from palate.data.dataset import History
from palate.recommend.top_n import RecommendOptions, recommend


@pytest.mark.parametrize("model", MODELS)
def test_a_refolded_user_is_answered_like_a_new_user_with_the_same_events(model):
    one, data = recommender(model), shop()
    own = [data.items.ids[row] for row in one.seen.of(0).tolist()]
    more = [item for item in data.items.ids.to_list()[:-1] if item not in own][:2]
    weights = one.seen.weights[: len(own)].tolist()
    new = one.recommend(["new"], 5, histories={"new": [*zip(own, weights, strict=True), *more]})
    known = one.recommend(["u00"], 5, histories={"u00": more}, refold=True)
    assert_frame_equal(known.drop("user_id"), new.drop("user_id"))


@pytest.mark.parametrize("model", MODELS)
def test_without_events_of_the_request_refold_changes_nothing(model):
    one = recommender(model)
    assert_frame_equal(one.recommend(["u00", "x"], 5, refold=True), one.recommend(["u00", "x"], 5))


@pytest.mark.parametrize("model", MODELS)
def test_excluded_and_hidden_items_are_left_out_and_the_others_keep_order_and_score(model):
    one = recommender(model)
    whole = one.recommend(["u00"], 16)
    out = whole["item_id"][1]
    expected = [row for row in whole.to_dicts() if row["item_id"] != out]
    found = one.recommend(["u00"], 16, exclude=[out, "unknown"])
    assert [(r["item_id"], r["score"]) for r in found.to_dicts()] == [(r["item_id"], r["score"]) for r in expected]
    assert one.why_not("u00", out, k=3, exclude=[out]).stage == "items"
    both = one.recommend(["u00"], 16, items=whole["item_id"].to_list()[:3], exclude=[out])
    assert both["item_id"].to_list() == [whole["item_id"][0], whole["item_id"][2]]
    row = one.items.row(out)
    hide = History(np.array([0, 1, 1]), np.array([row], np.int32), np.zeros(1, np.float32))
    answer = recommend(one, np.array([0, 0]), RecommendOptions(16, exclude_seen=False), hide=hide)
    assert row not in answer.items[: answer.offsets[1]]
    assert row in answer.items[answer.offsets[1] :]
