"""The tables of a comparison, the same for HTML and Markdown: captions, grouped columns and cells of text.

A column never mixes full ranking and sampled candidates: they are in labeled groups, or in separate tables.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from palate.report.cells import (
    ACCURACY,
    BETTER,
    BEYOND,
    RATINGS,
    Cell,
    Column,
    Table,
    cells,
    interval,
    measure,
    over_seeds,
    shown,
)

HEADLINE = ("NDCG", "HitRate", "Recall", "MRR")
HISTORY = 12  # latest items shown of each example user
SEVERITIES = ("problem", "warning", "info")
DIRECTION = {"higher": "higher is better", "lower": "lower is better", "depends": "depends on the goal"}
ROLES = {"model": "model", "baseline": "baseline", "external": "another system"}


def main_table(comparison: dict[str, Any]) -> Table:
    """Every model with full and sampled metrics in separate groups, seconds and memory."""
    models, k = comparison["models"], comparison["k"]
    columns = [_names(models, roles=True)]
    for ranking, group in _rankings(comparison):
        before: list[list[Cell]] = []
        for metric in _measured(models, ranking, HEADLINE, k):
            cells = _measures(models, ranking, metric, k)
            # Recall equals HitRate where each user has one held-out item: the same numbers are shown once.
            if cells not in before:
                columns.append((Column(f"{metric}@{k}", group), cells))
                before.append(cells)
    for label, key, digits in (
        ("Training, s", "train_seconds", 1), ("Scoring, s", "score_seconds", 2), ("Memory, MB", "peak_memory_mb", 0),
    ):  # fmt: skip
        columns.append((Column(label, "Cost"), [Cell(shown(one[key], digits)) for one in models]))
    note = "Small print: 95 % interval. Bold: highest value of the column, which alone does not show a better model."
    users = models[0]["full"]["users"] if models else 0
    return _by_columns(f"All models on the same {users:,} users", columns, note)


def headline(comparison: dict[str, Any]) -> str:
    """The result in a few words; its summary, where it has one, instead of the winner."""
    if comparison.get("summary"):
        return str(comparison["summary"][0])
    name = comparison["winner"]["name"]
    return "No clear winner." if name is None else f"The winner is {name}."


def verdict(comparison: dict[str, Any]) -> str:
    """What stands behind the headline: the rest of the summary, and the winner or why there is none."""
    return " ".join([*comparison.get("summary", ())[1:], comparison["winner"]["why"]])


def remarks(comparison: dict[str, Any]) -> list[str]:
    """Remarks of the comparison, and models that failed."""
    failed = [f"{one['name']} failed and is not in the tables: {one['why']}" for one in comparison.get("failed", ())]
    return [*comparison.get("remarks", ()), *failed]


def comparability_table(comparison: dict[str, Any]) -> Table:
    """Conditions under which numbers are comparable: data, split, candidates and their fingerprints."""
    data, split, candidates = comparison["data"], comparison["split"], comparison["candidates"]
    prints = comparison["models"][0]["full"]["fingerprints"] if comparison["models"] else {}
    size = f"{data['rows']:,} rows, {data['users']:,} users, {data['items']:,} items"
    parts = f"{split['train_rows']:,} training rows, {split['test_rows']:,} test rows of {split['test_users']:,} users"
    rows = [
        [Cell("Data"), Cell(f"{data['name']}: {size}"), Cell("–")],
        [Cell("Training rows"), Cell(f"{split['train_rows']:,}"), Cell(prints.get("train") or "–")],
        [Cell("Split"), Cell(f"{split['how']}: {parts}"), Cell(split["fingerprint"])],
    ]
    if candidates:
        rows.append([Cell("Sampled candidates"), Cell(candidates["how"]), Cell(candidates["fingerprint"])])
    rows.append([Cell("Seeds"), Cell(", ".join(map(str, comparison["seeds"]))), Cell("–")])
    note = "Numbers of two reports are comparable only if these fingerprints are equal."
    return _table("Data, split and candidates of all numbers", _text("Part", "Description", "Fingerprint"), rows, note)


def tests_table(comparison: dict[str, Any]) -> Table:
    """The paired tests: each model against a baseline, with Holm's correction."""
    numbers = [Column("Difference"), Column("p"), Column("p, corrected")]
    columns = [*_text("Model", "Against", "Metric", "Ranking"), *numbers, *_text("Verdict")]
    # What all tests have in common stands once under the table: a narrow cell would be six lines high.
    common = {one["test"].rpartition(", ")[0] for one in comparison["tests"]}
    note = f"Test: {common.pop()}." if len(common) == 1 and "" not in common else ""
    rows = [
        [
            Cell(one["model"]), Cell(one["baseline"]), Cell(f"{one['metric']}@{one['k']}"), Cell(one["ranking"]),
            Cell("–" if one["difference"] is None else f"{one['difference']:+.4f}", interval(one)),
            Cell(_p(one["p"])), Cell(_p(one["p_holm"])),
            _verdict(one, one["test"].rpartition(", ")[2] if note else one["test"]),
        ]
        for one in comparison["tests"]
    ]  # fmt: skip
    return _table("Each model against the best baseline, user by user", columns, rows, note)


def beyond_table(comparison: dict[str, Any]) -> Table | None:
    """Metrics beyond accuracy, from full ranking; None where none was measured."""
    models, k = comparison["models"], comparison["k"]
    columns = [_names(models)]
    for metric in _measured(models, "full", BEYOND, k):
        cells = _measures(models, "full", metric, k, digits=3)
        columns.append((Column(f"{metric}@{k}", DIRECTION[BETTER[metric]]), cells))
    return _by_columns("Beyond accuracy, full ranking", columns) if columns[1:] else None


def ratings_table(comparison: dict[str, Any]) -> Table | None:
    """Errors of predicted ratings on all, known and cold rows; None where no model predicts ratings."""
    rated = [one for one in comparison["models"] if one["ratings"] is not None]
    if not rated:
        return None
    columns = [_names(rated)]
    for part in ("all", "known", "cold"):
        rows = rated[0]["ratings"][part]["rows"]
        for metric in RATINGS[:2] if rows else ():  # MSE is RMSE squared: it would order the models alike
            found = [measure(one["ratings"][part], metric, None) for one in rated]
            columns.append((Column(metric, f"{part} rows ({rows:,})"), cells(found, lower=True)))
    return _by_columns("Errors of predicted ratings, in rating points: lower is better", columns)


def seeds_table(comparison: dict[str, Any]) -> Table | None:
    """Mean and range over seeds, full ranking and sampled in separate groups; None with a single seed."""
    if len(comparison["seeds"]) < 2:
        return None
    trained = [one for one in comparison["models"] if one["seeds"]]
    columns = [_names(trained), (Column("Seeds"), [Cell(str(len(one["seeds"]))) for one in trained])]
    for ranking, group in _rankings(comparison):
        for key in (f"{metric}@{comparison['k']}" for metric in HEADLINE[:2]):
            runs = [[(run[ranking] or {}).get(key) for run in one["seeds"]] for one in trained]
            columns.append((Column(key, group), [over_seeds(values) for values in runs]))
    seconds = [over_seeds([run["train_seconds"] for run in one["seeds"]], 1) for one in trained]
    columns.append((Column("Training, s", "Cost"), seconds))
    return _by_columns(f"Results over {len(comparison['seeds'])} seeds: mean, lowest to highest", columns)


def settings_table(comparison: dict[str, Any]) -> Table:
    """Hyperparameters of every model, and the way they were chosen."""
    columns = _text("Model", "Hyperparameters", "Chosen by")
    rows = [
        [
            Cell(one["name"], ROLES.get(one["role"], one["role"])),
            Cell("–" if one["recipe"] is None else f"{one['recipe']['recipe']}: {fields or 'none'}"),
            Cell(one["tuned"] or ("finished lists" if one["role"] == "external" else "as given")),
        ]
        for one in comparison["models"]
        for fields in [", ".join(f"{name}={value}" for name, value in (one["recipe"] or {}).get("fields", {}).items())]
    ]
    return _table("Settings", columns, rows)


def every_number(comparison: dict[str, Any]) -> list[Table]:
    """Every accuracy metric at every length, one table for full ranking and one for sampled candidates."""
    models, lengths = comparison["models"], comparison["lengths"]
    tables = []
    for ranking, group in _rankings(comparison):
        columns = [*_text("Model", "Metric"), *(Column(f"at {k}") for k in lengths)]
        rows = []
        for metric in ACCURACY:
            by_length = [_measures(models, ranking, metric, k) for k in lengths]
            for place, one in enumerate(models):
                cells = [column[place] for column in by_length]
                if any(cell.text != "–" for cell in cells):
                    rows.append([Cell(one["name"]), Cell(metric), *cells])
        tables.append(_table(f"All list lengths. {group}", columns, rows))
    return tables


def segments_tables(comparison: dict[str, Any]) -> list[Table]:
    """NDCG and HitRate by segment, full ranking: a table for users and one for items."""
    models, k = comparison["models"], comparison["k"]
    parts = [part for one in models for part in one["full"].get("segments", ())]
    tables = []
    for by in dict.fromkeys(part["by"] for part in parts):
        columns = [_names(models)]
        for segment in dict.fromkeys(part["segment"] for part in parts if part["by"] == by):
            # Lists of other systems may lack a segment: its cells stay empty.
            found = [
                {(part["by"], part["segment"]): part for part in one["full"].get("segments", ())}.get((by, segment))
                for one in models
            ]
            label = next(f"{segment} ({part['users']:,} users, {part['rows']:,} rows)" for part in found if part)
            for metric in HEADLINE[:2]:
                values = [measure(part, metric, k) for part in found]
                if any(values):
                    columns.append((Column(f"{metric}@{k}", label), cells(values)))
        tables.append(_by_columns(f"By {by}, full ranking", columns))
    return tables


def audit_table(audit: dict[str, Any]) -> Table:
    """Findings about the data, the most severe first."""
    found = [one for one in audit["findings"] if one["severity"] != "ok"]
    rows = [
        [
            Cell(one["severity"], one["kind"], kind=one["severity"]),
            Cell(one["what"], f"for example {'; '.join(map(str, one['examples']))}" if one["examples"] else ""),
            Cell(one["why"]),
            Cell(one["remedy"]),
        ]
        # Stable: the order of the audit within.
        for one in sorted(found, key=lambda one: SEVERITIES.index(one["severity"]))
    ]
    return _table("Findings about the data", _text("Severity", "Finding", "Consequence", "Remedy"), rows)


def passed_table(audit: dict[str, Any]) -> Table | None:
    """Checks of the audit without a finding; None where every check has one."""
    passed = [one for one in audit["findings"] if one["severity"] == "ok"]
    rows = [[Cell(one["kind"]), Cell(one["what"])] for one in passed]
    return _table("Checks without findings", _text("Check", "Result"), rows) if passed else None


def _rankings(comparison: dict[str, Any]) -> list[tuple[str, str]]:
    """The kinds of ranking that were measured, each with the label of its group."""
    found = [("full", "Full ranking: every item competes")]
    if any(one["sampled"] is not None for one in comparison["models"]):
        how = comparison["candidates"]["how"] if comparison["candidates"] else "a few sampled items compete"
        found.append(("sampled", f"Sampled: {how}"))
    return found


def _measured(models: Sequence[dict[str, Any]], ranking: str, metrics: Iterable[str], k: int) -> list[str]:
    return [metric for metric in metrics if any(measure(one[ranking], metric, k) for one in models)]


def _measures(models: Sequence[dict[str, Any]], ranking: str, metric: str, k: int, digits: int = 4) -> list[Cell]:
    found = [measure(one[ranking], metric, k) for one in models]
    return cells(found, lower=BETTER[metric] == "lower", mark=BETTER[metric] != "depends", digits=digits)


def _verdict(test: dict[str, Any], detail: str) -> Cell:
    if test["better"] is None:
        return Cell("no difference shown", detail)
    word = "better" if test["better"] else "worse"
    return Cell(word, detail, kind=word)


def _p(value: float | None) -> str:
    if value is None:
        return "–"
    return "< 0.0001" if value < 0.0001 else f"{value:.4f}"


def _text(*labels: str) -> list[Column]:
    return [Column(label, number=False) for label in labels]


def _names(models: Sequence[dict[str, Any]], *, roles: bool = False) -> tuple[Column, list[Cell]]:
    """The first column of most tables."""
    cells = [Cell(one["name"], ROLES.get(one["role"], one["role"]) if roles else "") for one in models]
    return Column("Model", number=False), cells


def _by_columns(caption: str, columns: Sequence[tuple[Column, list[Cell]]], note: str = "") -> Table:
    """A table from its columns: a metric is marked and formatted over all models, before there are rows."""
    heads, cells = zip(*columns, strict=True)
    return _table(caption, heads, zip(*cells, strict=True), note)


def _table(caption: str, columns: Sequence[Column], rows: Iterable[Sequence[Cell]], note: str = "") -> Table:
    return Table(caption, tuple(columns), tuple(tuple(row) for row in rows), note)


def examples(comparison: dict[str, Any]) -> list[dict[str, Any]]:
    """The example users, each with history, held-out items and the list of every model that has one.

    Long histories are cut to their latest items; ``earlier`` is the number of items before them.
    """
    users: dict[str, dict[str, Any]] = {}
    for model in comparison["models"]:
        for one in model["examples"]:
            history = one["history"]
            # All models list the same users: history and held-out items come from the first.
            user = users.setdefault(
                str(one["user"]),
                {
                    "user": one["user"],
                    "history": history[-HISTORY:],
                    "earlier": max(0, len(history) - HISTORY),
                    "held_out": one["held_out"],
                    "lists": [],
                },
            )
            user["lists"].append({"model": model["name"], "recommended": one["recommended"]})
    return list(users.values())
