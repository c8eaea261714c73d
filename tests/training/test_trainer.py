"""The adapter to the Lightning Trainer: resume after kill -9, early stopping, loggers, refusals."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from pytorch_lightning.callbacks import Callback, EarlyStopping, ModelCheckpoint

from boards import make_checkerboard
from palate import storage
from palate.base import TrainOptions
from palate.data.splits.split import Split
from palate.errors import RecipeError
from palate.models import EASE, Ensemble
from palate.models.neumf import GMF, MLP
from palate.models.registry import as_table
from palate.progress import ProgressEvent

SMALL = MLP(layers=(8, 8), epochs=6, batch_size=256, learning_rate=0.01, dropout=0.2)

TRAIN = """
import sys, pathlib
sys.path.insert(0, {tests!r})
from boards import make_checkerboard
from palate.models.neumf import MLP
from palate.base import TrainOptions
recipe = MLP(layers=(8, 8), epochs=2000, batch_size=256, learning_rate=0.01, dropout=0.2)
def show(event): print(event.done - 1, flush=True)
recipe.fit(make_checkerboard().train, TrainOptions(seed=7, folder=pathlib.Path({folder!r}), progress=show))
"""


def weights_equal(first: torch.nn.Module, second: torch.nn.Module) -> bool:
    other = second.state_dict()
    return all(torch.equal(value, other[key]) for key, value in first.state_dict().items())


def test_training_killed_with_sigkill_resumes_and_ends_in_the_same_weights(checkerboard: Split, tmp_path: Path) -> None:
    code = TRAIN.format(tests=str(Path(__file__).parents[1]), folder=str(tmp_path))
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        for line in process.stdout:
            if int(line) >= 4:
                process.send_signal(signal.SIGKILL)
                break
        process.wait()
    assert process.returncode == -signal.SIGKILL
    done = max(int(path.name.split("-")[1]) for path in tmp_path.glob("epoch-*.ckpt"))
    assert 2 <= done < 1999

    total = done + 4
    # The label in the folder names 2,000 epochs; a shorter continuation keeps the test quick.
    label = json.loads((tmp_path / "run.json").read_text())
    label["fields"]["epochs"] = total
    (tmp_path / "run.json").write_text(json.dumps(label))
    recipe = replace(SMALL, epochs=total)
    seen: list[int] = []
    resumed = recipe.fit(
        checkerboard.train,
        TrainOptions(seed=7, folder=tmp_path, progress=lambda event: seen.append((event.done or 0) - 1)),
    )
    straight = recipe.fit(checkerboard.train, TrainOptions(seed=7))
    assert seen[0] == done + 1  # not from the start
    assert weights_equal(resumed, straight)


def test_a_folder_of_another_run_is_refused(checkerboard: Split, tmp_path: Path) -> None:
    SMALL.fit(checkerboard.train, TrainOptions(seed=1, folder=tmp_path))
    with pytest.raises(RecipeError, match=r"another run \(seed differ\).*another folder"):
        SMALL.fit(checkerboard.train, TrainOptions(seed=2, folder=tmp_path))
    with pytest.raises(RecipeError, match=r"\(fields differ\)"):
        replace(SMALL, epochs=9).fit(checkerboard.train, TrainOptions(seed=1, folder=tmp_path))


def test_a_finished_folder_gives_the_same_model_without_training(checkerboard: Split, tmp_path: Path) -> None:
    first = SMALL.fit(checkerboard.train, TrainOptions(seed=1, folder=tmp_path))
    epochs: list[int] = []
    again = SMALL.fit(
        checkerboard.train, TrainOptions(seed=1, folder=tmp_path, progress=lambda event: epochs.append(event.done or 0))
    )
    assert epochs == []
    assert weights_equal(first, again)


def test_early_stopping_keeps_the_best_epoch(checkerboard: Split) -> None:
    watched: list[list[torch.Tensor]] = []
    values = [0.1, 0.3, 0.2, 0.25, 0.1, 0.0]

    def validation_callback(model: torch.nn.Module) -> float:
        watched.append([value.detach().clone() for value in model.parameters()])
        return values[len(watched) - 1]

    model = SMALL.fit(checkerboard.train, TrainOptions(validation_callback=validation_callback, patience=2))
    assert len(watched) == 4  # best in the second epoch, then two without a better one
    assert all(torch.equal(best, kept) for best, kept in zip(watched[1], model.parameters(), strict=True))


VALUES = [0.1, 0.3, 0.2, 0.4, 0.2, 0.25]


def early(folder: Path | None, killed: int = 0, said: list[str] | None = None) -> Any:
    """Training that stops early after its fifth epoch, or that an error ends in an epoch before that."""

    def value(model: torch.nn.Module) -> float:
        return VALUES[asked[-1]]

    def show(event: ProgressEvent) -> None:
        if event.message and said is not None:
            said.append(event.message)
        if event.done == killed:
            raise KeyboardInterrupt

    asked: list[int] = []

    class Counted(MLP):
        def batches(self, train, seed, epoch):  # type: ignore[no-untyped-def]
            asked.append(epoch)
            return super().batches(train, seed, epoch)

    recipe = Counted(layers=(8, 8), epochs=6, batch_size=256, learning_rate=0.01, dropout=0.2)
    options = TrainOptions(seed=3, folder=folder, validation_callback=value, patience=2, progress=show)
    try:
        return recipe.fit(make_checkerboard().train, options), asked
    except KeyboardInterrupt:
        return None, asked


def test_early_stopping_ends_in_the_same_weights_killed_anywhere_moved_and_repeated(tmp_path: Path) -> None:
    whole, asked = early(None)
    assert asked == [0, 1, 2, 3, 4, 5]
    for killed in (1, 3, 5, 6):
        folder = tmp_path / f"run {killed}"
        assert early(folder, killed)[0] is None
        moved = folder.rename(tmp_path / f"moved {killed}é")
        resumed, asked = early(moved)
        assert asked == list(range(killed - 1, 6))  # the epoch that was killed, and those behind it
        again, asked = early(moved)
        assert asked == []
        assert weights_equal(resumed, whole)
        assert weights_equal(again, whole)
        names = [path.name[: -len("-0123456789abcdef.ckpt")] for path in moved.glob("*.ckpt")]
        assert sorted(names) == ["best-00001", "best-00003", "epoch-00004", "epoch-00005"]


def test_a_damaged_checkpoint_falls_back_to_the_one_before(tmp_path: Path) -> None:
    whole = early(tmp_path)[0]
    # Without the weights of the best epoch only a start from the beginning gives the same model.
    for name, repeated in (("epoch-00005", [5]), ("epoch-00005", [5]), ("best-00003", [0, 1, 2, 3, 4, 5])):
        (path,) = tmp_path.glob(f"{name}-*")
        content = path.read_bytes()
        path.write_bytes(content[:-1] if repeated == [5] else content[:1000])
        said: list[str] = []
        model, asked = early(tmp_path, said=said)
        assert asked == repeated
        assert said == [f"{path} is damaged: it is removed, and what it held is trained again"]
        assert weights_equal(model, whole)


def test_a_folder_in_use_and_one_without_its_description_are_refused(checkerboard: Split, tmp_path: Path) -> None:
    with storage.lock(tmp_path / ".lock"), pytest.raises(RecipeError, match="another process trains in"):
        SMALL.fit(checkerboard.train, TrainOptions(folder=tmp_path))
    for left in ("best-epoch=3.ckpt", "last.ckpt", ".palate-tmp-12ab-epoch-00001.ckpt", "notes.txt"):
        (tmp_path / left).write_text("left by an earlier version, a killed run, or somebody else")
    SMALL.fit(checkerboard.train, TrainOptions(folder=tmp_path))
    names = {path.name.split("-")[0] for path in tmp_path.iterdir()}
    assert names == {".lock", "run.json", "epoch", "notes.txt"}
    other = replace(checkerboard.train, interactions=checkerboard.test.interactions)
    with pytest.raises(RecipeError, match=r"another run \(data differ\)"):
        SMALL.fit(other, TrainOptions(folder=tmp_path))
    label = (tmp_path / "run.json").read_text()
    (tmp_path / "run.json").write_text(label.replace('"version": 2', '"version": 3'))
    with pytest.raises(RecipeError, match=r"another run \(version differ\)"):
        SMALL.fit(checkerboard.train, TrainOptions(folder=tmp_path))
    for damaged in ("[", "[1]", ""):
        (tmp_path / "run.json").write_text(damaged)
        with pytest.raises(RecipeError, match="is missing or damaged"):
            SMALL.fit(checkerboard.train, TrainOptions(folder=tmp_path))


def test_a_checkpoint_is_written_after_each_epoch(checkerboard: Split, tmp_path: Path) -> None:
    there: list[list[int]] = []

    def value(model: torch.nn.Module) -> float:
        there.append(sorted(int(path.name.split("-")[1]) for path in tmp_path.glob("epoch-*")))
        return -len(there)  # no epoch is better than the first

    SMALL.fit(checkerboard.train, TrainOptions(folder=tmp_path, validation_callback=value, patience=9))
    assert there == [[], [0], [0, 1], [1, 2], [2, 3], [3, 4]]


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_validation_metric_that_is_no_number_is_an_error(checkerboard: Split, value: float) -> None:
    values = iter([0.5, value])
    with pytest.raises(RecipeError, match=f"the validation metric became {value} in epoch 2"):
        SMALL.fit(checkerboard.train, TrainOptions(validation_callback=lambda model: next(values)))


def test_every_epoch_asks_for_its_own_batches_once(checkerboard: Split, tmp_path: Path) -> None:
    asked: list[int] = []

    class Spy(MLP):
        def batches(self, train, seed, epoch):  # type: ignore[no-untyped-def]
            asked.append(epoch)
            return super().batches(train, seed, epoch)

    Spy(layers=(8, 8), epochs=3).fit(checkerboard.train, TrainOptions(folder=tmp_path))
    assert asked == [0, 1, 2]


def test_loss_falls_and_is_reported_per_epoch(checkerboard: Split) -> None:
    events: list[ProgressEvent] = []
    SMALL.fit(checkerboard.train, TrainOptions(progress=events.append))
    assert [(event.stage, event.done, event.total) for event in events] == [
        ("train mlp", epoch, 6) for epoch in range(1, 7)
    ]
    assert events[-1].values["loss"] < events[0].values["loss"]


def test_gpu_is_another_name_for_cuda_and_a_missing_device_is_refused() -> None:
    for device in ("gpu", "cuda", "mps"):
        available = torch.backends.mps.is_available() if device == "mps" else torch.cuda.is_available()
        if available:
            assert TrainOptions(device=device).device == {"gpu": "cuda"}.get(device, device)  # type: ignore[arg-type]
        else:
            with pytest.raises(RecipeError, match="choose 'auto' or 'cpu'"):
                TrainOptions(device=device)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "fields", [{"device": "gpus"}, {"precision": "half"}, {"seed": -1}, {"threads": 0}, {"patience": 10**12}]
)
def test_options_out_of_bounds_are_refused_when_constructed(fields: dict[str, Any]) -> None:
    (name,) = fields
    with pytest.raises(RecipeError, match=rf"^training options, field {name}="):
        TrainOptions(**fields)


@pytest.mark.parametrize("logger", ["csv", "tensorboard"])
def test_loggers_write_into_the_folder(checkerboard: Split, tmp_path: Path, logger: str) -> None:
    if logger == "tensorboard":
        pytest.importorskip("tensorboard")
    run = TrainOptions(folder=tmp_path, logger=logger)  # type: ignore[arg-type]
    replace(SMALL, epochs=2).fit(checkerboard.train, run)
    files = [path.name for path in (tmp_path / "log").rglob("*") if path.is_file()]
    assert any("metrics.csv" in name or "tfevents" in name for name in files)
    if logger == "csv":
        assert "train_loss" in (tmp_path / "log" / "version_0" / "metrics.csv").read_text()


def test_settings_that_make_no_sense_are_refused() -> None:
    with pytest.raises(RecipeError, match="needs a folder"):
        TrainOptions(logger="csv")
    with pytest.raises(RecipeError, match="patience=0"):
        TrainOptions(patience=0)
    with pytest.raises(RecipeError, match="epochs=-1"):
        GMF(epochs=-1)
    with pytest.raises(RecipeError, match="learning_rate=0"):
        GMF(learning_rate=0)
    with pytest.raises(RecipeError, match="must be even"):
        MLP(layers=(7, 3))


def test_a_diverging_loss_is_an_error_with_a_remedy(checkerboard: Split) -> None:
    with pytest.raises(RecipeError, match="lower the learning rate"):
        replace(SMALL, learning_rate=1e12, epochs=20).fit(checkerboard.train, TrainOptions())


def test_threads_are_set_for_the_run_only(checkerboard: Split) -> None:
    before = torch.get_num_threads()
    inside: list[int] = []
    replace(SMALL, epochs=1).fit(
        checkerboard.train, TrainOptions(threads=2, progress=lambda event: inside.append(torch.get_num_threads()))
    )
    assert inside == [2]
    assert torch.get_num_threads() == before


def test_a_program_that_sets_no_threads_trains_on_one_and_gets_its_own_number_back() -> None:
    code = (
        "import torch, palate, polars as pl\n"
        "torch.get_num_threads() > 1 or sys.exit('one core')\n"
        "train = palate.from_frame(pl.DataFrame({'user': [1, 1, 2, 2, 3], 'item': [1, 2, 2, 3, 1]}))\n"
        "inside, before = [], torch.get_num_threads()\n"
        "options = palate.TrainOptions(device='cpu', progress=lambda event: inside.append(torch.get_num_threads()))\n"
        "palate.GMF(epochs=1).fit(train, options)\n"
        "assert inside == [1] and torch.get_num_threads() == before, inside\n"
        "torch.set_num_threads(before + 1)\n"
        "palate.GMF(epochs=1).fit(train, options)\n"
        "assert inside == [1, before + 1], inside"
    )
    environment = {name: value for name, value in os.environ.items() if name != "OMP_NUM_THREADS"}
    done = subprocess.run(
        [sys.executable, "-c", f"import sys\n{code}"], capture_output=True, text=True, check=False, env=environment
    )
    if done.stderr.strip() == "one core":
        pytest.skip("torch has one thread here whatever is set")
    assert done.returncode == 0, done.stderr


class Watching(Callback):
    """Counts the hooks that it hears, and keeps the module."""

    def __init__(self) -> None:
        self.epochs, self.batches, self.nets = 0, 0, list[str]()

    def on_train_start(self, trainer: Any, pl_module: Any) -> None:
        self.nets.append(type(pl_module.net).__name__)

    def on_train_batch_end(self, *_: Any) -> None:
        self.batches += 1

    def on_train_epoch_end(self, *_: Any) -> None:
        self.epochs += 1


def test_lightning_callbacks_are_called_and_change_no_weights(checkerboard: Split) -> None:
    watching = Watching()
    model = SMALL.fit(checkerboard.train, TrainOptions(seed=3, callbacks=(watching,)))
    assert watching.nets == [type(model).__name__]
    assert watching.epochs == SMALL.epochs
    assert watching.batches % SMALL.epochs == 0
    assert watching.batches >= SMALL.epochs
    assert weights_equal(model, SMALL.fit(checkerboard.train, TrainOptions(seed=3)))


def test_a_callback_of_lightning_stops_training_and_one_keeps_checkpoints(checkerboard: Split, tmp_path: Path) -> None:
    watching = Watching()
    stop = EarlyStopping("train_loss", patience=1, mode="max")
    keep = ModelCheckpoint(tmp_path, filename="mine")
    SMALL.fit(checkerboard.train, TrainOptions(callbacks=(watching, stop, keep)))  # type: ignore[arg-type]
    assert watching.epochs < SMALL.epochs  # the loss falls, so it is soon below its first value
    assert (tmp_path / "mine.ckpt").exists()


def test_callbacks_reach_members_that_are_trained_and_no_others(checkerboard: Split) -> None:
    watching = Watching()
    both = Ensemble(members=({"recipe": "ease"}, as_table(SMALL)))
    both.fit(checkerboard.train, TrainOptions(callbacks=(watching,)))
    assert watching.epochs == SMALL.epochs
    with pytest.raises(RecipeError, match="recipe ease is not trained by gradient descent"):
        EASE().fit(checkerboard.train, TrainOptions(callbacks=(watching,)))
