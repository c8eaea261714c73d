"""Ensemble: weighted sum of the scores, or of the reciprocal ranks, of several recipes.

    standardized   score(u, i) = sum over the members m of  w_m (s_m(u, i) - mean_m(u)) / std_m(u)
    rank           score(u, i) = sum over the members m of  w_m / (RANK_OFFSET + rank_m(u, i))

Mean and standard deviation are those of the member's scores of the whole catalog for this user, so that scores of
different scales can be added (Fox & Shaw 1993, "Combination of Multiple Searches", CombSUM); ranks are in
the whole catalog, 1 being the best and ties counted against the item (Cormack, Clarke & Buettcher 2009,
"Reciprocal Rank Fusion", SIGIR). A score therefore never depends on the candidates of a call. The cost: every
member scores the whole catalog even for a few candidates, which is slow for pair networks.

Fold-in: each member answers new users by its own rule. A member that cannot personalize a user adds its default
scores, mostly popularity.

Shape legend: B users, C candidates, I items.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from typing import Annotated, Any, ClassVar, Literal, Self

import torch
from pydantic import Field
from torch import Tensor, nn

from palate.base import DataSpec, Query, ReadsFeatures, Recipe, TrainOptions, reads_request_time
from palate.data.dataset import Dataset, Fingerprint
from palate.errors import RecipeError
from palate.models.registry import as_recipe, as_table

RANK_OFFSET = 60  # of Cormack et al.: the larger, the less the first ranks differ
NOISE = 1e-3  # a standard deviation below this share of the scores' size counts as rounding
SCORE_CELLS = 16_000_000  # scores of one member held at once while candidates are scored: 64 MB


class EnsembleModel(nn.Module):
    """Fitted members, their weights and the rule that combines their scores.

    Args:
        members: fitted models of one catalog.
        weights: one per member.
        how: "standardized" or "rank".
        spec: of that catalog, with the features that the members read.
    """

    trained_on: Fingerprint | None = None

    def __init__(self, members: Iterable[nn.Module], weights: tuple[float, ...], how: str, spec: DataSpec) -> None:
        super().__init__()
        self.members, self.weights, self.how = nn.ModuleList(members), weights, how
        self.spec = spec

    def score(self, query: Query, items: Tensor | None = None) -> Tensor:
        """Scores (B, C) or (B, I), in chunks of bounded memory; the whole catalog is scored either way."""
        if items is None:
            return self._catalog(query)
        step = max(1, SCORE_CELLS // max(1, self.spec.items))
        parts = [
            self._catalog(query.part(first, step)).gather(1, items[first : first + step])
            for first in range(0, max(1, len(query)), step)
        ]
        return torch.cat(parts)

    def can_personalize(self, query: Query) -> Tensor:
        """Users that at least one member can personalize, (B,)."""
        return torch.stack([one.can_personalize(query) for one in self._models]).any(0)

    @property
    def reads_request_time(self) -> bool:
        """Whether a member reads it."""
        return any(map(reads_request_time, self.members))

    def _catalog(self, query: Query) -> Tensor:
        comparable = standardized if self.how == "standardized" else reciprocal_ranks
        total_BI = torch.zeros((), device=query.user.device)
        for model, weight in zip(self._models, self.weights, strict=True):
            total_BI = total_BI + weight * comparable(model.score(query).float())
        return total_BI

    @property
    def _models(self) -> list[Any]:
        return list(self.members)  # ModuleList is typed as plain modules


@dataclass(frozen=True)
class Ensemble(Recipe[EnsembleModel]):
    """Several recipes fitted on the same rows, their scores added up by weight.

    Args:
        members: recipes, names of recipes (at their published defaults), or tables of fields such as
            ``{"recipe": "ials", "dim": 32}``; stored as tables with all fields.
        weights: one per member; only their proportions matter.
        how: add standardized scores, or reciprocal ranks.
    """

    name: ClassVar[str] = "ensemble"
    has_members: ClassVar[bool] = True

    members: Annotated[tuple[Any, ...], Field(min_length=1)] = field(default=("ials", "ease"), hash=False)
    weights: tuple[float, ...] = (1.0, 0.5)
    how: Literal["standardized", "rank"] = "standardized"

    def __post_init__(self) -> None:
        super().__post_init__()
        if len(self.weights) != len(self.members):
            raise RecipeError(f"{len(self.members)} members but {len(self.weights)} weights: give one per member")
        if not any(self.weights):
            raise RecipeError(f"weights={list(self.weights)}: at least one must not be 0")
        # All fields of all members: a bundle must not depend on the defaults of a later version.
        object.__setattr__(self, "members", tuple(as_table(as_recipe(one)) for one in self.members))

    @classmethod
    def fast(cls) -> Self:
        """iALS with few epochs, and EASE: seconds."""
        return cls(members=({"recipe": "ials", "epochs": 3}, "ease"))

    @property
    def recipes(self) -> tuple[Recipe[Any], ...]:
        """The members as recipes."""
        return tuple(map(as_recipe, self.members))

    def _for_rows(self, rows: Dataset) -> Self:
        """Each member with the values that the data choose for it."""
        return replace(self, members=tuple(as_table(one.for_data(rows)) for one in self.recipes))

    def build(self, spec: DataSpec) -> EnsembleModel:
        """Untrained members, ready for ``load_state_dict``."""
        return EnsembleModel([recipe.build(spec) for recipe in self.recipes], self.weights, self.how, spec)

    def training_rows(self, train: Dataset) -> Dataset:
        """All rows: each member takes those that it learns from."""
        return train

    def _fit(self, train: Dataset, options: TrainOptions) -> EnsembleModel:
        """Fit every member on the same rows with the same seed; early stopping applies to each.

        ``options.folder`` gets a folder for each member.

        Raises:
            RecipeError: two members read different features.
        """
        models = []
        for place, recipe in enumerate(self.recipes):
            models.append(recipe.fit(train, self.for_member(options, recipe, f"{place}-{recipe.name}")))
        return self.around(models, train)

    def around(self, models: Sequence[Any], train: Dataset) -> EnsembleModel:
        """The model of members that are already fitted on the rows of ``train``, in their order.

        Raises:
            RecipeError: two members read different features.
        """
        found = [model.spec.features for model in models if isinstance(model, ReadsFeatures)]
        schemas = [schema for schema in found if schema is not None]
        # A bundle stores one schema, from which every member is rebuilt.
        if any(schema != schemas[0] for schema in schemas):
            raise RecipeError("two members read different features: give them the same user_features and item_features")
        spec = DataSpec(train.n_users, train.n_items, schemas[0] if schemas else None)
        model = EnsembleModel(models, self.weights, self.how, spec)
        model.trained_on = train.fingerprint
        return model.eval()


def standardized(score_BI: Tensor) -> Tensor:
    """Scores (B, I) with mean 0 and standard deviation 1 per user; smaller where they hardly differ, 0 if equal."""
    centered_BI = score_BI - score_BI.mean(1, keepdim=True)
    # Without the floor, equal scores that differ by rounding would be blown up to a full-sized vote.
    floor_B1 = NOISE * score_BI.abs().amax(1, keepdim=True).clamp(min=1e-12)
    return centered_BI / centered_BI.square().mean(1, keepdim=True).sqrt().maximum(floor_B1)


def reciprocal_ranks(score_BI: Tensor) -> Tensor:
    """1 / (offset + rank), (B, I); items with equal scores all get the worst rank among them."""
    ascending_BI = score_BI.sort(1).values
    rank_BI = score_BI.shape[1] - torch.searchsorted(ascending_BI, score_BI.contiguous())
    return 1 / (RANK_OFFSET + rank_BI.float())
