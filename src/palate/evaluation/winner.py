"""Tests of models against the best baseline and against each other, and the winner where the tests allow one.

The unit is the user. With several seeds a user's values are their mean over the seeds, so that seeds do not count
as users. Tests are two-sided, and corrected among all those of one ranking (``significance.paired`` and ``holm``).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from palate.evaluation.significance import Paired, holm, paired

LEVEL = 0.05
METRIC = "NDCG"


@dataclass(frozen=True, eq=False)
class Standing:
    """Values per user of one model in the deciding metric, NDCG.

    Args:
        name: of the model.
        role: "model", "baseline" or "external".
        values: (U,) by ranking, "full" and, where it was measured, "sampled"; the same users for all models.
    """

    name: str
    role: str
    values: Mapping[str, NDArray[np.float64]]


def against_baseline(standings: Sequence[Standing], k: int, resamples: int) -> list[dict[str, Any]]:
    """Each model against the baseline with the highest mean, per ranking, corrected by Holm within each.

    The baseline is chosen on the test rows, which favors the baseline and not the models.
    """
    rows = []
    for ranking in ("full", "sampled"):
        ranked = _ranked(standings, ranking)
        opponents = [one for one in ranked if one.role == "baseline"]
        models = [one for one in ranked if one.role != "baseline"]
        if opponents and models:
            rows += _against(opponents[0], models, ranking, k, resamples, first_is_model=False)
    return rows


def winner(standings: Sequence[Standing], k: int, resamples: int) -> dict[str, Any]:
    """The model with the highest mean in full ranking, if it is better than every other beyond luck, and why."""
    ranked = _ranked(standings, "full")
    if len(ranked) < 2:
        alone = f"only {ranked[0].name} was measured" if ranked else "no model could be measured"
        return {"name": None, "why": f"No winner can be named: {alone}.", "tests": []}
    first, *others = ranked
    rows = _against(first, others, "full", k, resamples, first_is_model=True)
    mean, users = first.values["full"].mean(), len(first.values["full"])
    lead = f"{first.name} has the highest {METRIC}@{k} in full ranking, {mean:.4f}"
    unclear = [row for row in rows if not row["better"]]
    if not unclear:
        highest = max(row["p_holm"] for row in rows)
        rivals = f"each of the {len(others)} others" if len(others) > 1 else others[0].name
        why = f"{lead}, and is better than {rivals} beyond luck (largest corrected p {_p(highest)}, {users:,} users)."
        return {"name": first.name, "why": why, "tests": rows}
    return {
        "name": None,
        "why": f"No winner can be named: {lead}, but {_doubt(unclear[0], len(unclear))}.",
        "tests": rows,
    }


def order_remark(standings: Sequence[Standing], k: int) -> str | None:
    """A sentence where sampled candidates put models into another order than full ranking."""
    full, sampled = ([one.name for one in _ranked(standings, ranking)] for ranking in ("full", "sampled"))
    full = [name for name in full if name in sampled]
    if full == sampled:
        return None
    return (
        f"The order of the models by {METRIC}@{k} depends on the candidates. Full ranking: {', '.join(full)}. "
        f"Sampled: {', '.join(sampled)}. Lists are made from the whole catalog: full ranking is the one that counts."
    )


def _ranked(standings: Sequence[Standing], ranking: str) -> list[Standing]:
    measured = [one for one in standings if ranking in one.values]
    return sorted(measured, key=lambda one: -one.values[ranking].mean())


def _against(
    one: Standing, others: Sequence[Standing], ranking: str, k: int, resamples: int, *, first_is_model: bool
) -> list[dict[str, Any]]:
    """``one`` against each of the others: as the model, or as the baseline of all of them."""
    pairs = [(one, other) if first_is_model else (other, one) for other in others]
    results = [paired(a.values[ranking], b.values[ranking], resamples=resamples) for a, b in pairs]
    corrected = holm([result.p for result in results])
    return [
        _row(a.name, b.name, ranking, k, result, float(p))
        for (a, b), result, p in zip(pairs, results, corrected, strict=True)
    ]


def _row(model: str, baseline: str, ranking: str, k: int, result: Paired, corrected: float) -> dict[str, Any]:
    significant = corrected < LEVEL
    return {
        "model": model,
        "baseline": baseline,
        "metric": METRIC,
        "k": k,
        "ranking": ranking,
        **result.to_dict(),
        "p_holm": None if np.isnan(corrected) else corrected,
        "better": result.difference > 0 if significant else None,
    }


def _doubt(row: Mapping[str, Any], count: int) -> str:
    """Why the lead over the closest rival does not convince; rivals come best first."""
    if row["p_holm"] is None:
        return f"with so few users its difference to {row['baseline']} cannot be tested"
    more = f" (and the same holds for {count - 1} more)" if count > 1 else ""
    return (
        f"the difference to {row['baseline']} of {row['difference']:.4f} (95 % interval {row['low']:.4f} to "
        f"{row['high']:.4f}) may be luck: corrected p {_p(row['p_holm'])}{more}"
    )


def _p(value: float) -> str:
    return "below 0.001" if value < 0.001 else f"{value:.3f}"
