"""Query, Model, Recipe, TrainOptions: the shapes that the rest is made of. Read this first.

    recipe = MLP(epochs=5)              # a Recipe: frozen hyperparameters, nothing else
    model = recipe.fit(train, TrainOptions())    # a Model: a plain torch module that scores
    model.score(Query.of([3, 7]))       # (2, n_items): higher is better

Shape legend: B users in a query, C candidates per user, I items in the catalog, U users of the training
data, H history events of the whole batch (CSR), D width of a vector.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import (
    Annotated,
    Any,
    ClassVar,
    Generic,
    Literal,
    NamedTuple,
    Protocol,
    Self,
    TypeVar,
    cast,
    runtime_checkable,
)

import numpy as np
import polars as pl
import torch
from numpy.typing import NDArray
from pydantic import Field, SkipValidation
from torch import Tensor, nn

from palate.bounds import Count, Seed, check_fields
from palate.data.dataset import Dataset, Fingerprint, History
from palate.data.features import FeatureSchema
from palate.data.frame import from_frame
from palate.data.splits.split import Split
from palate.errors import DataError, RecipeError
from palate.progress import Progress, silent

LARGE = 1e12  # of weights: beyond, sums of their squares overflow 32 bits

__all__ = [
    "AddsItems",
    "Batch",
    "Contributions",
    "DataSpec",
    "Explains",
    "GeneratesCandidates",
    "ItemVectors",
    "Model",
    "PredictsRatings",
    "Query",
    "ReadsFeatures",
    "ReadsRatings",
    "ReadsRequestTime",
    "Recipe",
    "TrainOptions",
    "Trainable",
    "Vectors",
    "as_dataset",
    "device_of",
    "reads_ratings",
    "reads_request_time",
]


@dataclass(frozen=True)
class Query:
    """The users to score for, B rows: trained users, or new users with or without a history.

    Args:
        user: (B,) int64 row numbers of the training data; -1 is a new user.
        offsets: (B + 1,) int64; user b has events offsets[b] to offsets[b + 1] of the three below, oldest first.
        items: (H,) int64 row numbers of items.
        weights: (H,) float32, per event: a rating, or below zero for a dislike.
        times: (H,) float64 seconds since 1970, per event.
        at: (B,) float64 seconds since 1970, the time of the request.
        features: B rows of features of new users, with nulls where unknown; for models that read features.
    """

    user: Tensor
    offsets: Tensor | None = None
    items: Tensor | None = None
    weights: Tensor | None = None
    times: Tensor | None = None
    at: Tensor | None = None
    features: pl.DataFrame | None = None

    @classmethod
    def of(
        cls,
        users: Sequence[int] | NDArray[Any] | Tensor,
        history: History | None = None,
        at: Tensor | None = None,
        *,
        every_event: bool = False,
    ) -> Query:
        """A query for row numbers of users, with one history per listed user and their times of request where given.

        Args:
            users: (B,) row numbers, -1 for new users.
            history: one per user. Its rule decides which events are positive.
            at: (B,) times of request.
            every_event: keep the events that are neither positive nor dislikes, such as a rating of 2 of 5: models of
                ratings read them (see ``reads_ratings``), others would take them for positives. Default: False.
        """
        # A copy of arrays: row numbers from an IdMap are read-only, which torch warns about.
        user = users.long() if isinstance(users, Tensor) else torch.from_numpy(np.array(users, dtype=np.int64))
        if history is None:
            return cls(user, at=at)
        if len(history) != len(user):
            raise RecipeError(f"{len(user)} users but {len(history)} histories: give one history per user")
        history = history if every_event else history.positives(dislikes=True)
        times = None if history.times is None else torch.from_numpy(history.times)
        return cls(
            user,
            torch.from_numpy(history.offsets),
            torch.from_numpy(history.items.astype(np.int64)),
            torch.from_numpy(history.weights),
            times,
            at,
        )

    @classmethod
    def new_users(cls, histories: Sequence[Sequence[int]], weight: float = 1.0) -> Query:
        """A query for users without training rows, given the item rows of their histories (oldest first).

        Every event has the same ``weight``; a model of ratings reads it as a rating.
        """
        counts = np.array([len(h) for h in histories], dtype=np.int64)
        items = np.concatenate([np.asarray(h, dtype=np.int32) for h in histories] or [np.zeros(0, np.int32)])
        history = History(np.concatenate([[0], np.cumsum(counts)]), items, np.full(len(items), weight, np.float32))
        return cls.of(np.full(len(counts), -1), history)

    def __len__(self) -> int:
        return self.user.shape[0]  # len of a tensor takes ten times as long, and one answer asks often

    def counts(self) -> Tensor:
        """Events per user, (B,); zeros where the query carries no history."""
        return torch.zeros_like(self.user) if self.offsets is None else self.offsets.diff()

    def owners(self) -> Tensor:
        """The row of the query that each event belongs to, (H,)."""
        if self.user.device.type != "cpu":
            return torch.repeat_interleave(torch.arange(len(self), device=self.user.device), self.counts())
        # NumPy: ten microseconds, where torch wakes its threads and takes milliseconds on busy cores.
        return torch.from_numpy(np.repeat(np.arange(len(self)), self.counts().numpy()))

    def positive(self) -> Tensor:
        """Which events are no dislikes, (H,) bool."""
        if self.weights is not None:
            return self.weights >= 0
        return torch.ones(int(self.counts().sum()), dtype=torch.bool, device=self.user.device)

    def part(self, first: int, count: int) -> Query:
        """The ``count`` rows from ``first`` on, fewer at the end."""
        rows = slice(first, first + count)
        user, at = self.user[rows], None if self.at is None else self.at[rows]
        features = None if self.features is None else self.features[rows]
        if self.offsets is None:
            return Query(user, at=at, features=features)
        offsets = self.offsets[first : first + len(user) + 1]
        # Offsets start at 0 again, so that a part is a query of its own.
        events = slice(int(offsets[0]), int(offsets[-1]))
        items, weights, times = (None if x is None else x[events] for x in (self.items, self.weights, self.times))
        return Query(user, offsets - offsets[0], items, weights, times, at, features)

    def to(self, device: torch.device) -> Query:
        """The same query on another device."""
        # The features stay where they are: a data frame has no device, the model moves its encoded numbers.
        names = ("offsets", "items", "weights", "times", "at")
        parts = {name: getattr(self, name) for name in names}
        moved = {name: None if part is None else part.to(device) for name, part in parts.items()}
        return replace(self, user=self.user.to(device), **moved)


class DataSpec(NamedTuple):
    """Numbers of users and items, and the features that a model reads: enough to build it for saved weights."""

    users: int
    items: int
    features: FeatureSchema | None = None


@runtime_checkable
class Model(Protocol):
    """A fitted model: a plain ``nn.Module``, so ``.to()`` and ``state_dict()`` come free."""

    trained_on: Fingerprint | None

    def score(self, query: Query, items: Tensor | None = None) -> Tensor:
        """Scores, higher is better: ``items`` (B, C) gives (B, C); None, the whole catalog, gives (B, I)."""

    def can_personalize(self, query: Query) -> Tensor:
        """(B,) bool: whether the scores of this user depend on the user's history or features."""


# Capabilities: protocols that a model meets by having the method; ask with isinstance(model, Protocol).


@runtime_checkable
class ChecksState(Protocol):
    """A module with row numbers in its state: a bundle is not loaded if one of them is out of range."""

    def state_problem(self) -> str | None:
        """The first tensor that holds a number out of range, in words, or None."""


def out_of_range(name: str, numbers: Tensor, limit: int) -> str | None:
    """A problem for ``ChecksState`` if a number is not in 0 to limit - 1."""
    low, high = (int(one) for one in numbers.aminmax()) if numbers.numel() else (0, -1)
    return (
        None
        if low >= 0 and high < limit
        else f"{name} holds {low if low < 0 else high:,}, outside of 0 to {limit - 1:,}"
    )


@runtime_checkable
class ItemVectors(Protocol):
    """A model with a vector per item, whose cosines measure similarity between items."""

    def item_vectors(self) -> Tensor:
        """Item vectors, (I, D)."""


@runtime_checkable
class Vectors(ItemVectors, Protocol):
    """A model whose score is a dot product of a query vector and an item vector, so that an index can search it."""

    def query_vectors(self, query: Query) -> Tensor:
        """Query vectors, (B, D)."""


@runtime_checkable
class PredictsRatings(Protocol):
    """A model that predicts ratings."""

    def predict(self, query: Query, items: Tensor) -> Tensor:
        """Ratings (B, C) of candidates (B, C), inside the scale of the training ratings."""


@runtime_checkable
class ReadsRatings(Protocol):
    """A model that reads the weights of a history as ratings, low ones too."""

    @property
    def reads_ratings(self) -> bool:
        """Whether it does: one class may serve ratings and implicit feedback."""


def reads_ratings(model: object) -> bool:
    """Whether a model is to be given every event of a history with its rating, not the positive ones only."""
    return isinstance(model, ReadsRatings) and model.reads_ratings


@runtime_checkable
class AddsItems(Model, ItemVectors, Protocol):
    """A model that can rank items without training rows by their features."""

    def with_items(self, features: pl.DataFrame) -> Self:
        """A model whose catalog ends with the items of this feature table.

        Raises:
            ModelError: this model was trained without item features.
        """


@runtime_checkable
class ReadsFeatures(Protocol):
    """A model that may read features: a bundle keeps ``spec.features`` to rebuild it."""

    spec: DataSpec


@runtime_checkable
class ReadsRequestTime(Protocol):
    """A model that may be trained to read ``Query.at``; evaluation gives the time only to models that were.

    A model that merely computes ages from it, such as two stages, is measured as of its latest training row.
    """

    @property
    def reads_request_time(self) -> bool:
        """Whether training included times of request."""


def reads_request_time(model: object) -> bool:
    """Whether a model was trained to read the time of request."""
    return isinstance(model, ReadsRequestTime) and model.reads_request_time


@runtime_checkable
class GeneratesCandidates(Protocol):
    """A model whose first stage chooses the candidates that its second stage ranks."""

    def candidates(self, query: Query) -> Tensor:
        """(B, P) item rows of the candidates of each user, -1 in empty places."""


class Contributions(NamedTuple):
    """Parts of the scores of candidates: rest + the sum over a user's events = the score.

    event (H, C): the part of each event of the query in the scores of its user's candidates; rest (B, C): the part
    that depends on no event.
    """

    event: Tensor
    rest: Tensor


@runtime_checkable
class Explains(Protocol):
    """A model whose score is a sum over the events of the history, so that it can tell the part of each event."""

    def contributions(self, query: Query, items: Tensor) -> Contributions:
        """Parts of the scores of ``items`` (B, C) for new users with these histories; ``query.user`` is ignored."""


M_co = TypeVar("M_co", bound=Model, covariant=True)
Logger = Literal["none", "csv", "tensorboard", "mlflow", "wandb"]


@dataclass(frozen=True)
class TrainOptions:
    """Options of training; not saved in a bundle.

    Args:
        seed: of all randomness, together with the epoch number.
        device: "auto" (a GPU where there is one), "cpu", "cuda" (also written "gpu") or "mps".
        precision: as the Lightning Trainer names it, for example "bf16-mixed".
        threads: torch threads on the CPU while a network is trained. Default: the number that ``OMP_NUM_THREADS`` or
            ``torch.set_num_threads`` has set, else 1.
        progress: called with a ``ProgressEvent`` after each epoch, which carries the mean training loss.
        validation_callback: called with the model after each epoch; higher is better. It must look at validation rows.
        patience: epochs without a better ``validation_callback`` before training stops; the best epoch is kept.
        folder: for checkpoints and logs; training that was killed resumes from there at the last whole epoch.
        logger: format of the logs in ``folder``. "mlflow" and "wandb" are MLflow and Weights & Biases, which go
            elsewhere if MLFLOW_TRACKING_URI or the account of W&B says so. Recipes that are not trained by gradient
            descent write none.
        callbacks: Lightning callbacks, called as by any Lightning Trainer; the module's ``net`` is the model. Only for
            recipes that are trained by gradient descent; recipes made of others pass them to such members.

    Raises:
        RecipeError: a value is out of bounds, or the device is not available.
    """

    seed: Seed = 0
    device: Literal["auto", "cpu", "cuda", "mps", "gpu"] = "auto"
    precision: Literal["64-true", "32-true", "bf16-true", "16-true", "bf16-mixed", "16-mixed"] = "32-true"
    threads: Annotated[int, Field(ge=1, le=4096)] | None = None
    progress: Annotated[Progress, SkipValidation] = silent
    validation_callback: Callable[[Any], float] | None = None
    patience: Count = 5
    folder: Path | None = None
    logger: Logger = "none"
    callbacks: tuple[Any, ...] = ()

    def __post_init__(self) -> None:
        # torch knows only the name cuda.
        if self.device == "gpu":
            object.__setattr__(self, "device", "cuda")
        check_fields(self, "training options", RecipeError)
        missing = {"cuda": not torch.cuda.is_available(), "mps": not torch.backends.mps.is_available()}
        if missing.get(self.device):
            raise RecipeError(f"device={self.device!r}: torch finds none here, choose 'auto' or 'cpu'")
        if self.logger != "none" and self.folder is None:
            raise RecipeError(f"logger={self.logger!r} needs a folder to write to: set folder")


@dataclass(frozen=True)
class Recipe(Generic[M_co]):
    """Base of all recipes: frozen hyperparameters that can be fitted, or rebuilt around saved weights.

    A recipe is a frozen dataclass whose annotations carry the bounds of its fields; construction from Python, the
    command line or a file refuses other values with a ``RecipeError``::

        @dataclass(frozen=True)
        class MyRecipe(Recipe[MyModel]):
            name: ClassVar[str] = "my-recipe"
            dim: Width = 64
            learning_rate: Positive = 0.01

    Rules between fields go into ``__post_init__``, after ``super().__post_init__()``.
    """

    name: ClassVar[str]
    """The key in ``palate.models.RECIPES``."""
    has_members: ClassVar[bool] = False
    """Whether it fits other recipes, to which it passes the training options."""

    def for_member(self, options: TrainOptions, member: Recipe[Any], folder: str) -> TrainOptions:
        """Training options for the fit of a member, in a folder of its own; callbacks only if it would call them."""
        calls = isinstance(member, Trainable) or member.has_members
        return replace(
            options,
            folder=None if options.folder is None else options.folder / folder,
            callbacks=options.callbacks if calls else (),
        )

    def __post_init__(self) -> None:
        check_fields(self, f"recipe {self.name}", RecipeError)

    def fit(self, train: Dataset | Any, options: TrainOptions = TrainOptions()) -> M_co:
        """Learn from ``train``; the same seed gives the same weights.

        Args:
            train: the training rows: a Dataset, or a dataframe whose columns have their usual names
                (see ``palate.from_frame``).
            options: training options.

        Raises:
            RecipeError: the rows cannot be learned from, or none of them is positive.
            DataError: the dataframe cannot be read.
        """
        whole = as_dataset(train)
        if options.callbacks and not (isinstance(self, Trainable) or self.has_members):
            raise RecipeError(
                f"recipe {self.name} is not trained by gradient descent, so callbacks are never called: leave them out"
            )
        rows = self.training_rows(whole)
        if not len(rows) and len(whole):
            raise RecipeError(
                f"none of {len(whole):,} training rows of {whole.name} is positive ({whole.feedback.rule}): "
                "lower min_rating (--min-rating)"
            )
        with overflow_explained(self.name, rows):
            model = self._for_rows(rows)._fit(rows, options)
        # The rows that are seen but not positive belong to what the model was given: a test row may be one of them.
        model.trained_on = whole.fingerprint
        return model

    def for_data(self, train: Dataset | Any) -> Self:
        """The recipe with a value in every field that ``None`` leaves to the data; fields with a value keep it.

        ``fit`` calls it. The values are functions of the training rows, mostly of the numbers of rows, users and items,
        never of a fit. A recipe without such fields returns itself.

        Args:
            train: the training rows, as for ``fit``.
        """
        return self._for_rows(self.training_rows(as_dataset(train)))

    def _for_rows(self, rows: Dataset) -> Self:
        """``for_data``, for rows to learn from."""
        return self

    def chosen(self, given: Recipe[Any]) -> str:
        """The fields in which this recipe differs from ``given``, as "field=value, field=value"; "" for none."""
        before, after = (dict(_paths("", asdict(cast(Any, one)))) for one in (given, self))
        differ = ((path, value) for path, value in after.items() if value != before.get(path))
        return ", ".join(
            f"{path}={value:.3g}" if isinstance(value, float) else f"{path}={value}" for path, value in differ
        )

    def training_rows(self, train: Dataset) -> Dataset:
        """The rows of ``train`` to learn from: the positive ones, unless the recipe reads ratings or dislikes."""
        return train.positives()

    def _fit(self, train: Dataset, options: TrainOptions) -> M_co:
        raise NotImplementedError

    def build(self, spec: DataSpec) -> M_co:
        """An untrained model with tables of the right sizes, ready for ``load_state_dict``."""
        raise NotImplementedError

    @classmethod
    def fast(cls) -> Self:
        """The preset that trains in seconds on two cores; the defaults, unless overridden."""
        return cls()


def _paths(start: str, value: Any) -> Iterator[tuple[str, Any]]:
    """Paths and values of the leaves of nested fields: ``members.0.dim``."""
    if not isinstance(value, dict | list | tuple):
        yield start, value
        return
    for key, inner in value.items() if isinstance(value, dict) else enumerate(value):
        yield from _paths(f"{start}.{key}" if start else str(key), inner)


@contextmanager
def overflow_explained(recipe: str, rows: Dataset) -> Iterator[None]:
    """Equations that have no solution become a RecipeError, which names weights that are too large, if they are.

    Raises:
        RecipeError: fitting failed.
    """
    try:
        yield
    except (np.linalg.LinAlgError, torch.linalg.LinAlgError, RecipeError) as error:  # type: ignore[attr-defined]
        # Squares of large weights overflow 32 bits, and a recipe then sees an infinite loss or bad equations.
        largest = float(np.abs(rows.interactions.weight).max(initial=0))
        reason = str(error).strip().partition("\n")[0]
        if largest > LARGE:
            raise RecipeError(
                f"recipe {recipe}: weights as large as {largest:g} cannot be computed with in 32 bits ({reason}): "
                "cap or scale them, or drop such rows at their source"
            ) from error
        if isinstance(error, RecipeError):
            raise
        raise RecipeError(f"recipe {recipe}: unsolvable equations ({reason}): raise the regularization") from error


def as_dataset(rows: Dataset | Any) -> Dataset:
    """A Dataset as it is, or made from any dataframe that has the usual column names.

    Raises:
        DataError: it is neither, or the dataframe cannot be read.
    """
    if isinstance(rows, Dataset):
        return rows
    # An easy mistake: learning from a whole split would include the rows that it holds out.
    if isinstance(rows, Split):
        raise DataError("a split was given where training rows are expected: pass split.train")
    return from_frame(rows)


class Batch(NamedTuple):
    """Whole tensors for one optimizer step; a recipe uses the fields it needs.

    user (B,), positive (B,) or (B, P), negatives (B, n), weight (B,): row numbers and targets.
    """

    user: Tensor
    item: Tensor
    target: Tensor


@runtime_checkable
class Trainable(Protocol):
    """The parts of a recipe that is trained by gradients, so that any driver can run it."""

    name: ClassVar[str]

    @property
    def epochs(self) -> int:
        """Passes over the training rows."""

    def build(self, spec: DataSpec) -> Any:
        """The module to train."""

    def batches(self, train: Dataset, seed: int, epoch: int) -> Iterable[Any]:
        """The batches of one epoch, a function of (seed, epoch) alone."""

    def loss(self, module: Any, batch: Any) -> Tensor:
        """Scalar loss of one batch."""

    def optimizers(self, module: nn.Module) -> list[torch.optim.Optimizer]:
        """The optimizers, each stepping once per batch."""


def device_of(model: object) -> torch.device:
    """The device of a model's first tensor; the CPU for a model without tensors."""
    tensors = itertools.chain(model.parameters(), model.buffers()) if isinstance(model, nn.Module) else iter(())
    return next((tensor.device for tensor in tensors), torch.device("cpu"))
