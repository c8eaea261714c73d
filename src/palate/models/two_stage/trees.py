"""Ranker of gradient boosted trees (LightGBM): LambdaMART, or a sum of trees for the chance of a touch.

Burges 2010, "From RankNet to LambdaRank to LambdaMART"; Ke et al. 2017, "LightGBM", NeurIPS. The whole ranker is
LightGBM's own text, which the state dict holds as bytes: no pickle, and the same scores bit by bit once read again.

Shape legend: N candidates of all users, F inputs, Q users.
"""

from __future__ import annotations

from typing import Any, Literal

import torch
from torch import Tensor, nn

from palate.errors import RecipeError
from palate.models.two_stage.teach import Lesson

__all__ = ["Objective", "Trees"]

Objective = Literal["lambdarank", "binary"]
LEAST_SHARE = 0.01  # of the candidates, in each leaf
PEOPLE = 0.6  # share of the people that each tree is grown on
COLUMNS = 0.3  # share of the inputs that each tree reads


class Trees(nn.Module):
    """Fitted trees; before that every candidate scores 0.

    Args:
        objective: the order of a user's list ("lambdarank"), or the chance of each candidate ("binary").
        rounds: how many trees.
        leaves: of each tree.
        rate: how much each tree adds.
    """

    def __init__(self, objective: Objective, rounds: int, leaves: int, rate: float) -> None:
        super().__init__()
        self.rounds, self.options = rounds, {"objective": objective, "num_leaves": leaves, "learning_rate": rate}
        self.text = torch.zeros(0, dtype=torch.uint8)
        self.booster: Any = None

    def forward(self, input_NF: Tensor) -> Tensor:
        """Scores (N,)."""
        if self.booster is None:
            return input_NF.new_zeros(len(input_NF))
        found_N = self.booster.predict(input_NF.cpu().numpy(), raw_score=True, num_threads=torch.get_num_threads())
        return torch.from_numpy(found_N).to(input_NF.device, torch.float32)

    def learn(self, lesson: Lesson, seed: int) -> None:
        """Grow all the trees, each on some of the people and inputs.

        With few people that does better than to stop where the lists of some held out get no better.

        Raises:
            RecipeError: LightGBM is not installed.
        """
        lightgbm = _library()
        options = {
            **self.options,
            "min_data_in_leaf": max(1, int(LEAST_SHARE * len(lesson.labels))),
            "bagging_by_query": True,
            "bagging_fraction": PEOPLE,
            "bagging_freq": 1,
            "feature_fraction": COLUMNS,
            "lambda_l2": 1.0,
            "seed": seed,
            "deterministic": True,
            "force_row_wise": True,
            "num_threads": torch.get_num_threads(),
            "verbosity": -1,
        }
        inputs, labels = lesson.inputs.cpu().numpy(), lesson.labels.cpu().numpy()
        booster = lightgbm.train(options, lightgbm.Dataset(inputs, labels, group=lesson.sizes), self.rounds)
        self.set_extra_state(torch.tensor(list(booster.model_to_string().encode()), dtype=torch.uint8))

    def get_extra_state(self) -> Tensor:
        """LightGBM's text as bytes."""
        return self.text

    def set_extra_state(self, state: Tensor) -> None:
        """Read the trees from LightGBM's text.

        Raises:
            RecipeError: LightGBM is not installed.
        """
        self.text = state.cpu()
        self.booster = None
        if len(state):
            self.booster = _library().Booster(model_str=bytes(self.text.numpy()).decode())


def _library() -> Any:
    try:
        import lightgbm
    except ImportError:
        raise RecipeError(
            "ranker='trees' needs LightGBM, which is not installed: pip install 'palate[rank]', or take ranker='cross'"
        ) from None
    return lightgbm
