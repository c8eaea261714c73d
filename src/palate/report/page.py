"""The comparison as one HTML page that needs no network, no script and no font from elsewhere.

The template escapes everything that comes from the data; only the drawn plots go in as they are.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from palate.report import tables
from palate.report.examples import examples
from palate.report.plots import Figure, Plots, markers
from palate.report.profile import profile_figures
from palate.report.words import ACCURACY, BETTER, BEYOND, MEANING, RATINGS

__all__ = ["page"]


def page(comparison: dict[str, Any]) -> str:
    """The whole page as text."""
    environment = Environment(
        loader=PackageLoader("palate", "report"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["svg"] = lambda figure: Markup(figure.svg)
    template = environment.get_template("report.html.jinja")
    return template.render(**_context(comparison), **_plots(comparison))


def _context(comparison: dict[str, Any]) -> dict[str, Any]:
    """All of the page but the plots."""
    audit = comparison["audit"]
    return {
        "comparison": comparison,
        "headline": tables.headline(comparison),
        "models": comparison["models"],
        "markers": markers([one["name"] for one in comparison["models"]]),
        "main": tables.main_table(comparison),
        "remarks": tables.remarks(comparison),
        "tests": tables.tests_table(comparison),
        "beyond": tables.beyond_table(comparison),
        "ratings": tables.ratings_table(comparison),
        "seeds": tables.seeds_table(comparison),
        "settings": tables.settings_table(comparison),
        "segments": tables.segments_tables(comparison),
        "numbers": tables.every_number(comparison),
        "audit": None if audit is None else tables.audit_table(audit),
        "passed": None if audit is None else tables.passed_table(audit),
        "ground": tables.ground(comparison),
        "examples": examples(comparison),
        "meanings": _meanings(comparison),
    }


def _plots(comparison: dict[str, Any]) -> dict[str, list[Figure]]:
    plots = Plots(comparison)
    audit = comparison["audit"]
    return {
        "forest_plots": _there([plots.forest("full"), plots.forest("sampled")]),
        "curve_plots": list(plots.curves()),
        "segment_plots": list(plots.segments()),
        "exposure_plots": _there([plots.exposure(), plots.popularity()]),
        "calibration_plots": _there([plots.calibration()]),
        "training_plots": list(plots.training()),
        "audit_plots": [] if audit is None else list(profile_figures(audit["profile"])),
    }


def _meanings(comparison: dict[str, Any]) -> list[tuple[str, str, str]]:
    """(metric, what it means, which direction is good) of every metric in the report."""
    measured = {one["metric"] for model in comparison["models"] for one in model["full"]["measures"]}
    if any(one["ratings"] is not None for one in comparison["models"]):
        measured |= set(RATINGS)
    return [(name, MEANING[name], BETTER[name]) for name in (*ACCURACY, *BEYOND, *RATINGS) if name in measured]


def _there(figures: Iterable[Figure | None]) -> list[Figure]:
    return [one for one in figures if one is not None]
