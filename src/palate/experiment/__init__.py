"""Experiments: compare recipes on one split, and tune a recipe on validation rows, by one engine."""

from palate.evaluation.tables import check_comparable, comparability_line
from palate.experiment.baselines import Entry, baselines, read_entries
from palate.experiment.compare import choose, compare
from palate.experiment.fitting import CompareOptions, Fitted, fit_and_measure, fit_timed, fit_until_worse
from palate.experiment.folds import FoldedComparison, compare_folds
from palate.experiment.quickstart import Quickstart, quickstart, rank_on_validation
from palate.experiment.quickstart_plan import Plan, plan_quickstart, usual_recipes
from palate.experiment.recipe_file import read_toml, recipe_toml
from palate.experiment.results import Comparison
from palate.experiment.search_space import SPACES, default_space, parse_space
from palate.experiment.summary import Wording, summarize, wording
from palate.experiment.task import Metric, Task
from palate.experiment.tune import tune
from palate.experiment.tune_results import Trial, Tuned
from palate.experiment.validation import hold_out, validation_parts, validation_split

__all__ = [
    "SPACES",
    "CompareOptions",
    "Comparison",
    "Entry",
    "Fitted",
    "FoldedComparison",
    "Metric",
    "Plan",
    "Quickstart",
    "Task",
    "Trial",
    "Tuned",
    "Wording",
    "baselines",
    "check_comparable",
    "choose",
    "comparability_line",
    "compare",
    "compare_folds",
    "default_space",
    "fit_and_measure",
    "fit_timed",
    "fit_until_worse",
    "hold_out",
    "parse_space",
    "plan_quickstart",
    "quickstart",
    "rank_on_validation",
    "read_entries",
    "read_toml",
    "recipe_toml",
    "summarize",
    "tune",
    "usual_recipes",
    "validation_parts",
    "validation_split",
    "wording",
]
