"""Several models on one split: the choice made on validation rows, the table on test rows, the same for all."""

from palate.compare.contenders import Contender, choose, compare, quick_recipes
from palate.compare.entrants import Entrant, baselines, read_entrants
from palate.compare.fitting import Settings
from palate.compare.ground import ground_line, same_ground
from palate.compare.holdout import hold_out, validation_like, validation_split
from palate.compare.run import run_comparison

__all__ = [
    "Contender",
    "Entrant",
    "Settings",
    "baselines",
    "choose",
    "compare",
    "ground_line",
    "hold_out",
    "quick_recipes",
    "read_entrants",
    "run_comparison",
    "same_ground",
    "validation_like",
    "validation_split",
]
