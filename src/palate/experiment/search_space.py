"""Search spaces: the default one of every recipe, and the syntax they are written in.

    low:high        a range, of integers if the value of the recipe is one
    low:high:log    the same on a logarithmic scale
    a,b,c           a choice; values as in JSON (true, null, [64,32]) or plain words

The same syntax is used below, in ``palate tune --search field=TEXT`` and in a TOML file for ``--space``. A field is
named by its path: ``weights.1`` is the second number of ``weights``, ``members.0.dim`` a field of the first member of
an ensemble.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, cast

from palate.base import Recipe
from palate.errors import RecipeError
from palate.models import make_recipe

RATES = "0.0003:0.03:log"
WIDTHS = "8,16,32,64,128"
LAYERS = "[32,16,8],[64,32,16,8],[128,64,32,16],[256,128,64]"
NCF = {
    "epochs": "2:40",
    "negatives": "1:8",
    "batch_size": "256,1024,2048,4096",
    "learning_rate": RATES,
    "weight_decay": "0.0,1e-6,1e-5,1e-4",
}
RIDGE = {"keep": "0.1:0.95", "regularization": "5.0:2000.0:log"}
POOLED = {
    "epochs": "5:60",
    "dim": "16,32,64,128",
    "user_learning_rate": "0.02:1.0:log",
    "item_learning_rate": "0.003:0.3:log",
    "regularization": "0.0001:0.3:log",
}

SPACES: dict[str, dict[str, str]] = {
    "popularity": {},
    "mean-rating": {},
    "newest": {},
    "recent-popularity": {"half_life": "0.5:1000.0:log", "by_rating": "true,false"},
    "item-knn": {"neighbors": "5:500:log", "shrinkage": "0.0:200.0"},
    "sparse-ease": {
        "neighbors": "20:200:log",
        "regularization": "10.0:2000.0:log",
        "half_life_events": "null,1,2,3,5,10,20,50,100",
        "floor": "0.0:1.0",
    },
    "gf-cf": {
        "neighbors": "30:1000:log",
        "asymmetry": "0.3:0.8",
        "power": "0.4:1.2",
        "low_pass": "0.0:2.0",
        "dim": "32,64,128,256",
    },
    "ease": {
        "regularization": "10.0:10000.0:log",
        "half_life_events": "null,1,2,3,5,10,20,50,100",
        "floor": "0.0:1.0",
    },
    "edlae": RIDGE,
    "recent-edlae": {
        **RIDGE,
        "half_life": "1.0:100.0:log",
        "since": "0.0:2.0",
        "mix": "0.0:2.0",
        "damping": "0.0:1.2",
    },
    "ials": {
        "epochs": "2:16",
        "dim": "16,32,64,128",
        "unobserved_weight": "0.0005:2.0:log",
        "regularization": "0.0003:0.3:log",
    },
    "feature-ials": {
        "epochs": "2:16",
        "dim": "16,32,64,128",
        "unobserved_weight": "0.0005:2.0:log",
        "regularization": "0.0003:0.3:log",
    },
    "wals": {"epochs": "2:16", "dim": "4,8,16,32,64", "unobserved_weight": "0.0:0.1", "regularization": "0.01:1.0:log"},
    "bpr": POOLED,
    "logistic-mf": {**POOLED, "negatives": "1:20"},
    "gmf": {**NCF, "dim": WIDTHS},
    "mlp": {**NCF, "layers": LAYERS, "dropout": "0.0:0.5"},
    "neumf": {**NCF, "dim": WIDTHS, "layers": LAYERS, "dropout": "0.0:0.5"},
    "sasrec": {
        "epochs": "10:80",
        "dim": "32,64,128",
        "n_layers": "1:3",
        "dropout": "0.0:0.6",
        "learning_rate": "0.0003:0.01:log",
        "average": "0.9,0.99,0.995,0.999",
    },
    "bidirectional-sasrec": {},  # tune sasrec; its fields go into ``network``
    "two-tower": {
        "epochs": "3:40",
        "dim": "16,32,64,128",
        "batch_size": "64,128,256,512,1024,2048,4096",
        "learning_rate": "0.0005:0.05:log",
        "id_dropout": "0.0:0.5",
    },
    "user-item-means": {"user_damping": "0.0:50.0", "item_damping": "0.0:50.0", "rounds": "1:10"},
    "mf": {"epochs": "5:60", "dim": WIDTHS, "learning_rate": RATES, "regularization": "0.01:1.0:log"},
    "svdpp": {"epochs": "3:30", "dim": WIDTHS, "learning_rate": RATES, "regularization": "0.01:1.0:log"},
    "bmf": {"dim": "4,8,16,32", "link": "0.1:10.0:log", "feedback": "true,false", "features": "0.0:2.0"},
    "two-stage": {
        "n_candidates": "30:300:log",
        "slice_size": "0.05:0.4",
        "rounds": "30:500:log",
        "leaves": "4:31:log",
        "learning_rate": "0.01:0.2:log",
    },
    "ensemble": {"how": "standardized,rank"},  # and its weights, as many as it has members
}
WEIGHTS = "0.03:5.0:log"
NEAR = 0.02  # share of a range: values nearer to its end are at its bound


@dataclass(frozen=True)
class Range:
    """Numbers between two ends, both included; ``whole`` ones are integers."""

    low: float
    high: float
    log: bool = False
    whole: bool = False

    def holds(self, value: Any) -> bool:
        """Whether a value lies in it."""
        # True is an int in Python, but no number that a sampler proposes.
        number = isinstance(value, int | float) and not isinstance(value, bool)
        return number and self.low <= value <= self.high

    def at_bound(self, value: float) -> bool:
        """Whether a value is within a fiftieth of the range from one of its ends."""
        low, high, here = (math.log(x) if self.log else x for x in (self.low, self.high, value))
        return min(here - low, high - here) <= NEAR * (high - low)

    def __str__(self) -> str:
        return f"{self.low:g} to {self.high:g}{', log' if self.log else ''}"


@dataclass(frozen=True)
class Choice:
    """One of several values, each kept as JSON."""

    options: tuple[str, ...]

    def holds(self, value: Any) -> bool:
        """Whether a value is one of them."""
        return self.text_of(value) is not None

    def text_of(self, value: Any) -> str | None:
        """The option that equals a value, as JSON: 5.0 is 5, but 1 is not true."""
        text = json.dumps(value)
        same = (one for one in self.options if type(json.loads(one)) in (int, float) and json.loads(one) == value)
        return text if text in self.options else next(same, None) if type(value) in (int, float) else None

    def __str__(self) -> str:
        return ", ".join(self.options)


Dimension = Range | Choice
Space = dict[str, Dimension]


def default_space(recipe: Recipe[Any]) -> Space:
    """The space that is searched by default.

    Raises:
        RecipeError: the recipe has nothing to tune.
    """
    texts: dict[str, str] = dict(SPACES.get(recipe.name, {}))
    if recipe.name == "ensemble":
        texts |= {f"weights.{place}": WEIGHTS for place in range(1, len(plain(recipe)["weights"]))}
    if not texts:
        raise RecipeError(f"recipe {recipe.name} has nothing to tune: name fields with --search, or another recipe")
    return parse_space(recipe, texts)


def parse_space(recipe: Recipe[Any], requested: Mapping[str, Any]) -> Space:
    """The space written in the syntax of the module docstring; a list of values is a choice too.

    Raises:
        RecipeError: an unknown field, or a text that is neither a range nor a choice.
    """
    fields = plain(recipe)
    return {path: _dimension(path, text, take(fields, path, recipe.name)) for path, text in requested.items()}


def plain(recipe: Recipe[Any]) -> dict[str, Any]:
    """The fields of a recipe as they are in JSON."""
    fields: dict[str, Any] = json.loads(json.dumps(asdict(cast(Any, recipe))))
    return fields


def put(recipe: Recipe[Any], values: Mapping[str, Any]) -> Recipe[Any]:
    """The recipe with some fields, named by their paths, set to other values."""
    fields = plain(recipe)
    for path, value in values.items():
        *way, last = path.split(".")
        inner: Any = take(fields, ".".join(way), recipe.name) if way else fields
        inner[int(last) if isinstance(inner, list) else last] = value
    return make_recipe(recipe.name, fields)


def take(fields: Any, path: str, name: str) -> Any:
    """The value at a path of a recipe's plain fields.

    Raises:
        RecipeError: there is no such field.
    """
    value = fields
    for step in path.split("."):
        try:
            value = value[int(step) if isinstance(value, list) else step]
        except (KeyError, IndexError, ValueError, TypeError):
            raise RecipeError(f"recipe {name} has no field {path!r}: it has {', '.join(fields) or 'none'}") from None
    return value


def _dimension(path: str, text: Any, preset: Any) -> Dimension:
    if isinstance(text, str) and ":" in text:
        return _range(path, text, whole=isinstance(preset, int) and not isinstance(preset, bool))
    options = text
    if not isinstance(text, list):
        try:
            options = json.loads(f"[{text}]")
        except json.JSONDecodeError:  # plain words, as in weighting=none,log
            options = [word.strip() for word in str(text).split(",")]
    if len(options) < 2:
        raise RecipeError(f"{path}={text} is one value: write low:high, low:high:log or several values a,b,c")
    return Choice(tuple(dict.fromkeys(json.dumps(value) for value in options)))


def _range(path: str, text: str, whole: bool) -> Range:
    ends, last = text.split(":")[:2], text.split(":")[2:]
    try:
        low, high = (float(end) for end in ends)
    except ValueError:
        low, high = 1.0, 0.0
    log = last == ["log"]
    if not low < high or last not in ([], ["log"]) or (log and low <= 0):
        above = " with low above 0" if log else ""
        raise RecipeError(f"{path}={text} is no range: write low:high or low:high:log{above}, low below high")
    if whole and not (low.is_integer() and high.is_integer()):
        raise RecipeError(f"{path}={text}: it is a whole number, so both ends must be")
    return Range(low, high, log, whole)
