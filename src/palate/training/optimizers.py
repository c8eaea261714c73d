"""Learning rates that fall during training."""

from __future__ import annotations

from typing import Any, TypeVar

from torch.optim import Optimizer

Kind = TypeVar("Kind", bound=Optimizer)


def decaying(optimizer: Kind, steps: int) -> Kind:
    """The optimizer, with learning rates that fall linearly to nearly zero over ``steps``; 0 keeps them."""
    for group in optimizer.param_groups:
        group["initial_lr"] = group["lr"]

    def decay(optimizer: Optimizer, args: Any, kwargs: Any) -> None:
        # A step from the present rate rather than a function of a step count: Lightning restores the rate of each
        # group with the optimizer's state, so a resumed run decays on.
        for group in optimizer.param_groups:
            group["lr"] = max(group["lr"] - group["initial_lr"] / (steps + 1), 0.0)

    if steps:
        optimizer.register_step_post_hook(decay)
    return optimizer
