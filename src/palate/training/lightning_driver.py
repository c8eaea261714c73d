"""The Lightning module and Trainer that run a trainable recipe: the only file that imports pytorch_lightning.

``trainer`` imports it when something is fitted, since the import takes seconds: recommending must not wait for it.
"""

from __future__ import annotations

import contextlib
import logging
import math
import os
import warnings
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, cast

import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import Checkpoint
from pytorch_lightning.loggers import CSVLogger, Logger, MLFlowLogger, TensorBoardLogger, WandbLogger
from pytorch_lightning.plugins.io import TorchCheckpointIO
from torch import Tensor, nn

from palate import signals
from palate.base import Trainable, TrainOptions
from palate.data.dataset import Dataset
from palate.errors import RecipeError
from palate.progress import ProgressEvent
from palate.training.checkpoints import Checkpoints, write


def drive(
    recipe: Trainable, module: nn.Module, train: Dataset, options: TrainOptions, checkpoints: Checkpoints | None
) -> None:
    """Train ``module`` in place; training resumes from the last of ``checkpoints``, where there is one.

    With a validation callback the module ends with the weights of the best epoch, otherwise with those of the last.

    Raises:
        RecipeError: the loss or the validation metric became infinite or not a number, or the logger is not installed.
    """
    driver = _Driver(recipe, module, train, options)
    found = checkpoints.newest(options.progress) if checkpoints else None
    if checkpoints is not None and found is not None:
        driver.on_load_checkpoint(found[1])
        if driver.best_epoch >= 0:
            driver.best_weights = checkpoints.best(driver.best_epoch, options.progress)
            if driver.best_weights is None:
                found, driver = None, _Driver(recipe, module, train, options)
    if found is None and checkpoints is not None:
        checkpoints.clear()
    if found is not None and driver.ended(int(found[1]["epoch"])):
        state = {key.removeprefix("net."): value for key, value in found[1]["state_dict"].items()}
        module.load_state_dict(state)
    else:
        path = None if found is None else found[0]
        del found  # as large as three models: Lightning reads its own
        with _quiet(), signals.undisturbed():
            trainer = _trainer(recipe, options, checkpoints)
            trainer.fit(driver, ckpt_path=path, weights_only=True if path else None)
    if driver.best_weights is not None:
        module.load_state_dict(driver.best_weights)


def epoch_seed(seed: int, epoch: int) -> int:
    """Seed of torch's random numbers in one epoch; epoch -1 is the initial weights."""
    return (seed * 1_000_003 + (epoch + 1) * 7_919) % 2**63


class _Driver(pl.LightningModule):
    def __init__(self, recipe: Trainable, module: nn.Module, train: Dataset, options: TrainOptions) -> None:
        super().__init__()
        self.net = module
        self.recipe, self.rows, self.options = recipe, train, options
        self.first_epoch = 0
        self.best_epoch, self.best_value = -1, -math.inf
        self.best_weights: dict[str, Tensor] | None = None  # on the CPU
        self._losses: list[Tensor] = []  # read once per epoch: reading each step would wait for the GPU

    def configure_optimizers(self) -> Any:
        return self.recipe.optimizers(self.net)

    def train_dataloader(self) -> Iterable[Any]:
        return _Epochs(self)

    def ended(self, epoch: int) -> bool:
        """Whether no epoch follows this one."""
        watching = self.options.validation_callback is not None
        return epoch + 1 >= self.recipe.epochs or (watching and epoch - self.best_epoch >= self.options.patience)

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        checkpoint["best"] = {"epoch": self.best_epoch, "value": self.best_value}

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        # Lightning fetches the first batch of a resumed run before it has moved on to the next epoch.
        self.first_epoch = int(checkpoint["epoch"]) + 1
        self.best_epoch, self.best_value = checkpoint["best"]["epoch"], checkpoint["best"]["value"]

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
            raise RecipeError(f"training loss became {mean} in epoch {self.current_epoch + 1}: lower the learning rate")
        measured = {"train_loss": mean}
        if self.options.validation_callback is not None:
            self.net.eval()  # no dropout while it is measured
            value = measured["validation_callback"] = float(self.options.validation_callback(self.net))
            self.net.train()
            if not math.isfinite(value):
                raise RecipeError(
                    f"the validation metric became {value} in epoch {self.current_epoch + 1}: lower the learning rate, "
                    "or take validation rows on which the metric is defined"
                )
            if value > self.best_value:
                self.best_epoch, self.best_value = self.current_epoch, value
        self.log_dict(measured)
        done = self.current_epoch + 1
        values = {"loss": mean}
        if "validation_callback" in measured:
            values["validation"] = measured["validation_callback"]
        self.options.progress(
            ProgressEvent(f"train {self.recipe.name}", done, self.recipe.epochs, "epoch", values=values)
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


class _Keeper(Checkpoint):
    """Keeps the state after each epoch and the weights of the best one, and stops where patience has run out."""

    def __init__(self, checkpoints: Checkpoints | None) -> None:
        self.checkpoints = checkpoints

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        driver = cast(_Driver, pl_module)
        epoch = driver.current_epoch
        if driver.best_epoch == epoch:
            driver.best_weights = {key: value.detach().cpu().clone() for key, value in driver.net.state_dict().items()}
            if self.checkpoints is not None:
                self.checkpoints.write_best(epoch, driver.best_weights)
        if self.checkpoints is not None:
            self.checkpoints.write_epoch(epoch, trainer.save_checkpoint)
        trainer.should_stop = trainer.should_stop or driver.ended(epoch)


class _Files(TorchCheckpointIO):
    """Writes where it is told to: Lightning writes into TMPDIR and moves, which may be a copy and cut short."""

    def save_checkpoint(self, checkpoint: dict[str, Any], path: Any, storage_options: Any = None) -> None:
        Path(path).parent.mkdir(parents=True, exist_ok=True)  # checkpoints of a callback of the caller
        write(checkpoint, Path(path))


def _trainer(recipe: Trainable, options: TrainOptions, checkpoints: Checkpoints | None) -> pl.Trainer:
    keeps = checkpoints is not None or options.validation_callback is not None
    return pl.Trainer(
        accelerator={"cuda": "gpu"}.get(options.device, options.device),
        devices=1,
        precision=cast(Any, options.precision),
        max_epochs=recipe.epochs,
        callbacks=[*options.callbacks, *([_Keeper(checkpoints)] if keeps else [])],
        plugins=[_Files()],
        logger=_logger(options),
        log_every_n_steps=50,
        enable_checkpointing=keeps or any(isinstance(one, Checkpoint) for one in options.callbacks),
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
        if options.logger == "tensorboard":
            return TensorBoardLogger(options.folder, name="log")
        if options.logger == "wandb":
            return WandbLogger(project=os.environ.get("WANDB_PROJECT", "palate"), save_dir=options.folder)
        home = (options.folder / "log").absolute()
        home.mkdir(exist_ok=True)
        return MLFlowLogger(
            os.environ.get("MLFLOW_EXPERIMENT_NAME", "palate"),
            # A database in the folder; the logger's own default is a store of files, which MLflow gives up.
            tracking_uri=os.environ.get("MLFLOW_TRACKING_URI") or f"sqlite:///{home}/mlflow.db",
            artifact_location=None if os.environ.get("MLFLOW_TRACKING_URI") else home.as_uri(),
        )
    except ModuleNotFoundError as error:
        extra = options.logger
        raise RecipeError(f"logger={extra!r} needs an extra: pip install 'palate[{extra}]'") from error


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
