"""Several models on one split: the choice made on validation rows, the table on test rows, the same for all."""

from palate.evaluation.comparability import check_comparable, comparability_line
from palate.experiment.baselines import Entrant, baselines, read_entrants
from palate.experiment.contenders import Contender, choose, compare, quick_recipes
from palate.experiment.fitting import Settings
from palate.experiment.recipe_file import recipe_toml
from palate.experiment.run_comparison import run_comparison
from palate.experiment.search_space import SPACES, default_space, parse_space
from palate.experiment.trial import Metric, Task
from palate.experiment.tune import tune
from palate.experiment.tune_results import Trial, Tuned
from palate.experiment.validation import hold_out, validation_parts, validation_split

__all__ = [
    "SPACES",
    "Contender",
    "Entrant",
    "Metric",
    "Settings",
    "Task",
    "Trial",
    "Tuned",
    "baselines",
    "check_comparable",
    "choose",
    "comparability_line",
    "compare",
    "default_space",
    "hold_out",
    "parse_space",
    "quick_recipes",
    "read_entrants",
    "recipe_toml",
    "run_comparison",
    "tune",
    "validation_parts",
    "validation_split",
]
