"""Two stages: several retrievers find candidates, a ranker orders them; one recipe, one model, one bundle.

recipe.py      TwoStage: what is fitted on which rows
teach.py       the slices of time that the ranker learns from
model.py       TwoStageModel: the scores
retrieve.py    stage one: scores and ranks of each retriever, and the candidates
inputs.py      what the ranker reads about a candidate
trees.py cross.py   the rankers
"""

from palate.models.two_stage.model import TwoStageModel
from palate.models.two_stage.recipe import TwoStage

__all__ = ["TwoStage", "TwoStageModel"]
