"""Off-policy evaluation in worlds whose true values are known: unbiased, covered by the intervals, or refused."""

from __future__ import annotations

import json

import numpy as np
import polars as pl
import pytest

from palate.errors import EvaluationError
from palate.evaluation.off_policy import exploration_log, explore_target, list_target, off_policy

USERS, ITEMS, SHOWN = 120, 6, 5


def world(rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Chances of a click and propensities, (users, items): the logging policy prefers some items, and some users click
    more often than others."""
    chance = np.linspace(0.05, 0.6, ITEMS)[None] * rng.uniform(0.2, 1.5, (USERS, 1))
    propensity = rng.dirichlet(np.full(ITEMS, 3.0), USERS) * 0.7 + 0.3 / ITEMS
    return np.clip(chance, 0, 1), propensity


def draw(chance: np.ndarray, propensity: np.ndarray, rng: np.random.Generator) -> pl.DataFrame:
    user = np.repeat(np.arange(USERS), SHOWN)
    item = (propensity[user].cumsum(1) < rng.random((len(user), 1))).sum(1)
    return pl.DataFrame(
        {
            "user_id": user,
            "item_id": item,
            "propensity": propensity[user, item],
            "reward": (rng.random(len(user)) < chance[user, item]).astype(float),
        }
    )


def best_lists(k: int) -> pl.DataFrame:
    """The last k items, which are clicked most, for each user."""
    pairs = [(user, item) for user in range(USERS) for item in range(ITEMS - k, ITEMS)]
    return pl.DataFrame(pairs, schema=["user_id", "item_id"], orient="row")


def test_unbiased_and_covered_where_the_truth_is_known():
    rng = np.random.default_rng(3)
    chance, propensity = world(rng)
    truth, rounds = chance[:, ITEMS - 2 :].mean(), 150
    target = list_target(best_lists(2))
    found = [off_policy(draw(chance, propensity, rng), target) for _ in range(rounds)]
    logged = (chance * propensity).sum(1).mean()
    assert truth > 1.3 * logged
    spread = {}
    for place, name in enumerate(("logged", "IPS", "SNIPS", "DR")):
        estimates = [one.estimates[place] for one in found]
        assert {one.name for one in estimates} == {name}
        values = np.array([one.value for one in estimates])
        wanted = logged if name == "logged" else truth
        assert abs(values.mean() - wanted) < 4 * values.std() / rounds**0.5 + (0.01 if name == "SNIPS" else 0)
        covered = np.mean([one.low <= wanted <= one.high for one in estimates])
        # 95 % of 150 rounds is 143; the binomial leaves 134 once in a thousand.
        assert covered > 0.89
        spread[name] = values.std()
    assert spread["DR"] < spread["IPS"]
    assert spread["SNIPS"] < spread["IPS"]


def test_the_policy_in_use_has_its_own_value():
    rng = np.random.default_rng(4)
    chance, propensity = world(rng)
    log = draw(chance, propensity, rng)
    user, item = np.indices((USERS, ITEMS)).reshape(2, -1)
    same = pl.DataFrame({"user_id": user, "item_id": item, "probability": propensity.ravel()})
    logged, ips, snips, _ = off_policy(log, same).estimates
    assert ips.value == pytest.approx(logged.value)
    assert snips.value == pytest.approx(logged.value)
    assert ips.high - ips.low == pytest.approx(logged.high - logged.low)


def test_users_are_the_unit_of_the_intervals():
    rng = np.random.default_rng(5)
    chance, propensity = world(rng)
    log, target = draw(chance, propensity, rng), list_target(best_lists(3))
    once = off_policy(log, target).estimates[1]
    # The same decisions four times are no more users; as four times the users they would look like half the error.
    again = off_policy(pl.concat([log] * 4), target).estimates[1]
    assert again.value == pytest.approx(once.value)
    assert again.high - again.low == pytest.approx(once.high - once.low)


@pytest.mark.parametrize("flaw", [None, 0.0, 1.5, float("nan")])
def test_a_log_without_propensities_is_refused(flaw):
    rng = np.random.default_rng(6)
    log = draw(*world(rng), rng)
    flawed = log.with_columns(propensity=pl.when(pl.int_range(pl.len()) == 7).then(flaw).otherwise("propensity"))
    with pytest.raises(EvaluationError, match="1 of 600 decisions have no propensity"):
        off_policy(flawed, list_target(best_lists(2)))
    with pytest.raises(EvaluationError, match="the log has no column 'propensity'"):
        off_policy(log.drop("propensity"), list_target(best_lists(2)))


def test_a_log_without_support_is_refused():
    rng = np.random.default_rng(7)
    chance, propensity = world(rng)
    propensity[:, -1] = 0  # the best item is never shown
    propensity /= propensity.sum(1, keepdims=True)
    log = draw(chance, propensity, rng)
    with pytest.raises(EvaluationError, match=r"its weights average 0\.[345]"):
        off_policy(log, list_target(best_lists(2)))
    with pytest.raises(EvaluationError, match="0 users were shown"):
        off_policy(log, list_target(best_lists(1)))
    half = log.with_columns(pl.col("propensity") / 2)  # propensities that are wrong show in the same way
    with pytest.raises(EvaluationError, match="instead of 1"):
        off_policy(half, list_target(best_lists(4)))
    with pytest.raises(EvaluationError, match="have no target"):
        off_policy(log, list_target(best_lists(3).filter(pl.col("user_id") > 5)))
    with pytest.raises(EvaluationError, match=r"add up to 0\.5"):
        off_policy(log, list_target(best_lists(3)).with_columns(pl.col("probability") / 2))


def exports(folder, share: float, lists: int = 4_000, k: int = 5) -> tuple[str, str]:
    """Impressions and clicks as the server exports them: explored places are clicked with 5 %, the others with 30 %
    less a part by their place."""
    rng = np.random.default_rng(8)
    explored = rng.random((lists, k)) < share
    chance = np.where(explored, 0.05, 0.3 / np.arange(1, k + 1))
    clicked = rng.random((lists, k)) < chance
    shown, events = [], []
    for row in range(lists):
        items = [f"i{item}" for item in rng.permutation(20)[:k]]
        shown.append(
            {
                "recommendation_id": f"r{row}",
                "first_rank": 1,
                "user_id": f"u{row % 900}" if row % 7 else None,
                "items": items,
                "sources": ["explore" if one else "model" for one in explored[row]],
                "propensity": [share / 20 if one else 0.9 for one in explored[row]] if share else None,
                "explored": share or None,
                "time": float(row),
            }
        )
        at = {"user_id": shown[-1]["user_id"], "time": row + 0.5}
        hits = [item for item, one in zip(items, clicked[row], strict=True) if one]
        events += [{"recommendation_id": f"r{row}", "item_id": item, "type": "click"} | at for item in hits]
        events += [{"recommendation_id": f"r{row}", "item_id": items[0], "type": "view"} | at]
    events.append({"recommendation_id": None, "item_id": "i1", "type": "click", "user_id": "u1", "time": 0.0})
    paths = folder / "impressions.ndjson", folder / "events.ndjson"
    for path, rows in zip(paths, (shown, events), strict=True):
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(paths[0]), str(paths[1])


def test_exploration_of_the_server_has_a_price(tmp_path):
    log = exploration_log(*exports(tmp_path, 0.2), types=["click"])
    best = (0.3 / np.arange(1, 6)).mean()
    for share in (0.0, 0.5, 1.0):
        truth = (1 - share) * best + share * 0.05
        for one in off_policy(log, explore_target(log, share)).estimates[1:]:
            assert abs(one.value - truth) < 0.02
            assert one.high - one.low < 0.04
    logged = off_policy(log, explore_target(log, 0.2)).estimates
    assert logged[1].value == pytest.approx(logged[0].value)
    with pytest.raises(EvaluationError, match=r"from 0 to 1"):
        explore_target(log, 1.5)


def test_a_server_without_exploration_has_no_propensities(tmp_path):
    with pytest.raises(EvaluationError, match=r"none of the 50 lists .* has propensities"):
        exploration_log(*exports(tmp_path, 0.0, 50))
    with pytest.raises(EvaluationError, match="not exports of the server"):
        exploration_log(tmp_path / "nothing", tmp_path / "events.ndjson")
