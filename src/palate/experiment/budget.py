"""The time that a comparison may take."""

from __future__ import annotations

import math
import time
from dataclasses import dataclass
from typing import Self

from palate.errors import RecipeError


@dataclass(frozen=True)
class Budget:
    """A deadline on the monotonic clock, which the processes of a machine share.

    Args:
        minutes: from start to deadline; None where there is none.
        deadline: seconds of the clock.
    """

    minutes: float | None = None
    deadline: float = math.inf

    @classmethod
    def of(cls, minutes: float | None) -> Self:
        """So many minutes from now; None for no limit.

        Raises:
            RecipeError: minutes is not above 0.
        """
        if minutes is None:
            return cls()
        if not minutes > 0:
            raise RecipeError(f"minutes={minutes:g}: must be above 0")
        return cls(minutes, time.monotonic() + 60 * minutes)

    @property
    def seconds(self) -> float:
        """Seconds left, 0 or more."""
        return max(0.0, self.deadline - time.monotonic())

    @property
    def over(self) -> bool:
        """Whether the deadline has passed."""
        return self.seconds == 0

    @property
    def half(self) -> Budget:
        """A budget that ends with half of the time left."""
        return Budget(self.minutes, time.monotonic() + self.seconds / 2)

    @property
    def words(self) -> str:
        """The minutes in words."""
        return f"{self.minutes:g} minutes" if self.minutes != 1 else "1 minute"

    @property
    def left_in_words(self) -> str:
        """The time that is left, to be put behind a step; nothing without a limit."""
        return "" if self.minutes is None else f", {in_words(self.seconds)} left"


def in_words(seconds: float) -> str:
    """Seconds or minutes, whichever reads better."""
    return f"{seconds:.0f} s" if seconds < 100 else f"{seconds / 60:.0f} min"


UNLIMITED = Budget()
