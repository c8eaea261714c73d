"""Tables of reproduced figures in Markdown: one line per model, one column per metric."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

from palate.reproduce.rows import Row, shared_fingerprints

LOWER_IS_BETTER = frozenset({"MSE", "RMSE", "MAE"})


def markdown(rows: Sequence[Row], command: str) -> str:
    """One section per system and protocol: the table, then its conclusions about the published figure."""
    made = stamp(command)
    source = f"`{made['command']}`, commit {made['commit']}, {made['date']}"
    parts = []
    for system, protocol in dict.fromkeys((row.system, row.protocol) for row in rows):
        part = [row for row in rows if (row.system, row.protocol) == (system, protocol)]
        parts += [f"### {system}: {part[0].dataset}, {protocol}\n", table(part), f"\n{source}\n"]
    return "\n".join(parts)


def table(rows: Sequence[Row]) -> str:
    """The rows of one protocol: a line per model with its metrics, what they are measured on, and conclusions.

    A cell is the value with its 95 % interval; for several fits it is their mean, with the interval of the mean over
    users, and the lowest and the highest fit behind it.
    """
    metrics = list(dict.fromkeys(metric_name(row) for row in rows))
    asked = any(row.request for row in rows)
    lines: dict[tuple[str, str, str | None], dict[str, Row]] = {}
    for row in rows:
        lines.setdefault((row.role, row.model, row.request), {})[metric_name(row)] = row
    head = ["role", "model", *(["request time"] if asked else []), *metrics, "users"]
    head += ["training, s", "memory, MB"] if (costs := any(row.memory for row in rows)) else []
    right = len(metrics) + (3 if costs else 1)
    found = ["| " + " | ".join(head) + " |", "|" + "---|" * (len(head) - right) + "---:|" * right]
    for (role, model, request), cells in lines.items():
        first = next(iter(cells.values()))
        users = "" if first.users is None else f"{first.users:,}"
        values = [cell(cells[metric]) if metric in cells else "" for metric in metrics]
        cost = ["" if one is None else f"{one:,.0f}" for one in (first.seconds, first.memory)] if costs else []
        cells_ = [role, model, *([request or ""] if asked else []), *values, users, *cost]
        found.append("| " + " | ".join(cells_) + " |")
    candidates = next((row.candidates for row in rows if row.candidates), None)
    fingerprints = shared_fingerprints(rows)
    about = [f"Candidates: {candidates}."] if candidates else []
    about += [f"Fingerprints: {fingerprints}."] if fingerprints else []
    verdicts = [f"- {line}" for line in conclusions(rows)]
    return "\n".join([*found, *(["", *verdicts] if verdicts else []), *(["", " ".join(about)] if about else [])])


def metric_name(row: Row) -> str:
    """The column of a row: "NDCG@10", or "MSE" without a length."""
    return row.metric if row.k is None else f"{row.metric}@{row.k}"


def cell(row: Row) -> str:
    """Value, interval and range over the fits; the published figure in a row without a value."""
    if row.value is None:
        return "" if row.published is None else f"{row.published:g}"
    more = [] if row.low is None or row.high is None else [f"{figure(row.low)} to {figure(row.high)}"]
    if row.least is not None and row.most is not None:
        more.append(f"{row.seeds} fits: {figure(row.least)} to {figure(row.most)}")
    return figure(row.value) + (f" ({'; '.join(more)})" if more else "")


def figure(value: float) -> str:
    """Four digits behind the point, or five where the first three are zeros."""
    return f"{value:.4f}" if abs(value) >= 0.001 or value == 0 else f"{value:.5f}"


def conclusions(rows: Sequence[Row]) -> list[str]:
    """A sentence for each published figure that is worse than a trivial baseline of the same table."""
    found = []
    for metric, k in dict.fromkeys((row.metric, row.k) for row in rows):
        same = [row for row in rows if (row.metric, row.k) == (metric, k)]
        published = [row.published for row in same if row.role == "published" and row.published is not None]
        trivial = [(row.value, row.model) for row in same if row.role == "trivial" and row.value is not None]
        if not published or not trivial:
            continue
        lower = metric in LOWER_IS_BETTER
        best = min(published) if lower else max(published)
        value, model = min(trivial) if lower else max(trivial)
        if (value < best) if lower else (value > best):
            found.append(f"{metric_name(same[0])}: the published {best:g} is worse than {model} ({figure(value)}).")
    return found


def stamp(command: str) -> dict[str, str]:
    """Command, commit and date of a run."""
    return {"command": command, "commit": _commit(), "date": datetime.now(UTC).date().isoformat()}


def cpu_seconds() -> float:
    """CPU seconds of this process and of those that it waited for."""
    used = os.times()
    return used.user + used.system + used.children_user + used.children_system


def _commit() -> str:
    """The commit of the checkout this package runs from, or its version where it is installed."""
    here = Path(__file__).parent
    found = subprocess.run(
        ["git", "-C", str(here), "describe", "--always", "--dirty"], capture_output=True, text=True, check=False
    )
    if found.returncode == 0:
        return found.stdout.strip()
    from importlib.metadata import version

    return f"palate {version('palate')}"
