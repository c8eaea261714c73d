"""Fitting a recipe by gradient descent, in a folder that can be resumed.

Lightning brings the loop, progress, early stopping, checkpoints, resume, loggers, devices and precision. Training
killed at any moment resumes at its last whole epoch and ends in the same weights, because every batch is a function
of (seed, epoch).
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from dataclasses import asdict
from typing import Any, cast

import torch
from torch import nn

from palate.base import DataSpec, Trainable, TrainOptions
from palate.data.dataset import Dataset
from palate.errors import RecipeError
from palate.training.checkpoints import Checkpoints

TORCH_THREADS = torch.get_num_threads()  # unless a program sets another number, which then counts


def fit(recipe: Trainable, train: Dataset, options: TrainOptions, start: nn.Module | None = None) -> nn.Module:
    """Train ``recipe.build(...)`` (or ``start``) for ``recipe.epochs`` passes and return it in eval mode on the CPU.

    With a validation callback the weights of the best epoch come back, else those of the last. With ``options.folder``
    a checkpoint is written after each epoch, and a folder that holds one is resumed: the same call ends in the same
    weights, whether it was never killed, killed anywhere, or has ended before. See ``palate.training.checkpoints``.

    Raises:
        RecipeError: the folder belongs to another recipe, seed or data set, or another process trains in it.
    """
    if len(train) == 0:
        raise RecipeError(f"{train.name} has no rows to train on")
    from palate.training.lightning_driver import drive, epoch_seed  # imports Lightning, which takes seconds

    # Forked, so that the caller's random numbers go on as if nothing had been trained.
    with _threads(options.threads), torch.random.fork_rng(), contextlib.ExitStack() as stack:
        torch.manual_seed(epoch_seed(options.seed, -1))
        module = start or recipe.build(DataSpec(train.n_users, train.n_items))
        checkpoints = None
        if options.folder is not None:
            checkpoints = Checkpoints(options.folder)
            stack.enter_context(checkpoints.claimed(_about(recipe, train, options)))
        drive(recipe, module, train, options, checkpoints)
    return module.cpu().eval()


def _about(recipe: Trainable, train: Dataset, options: TrainOptions) -> dict[str, Any]:
    """What the weights are a function of, the validation rows apart, which nothing here can tell."""
    return {
        "recipe": type(recipe).__name__,
        "fields": asdict(cast(Any, recipe)),
        "seed": options.seed,
        "precision": options.precision,
        "early stopping": options.validation_callback is not None,
        "data": train.fingerprint.digest,
    }


@contextlib.contextmanager
def _threads(count: int | None) -> Iterator[None]:
    before = torch.get_num_threads()
    # torch takes every core by default: two fits side by side then wait for each other, several times slower.
    if count is None and before == TORCH_THREADS and not os.environ.get("OMP_NUM_THREADS"):
        count = 1
    if count is not None:
        torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)
