"""Write docs/api.md from the public names, their signatures and the first sentences of their docstrings.

python docs/make_api.py
"""

from __future__ import annotations

import dataclasses
import inspect
import re
import textwrap
from pathlib import Path
from typing import Any

import palate

PAGE = Path(__file__).with_name("api.md")
GROUPS = {
    "Data": [
        "from_frame",
        "from_csr",
        "read_interactions",
        "prepare",
        "load",
        "to_frame",
        "to_csr",
        "to_rectools",
        "Dataset",
        "Interactions",
        "Feedback",
        "audit",
        "text_vectors",
    ],
    "Splits": ["by_time", "leave_one_out", "at_random", "Split", "draw_candidates", "Candidates"],
    "Training": ["TrainOptions", "validation_callback", "Progress", "ProgressEvent", "Query"],
    "Recipes": ["RECIPES", "make_recipe"],  # and every recipe
    "Evaluation": [
        "evaluate",
        "evaluate_lists",
        "evaluate_ratings",
        "Report",
        "RatingsReport",
        "compare",
        "CompareOptions",
        "tune",
    ],
    "Recommendations": [
        "Recommender",
        "ColdStart",
        "Rules",
        "onboarding_items",
        "Bundle",
        "export_vectors",
        "export_onnx",
    ],
    "Errors and version": ["PalateError", "__version__"],
}
VALUES = {
    "RECIPES": ("palate.RECIPES: dict[str, type[Recipe]]", "Every recipe class by its name on the command line."),
    "__version__": ("palate.__version__: str", "Version of the installed package; `palate --version` prints it."),
}
INTRODUCTION = """# Public names

Every name that `import palate` offers, with its signature and the first sentence of its docstring; `help(palate.NAME)`
shows the rest. Names outside this page may change without notice. [Python](python.md) shows them at work.
"""


def page() -> str:
    """The content of docs/api.md."""
    recipes = [kind.__name__ for kind in palate.RECIPES.values()]
    parts = [INTRODUCTION]
    for title, names in GROUPS.items():
        parts.append(f"## {title}\n")
        parts += [entry(name) for name in names + (recipes if title == "Recipes" else [])]
    return "\n".join(parts)


def entry(name: str) -> str:
    """Heading, signature and sentence of one name."""
    signature, sentence = VALUES.get(name) or described(name, getattr(palate, name))
    return f"### `{name}`\n\n```text\n{signature}\n```\n\n{textwrap.fill(sentence, 120, break_long_words=False)}\n"


def described(name: str, value: Any) -> tuple[str, str]:
    """Signature and first sentence of a class or function."""
    text = " ".join((inspect.getdoc(value) or "").split("\n\n")[0].split()).replace("``", "`")
    sentence = re.split(r"(?<=\.)\s+(?=[A-Z])", text)[0]
    if issubclass(type(value), type) and (issubclass(value, Exception) or getattr(value, "_is_protocol", False)):
        return f"palate.{name}", sentence
    signature = inspect.signature(value)
    parameters = [shown(one) for one in signature.parameters.values()]
    kinds = [one.kind for one in signature.parameters.values()]
    if inspect.Parameter.KEYWORD_ONLY in kinds and inspect.Parameter.VAR_POSITIONAL not in kinds:
        parameters.insert(kinds.index(inspect.Parameter.KEYWORD_ONLY), "*")
    returns = "" if inspect.isclass(value) else f" -> {annotation(signature.return_annotation)}"
    line = f"palate.{name}({', '.join(parameters)}){returns}"
    if len(line) > 110:
        line = f"palate.{name}(\n" + "".join(f"    {one},\n" for one in parameters) + f"){returns}"
    return line, sentence


def shown(parameter: inspect.Parameter) -> str:
    """A parameter as it is written in the source."""
    stars = {inspect.Parameter.VAR_POSITIONAL: "*", inspect.Parameter.VAR_KEYWORD: "**"}.get(parameter.kind, "")
    text = f"{stars}{parameter.name}: {annotation(parameter.annotation)}"
    default = parameter.default
    if default is inspect.Parameter.empty:
        return text
    if dataclasses.is_dataclass(default):  # frozen, so a default; its fields would fill lines
        return f"{text} = {type(default).__name__}()"
    if type(default).__name__ == "_HAS_DEFAULT_FACTORY_CLASS":
        return f"{text} = ..."
    return f"{text} = {getattr(default, '__name__', None) or quoted(repr(default))}"


def annotation(value: Any) -> str:
    """An annotation without quotes and module names."""
    text = value if isinstance(value, str) else inspect.formatannotation(value)
    return quoted(re.sub(r"\b(?:palate|collections|typing|pathlib)(?:\.\w+)*\.", "", text.strip("'\"")))


def quoted(text: str) -> str:
    """Double quotes, as in the source."""
    return text.replace("'", '"')


if __name__ == "__main__":
    PAGE.write_text(page())
