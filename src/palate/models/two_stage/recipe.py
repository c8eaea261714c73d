"""The recipe of two stages: retrievers find candidates, a ranker orders them (see ``model`` for the equation).

(Covington, Adams & Sargin 2016, "Deep Neural Networks for YouTube Recommendations", RecSys.) The ranker never learns
from rows that its retrievers saw: they are fitted on the rows before a slice of time, and the ranker on the rows in
the slice (see ``ranker_training``). Then the retrievers are fitted again, on all rows.

Fold-in: each retriever answers new users by its own rule, and the ranker reads the history in the query. Users without
any information get the most popular items.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from itertools import chain
from typing import Annotated, Any, ClassVar, Literal, Self

import numpy as np
import torch
from pydantic import Field

from palate.base import DataSpec, Query, ReadsFeatures, Recipe, TrainOptions
from palate.bounds import Count, Positive
from palate.data.dataset import Dataset
from palate.data.features import FeatureSchema, FeatureTable
from palate.errors import RecipeError
from palate.models.registry import as_recipe, as_table
from palate.models.two_stage.dcn_ranker import DCNRanker
from palate.models.two_stage.gbdt_ranker import GBDTRanker, Objective
from palate.models.two_stage.model import Ranker, TwoStageModel
from palate.models.two_stage.ranker_training import LabeledCandidates, Slice, concatenated, cut

MOST = 600  # candidates of one user to learn from: all the right ones, and some of the others


@dataclass(frozen=True)
class TwoStage(Recipe[TwoStageModel]):
    """Retrievers and a ranker.

    Args:
        members: names of recipes (at their published defaults), or tables of fields such as
            ``{"recipe": "ials", "dim": 32}``; kept as tables with all fields.
        scorers: recipes, named in the same way, that find no candidates, but whose scores the ranker reads; "bmf"
            with the ratings that it predicts, for one.
        n_candidates: of each retriever.
        ranker: "trees" (needs LightGBM) or "cross", a small network.
        slice_size: share of the rows in a slice of time.
        slices: how many slices the ranker learns from; each costs one more fit of all retrievers and scorers.
        slice_step: share of the rows from the end of a slice to the end of the next: slices overlap where it is below
            ``slice_size``. Default: ``slice_size``, end to end.
        min_rating: lowest weight of the rows of a slice that count as relevant. Default: 0, all that are no dislikes.
        users: at most so many users of a slice, drawn at random.
        refit: fit retrievers and scorers on all rows once the ranker is done; otherwise those of the last slice serve.
        exclude_seen: items of the history are no candidates.
        user_features, item_features: columns for the ranker to read, as "name" or "name:kind", "*" for all.
        objective: trees: the order of the list, or the chance of each candidate.
        rounds: trees: how many.
        leaves: trees: of each.
        learning_rate: trees: the shrinkage of each.
        bags: trees: how many times all of them are grown, each time with another seed; the scores are averaged.
    """

    name: ClassVar[str] = "two-stage"
    has_members: ClassVar[bool] = True

    members: Annotated[tuple[Any, ...], Field(min_length=1)] = field(
        default=("popularity", "recent-popularity", "newest", "ials", "two-tower", "sasrec"), hash=False
    )
    scorers: tuple[Any, ...] = field(default=(), hash=False)
    n_candidates: Count = 100
    ranker: Literal["trees", "cross"] = "trees"
    slice_size: Annotated[float, Field(gt=0, lt=1)] = 0.15
    slices: Count = 1
    slice_step: Annotated[float, Field(gt=0, lt=1)] | None = None
    min_rating: float = 0.0
    users: Annotated[int, Field(ge=2, le=10_000_000)] = 3_000
    refit: bool = True
    exclude_seen: bool = True
    user_features: tuple[str, ...] = ("*",)
    item_features: tuple[str, ...] = ("*",)
    objective: Objective = "lambdarank"
    rounds: Count = 100
    leaves: Annotated[int, Field(ge=2, le=131_072)] = 7
    learning_rate: Positive = 0.05
    bags: Count = 1

    def __post_init__(self) -> None:
        super().__post_init__()
        covered = self.slice_size + self._step * (self.slices - 1)
        if covered >= 1:
            raise RecipeError(
                f"{self.slices} slices of slice_size={self.slice_size:g} with slice_step={self._step:g} cover "
                f"{covered:.3g} of the rows: must be below 1"
            )
        # All fields of all members: a bundle must not depend on the defaults of a later version.
        for name in ("members", "scorers"):
            object.__setattr__(self, name, tuple(as_table(as_recipe(one)) for one in getattr(self, name)))

    @classmethod
    def fast(cls) -> Self:
        """Retrievers in closed form, and fewer trees: seconds."""
        members = ("popularity", "recent-popularity", "newest", {"recipe": "ials", "epochs": 3, "dim": 32}, "ease")
        return cls(members=members, rounds=50)

    @property
    def _step(self) -> float:
        """Share of the rows from the end of a slice to the end of the next."""
        return self.slice_size if self.slice_step is None else self.slice_step

    @property
    def recipes(self) -> tuple[Recipe[Any], ...]:
        """The retrievers as recipes, then the scorers."""
        return tuple(map(as_recipe, (*self.members, *self.scorers)))

    def _for_rows(self, rows: Dataset) -> Self:
        """Each retriever and scorer with the values that the data choose for it."""
        members, scorers = (
            tuple(as_table(as_recipe(one).for_data(rows)) for one in side) for side in (self.members, self.scorers)
        )
        return replace(self, members=members, scorers=scorers)

    def build(self, spec: DataSpec) -> TwoStageModel:
        """Untrained parts, ready for ``load_state_dict``."""
        members = [recipe.build(spec._replace(features=_read_by(recipe, spec.features))) for recipe in self.recipes]
        return self._around(members, spec)

    def training_rows(self, train: Dataset) -> Dataset:
        """All rows: each member takes those that it learns from."""
        return train

    def _fit(self, train: Dataset, options: TrainOptions) -> TwoStageModel:
        """Teach the ranker on the slices, then fit the retrievers on all rows with the same seed.

        ``options.validation_callback`` is not used; ``options.folder`` gets one folder for each retriever and slice.

        Raises:
            RecipeError: no user of a slice has rows before it, a retriever reads a column in another way than the
                ranker, or LightGBM is wanted and not installed.
            DataError: a wanted feature column is missing or of an unfitting kind.
        """
        slices = list(cut(train, self.slice_size, self.slices, self._step, self.min_rating, options.seed))
        serving = train if self.refit else slices[-1].before
        sizes = DataSpec(train.n_users, train.n_items, self._schema(serving))
        parts = []
        for number, part in enumerate(slices):
            model = self._retrievers(part.before, sizes, options, f"slice-{number}")
            parts.append(self._labeled(model, part, options.seed + number))
        ranker = model.ranker
        self._train_ranker(ranker, concatenated(parts), options.seed)
        if self.refit:
            model = self._retrievers(train, sizes, options, "all")
            model.ranker = ranker
        self._check_features(model)
        model.trained_on = train.fingerprint
        return model.eval()

    def _schema(self, rows: Dataset) -> FeatureSchema:
        """The features that the ranker or a retriever reads."""
        requested = [(self.user_features, self.item_features), *map(_columns, self.recipes)]
        users, items = (tuple(dict.fromkeys(chain.from_iterable(side))) for side in zip(*requested, strict=True))
        return FeatureSchema.fit(rows, users, items)

    def _around(self, members: list[Any], spec: DataSpec) -> TwoStageModel:
        names = [recipe.name for recipe in self.recipes[: len(self.members)]]
        trees = GBDTRanker(self.objective, self.rounds, self.leaves, self.learning_rate, self.bags)
        model = TwoStageModel(members, trees, spec, names, self.n_candidates, self.exclude_seen)
        if self.ranker == "cross":
            model.ranker = DCNRanker(model.inputs.width(model.retrieval.models))
        return model

    def _retrievers(self, rows: Dataset, spec: DataSpec, options: TrainOptions, stage: str) -> TwoStageModel:
        """A model whose ranker knows nothing yet; all else comes from these rows."""
        members = []
        for place, recipe in enumerate(self.recipes):
            plain = replace(options, validation_callback=None)
            members.append(recipe.fit(rows, self.for_member(plain, recipe, f"{stage}/{place}-{recipe.name}")))
        with torch.random.fork_rng(), torch.no_grad():
            torch.manual_seed(options.seed)
            model = self._around(members, spec)
        model.inputs.learn(rows.positives())
        return model.eval()

    def _check_features(self, model: TwoStageModel) -> None:
        for recipe, fitted in zip(self.recipes, model.retrieval.models, strict=True):
            theirs = fitted.spec.features if isinstance(fitted, ReadsFeatures) else None
            if (theirs or FeatureSchema()) != (_read_by(recipe, model.spec.features) or FeatureSchema()):
                raise RecipeError(
                    f"{recipe.name} and another part read one feature as different kinds: name it with the same kind"
                )

    def _labeled(self, model: TwoStageModel, part: Slice, seed: int) -> LabeledCandidates:
        """The candidates of the people who come back in the slice, as of its start."""
        rng, rows = np.random.default_rng(seed), part.after.interactions
        users = rng.permutation(np.unique(rows.user))[: self.users]
        # Ages as of the start of the slice: any later moment would reveal a part of the slice to the ranker.
        at = None if rows.time is None else torch.full((len(users),), rows.time.min(), dtype=torch.float64)
        query = Query.of(users, part.before.history.select(users), at)
        right = torch.from_numpy(np.unique(rows.user.astype(np.int64) * model.spec.items + rows.item))
        done, parts = 0, []
        with torch.inference_mode():
            for asked in model.chunks(query):
                input_NF, row_N, item_N = model.read(asked, model.retrieval(asked))
                label_N = torch.isin(asked.user[row_N] * model.spec.items + item_N, right).float()
                chance_Q = MOST / row_N.bincount(minlength=len(asked)).clamp(min=1)
                kept_N = (label_N > 0) | (torch.from_numpy(rng.random(len(row_N))) < chance_Q[row_N])
                parts.append(LabeledCandidates(input_NF[kept_N], label_N[kept_N], row_N[kept_N] + done))
                done += len(asked)
        return LabeledCandidates(*map(torch.cat, zip(*parts, strict=True)))

    def _train_ranker(self, ranker: Ranker, candidates: LabeledCandidates, seed: int) -> None:
        users = len(candidates.rows[candidates.labels > 0].unique())
        if users < 2:
            raise RecipeError(
                f"{int(candidates.labels.sum()):,} of {len(candidates.labels):,} candidates are relevant, "
                f"of {users} users: too few to train a ranker, raise n_candidates or slice_size, "
                "or use the recipe ensemble"
            )
        ranker.learn(candidates, seed)


def _columns(recipe: Recipe[Any]) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """The columns of users and of items that a recipe reads."""
    return getattr(recipe, "user_features", ()), getattr(recipe, "item_features", ())


def _read_by(recipe: Recipe[Any], schema: FeatureSchema | None) -> FeatureSchema | None:
    """The part of a schema that a retriever reads, None for one that reads no features."""
    users, items = _columns(recipe)
    schema = schema or FeatureSchema()
    return FeatureSchema(_picked(schema.users, users), _picked(schema.items, items)) if users or items else None


def _picked(table: FeatureTable, requested: Sequence[str]) -> FeatureTable:
    column_of = {column.name: column for column in table.columns}
    names = dict.fromkeys(column_of if "*" in requested else ())
    names |= dict.fromkeys(text.rpartition(":")[0] or text for text in requested if text != "*")
    return FeatureTable(tuple(column_of[name] for name in names if name in column_of))
