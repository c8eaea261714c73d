"""Two plots of a study, as SVG: the values of its trials, and the importance of the fields (extra ``report``)."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from palate import storage
from palate.errors import RecipeError
from palate.experiment.tune_results import Tuned

WIDTH, HEIGHT = 560, 260
BLUE, GRAY, ORANGE = "#3b6ea5", "#9aa3ad", "#c8702a"


def write_plots(found: Tuned) -> list[Path]:
    """Write ``history.svg`` and, where it is known, ``importance.svg`` into the study's folder.

    Raises:
        RecipeError: the libraries that draw are not installed.
    """
    try:
        import altair as alt
        import vl_convert  # noqa: F401, what altair draws SVG with
    except ModuleNotFoundError as error:
        raise RecipeError("plots need an extra: pip install 'palate[report]'") from error
    charts = {"history.svg": _history(alt, found)}
    if found.importance:
        charts["importance.svg"] = _importance(alt, found)
    paths = []
    for name, chart in charts.items():
        paths.append(found.folder / name)
        with storage.replacing(paths[-1]) as temporary:
            chart.configure_view(strokeWidth=0).save(str(temporary), format="svg")
    return paths


def _history(alt: Any, found: Tuned) -> Any:
    """Every trial as a point, the best so far as a line, the preset as a dashed one."""
    metric, rows, best = str(found.task.metric), [], None
    better = max if found.task.metric.higher_is_better else min
    for trial in found.trials:
        if trial.value is None:
            continue
        if trial.state == "complete":
            best = trial.value if best is None else better(best, trial.value)
        rows.append({"trial": trial.number, "value": trial.value, "best": best, "state": trial.state})
    base = alt.Chart(alt.Data(values=rows)).encode(x=alt.X("trial:Q", title="trial", axis=alt.Axis(tickMinStep=1)))
    scale = alt.Scale(zero=False)
    points = base.mark_circle(size=45, opacity=0.8).encode(
        y=alt.Y("value:Q", title=f"{metric} on validation rows", scale=scale),
        color=alt.Color("state:N", title=None, scale=alt.Scale(domain=["complete", "pruned"], range=[BLUE, GRAY])),
    )
    line = base.mark_line(interpolate="step-after", color=ORANGE).encode(y=alt.Y("best:Q", scale=scale))
    preset = alt.Chart(alt.Data(values=[{"value": found.preset.value}])).mark_rule(strokeDash=[4, 4], color=GRAY)
    title = alt.TitleParams(
        f"{found.task.preset.name}: {len(found.trials)} trials",
        subtitle="line: the best so far; dashed: the preset, which is the first trial",
        anchor="start",
    )
    layers = preset.encode(y=alt.Y("value:Q", scale=scale)) + line + points
    return layers.properties(width=WIDTH, height=HEIGHT, title=title)


def _importance(alt: Any, found: Tuned) -> Any:
    rows = [{"field": path, "share": share} for path, share in found.importance.items()]
    title = alt.TitleParams(
        f"{found.task.preset.name}: importance of the fields",
        subtitle="share of each field in how good a trial is (PED-ANOVA)",
        anchor="start",
    )
    return (
        alt.Chart(alt.Data(values=rows))
        .mark_bar(color=BLUE)
        .encode(
            x=alt.X("share:Q", title="importance", axis=alt.Axis(format="%")),
            y=alt.Y("field:N", title=None, sort="-x"),
        )
        .properties(width=WIDTH, title=title)
    )
