"""The few shapes everything else is made of. Read this first.

    recipe = MLP(epochs=5)              # a Recipe: frozen hyperparameters, nothing else
    model = recipe.fit(train, TrainOptions())    # a Model: a plain torch module that scores
    model.score(Query.of([3, 7]))       # (2, n_items): higher is better

Shape legend: B users in a query, C candidates per user, I items in the catalog, U users of the training
data, H history events of the whole batch (CSR), D width of a vector.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal, NamedTuple, Protocol, Self, TypeVar, runtime_checkable

import numpy as np
import polars as pl
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from palate.data.dataset import Dataset, Fingerprint, History
from palate.data.features import FeatureSchema
from palate.errors import RecipeError

__all__ = [
    "Batch",
    "Contributions",
    "DataSpec",
    "Explains",
    "Model",
    "Query",
    "ReadsRequestTime",
    "Recipe",
    "TrainOptions",
    "Trainable",
    "Vectors",
    "reads_request_time",
]


@dataclass(frozen=True)
class Query:
    """Whom to score for: B rows. A known user, a stranger with a history, or a stranger with nothing.

    Args:
        user: (B,) int64 row numbers of the training data; -1 is a stranger.
        offsets: (B + 1,) int64; user b has events offsets[b] to offsets[b + 1] of the three below, oldest first.
        items: (H,) int64 row numbers of items.
        weights: (H,) float32, per event: a rating, or below zero for a dislike.
        times: (H,) float64 seconds since 1970, per event.
        at: (B,) float64 seconds since 1970, the time of the request.
        features: B rows of user features, nulls where nothing is known; for strangers to a model that reads features.
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
        cls, users: Sequence[int] | NDArray[Any] | Tensor, history: History | None = None, at: Tensor | None = None
    ) -> Query:
        """A query for row numbers of users, with one history per listed user and their times of request where given."""
        # A copy where it is an array: row numbers from an IdMap are read-only, which torch warns about.
        user = torch.as_tensor(users if isinstance(users, Tensor) else np.array(users, dtype=np.int64)).to(torch.int64)
        if history is None:
            return cls(user, at=at)
        if len(history) != len(user):
            raise RecipeError(f"{len(user)} users but {len(history)} histories: give one history per user")
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
    def strangers(cls, histories: Sequence[Sequence[int]], weight: float = 1.0) -> Query:
        """A query for people the model has never met, known by the item rows they touched (oldest first).

        Every event has the same ``weight``; a model of ratings reads it as a rating.
        """
        counts = np.array([len(h) for h in histories], dtype=np.int64)
        items = np.concatenate([np.asarray(h, dtype=np.int32) for h in histories] or [np.zeros(0, np.int32)])
        history = History(np.concatenate([[0], np.cumsum(counts)]), items, np.full(len(items), weight, np.float32))
        return cls.of(np.full(len(counts), -1), history)

    def __len__(self) -> int:
        return len(self.user)

    def counts(self) -> Tensor:
        """Events per user, (B,); zeros where the query carries no history."""
        return torch.zeros_like(self.user) if self.offsets is None else self.offsets.diff()

    def part(self, first: int, count: int) -> Query:
        """The ``count`` rows from ``first`` on, fewer at the end."""
        rows = slice(first, first + count)
        user, at = self.user[rows], None if self.at is None else self.at[rows]
        features = None if self.features is None else self.features[rows]
        if self.offsets is None:
            return Query(user, at=at, features=features)
        offsets = self.offsets[first : first + len(user) + 1]
        events = slice(int(offsets[0]), int(offsets[-1]))
        items, weights, times = (None if x is None else x[events] for x in (self.items, self.weights, self.times))
        return Query(user, offsets - offsets[0], items, weights, times, at, features)

    def to(self, device: torch.device) -> Query:
        """The same query on another device."""
        names = ("offsets", "items", "weights", "times", "at")
        parts = {name: getattr(self, name) for name in names}
        moved = {name: None if part is None else part.to(device) for name, part in parts.items()}
        return replace(self, user=self.user.to(device), **moved)


class DataSpec(NamedTuple):
    """How many rows the tables of a model need, and its features; what a bundle must know to rebuild it."""

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
        """(B,) bool: can it say anything personal about this user?"""


@runtime_checkable
class Vectors(Protocol):
    """Optional power of a model: score is a dot product, so an index can search it."""

    def query_vectors(self, query: Query) -> Tensor:
        """(B, D)."""

    def item_vectors(self) -> Tensor:
        """(I, D)."""


@runtime_checkable
class ReadsRequestTime(Protocol):
    """Optional power of a model: it was trained to read ``Query.at``. Evaluation gives the time to such models only.

    A model that merely reckons ages from it, such as two stages, is measured as of its latest training row.
    """

    @property
    def reads_request_time(self) -> bool:
        """Did training give it times of request?"""


def reads_request_time(model: object) -> bool:
    """Is it a model that was trained to read the time of request?"""
    return isinstance(model, ReadsRequestTime) and model.reads_request_time


class Contributions(NamedTuple):
    """Scores of candidates, taken apart: rest + the sum over a user's events = the score.

    event (H, C): what each event of the query adds to the scores of its user's candidates; rest (B, C): what comes
    from no event.
    """

    event: Tensor
    rest: Tensor


@runtime_checkable
class Explains(Protocol):
    """Optional power of a model: its score is a sum over the events of the history, so it can say what each adds."""

    def contributions(self, query: Query, items: Tensor) -> Contributions:
        """The scores of ``items`` (B, C) taken apart, for strangers with these histories, whoever ``query.user`` is."""


M_co = TypeVar("M_co", bound=Model, covariant=True)
Logger = Literal["none", "csv", "tensorboard"]


@dataclass(frozen=True)
class TrainOptions:
    """How to fit, apart from what is learned: nothing in here belongs into a bundle.

    Args:
        seed: all randomness derives from it and the epoch number.
        device: "auto" (a GPU when there is one), "cpu", "cuda".
        precision: as the Lightning Trainer names it: "32-true", "bf16-mixed".
        threads: torch threads on the CPU; None leaves them as they are.
        progress: show a progress bar.
        validation_callback: called after each epoch with the model; higher is better. It must look at validation rows.
        patience: epochs without a better ``validation_callback`` before training stops; the best epoch is kept.
        folder: where checkpoints and logs go; training that was killed resumes from there at the last whole epoch.
        logger: "none", "csv" or "tensorboard", into ``folder``.
        on_epoch: called after each epoch with the epoch number and its mean training loss.
    """

    seed: int = 0
    device: str = "auto"
    precision: str = "32-true"
    threads: int | None = None
    progress: bool = False
    validation_callback: Callable[[Any], float] | None = None
    patience: int = 5
    folder: Path | None = None
    logger: Logger = "none"
    on_epoch: Callable[[int, float], None] | None = None

    def __post_init__(self) -> None:
        if self.logger != "none" and self.folder is None:
            raise RecipeError(f"logger={self.logger!r} needs a folder to write to: set folder")
        if self.patience < 1:
            raise RecipeError(f"patience={self.patience}: must be at least 1 epoch")


class Recipe(Protocol[M_co]):
    """A frozen dataclass of hyperparameters that can be fitted, or rebuilt around saved weights."""

    @property
    def name(self) -> str:
        """The key in ``palate.models.RECIPES``."""

    def fit(self, train: Dataset, run: TrainOptions = TrainOptions()) -> M_co:
        """Learn from ``train``; the same seed gives the same weights."""

    def build(self, sizes: DataSpec) -> M_co:
        """An untrained model with tables of the right sizes, ready for ``load_state_dict``."""

    @classmethod
    def fast(cls) -> Self:
        """The preset that trains in seconds on two cores."""


class Batch(NamedTuple):
    """Whole tensors for one optimizer step; a recipe uses the fields it needs.

    user (B,), positive (B,) or (B, P), negatives (B, n), weight (B,): row numbers and targets.
    """

    user: Tensor
    item: Tensor
    target: Tensor


class Trainable(Protocol):
    """What a gradient-trained recipe is made of, so that any driver can run it."""

    @property
    def epochs(self) -> int:
        """Passes over the training rows."""

    def build(self, sizes: DataSpec) -> Any:
        """The module to train."""

    def batches(self, train: Dataset, seed: int, epoch: int) -> Iterable[Any]:
        """The batches of one epoch, a function of (seed, epoch) alone."""

    def loss(self, module: Any, batch: Any) -> Tensor:
        """Scalar loss of one batch."""

    def optimizers(self, module: nn.Module) -> list[torch.optim.Optimizer]:
        """The optimizers, each stepping once per batch."""
