"""The Lightning module and Trainer that run a trainable recipe: the only file that imports pytorch_lightning.

``trainer`` imports it when something is fitted, since the import takes seconds: recommending must not wait for it.
"""

from __future__ import annotations

import contextlib
import logging
import math
import warnings
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, cast

import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import EarlyStopping, ModelCheckpoint
from pytorch_lightning.loggers import CSVLogger, Logger, TensorBoardLogger
from torch import Tensor, nn

from palate import signals
from palate.base import Trainable, TrainOptions
from palate.data.dataset import Dataset
from palate.errors import RecipeError
from palate.progress import ProgressEvent


def drive(
    recipe: Trainable, module: nn.Module, train: Dataset, options: TrainOptions, folder: Path | None, last: Path | None
) -> None:
    """Train ``module`` in place: checkpoints go into ``folder``; training resumes from ``last`` where given.

    With a validation callback the module ends with the weights of the best epoch, otherwise with those of the last.

    Raises:
        RecipeError: the loss became infinite or not a number, or the logger is not installed.
    """
    with _quiet(), signals.undisturbed():
        trainer = _trainer(recipe, options, folder)
        trainer.fit(_Driver(recipe, module, train, options), ckpt_path=last, weights_only=True if last else None)
    if options.validation_callback is not None:
        # The checkpoint is of the driver, whose network is named net; on the CPU, so that no second copy is on the GPU.
        checkpoint = cast(ModelCheckpoint, trainer.checkpoint_callback)
        state = torch.load(checkpoint.best_model_path, map_location="cpu", weights_only=True)["state_dict"]
        module.load_state_dict({key.removeprefix("net."): value for key, value in state.items()})


def epoch_seed(seed: int, epoch: int) -> int:
    """Seed of torch's random numbers in one epoch; epoch -1 is the initial weights."""
    return (seed * 1_000_003 + (epoch + 1) * 7_919) % 2**63


class _Driver(pl.LightningModule):
    def __init__(self, recipe: Trainable, module: nn.Module, train: Dataset, options: TrainOptions) -> None:
        super().__init__()
        self.net = module
        self.recipe, self.rows, self.options = recipe, train, options
        self.first_epoch = 0
        self._losses: list[Tensor] = []  # read once per epoch: reading each step would wait for the GPU

    def configure_optimizers(self) -> Any:
        return self.recipe.optimizers(self.net)

    def train_dataloader(self) -> Iterable[Any]:
        return _Epochs(self)

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        # Lightning fetches the first batch of a resumed run before it has moved on to the next epoch.
        self.first_epoch = int(checkpoint["epoch"]) + 1

    def on_train_epoch_start(self) -> None:
        torch.manual_seed(epoch_seed(self.options.seed, self.current_epoch))  # dropout
        self._losses.clear()

    def training_step(self, batch: Any, batch_index: int) -> Tensor:
        loss = self.recipe.loss(self.net, batch)
        self._losses.append(loss.detach())
        return loss

    def on_train_epoch_end(self) -> None:
        mean = float(torch.stack(self._losses).mean()) if self._losses else 0.0
        if not math.isfinite(mean):
            raise RecipeError(f"training loss became {mean} in epoch {self.current_epoch}: lower the learning rate")
        measured = {"train_loss": mean}
        if self.options.validation_callback is not None:
            self.net.eval()  # no dropout while it is measured
            measured["validation_callback"] = float(self.options.validation_callback(self.net))
            self.net.train()
        self.log_dict(measured)
        done = self.current_epoch + 1
        self.options.progress(
            ProgressEvent(f"train {self.recipe.name}", done, self.recipe.epochs, "epoch", values={"loss": mean})
        )


class _Epochs:
    """An iterable that Lightning iterates once per epoch; it asks the driver which epoch that is.

    A generator, because Lightning also calls ``iter`` once just to see whether it can: that must cost nothing.
    """

    def __init__(self, driver: _Driver) -> None:
        self.driver = driver

    def __iter__(self) -> Iterator[Any]:
        driver = self.driver
        epoch = max(driver.current_epoch, driver.first_epoch)
        yield from driver.recipe.batches(driver.rows, driver.options.seed, epoch)


def _trainer(recipe: Trainable, options: TrainOptions, folder: Path | None) -> pl.Trainer:
    callbacks: list[pl.Callback] = []
    watching = options.validation_callback is not None
    watched: dict[str, Any] = {"monitor": "validation_callback", "mode": "max"} if watching else {}
    if folder is not None:
        callbacks.append(ModelCheckpoint(folder, filename="best-{epoch}", save_last=True, every_n_epochs=1, **watched))
    if watched:
        callbacks.append(EarlyStopping(**watched, patience=options.patience))
    return pl.Trainer(
        accelerator={"cuda": "gpu"}.get(options.device, options.device),
        devices=1,
        precision=cast(Any, options.precision),
        max_epochs=recipe.epochs,
        callbacks=callbacks,
        logger=_logger(options),
        log_every_n_steps=50,
        enable_checkpointing=folder is not None,
        enable_progress_bar=False,  # options.progress reports
        enable_model_summary=False,
        use_distributed_sampler=False,
    )


def _logger(options: TrainOptions) -> Logger | bool:
    if options.logger == "none" or options.folder is None:
        return False
    # No fixed version: a resumed run logs beside the files of the killed one, not over them.
    if options.logger == "csv":
        return CSVLogger(options.folder, name="log")
    try:
        return TensorBoardLogger(options.folder, name="log")
    except ModuleNotFoundError as error:
        raise RecipeError("logger='tensorboard' needs an extra: pip install 'palate[tensorboard]'") from error


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Hide Lightning's start-up lines and its advice about data loaders, which this driver does not use."""
    logger = logging.getLogger("pytorch_lightning")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", module=r"pytorch_lightning\..*")
            yield
    finally:
        logger.setLevel(level)
