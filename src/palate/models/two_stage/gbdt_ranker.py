"""Ranker of gradient boosted trees (LightGBM): LambdaMART, or a sum of trees for the chance of a touch.

Burges 2010, "From RankNet to LambdaRank to LambdaMART"; Ke et al. 2017, "LightGBM", NeurIPS. The whole ranker is
LightGBM's own text, which the state dict holds as bytes: no pickle, and the same scores bit by bit once read again.

The users and features of a tree are drawn at random, so rankers of different seeds differ. Averages of several
differ less (Breiman 1996, "Bagging Predictors").

Shape legend: N candidates of all users, F inputs, Q users, A bags.
"""

from __future__ import annotations

from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor, nn

from palate.errors import RecipeError
from palate.models.two_stage.ranker_training import LabeledCandidates
from palate.models.two_stage.tree_text import checked_trees

Objective = Literal["lambdarank", "binary"]
LEAST_SHARE = 0.01  # of the candidates, in each leaf
PEOPLE = 0.6  # share of the users that each tree is grown on
COLUMNS = 0.3  # share of the features that each tree reads
BETWEEN = b"\0"  # two texts of LightGBM, which hold no such byte


class GBDTRanker(nn.Module):
    """Fitted trees; before that every candidate scores 0.

    Args:
        objective: the order of a user's list ("lambdarank"), or the chance of each candidate ("binary").
        rounds: how many trees.
        leaves: of each tree.
        learning_rate: shrinkage of each tree.
        bags: how many times all trees are grown, each time with another seed; their scores are averaged.
    """

    def __init__(self, objective: Objective, rounds: int, leaves: int, learning_rate: float, bags: int = 1) -> None:
        super().__init__()
        self.rounds, self.bags = rounds, bags
        self.options = {"objective": objective, "num_leaves": leaves, "learning_rate": learning_rate}
        self.text = torch.zeros(0, dtype=torch.uint8)
        self.boosters: list[Any] = []

    def forward(self, input_NF: Tensor) -> Tensor:
        """Scores (N,)."""
        if not self.boosters:
            return input_NF.new_zeros(len(input_NF))
        inputs, threads = input_NF.cpu().numpy(), torch.get_num_threads()
        found_AN = [one.predict(inputs, raw_score=True, num_threads=threads) for one in self.boosters]
        return torch.from_numpy(np.mean(found_AN, axis=0)).to(input_NF.device, torch.float32)

    def learn(self, candidates: LabeledCandidates, seed: int) -> None:
        """Grow all trees, each on a sample of users and features.

        With few users a fixed number of trees is better than early stopping on held-out users.

        Raises:
            RecipeError: LightGBM is not installed.
        """
        lightgbm = _library()
        options = {
            **self.options,
            "min_data_in_leaf": max(1, int(LEAST_SHARE * len(candidates.labels))),
            "bagging_by_query": True,
            "bagging_fraction": PEOPLE,
            "bagging_freq": 1,
            "feature_fraction": COLUMNS,
            "lambda_l2": 1.0,
            # For equal trees in every run: otherwise LightGBM chooses its data layout by timing.
            "deterministic": True,
            "force_row_wise": True,
            "num_threads": torch.get_num_threads(),
            "verbosity": -1,
        }
        inputs, labels = candidates.inputs.cpu().numpy(), candidates.labels.cpu().numpy()
        texts = []
        for own in range(seed, seed + self.bags):
            rows = lightgbm.Dataset(inputs, labels, group=candidates.sizes)
            texts.append(lightgbm.train({**options, "seed": own}, rows, self.rounds).model_to_string().encode())
        self.set_extra_state(torch.tensor(list(BETWEEN.join(texts)), dtype=torch.uint8))

    def get_extra_state(self) -> Tensor:
        """LightGBM's text as bytes, one after the other."""
        return self.text

    def set_extra_state(self, state: Tensor) -> None:
        """Read the trees from LightGBM's text.

        Raises:
            RecipeError: LightGBM is not installed.
            ValueError: the text is not one of trees.
        """
        self.text = state.cpu()
        self.boosters = []
        if len(state):
            texts = [checked_trees(text.decode()) for text in bytes(self.text.numpy()).split(BETWEEN)]
            self.boosters = [_library().Booster(model_str=text) for text in texts]

    @property
    def widths(self) -> set[int]:
        """The numbers of features that the trees were grown on: one number, or none before they are."""
        return {one.num_feature() for one in self.boosters}


def _library() -> Any:
    try:
        import lightgbm
    except ImportError:
        raise RecipeError(
            "ranker='trees' needs LightGBM, which is not installed: pip install 'palate[rank]', or take ranker='cross'"
        ) from None
    return lightgbm
