"""Every exception that Palate raises on purpose.

    PalateError                 something the caller can act on; the command line prints it in one line
    ├── DataError               the rows, columns or ids that were given cannot be used
    │   └── SourceError         a named data set is not available from any source
    ├── RecipeError             a hyperparameter, or a combination of them, makes no sense
    ├── RuleError               a rule, or a combination of them, makes no sense or does not fit the catalog
    ├── ModelError              the fitted model does not support the request
    ├── EvaluationError         the measurement would be misleading
    │   └── LeakError           rows to be evaluated were part of the training rows
    ├── BundleError             a saved bundle or split is missing, truncated, tampered with or too new
    └── StorageError            a folder or file is locked by another process

Every message states the fact, the values and the remedy.
"""

__all__ = [
    "BundleError",
    "DataError",
    "EvaluationError",
    "LeakError",
    "ModelError",
    "PalateError",
    "RecipeError",
    "RuleError",
    "SourceError",
    "StorageError",
]


class PalateError(Exception):
    """Base of all errors that Palate raises on purpose."""


class DataError(PalateError, ValueError):
    """The rows, columns or ids that were given cannot be used."""


class SourceError(DataError):
    """A named data set is not available from any of its sources."""


class RecipeError(PalateError, ValueError):
    """A hyperparameter, or a combination of them, makes no sense."""


class RuleError(PalateError, ValueError):
    """A rule, or a combination of them, makes no sense or does not fit the catalog."""


class ModelError(PalateError, RuntimeError):
    """The fitted model does not support the request."""


class EvaluationError(PalateError, ValueError):
    """The measurement would be misleading."""


class LeakError(EvaluationError):
    """Rows to be evaluated were part of the training rows."""


class BundleError(PalateError, ValueError):
    """A saved bundle or split is missing, truncated, tampered with or too new."""


class StorageError(PalateError, OSError):
    """A folder or file is locked by another process."""
