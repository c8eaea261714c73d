"""The model of two stages.

    score(u, i) = r(u, i)                                        for candidates, r being the ranker
                = min_c r(u, c) - 1 - max_j f(u, j) + f(u, i)    for the others, f being the fused order of stage one
                = log share of the training rows                 for users without any information

so all candidates stand above the others, and a score never depends on which items are asked for.

Shape legend: B users, C listed items, I items, N candidates of all users, P candidates of one user at most.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import torch
from torch import Tensor, nn

from palate.base import DataSpec, Query
from palate.data.dataset import Fingerprint
from palate.models.two_stage.candidate_generation import MemberScores, Retrieval
from palate.models.two_stage.dcn_ranker import DCNRanker
from palate.models.two_stage.gbdt_ranker import GBDTRanker
from palate.models.two_stage.ranker_features import LATEST, RankerFeatures

Ranker = GBDTRanker | DCNRanker

CELLS = (
    24_000_000  # numbers held at once, 96 MB, and a few copies: scores of all retrievers, or inputs of all candidates
)
INPUTS = 100  # about the number of features of a candidate


class TwoStageModel(nn.Module):
    """Retrievers, ranker features and ranker.

    Args:
        members: fitted retrievers, then fitted scorers.
        ranker: (N, F) inputs to (N,) scores.
        spec: of the catalog, with the features of all parts.
        names: of the retrievers, for tables; the members beyond are scorers.
        n_candidates, exclude_seen: of the first stage.
    """

    trained_on: Fingerprint | None = None

    def __init__(
        self,
        members: Iterable[nn.Module],
        ranker: Ranker,
        spec: DataSpec,
        names: Iterable[str],
        n_candidates: int,
        exclude_seen: bool,
    ) -> None:
        super().__init__()
        self.spec, self.names = spec, tuple(names)
        models = list(members)
        self.retrieval = Retrieval(models, n_candidates, exclude_seen, len(models) - len(self.names))
        self.inputs = RankerFeatures(spec)
        self.ranker: Ranker = ranker

    def state_problem(self) -> str | None:
        """Trees that read another number of features, in words, or None."""
        width = self.inputs.width(self.retrieval.models)
        other = self.ranker.widths - {width} if isinstance(self.ranker, GBDTRanker) else set()
        return f"the trees read {min(other)} features instead of {width}" if other else None

    def score(self, query: Query, items: Tensor | None = None) -> Tensor:
        """(B, C) or (B, I), the whole catalog being scored either way, in chunks of bounded memory."""
        rows, first = [], 0
        for asked in self.chunks(query):
            score_BI = self._catalog(asked)
            rows.append(score_BI if items is None else score_BI.gather(1, items[first : first + len(asked)]))
            first += len(asked)
        return torch.cat(rows)

    def candidates(self, query: Query) -> Tensor:
        """Candidates of the first stage, (B, P) int64, best first, padded with -1; none for unknown users."""
        rows = []
        for asked in self.chunks(query):
            found = self.retrieval(asked)
            fused_BI = found.fused.masked_fill(~found.candidate, -torch.inf)
            order_BI = fused_BI.argsort(dim=1, descending=True, stable=True)
            rows.append(order_BI.where(fused_BI.gather(1, order_BI) > -torch.inf, -1))
        every_BI = torch.cat(rows)
        return every_BI[:, : int((every_BI >= 0).sum(1).amax()) if len(query) else 0]

    def can_personalize(self, query: Query) -> Tensor:
        """Users that a retriever or scorer can personalize, or with an event that is not a dislike, (B,)."""
        known_B: Tensor = self.retrieval.can_personalize(query)
        return known_B

    def chunks(self, query: Query) -> Iterator[Query]:
        """Adjacent users of the query whose scores fit the memory; one empty chunk for an empty query."""
        items, members = self.spec.items, len(self.retrieval.members)
        read = min(items, self.retrieval.n_candidates * len(self.names)) * INPUTS
        step = max(1, CELLS // max(1, items * (members + LATEST), read, len(self.inputs.usual)))
        for first in range(0, max(1, len(query)), step):
            yield query.part(first, step)

    def read(self, query: Query, found: MemberScores) -> tuple[Tensor, Tensor, Tensor]:
        """The candidates: inputs (N, F), users (N,) of the query ascending, and items (N,)."""
        row_N, item_N = found.candidate.nonzero(as_tuple=True)
        return self.inputs(query, found, row_N, item_N, self.retrieval.models), row_N, item_N

    def _catalog(self, query: Query) -> Tensor:
        found = self.retrieval(query)
        input_NF, row_N, item_N = self.read(query, found)
        value_N = self.ranker(input_NF)
        least_B = torch.zeros(len(query), device=value_N.device)
        least_B = least_B.scatter_reduce(0, row_N, value_N, "amin", include_self=False)
        fused_BI = found.fused
        score_BI = fused_BI - fused_BI.amax(1, keepdim=True) + (least_B - 1)[:, None]
        score_BI[row_N, item_N] = value_N
        answer_BI: Tensor = score_BI.where(self.can_personalize(query)[:, None], self.inputs.share)
        return answer_BI
