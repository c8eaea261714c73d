"""Blend: several recipes as one; their scores, or their ranks, are added up by weight.

    standardised   score(u, i) = sum over the members m of  w_m (s_m(u, i) - mean_m(u)) / std_m(u)
    rank           score(u, i) = sum over the members m of  w_m / (RANK_OFFSET + rank_m(u, i))

Mean and standard deviation are those of the member's scores of the whole catalogue for this user, so the scores of
members whose scales differ can be added (Fox & Shaw 1993, "Combination of Multiple Searches", CombSUM); ranks are those
among the whole catalogue, 1 being the best and ties counted against the item (Cormack, Clarke & Buettcher 2009,
"Reciprocal Rank Fusion", SIGIR). A score therefore never depends on which candidates are asked for. The cost: every
member scores the whole catalogue even where a few candidates are asked for, which makes pair networks slow there.

Fold-in: each member answers a stranger by its own rule. A member that knows nothing about somebody gives what it gives
to everybody, mostly popularity, and that is added like the rest.

Shape legend: B users, C candidates, I items.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal, Self

import torch
from torch import Tensor, nn

from palate.data.dataset import Dataset, Fingerprint
from palate.data.features import FeatureSchema
from palate.errors import RecipeError
from palate.protocols import Query, Recipe, Run, Sizes

__all__ = ["Blend", "BlendModel"]

RANK_OFFSET = 60  # of Cormack et al.: how little the first places differ
NOISE = 1e-3  # a spread of the scores below this share of their size is no spread
SCORE_CELLS = 16_000_000  # scores of one member held at once while only candidates are asked for: 64 MB


class BlendModel(nn.Module):
    """Fitted members, weights and the rule that puts their scores together.

    Args:
        members: fitted models of one catalogue.
        weights: one per member.
        how: "standardised" or "rank".
        sizes: of that catalogue, with the features that members read.
    """

    trained_on: Fingerprint | None = None

    def __init__(self, members: Iterable[nn.Module], weights: tuple[float, ...], how: str, sizes: Sizes) -> None:
        super().__init__()
        self.members, self.weights, self.how = nn.ModuleList(members), weights, how
        self.sizes = sizes

    def score(self, query: Query, items: Tensor | None = None) -> Tensor:
        """(B, C) or (B, I), the whole catalogue being scored either way, in chunks of bounded memory."""
        if items is None:
            return self._catalogue(query)
        step = max(1, SCORE_CELLS // max(1, self.sizes.items))
        parts = [
            self._catalogue(_part(query, first, step)).gather(1, items[first : first + step])
            for first in range(0, max(1, len(query)), step)
        ]
        return torch.cat(parts)

    def knows(self, query: Query) -> Tensor:
        """Whom at least one member knows, (B,)."""
        return torch.stack([member.knows(query) for member in self._models()]).any(0)

    def _catalogue(self, query: Query) -> Tensor:
        one = _standardised if self.how == "standardised" else _reciprocal_ranks
        total_BI = torch.zeros((), device=query.user.device)
        for member, weight in zip(self._models(), self.weights, strict=True):
            total_BI = total_BI + weight * one(member.score(query).float())
        return total_BI

    def _models(self) -> list[Any]:
        return list(self.members)


@dataclass(frozen=True)
class Blend:
    """Several recipes fitted on the same rows, their scores added up by weight.

    Args:
        members: names of recipes (at their published defaults), or tables of fields such as
            ``{"recipe": "ials", "dim": 32}``; kept as tables with all fields.
        weights: one per member; only their proportions matter.
        how: add standardised scores, or reciprocal ranks.
    """

    name: ClassVar[str] = "blend"
    __pydantic_config__: ClassVar[dict[str, str]] = {"extra": "forbid"}

    members: tuple[str | dict[str, Any], ...] = field(default=("ials", "ease"), hash=False)
    weights: tuple[float, ...] = (1.0, 0.5)
    how: Literal["standardised", "rank"] = "standardised"

    def __post_init__(self) -> None:
        if not self.members:
            raise RecipeError("members=[]: name at least one recipe")
        if len(self.weights) != len(self.members):
            raise RecipeError(f"{len(self.members)} members but {len(self.weights)} weights: give one per member")
        if not all(abs(weight) < float("inf") for weight in self.weights) or not any(self.weights):
            raise RecipeError(f"weights={list(self.weights)}: must be numbers, not all of them 0")
        if self.how not in ("standardised", "rank"):
            raise RecipeError(f"how={self.how!r}: choose 'standardised' or 'rank'")
        # Every field of every member, so that a bundle does not depend on what the defaults will be one day.
        object.__setattr__(self, "members", tuple(_table(_member(one)) for one in self.members))
        object.__setattr__(self, "weights", tuple(map(float, self.weights)))

    @classmethod
    def fast(cls) -> Self:
        """iALS with few epochs, and EASE: seconds."""
        return cls(members=({"recipe": "ials", "epochs": 3}, "ease"))

    @property
    def recipes(self) -> tuple[Recipe[Any], ...]:
        """The members as recipes."""
        return tuple(_member(one) for one in self.members)

    def build(self, sizes: Sizes) -> BlendModel:
        """Untrained members, ready for ``load_state_dict``."""
        return BlendModel([recipe.build(sizes) for recipe in self.recipes], self.weights, self.how, sizes)

    def fit(self, train: Dataset, run: Run = Run()) -> BlendModel:
        """Fit every member on the same rows with the same seed; ``run.watch`` and ``run.patience`` hold for each.

        A folder of the run gets a folder for each member.

        Raises:
            RecipeError: two members read different features.
        """
        models = []
        for place, recipe in enumerate(self.recipes):
            folder = None if run.folder is None else run.folder / f"{place}-{recipe.name}"
            models.append(recipe.fit(train, dataclasses.replace(run, folder=folder)))
        return self.around(models, train)

    def around(self, models: Sequence[Any], train: Dataset) -> BlendModel:
        """The model around members that are fitted already, in their order, on the rows of ``train``.

        Raises:
            RecipeError: two members read different features.
        """
        sizes = Sizes(train.n_users, train.n_items, _features(models))
        model = BlendModel(models, self.weights, self.how, sizes)
        model.trained_on = train.fingerprint
        return model.eval()


def _member(one: str | Mapping[str, Any]) -> Recipe[Any]:
    from palate.models import make_recipe  # the list holds this recipe too

    fields = {"recipe": one} if isinstance(one, str) else dict(one)
    name = fields.pop("recipe", None)
    if not isinstance(name, str):
        raise RecipeError(f'member {dict(fields)} does not name its recipe: add recipe = "NAME" to it')
    return make_recipe(name, fields)


def _table(recipe: Recipe[Any]) -> dict[str, Any]:
    """Name and fields of a recipe as plain data, the same before and after JSON."""
    fields: dict[str, Any] = json.loads(json.dumps(dataclasses.asdict(recipe)))  # type: ignore[call-overload]
    return {"recipe": recipe.name, **fields}


def _features(models: Iterable[Any]) -> FeatureSchema | None:
    """The features that members read, which must be the same ones, since a bundle keeps one schema."""
    found = [model.sizes.features for model in models if hasattr(model, "sizes")]
    schemas = [schema for schema in found if schema is not None]
    if any(schema != schemas[0] for schema in schemas[1:]):
        raise RecipeError("two members read different features: give them the same user_features and item_features")
    return schemas[0] if schemas else None


def _part(query: Query, first: int, count: int) -> Query:
    """Some adjacent rows of a query."""
    user, at = query.user[first : first + count], None if query.at is None else query.at[first : first + count]
    features = None if query.features is None else query.features[first : first + count]
    if query.offsets is None:
        return Query(user, at=at, features=features)
    offsets = query.offsets[first : first + len(user) + 1]
    events = slice(int(offsets[0]), int(offsets[-1]))
    items, weights, times = (None if x is None else x[events] for x in (query.items, query.weights, query.times))
    return Query(user, offsets - offsets[0], items, weights, times, at, features)


def _standardised(score_BI: Tensor) -> Tensor:
    """Mean 0 and standard deviation 1 per user; less where the scores hardly differ, zeros where they do not."""
    centred_BI = score_BI - score_BI.mean(1, keepdim=True)
    # Scores that are equal but for rounding must not become an opinion.
    floor_B1 = NOISE * score_BI.abs().amax(1, keepdim=True).clamp(min=1e-12)
    return centred_BI / centred_BI.square().mean(1, keepdim=True).sqrt().maximum(floor_B1)


def _reciprocal_ranks(score_BI: Tensor) -> Tensor:
    """1 / (offset + rank); items with equal scores all get the worst rank among them."""
    ascending_BI = score_BI.sort(1).values
    rank_BI = score_BI.shape[1] - torch.searchsorted(ascending_BI, score_BI.contiguous())
    return 1 / (RANK_OFFSET + rank_BI.float())
