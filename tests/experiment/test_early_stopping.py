"""Early stopping chooses a number of epochs, and by default the model is fitted again on all rows."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from boards import make_checkerboard
from palate.base import TrainOptions
from palate.experiment.compare import compare
from palate.experiment.fitting import CompareOptions, fit_until_worse
from palate.models import EASE, IALS, MF, LogisticMF

SMALL = LogisticMF(epochs=6, dim=8, batch_users=8)


def same(one, other) -> bool:
    first, second = one.state_dict(), other.state_dict()
    return all(torch.equal(first[key], second[key]) for key in first)


@pytest.mark.parametrize("recipe", [SMALL, IALS(dim=4, epochs=4)], ids=lambda one: one.name)
def test_the_model_is_fitted_again_on_all_rows_for_the_best_number_of_epochs(recipe) -> None:
    train = make_checkerboard().train
    found = fit_until_worse(recipe, train, TrainOptions(seed=1), patience=2)
    assert found.refitted
    assert found.epochs in range(1, recipe.epochs + 1)
    assert found.model.trained_on == train.fingerprint
    whole = replace(recipe.for_data(train), epochs=found.epochs).fit(train, TrainOptions(seed=1))
    assert same(found.model, whole)
    assert f"fitted again on all rows with epochs={found.epochs}" in found.words


def test_without_a_refit_the_best_epoch_of_a_part_of_the_rows_is_kept() -> None:
    train = make_checkerboard().train
    found = fit_until_worse(SMALL, train, TrainOptions(seed=1), patience=2, refit=False)
    assert not found.refitted
    assert found.model.trained_on == found.validation.train.fingerprint
    assert len(found.validation.train) < len(train)
    assert "these rows are not trained on" in found.words


def test_recipes_that_are_not_measured_by_epoch_are_fitted_on_all_rows() -> None:
    train = make_checkerboard().train
    found = fit_until_worse(EASE(), train, TrainOptions(), patience=2)
    assert found.model.trained_on == train.fingerprint
    assert "has no effect" in found.words
    # Its values are those of every fiftieth iteration.
    descent = fit_until_worse(MF.published(4), make_checkerboard(rated=True).train, TrainOptions(), patience=1)
    assert not descent.refitted


def test_a_comparison_says_what_early_stopping_chose() -> None:
    split = make_checkerboard()
    found = compare(split, [SMALL], options=CompareOptions(patience=2, resamples=10))
    assert "fitted again on all rows" in found.document["models"][0]["stopped"]
    assert found.document["models"][0]["findings"] == []
    assert found.fitted(SMALL.name).model.trained_on == split.train.fingerprint
