"""Fitting a recipe by gradient descent, in a folder that can be resumed.

Lightning brings the loop, progress, early stopping, checkpoints, resume, loggers, devices and precision. Training
killed at any moment resumes at its last whole epoch and ends in the same weights, because every batch is a function
of (seed, epoch).
"""

from __future__ import annotations

import contextlib
import json
import tempfile
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any, cast

import torch
from torch import nn

from palate.base import DataSpec, Trainable, TrainOptions
from palate.data.dataset import Dataset
from palate.errors import RecipeError


def fit(recipe: Trainable, train: Dataset, options: TrainOptions, start: nn.Module | None = None) -> nn.Module:
    """Train ``recipe.build(...)`` (or ``start``) for ``recipe.epochs`` passes and return it in eval mode on the CPU.

    With a validation callback the weights of the best epoch come back, else those of the last. With ``options.folder``
    a checkpoint is written after each epoch, and a folder that holds one is resumed.

    Raises:
        RecipeError: the folder belongs to another recipe, seed or data set.
    """
    if len(train) == 0:
        raise RecipeError(f"{train.name} has no rows to train on")
    from palate.training.lightning_driver import drive, epoch_seed  # imports Lightning, which takes seconds

    # Forked, so that the caller's random numbers go on as if nothing had been trained.
    with _threads(options.threads), torch.random.fork_rng(), contextlib.ExitStack() as stack:
        torch.manual_seed(epoch_seed(options.seed, -1))
        module = start or recipe.build(DataSpec(train.n_users, train.n_items))
        # The best epoch must be kept somewhere: a validation callback without a folder gets a temporary one.
        keep = options.folder is not None or options.validation_callback is not None
        folder = options.folder or (Path(stack.enter_context(tempfile.TemporaryDirectory())) if keep else None)
        last = _claim(folder, recipe, train, options) if folder else None
        drive(recipe, module, train, options, folder, last)
    return module.cpu().eval()


def _claim(folder: Path, recipe: Trainable, train: Dataset, options: TrainOptions) -> Path | None:
    """Write down whose folder this is, or check it; returns the checkpoint to resume from, if any."""
    facts = {"recipe": type(recipe).__name__, "fields": asdict(cast(Any, recipe)), "seed": options.seed}
    # Through JSON and back, so that tuples become lists: as such they are read from the folder.
    mine = json.loads(json.dumps({**facts, "data": train.fingerprint.digest}))
    folder.mkdir(parents=True, exist_ok=True)
    label, last = folder / "run.json", folder / "last.ckpt"
    if last.exists():
        theirs = json.loads(label.read_text()) if label.exists() else {}
        different = sorted(key for key in mine if theirs.get(key) != mine[key])
        if different:
            raise RecipeError(
                f"{folder} holds a checkpoint of another run ({', '.join(different)} differ): "
                "give another folder, or delete this one"
            )
        return last
    label.write_text(json.dumps(mine, indent=2))
    return None


@contextlib.contextmanager
def _threads(count: int | None) -> Iterator[None]:
    before = torch.get_num_threads()
    if count is not None:
        torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)
