"""Stage one: each retriever's scores of the whole catalog, made comparable, and the candidates among them.

    z_m(u, i)     = (s_m(u, i) - mean_m(u)) / std_m(u) over the catalog, rounded to a grid
    rank_m(u, i)  = items not excluded with z_m at least as high as i's: ties count against the item
    candidates(u) = items with rank_m(u, i) <= n_candidates for some retriever m
    fused(u, i)   = mean over the retrievers m of z_m(u, i)

Items of the query's history are excluded, unless ``exclude_seen`` is False. Rounding makes scores equal that differ
only by the order of a sum: a batch then equals one by one, and no ranker can split on noise.

Scorers find no candidates: the ranker only reads their z and rank. A model of ratings, for example, predicts how much a
user will like an item, but its highest predictions are items that few users interact with.

Shape legend: B users, I items, R retrievers, M retrievers and scorers, H history events of the whole query, P
candidates of one user at most.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from palate.base import Query
from palate.models.ensemble import standardized

GRID = 1024.0  # steps of a standard deviation


class MemberScores(NamedTuple):
    """Results of the members: ``z`` (M, B, I), ``rank`` (M, B, I), and which items are candidates, (B, I) bool.

    The first ``retrievers`` of the M members are those that name candidates.
    """

    z: Tensor
    rank: Tensor
    candidate: Tensor
    retrievers: int

    @property
    def fused(self) -> Tensor:
        """Scores of stage one alone, (B, I)."""
        return self.z[: self.retrievers].mean(0)


class Retrieval(nn.Module):
    """Fitted retrievers of one catalog, and scorers behind them.

    Args:
        members: fitted models.
        n_candidates: of each retriever.
        exclude_seen: items of the history are no candidates.
        scorers: how many of the members, the last ones, name no candidates.
    """

    def __init__(self, members: Iterable[nn.Module], n_candidates: int, exclude_seen: bool, scorers: int = 0) -> None:
        super().__init__()
        self.members, self.n_candidates, self.exclude_seen = nn.ModuleList(members), n_candidates, exclude_seen
        self.retrievers = len(self.members) - scorers

    def forward(self, query: Query) -> MemberScores:
        """Scores, ranks and candidates of all users of the query at once: M B I numbers of each kind."""
        z_MBI = torch.stack([standardized(member.score(query).float()) for member in self.models])
        # Scores that differ only by the order of a sum become equal: a batch then equals one by one.
        z_MBI = (z_MBI * GRID).round() / GRID
        open_MBI = z_MBI
        if self.exclude_seen and query.items is not None:
            open_MBI = z_MBI.clone()
            open_MBI[:, query.owners(), query.items] = -torch.inf
        rank_MBI = torch.stack([_ranks(open_BI) for open_BI in open_MBI])
        named_RBI = (rank_MBI <= self.n_candidates)[: self.retrievers]
        candidate_BI = (named_RBI & (open_MBI > -torch.inf)[: self.retrievers]).any(0) & self.can_personalize(query)[
            :, None
        ]
        return MemberScores(z_MBI, rank_MBI, candidate_BI, self.retrievers)

    def can_personalize(self, query: Query) -> Tensor:
        """Users that a member can personalize, or with an event that is not a dislike, which the ranker reads, (B,)."""
        known_B = torch.stack([member.can_personalize(query) for member in self.models]).any(0)
        return known_B.index_fill(0, query.owners()[query.positive()], True)

    @property
    def models(self) -> list[Any]:
        """The retrievers in their order, then the scorers."""
        return list(self.members)


def _ranks(score_BI: Tensor) -> Tensor:
    ascending_BI = score_BI.sort(1).values
    return score_BI.shape[1] - torch.searchsorted(ascending_BI, score_BI.contiguous(), out_int32=True)
