"""Tables of reproduced figures in Markdown, with the command, commit and date of each table."""

from __future__ import annotations

import subprocess
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

from palate.reproduce.rows import Row, shared_fingerprints

LOWER_IS_BETTER = frozenset({"MSE", "RMSE", "MAE"})


def markdown(rows: Sequence[Row], command: str) -> str:
    """One section per system and protocol: the table, then its conclusions about the published figure."""
    stamp = f"`{command}`, commit {_commit()}, {datetime.now(UTC).date().isoformat()}"
    parts = []
    for system, protocol in dict.fromkeys((row.system, row.protocol) for row in rows):
        part = [row for row in rows if (row.system, row.protocol) == (system, protocol)]
        parts.append(f"### {system}: {part[0].dataset}, {protocol}\n")
        candidates = next((row.candidates for row in part if row.candidates), None)
        fingerprints = shared_fingerprints(part)
        about = [f"Candidates: {candidates}."] if candidates else []
        about += [f"Fingerprints: {fingerprints}."] if fingerprints else []
        if about:
            parts.append(f"{' '.join(about)}\n")
        parts.append("| role | model | metric | published | ours | 95 % interval | users or rows | training, s |")
        parts.append("|---|---|---|---:|---:|---|---:|---:|")
        parts += [_line(row) for row in part]
        parts.append("")
        parts += [f"- {line}" for line in conclusions(part)]
        parts.append(f"\n{stamp}\n")
    return "\n".join(parts)


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
        figure = min(published) if lower else max(published)
        value, model = min(trivial) if lower else max(trivial)
        if (value < figure) if lower else (value > figure):
            name = metric if k is None else f"{metric}@{k}"
            found.append(f"{name}: the published {figure:g} is worse than {model} ({value:.4f}).")
    return found


def _line(row: Row) -> str:
    metric = row.metric if row.k is None else f"{row.metric}@{row.k}"
    figure = "" if row.published is None else f"{row.published:g}"
    value = "" if row.value is None else f"{row.value:.4f}"
    interval = "" if row.low is None or row.high is None else f"{row.low:.4f} to {row.high:.4f}"
    users = "" if row.users is None else f"{row.users:,}"
    seconds = "" if row.seconds is None else f"{row.seconds:,.1f}"
    return f"| {row.role} | {row.model} | {metric} | {figure} | {value} | {interval} | {users} | {seconds} |"


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
