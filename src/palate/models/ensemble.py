"""Ensemble: several recipes as one; their scores, or their ranks, are added up by weight.

    standardized   score(u, i) = sum over the members m of  w_m (s_m(u, i) - mean_m(u)) / std_m(u)
    rank           score(u, i) = sum over the members m of  w_m / (RANK_OFFSET + rank_m(u, i))

Mean and standard deviation are those of the member's scores of the whole catalog for this user, so the scores of
members whose scales differ can be added (Fox & Shaw 1993, "Combination of Multiple Searches", CombSUM); ranks are those
among the whole catalog, 1 being the best and ties counted against the item (Cormack, Clarke & Buettcher 2009,
"Reciprocal Rank Fusion", SIGIR). A score therefore never depends on which candidates are asked for. The cost: every
member scores the whole catalog even where a few candidates are asked for, which makes pair networks slow there.

Fold-in: each member answers a stranger by its own rule. A member that knows nothing about somebody gives what it gives
to everybody, mostly popularity, and that is added like the rest.

Shape legend: B users, C candidates, I items.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal, Self

import torch
from torch import Tensor, nn

from palate.base import DataSpec, Query, Recipe, TrainOptions, reads_request_time
from palate.data.dataset import Dataset, Fingerprint
from palate.data.features import FeatureSchema
from palate.errors import RecipeError
from palate.models.ensemble_members import member, standardized, table

__all__ = ["Ensemble", "EnsembleModel"]

RANK_OFFSET = 60  # of Cormack et al.: how little the first places differ
SCORE_CELLS = 16_000_000  # scores of one member held at once while only candidates are asked for: 64 MB


class EnsembleModel(nn.Module):
    """Fitted members, weights and the rule that puts their scores together.

    Args:
        members: fitted models of one catalog.
        weights: one per member.
        how: "standardized" or "rank".
        spec: of that catalog, with the features that members read.
    """

    trained_on: Fingerprint | None = None

    def __init__(self, members: Iterable[nn.Module], weights: tuple[float, ...], how: str, spec: DataSpec) -> None:
        super().__init__()
        self.members, self.weights, self.how = nn.ModuleList(members), weights, how
        self.sizes = spec

    def score(self, query: Query, items: Tensor | None = None) -> Tensor:
        """(B, C) or (B, I), the whole catalog being scored either way, in chunks of bounded memory."""
        if items is None:
            return self._catalog(query)
        step = max(1, SCORE_CELLS // max(1, self.sizes.items))
        parts = [
            self._catalog(query.part(first, step)).gather(1, items[first : first + step])
            for first in range(0, max(1, len(query)), step)
        ]
        return torch.cat(parts)

    def can_personalize(self, query: Query) -> Tensor:
        """Whom at least one member knows, (B,)."""
        return torch.stack([one.can_personalize(query) for one in self._models()]).any(0)

    @property
    def reads_request_time(self) -> bool:
        """Does a member?"""
        return any(map(reads_request_time, self.members))

    def _catalog(self, query: Query) -> Tensor:
        comparable = standardized if self.how == "standardized" else _reciprocal_ranks
        total_BI = torch.zeros((), device=query.user.device)
        for model, weight in zip(self._models(), self.weights, strict=True):
            total_BI = total_BI + weight * comparable(model.score(query).float())
        return total_BI

    def _models(self) -> list[Any]:
        return list(self.members)


@dataclass(frozen=True)
class Ensemble(Recipe[EnsembleModel]):
    """Several recipes fitted on the same rows, their scores added up by weight.

    Args:
        members: names of recipes (at their published defaults), or tables of fields such as
            ``{"recipe": "ials", "dim": 32}``; kept as tables with all fields.
        weights: one per member; only their proportions matter.
        how: add standardized scores, or reciprocal ranks.
    """

    name: ClassVar[str] = "ensemble"

    members: tuple[str | dict[str, Any], ...] = field(default=("ials", "ease"), hash=False)
    weights: tuple[float, ...] = (1.0, 0.5)
    how: Literal["standardized", "rank"] = "standardized"

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.members:
            raise RecipeError("members=[]: name at least one recipe")
        if len(self.weights) != len(self.members):
            raise RecipeError(f"{len(self.members)} members but {len(self.weights)} weights: give one per member")
        if not all(abs(weight) < float("inf") for weight in self.weights) or not any(self.weights):
            raise RecipeError(f"weights={list(self.weights)}: must be numbers, not all of them 0")
        if self.how not in ("standardized", "rank"):
            raise RecipeError(f"how={self.how!r}: choose 'standardized' or 'rank'")
        # Every field of every member, so that a bundle does not depend on what the defaults will be one day.
        object.__setattr__(self, "members", tuple(table(member(one)) for one in self.members))
        object.__setattr__(self, "weights", tuple(map(float, self.weights)))

    @classmethod
    def fast(cls) -> Self:
        """iALS with few epochs, and EASE: seconds."""
        return cls(members=({"recipe": "ials", "epochs": 3}, "ease"))

    @property
    def recipes(self) -> tuple[Recipe[Any], ...]:
        """The members as recipes."""
        return tuple(member(one) for one in self.members)

    def build(self, spec: DataSpec) -> EnsembleModel:
        """Untrained members, ready for ``load_state_dict``."""
        return EnsembleModel([recipe.build(spec) for recipe in self.recipes], self.weights, self.how, spec)

    def _fit(self, train: Dataset, options: TrainOptions) -> EnsembleModel:
        """Fit every member on the same rows with the same seed; early stopping applies to each.

        ``options.folder`` gets a folder for each member.

        Raises:
            RecipeError: two members read different features.
        """
        models = []
        for place, recipe in enumerate(self.recipes):
            folder = None if options.folder is None else options.folder / f"{place}-{recipe.name}"
            models.append(recipe.fit(train, dataclasses.replace(options, folder=folder)))
        return self.around(models, train)

    def around(self, models: Sequence[Any], train: Dataset) -> EnsembleModel:
        """The model around members that are fitted already, in their order, on the rows of ``train``.

        Raises:
            RecipeError: two members read different features.
        """
        sizes = DataSpec(train.n_users, train.n_items, _features(models))
        model = EnsembleModel(models, self.weights, self.how, sizes)
        model.trained_on = train.fingerprint
        return model.eval()


def _features(models: Iterable[Any]) -> FeatureSchema | None:
    """The features that members read, which must be the same ones, since a bundle keeps one schema."""
    found = [model.sizes.features for model in models if hasattr(model, "sizes")]
    schemas = [schema for schema in found if schema is not None]
    if any(schema != schemas[0] for schema in schemas[1:]):
        raise RecipeError("two members read different features: give them the same user_features and item_features")
    return schemas[0] if schemas else None


def _reciprocal_ranks(score_BI: Tensor) -> Tensor:
    """1 / (offset + rank); items with equal scores all get the worst rank among them."""
    ascending_BI = score_BI.sort(1).values
    rank_BI = score_BI.shape[1] - torch.searchsorted(ascending_BI, score_BI.contiguous())
    return 1 / (RANK_OFFSET + rank_BI.float())
