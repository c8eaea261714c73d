"""The precision in which sequence models are trained: whichever this machine is faster in, as measured.

Processors differ: bfloat16 halves the time on one that multiplies it at twice the rate, and costs half as much again on
one that does not. Either is the same recipe with other roundings, so figures of two machines may differ a little.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from functools import cache
from statistics import median

import torch

from palate.base import TrainOptions
from palate.training.losses import chunked_softmax

__all__ = ["quickest"]

ROUNDS = 7


def quickest(run: TrainOptions) -> TrainOptions:
    """``run`` in bfloat16 mixed precision where that is faster, otherwise as it is."""
    return replace(run, precision="bf16-mixed") if _half_is_faster() else run


@cache
def _half_is_faster() -> bool:
    """Times the step that takes most of the time, the softmax over a catalog, in both, which takes a moment."""
    x_TD, table_ID = torch.randn(512, 64), torch.randn(3_700, 64)
    bias_I, target_T = torch.zeros(3_700), torch.arange(512)

    def seconds(context: Callable[[], AbstractContextManager[object]]) -> float:
        begin = time.thread_time()
        with context():
            chunked_softmax(x_TD, table_ID, bias_I, target_T)
        return time.thread_time() - begin

    def half() -> AbstractContextManager[object]:
        return torch.autocast("cpu", torch.bfloat16)

    with torch.random.fork_rng(), torch.no_grad():
        taken = [(seconds(half), seconds(nullcontext)) for _ in range(ROUNDS)][1:]  # one to warm up
    return median(one for one, _ in taken) < 0.9 * median(other for _, other in taken)
