"""Two stages: several retrievers find candidates, a ranker orders them; one recipe, one model, one bundle.

recipe.py                 TwoStage: hyperparameters, and the rows that each part is fitted on
ranker_training.py        slices of time that the ranker is trained on
model.py                  TwoStageModel: the scores
candidate_generation.py   stage one: scores and ranks of each retriever, and the candidates
ranker_features.py        features of the candidates
gbdt_ranker.py, dcn_ranker.py   the rankers
"""

from palate.models.two_stage.model import TwoStageModel
from palate.models.two_stage.recipe import TwoStage

__all__ = ["TwoStage", "TwoStageModel"]
