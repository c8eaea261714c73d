"""Evaluation of two-stage models by stage: recall ceiling, ranking metrics, lift of the ranker, and time.

    print(evaluate_stages(model, split, k=10))

    recall ceiling   fraction of a user's relevant items among the candidates, mean over users: no ranker can exceed it
    NDCG@k           full ranking: of each retriever alone, of all of them by their fused scores, and of the ranker
    lift             two stages minus the retriever that is best on these very rows, paired by user
    ms               per user: scoring the catalog; for the ranker, reading and scoring the candidates

Shape legend: B users of a chunk, I items, R retrievers, S stages, N (user, relevant item) pairs, U test users.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from palate.base import Query
from palate.data.splits.split import Split
from palate.errors import EvaluationError
from palate.evaluation.evaluate import evaluate
from palate.evaluation.intervals import interval
from palate.evaluation.rankings import GroundTruth
from palate.evaluation.significance import Paired, paired
from palate.evaluation.tables import Plain, Tabular, plain
from palate.models.two_stage import TwoStageModel

UNION, RANKED = "all, fused", "two stages"


@dataclass(frozen=True)
class Stage(Plain):
    """One line of the table.

    Args:
        name: a retriever, all of them, or all of them with the ranker.
        candidates: per user, mean.
        ceiling: mean share of the relevant items among them.
        ndcg, low, high: NDCG@k of the list of this stage and its 95 % interval over users.
        milliseconds: per user; of all retrievers and scorers with ranks and candidates in the line for all, of the
            ranker alone in the last line.
    """

    name: str
    candidates: float
    ceiling: float
    ndcg: float
    low: float
    high: float
    milliseconds: float


@dataclass(frozen=True, repr=False)
class StagesReport(Tabular):
    """The stages, and the data that they were measured on.

    Args:
        data, protocol: name of the data and how they were split.
        users, k, n_candidates: test users, list length, candidates of each retriever.
        stages: the retrievers, their union, the ranker.
        best: name of the best retriever.
        lift: NDCG@k of two stages minus that of the best retriever.
        over_fused: the same over all retrievers by their fused scores.
    """

    data: str
    protocol: str
    users: int
    k: int
    n_candidates: int
    stages: tuple[Stage, ...]
    best: str
    lift: Paired
    over_fused: Paired

    def rows(self) -> list[dict[str, Any]]:
        """One row per stage."""
        return [one.to_dict() for one in self.stages]

    def cells(self) -> tuple[list[str], list[list[str]]]:
        """The printed table: names of the columns, and the rows."""
        ceiling = f"recall ceiling at {self.n_candidates}"
        names = ["stage", "candidates", ceiling, f"NDCG@{self.k}", "95 % interval", "ms a user"]
        return names, [
            [
                one.name,
                f"{one.candidates:.0f}",
                f"{one.ceiling:.4f}",
                f"{one.ndcg:.4f}",
                f"{one.low:.4f} to {one.high:.4f}",
                f"{one.milliseconds:.2f}",
            ]
            for one in self.stages
        ]

    def lifts(self) -> list[str]:
        """The lifts of the ranker in words."""
        pairs = ((f"the best retriever, {self.best}", self.lift), ("all retrievers, fused", self.over_fused))
        return [
            f"NDCG@{self.k} against {other}: {x.difference:+.4f} ({x.low:+.4f} to {x.high:+.4f}), p = {x.p:.2g}"
            for other, x in pairs
        ]

    def to_dict(self) -> dict[str, Any]:
        """Ready for JSON."""
        found: dict[str, Any] = plain(self)
        return found

    def __str__(self) -> str:
        names, rows = self.cells()
        table = [f"| {' | '.join(row)} |" for row in (names, ["---", *["---:"] * 5], *rows)]
        return "\n".join([f"{self.data}, {self.users:,} users; {self.protocol}", "", *table, "", *self.lifts()])

    def __repr__(self) -> str:
        ndcgs = ", ".join(f"{one.name} {one.ndcg:.4f}" for one in self.stages)
        return f"<StagesReport on {self.data}: {self.users:,} users\n  NDCG@{self.k}: {ndcgs}>"


def evaluate_stages(
    model: TwoStageModel, split: Split, k: int = 10, *, exclude_seen: bool = True, allow_trained_rows: bool = False
) -> StagesReport:
    """Measure every stage on the test rows of a split, full ranking.

    Args:
        model: fitted on the training rows of the split.
        split: its test rows are the relevant items.
        k: list length.
        exclude_seen: take the items of the user's training rows out of the lists.
        allow_trained_rows: measure even if the model was trained on test rows.

    Raises:
        EvaluationError: the model has no stages, there are no test rows, or k is below 1.
        LeakError: the model was trained on test rows.
    """
    if not isinstance(model, TwoStageModel):
        raise EvaluationError(f"{type(model).__name__} has no stages: give a model of the recipe two-stage")
    names = [*model.names, UNION, RANKED]
    ndcgs = []
    for one in (*_retrievers(model), _Fused(model), model):
        report = evaluate(
            one, split, k=k, exclude_seen=exclude_seen, allow_trained_rows=allow_trained_rows, resamples=0
        )
        ndcgs.append(report.per_user[f"NDCG@{k}"])
    facts, milliseconds = _candidates(model, GroundTruth.of(split))
    stages = [
        Stage(name, float(candidates), float(ceiling), float(ndcg_U.mean()), *interval(ndcg_U), float(ms))
        for name, (candidates, ceiling), ndcg_U, ms in zip(names, facts, ndcgs, milliseconds, strict=True)
    ]
    # The best on these very rows: a choice that favors the retriever, and not the two stages.
    best = int(np.argmax([one.ndcg for one in stages[: len(model.names)]]))
    lifts = [paired(ndcgs[-1], ndcgs[other]) for other in (best, -2)]
    users, count = len(report.user_rows), model.retrieval.n_candidates
    return StagesReport(report.data, split.how, users, k, count, tuple(stages), names[best], *lifts)


def _retrievers(model: TwoStageModel) -> list[Any]:
    return model.retrieval.models[: model.retrieval.retrievers]


class _Fused(nn.Module):
    """Stage one alone, by its fused scores."""

    def __init__(self, model: TwoStageModel) -> None:
        super().__init__()
        self.model, self.trained_on = model, model.trained_on

    def score(self, query: Query, items: Tensor | None = None) -> Tensor:
        fused_BI = torch.cat([self.model.retrieval(query).fused for query in self.model.chunks(query)])
        fused_BI = fused_BI.where(self.can_personalize(query)[:, None], self.model.inputs.share)
        return fused_BI if items is None else fused_BI.gather(1, items)

    def can_personalize(self, query: Query) -> Tensor:
        return self.model.can_personalize(query)


def _candidates(model: TwoStageModel, ground: GroundTruth) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Per stage: mean candidates and ceiling, (stages, 2), and milliseconds of a user, (stages,)."""
    history = ground.split.train.history.select(ground.user_rows)
    stages, first = len(model.names) + 2, 0
    sums_S2, seconds_S = np.zeros((stages, 2)), np.zeros(stages)

    def timed(stage: int, step: Callable[..., Any], *arguments: Any) -> Any:
        begin = time.perf_counter()
        result = step(*arguments)
        seconds_S[stage] += time.perf_counter() - begin
        return result

    with torch.inference_mode():
        for query in model.chunks(Query.of(ground.user_rows, history).to(model.inputs.now.device)):
            for place, member in enumerate(_retrievers(model)):
                timed(place, member.score, query)
            found = timed(-2, model.retrieval, query)
            timed(-1, lambda part, found: model.ranker(model.read(part, found)[0]), query, found)
            union_BI = found.candidate[None]
            # A retriever also ranks the finds of the others: its own candidates are its first ``n_candidates``.
            own_RBI = (found.rank[: found.retrievers] <= model.retrieval.n_candidates) & union_BI
            # The ranker reorders the union and finds nothing more: the last two stages have the same candidates.
            candidate_SBI = torch.cat([own_RBI, union_BI, union_BI])
            last = first + len(query)
            _, row_N, item_N = ground.part(first, last)
            hit_SN = candidate_SBI[:, row_N, item_N].cpu().numpy()
            recall_S = hit_SN @ (1 / ground.relevant[first:last])[row_N.numpy()]
            sums_S2 += np.stack([candidate_SBI.sum((1, 2)).cpu().numpy(), recall_S], 1)
            first = last
    return sums_S2 / len(ground.user_rows), 1000 * seconds_S / len(ground.user_rows)
