"""Progress: the one protocol by which long work reports how far it is. The library is silent, the command line renders.

def show(event: ProgressEvent) -> None: print(event)
recipe.fit(train, TrainOptions(progress=show))
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Protocol

__all__ = ["Progress", "ProgressEvent", "silent"]


@dataclass(frozen=True)
class ProgressEvent:
    """One report of progress.

    Args:
        stage: the step of the work, for example "train ease" or "download ml-100k".
        done: units finished, or None where they cannot be counted.
        total: units in all, or None where it is not known.
        unit: name of a unit: "epoch", "trial", "user", "byte".
        message: a line to show as it is, or "".
        values: figures of this step, for example {"loss": 0.41}.
    """

    stage: str
    done: int | None = None
    total: int | None = None
    unit: str = ""
    message: str = ""
    values: Mapping[str, float] = field(default_factory=dict)

    def __str__(self) -> str:
        count = "" if self.done is None else f" {self.done:,}" + ("" if self.total is None else f" of {self.total:,}")
        figures = "".join(f", {name} {value:.4g}" for name, value in self.values.items())
        return f"{self.stage}{': ' + self.unit if self.unit else ''}{count}{figures}" + (
            f": {self.message}" if self.message else ""
        )


class Progress(Protocol):
    """A function that is called with each event, in the order of the work and in the process that asked for it."""

    def __call__(self, event: ProgressEvent, /) -> None:
        """Report one event; it must return quickly and must not raise."""


def silent(event: ProgressEvent, /) -> None:
    """Report nothing: the default everywhere in the library."""
