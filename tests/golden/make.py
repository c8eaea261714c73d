"""Make the golden bundles: run once per bundle format, then never again for that format.

    python tests/golden/make.py        # writes tests/golden/bundles-<format>/

Bundles as an older Palate has saved them: test_golden.py keeps them loading.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import torch

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE.parent))

from boards import make_checkerboard  # noqa: E402
from palate.base import Query, TrainOptions  # noqa: E402
from palate.bundle import FORMAT, Bundle  # noqa: E402
from palate.models import make_recipe  # noqa: E402

RECIPES = {
    "popularity": {},
    "ease": {},
    "ials": {"dim": 4, "epochs": 3},
    "gmf": {"dim": 4, "epochs": 3},
    "neumf": {"dim": 4, "layers": [4, 4], "epochs": 3},
}


def main() -> None:
    train = make_checkerboard(12).train
    folder = HERE / f"bundles-{FORMAT}"
    expected = {}
    for name, fields in RECIPES.items():
        recipe = make_recipe(name, fields, fast=True)
        model = recipe.fit(train, TrainOptions(seed=1))
        (Bundle.of(recipe, model, train).save(folder / name) / ".lock").unlink()
        with torch.inference_mode():
            expected[name] = model.score(Query.of([0, 5], train.history.select(torch.tensor([0, 5]).numpy()))).tolist()
    (folder / "scores.json").write_text(json.dumps(expected, indent=1))


if __name__ == "__main__":
    main()
