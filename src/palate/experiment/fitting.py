"""What is done for one entrant: its setting chosen, then one fit per seed; each step unless its result is there."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass
from functools import partial
from typing import Any

from palate.base import Recipe
from palate.errors import EvaluationError
from palate.experiment.baselines import Entrant, as_plain, from_plain
from palate.experiment.results import Outcome
from palate.experiment.run_folder import RunFolder
from palate.experiment.worker_process import Worker

__all__ = ["Fitting", "Settings"]

LENGTHS = (1, 5, 10, 20, 50)


@dataclass(frozen=True)
class Settings:
    """How a comparison measures; one value for all models.

    Args:
        k: list length that decides.
        seeds: each model is fitted once with each.
        patience: of recipes trained by gradients, epochs without a better NDCG@k on validation rows before training
            stops; those rows then come out of their training. None trains on all training rows for all epochs.
        resamples: of intervals and of the tests.
        memory: what evaluation may hold beside model and data, such as "512MB"; None leaves the default.
        device, precision, threads: as ``palate.TrainOptions`` takes them.
    """

    k: int = 10
    seeds: tuple[int, ...] = (0,)
    patience: int | None = None
    resamples: int = 10_000
    memory: str | None = None
    device: str = "auto"
    precision: str = "32-true"
    threads: int | None = None

    def __post_init__(self) -> None:
        if self.k < 1:
            raise EvaluationError(f"k={self.k}: must be at least 1")
        if not self.seeds or len(set(self.seeds)) < len(self.seeds) or min(self.seeds) < 0:
            raise EvaluationError(f"seeds={list(self.seeds)}: give at least one, each once, none below zero")
        if self.resamples < 1:
            raise EvaluationError(f"resamples={self.resamples}: tests need at least 1, 10,000 is a good number")

    @property
    def lengths(self) -> list[int]:
        """All list lengths that are measured."""
        return sorted({*LENGTHS, self.k})


@dataclass(frozen=True)
class Fitting:
    """The steps of one entrant.

    Args:
        home: the folder of the comparison, with the split.
        worker: does what is not there yet.
        entrant: whose steps these are.
        settings: of the comparison.
        tell: called with how many steps are done and what is going on.
    """

    home: RunFolder
    worker: Worker
    entrant: Entrant
    settings: Settings
    tell: Callable[[int, str], None]

    def outcome(self) -> Outcome | str:
        """All results of the entrant, or the reason why there are none."""
        recipe, words, done = self.entrant.recipe, None, 0
        if self.entrant.grid:
            chosen = self._tuned()
            if isinstance(chosen, str):
                return chosen
            (recipe, words), done = chosen, 1
        for number, seed in enumerate(self.settings.seeds):
            reason = self._fitted(recipe, seed, done + number)
            if reason:
                return reason
        return self._collected(recipe, words)

    def _tuned(self) -> tuple[Recipe[Any], str] | str:
        """The chosen setting and the choice in words, or the reason if there is none."""
        grid, name = [as_plain(one) for one in self.entrant.grid], self.entrant.name
        if self.home.result(name, "tuned", grid) is None:
            job = {"do": "tune", "grid": grid, **self._common(self.settings.seeds[0])}
            reason = self.worker.do(job, partial(self._step, 0, name))
            if reason:
                return reason
        result = self.home.result(name, "tuned", grid)
        assert result is not None
        return from_plain(result["best"]), result["words"]

    def _fitted(self, recipe: Recipe[Any], seed: int, done: int) -> str | None:
        """Make sure that a result is there; the reason if it is not."""
        plain, name = as_plain(recipe), self.entrant.name
        if self.home.result(name, f"seed{seed}", plain) is not None:
            return None
        who = f"{name}, seed {seed}" if len(self.settings.seeds) > 1 else name
        return self.worker.do({"do": "fit", "recipe": plain, **self._common(seed)}, partial(self._step, done, who))

    def _step(self, done: int, who: str, what: str) -> None:
        self.tell(done, f"{who}: {what}")

    def _collected(self, recipe: Recipe[Any], words: str | None) -> Outcome:
        name, plain = self.entrant.name, as_plain(recipe)
        results = {seed: self.home.result(name, f"seed{seed}", plain) or {} for seed in self.settings.seeds}
        users = {
            (seed, ranking): self.home.per_user(name, f"seed{seed}", ranking)
            for seed, result in results.items()
            for ranking in ("full", "sampled")
            if result[ranking]
        }
        if self.entrant.role == "baseline" and words is None:
            words = "nothing to choose"
        return Outcome(name, self.entrant.role, plain, words, results, users)

    def _common(self, seed: int) -> dict[str, Any]:
        fields = asdict(self.settings)
        del fields["seeds"]
        return {**fields, "lengths": self.settings.lengths, "name": self.entrant.name, "seed": seed}
