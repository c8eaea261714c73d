"""One fit and what is measured of it: memory in megabytes."""

from __future__ import annotations

import resource
import sys

import pytest

from palate.base import TrainOptions
from palate.data.splits.split import Split
from palate.experiment import fit_and_measure
from palate.models.popularity import Popularity


@pytest.mark.skipif(sys.platform != "linux", reason="the peak is read from /proc")
def test_the_peak_of_memory_is_in_megabytes(checkerboard: Split) -> None:
    found = fit_and_measure(Popularity(), checkerboard, TrainOptions(), resamples=0)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024  # with that of the parent before a fork
    assert found.memory is not None
    assert 0.2 * peak < found.memory <= 1.01 * peak
