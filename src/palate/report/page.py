"""The comparison as one HTML page without a network, scripts or fonts from elsewhere.

The template escapes everything that comes from the data; only the drawn plots go in as they are.
"""

from __future__ import annotations

from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from palate.report import folds, tables
from palate.report.cells import ACCURACY, BETTER, BEYOND, MEANING, RATINGS
from palate.report.plots import Plots, markers, profile_figures


def page(comparison: dict[str, Any]) -> str:
    """The whole page as text, of a comparison on one split or on several."""
    environment = Environment(
        loader=PackageLoader("palate", "report"),
        autoescape=True,  # ids, titles and names come from the data
        undefined=StrictUndefined,  # a misspelled name is an error, not an empty cell
        trim_blocks=True,
        lstrip_blocks=True,
    )
    # The only text that is not escaped: drawn here, with the escaping of XML.
    environment.filters["svg"] = lambda figure: Markup(figure.svg)
    if "folds" in comparison:
        return _page_of_folds(environment, comparison)
    template = environment.get_template("report.html.jinja")
    audit, plots = comparison["audit"], Plots(comparison)
    measured = {one["metric"] for model in comparison["models"] for one in model["full"]["measures"]}
    if any(one["ratings"] is not None for one in comparison["models"]):
        measured |= set(RATINGS)
    forests = [plots.forest("full"), plots.forest("sampled")]
    exposure = [plots.exposure(), plots.popularity()]
    calibration = [plots.calibration()]
    return template.render(
        comparison=comparison,
        headline=tables.headline(comparison),
        verdict=tables.verdict(comparison),
        models=comparison["models"],
        markers=markers([one["name"] for one in comparison["models"]]),
        main=tables.main_table(comparison),
        remarks=tables.remarks(comparison),
        tests=tables.tests_table(comparison),
        beyond=tables.beyond_table(comparison),
        ratings=tables.ratings_table(comparison),
        seeds=tables.seeds_table(comparison),
        settings=tables.settings_table(comparison),
        segments=tables.segments_tables(comparison),
        numbers=tables.every_number(comparison),
        audit=None if audit is None else tables.audit_table(audit),
        passed=None if audit is None else tables.passed_table(audit),
        comparability=tables.comparability_table(comparison),
        examples=tables.examples(comparison),
        meanings=[(name, MEANING[name], BETTER[name]) for name in (*ACCURACY, *BEYOND, *RATINGS) if name in measured],
        forest_plots=[one for one in forests if one is not None],
        curve_plots=list(plots.curves()),
        segment_plots=list(plots.segments()),
        exposure_plots=[one for one in exposure if one is not None],
        calibration_plots=[one for one in calibration if one is not None],
        training_plots=list(plots.training()),
        audit_plots=[] if audit is None else list(profile_figures(audit["profile"])),
    )


def _page_of_folds(environment: Environment, comparison: dict[str, Any]) -> str:
    plots = Plots(folds.as_measures(comparison))
    figures = [draw(ranking) for draw in (plots.forest, plots.by_fold) for ranking in folds.RANKINGS]
    return environment.get_template("folds.html.jinja").render(
        comparison=comparison,
        headline=tables.headline(comparison),
        verdict=tables.verdict(comparison),
        models=comparison["models"],
        markers=markers([one["name"] for one in comparison["models"]]),
        meaning=MEANING[comparison["metric"]],
        results=folds.results_tables(comparison),
        remarks=tables.remarks(comparison),
        figures=[one for one in figures if one is not None],
        tests=tables.tests_table(comparison),
        splits=folds.splits_table(comparison),
        settings=folds.settings_table(comparison),
    )
