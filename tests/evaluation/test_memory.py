"""The memory bound of evaluation is honoured, and used, by a real process with 100,000 items."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from palate.data.splits.split import Split
from palate.errors import EvaluationError
from palate.evaluation.evaluate import evaluate, evaluate_lists
from palate.evaluation.rankings import Lists
from palate.models.popularity import Popularity
from palate.training.negative_sampling import draw_candidates

# Makes 3,000 users with 40 training and 2 test rows each and a model of vectors; measures how far resident memory rises
# above what is held when evaluation begins. Writing 5 to clear_refs sets the peak back to what is held.
SCRIPT = """
import json, sys
import numpy as np, torch
from torch import nn
from palate.data.dataset import Dataset, Interactions
from palate.data.ids import IdMap
from palate.data.splits.split import Split
from palate.evaluation.evaluate import evaluate

torch.set_num_threads(1)
USERS, ITEMS = 3_000, 100_000
rng = np.random.default_rng(0)

def rows(each):
    user = np.repeat(np.arange(USERS, dtype=np.int32), each)
    item = (rng.random(len(user)) ** 3 * ITEMS).astype(np.int32)
    return Interactions(user, item, np.ones(len(user), np.float32), rng.random(len(user)))

class Dot(nn.Module):
    trained_on = None
    def __init__(self):
        super().__init__()
        self.users, self.items = nn.Parameter(torch.randn(USERS, 8)), nn.Parameter(torch.randn(ITEMS, 8))
    def score(self, query, items=None):
        return self.users[query.user] @ self.items.T

def status(name):
    with open("/proc/self/status") as lines:
        return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(name))

train = Dataset("generated", IdMap.of(np.arange(USERS)), IdMap.of(np.arange(ITEMS)), rows(40))
split, model = Split(train, train.with_rows(rows(2)), "generated"), Dot()
few = Split(train, train.with_rows(split.test.interactions.take(np.arange(20))), "few")
evaluate(model, few, k=(5, 10), resamples=10)  # loads what is loaded when first used
split.fingerprint
found = []
for bound in sys.argv[1:]:
    with open("/proc/self/clear_refs", "w") as file:
        file.write("5")
    before = status("VmRSS")
    report = evaluate(model, split, k=(5, 10, 50), resamples=200, memory=bound)
    found.append({"grown": status("VmHWM") - before, "seconds": report.seconds, "recall": report.value("Recall", 50)})
print(json.dumps(found))
"""


@pytest.mark.skipif(not os.access("/proc/self/clear_refs", os.W_OK), reason="no /proc/self/clear_refs to measure with")
@pytest.mark.slow
def test_the_bound_is_honoured_and_used_at_100_000_items(tmp_path: Path) -> None:
    bounds = {"100MB": 100e6, "300MB": 300e6}
    script = tmp_path / "measure.py"
    script.write_text(SCRIPT)
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "POLARS_MAX_THREADS": "1"}
    result = subprocess.run(
        [sys.executable, str(script), *bounds],
        capture_output=True,
        text=True,
        env=environment,
        check=False,
        timeout=280,
    )
    assert result.returncode == 0, result.stderr
    found = json.loads(result.stdout)
    for (words, bound), one in zip(bounds.items(), found, strict=True):
        assert 0.3 * bound < one["grown"] <= bound, (words, one)
    assert found[0]["recall"] == pytest.approx(found[1]["recall"], abs=1e-6)


def test_a_bound_too_small_is_refused_with_what_it_takes(checkerboard: Split) -> None:
    model = Popularity().fit(checkerboard.train)
    with pytest.raises(EvaluationError, match=r"memory=1MB is too small: .*allow at least \d+MB"):
        evaluate(model, checkerboard, memory="1MB")
    for wrong in ("much", "-5", "0", "12XB"):
        with pytest.raises(EvaluationError, match="is no size: write it like 512MB"):
            evaluate(model, checkerboard, memory=wrong)


def test_the_bound_changes_no_number(checkerboard: Split) -> None:
    model = Popularity().fit(checkerboard.train)
    candidates = draw_candidates(checkerboard, 10)
    lists = Lists(np.arange(40), np.tile(np.arange(10), (40, 1)))
    for memory in (40_000_000, "40M", "0.04 GB", "40MiB"):
        assert str(evaluate(model, checkerboard, memory=memory).measures) == str(evaluate(model, checkerboard).measures)
        sampled = [evaluate(model, checkerboard, candidates=candidates, memory=m).measures for m in (memory, None)]
        given = [evaluate_lists(lists, checkerboard, memory=m).measures for m in (memory, None)]
        assert sampled[0] == sampled[1]
        assert str(given[0]) == str(given[1])  # NaN where a list holds nothing
