"""What every test file shares: one torch thread, the real data sets or a counted skip, and small data sets."""

from __future__ import annotations

import os

# Before torch is imported: two OpenMP threads on two busy cores can be many times slower than one.
os.environ.setdefault("OMP_NUM_THREADS", "1")
if "PALATE_DATA" in os.environ:
    os.environ["PALATE_DATA"] = os.path.abspath(os.environ["PALATE_DATA"])

import hypothesis
import pytest

from boards import make_checkerboard
from palate.data.dataset import Dataset
from palate.data.splits.split import Split
from palate.data.splits.strategies import leave_one_out
from palate.errors import SourceError

# The same examples in every run: a change is never blamed for what a draw of the day has found. `make properties`
# draws new ones.
hypothesis.settings.register_profile("suite", derandomize=True)
if "PALATE_RANDOM" not in os.environ:
    hypothesis.settings.load_profile("suite")


def pytest_runtest_setup(item: pytest.Item) -> None:
    if item.get_closest_marker("slow") and "PALATE_SLOW" not in os.environ:
        pytest.skip("takes many seconds, and quicker tests cover most of it: `make slow` runs it")


@pytest.fixture(scope="session")
def ml_100k() -> Dataset:
    """The real MovieLens 100K, from whichever source answers; skipped and counted where none does."""
    from palate.datasets.registry import load

    try:
        return load("ml-100k", min_rating="any")
    except SourceError as error:
        pytest.skip(f"ml-100k cannot be had here: {error}")


@pytest.fixture(scope="session")
def ml_100k_loo(ml_100k: Dataset) -> Split:
    return leave_one_out(ml_100k, cold="keep")


@pytest.fixture(scope="session")
def ncf_ml_1m() -> Split:
    from palate.datasets.registry import load_split

    try:
        return load_split("ncf-ml-1m")
    except SourceError as error:
        pytest.skip(f"ncf-ml-1m cannot be had here: {error}")


@pytest.fixture(scope="session")
def checkerboard() -> Split:
    return make_checkerboard()
