"""Tables of a comparison over several splits: a column for each split."""

from __future__ import annotations

from typing import Any

from palate.report.cells import Cell, Column, Table, cells

RANKINGS = {"full": "Full ranking: every item competes", "sampled": "Sampled candidates"}


def results_tables(comparison: dict[str, Any]) -> list[Table]:
    """A table for each ranking: the mean over all splits with its interval, and the value on each split."""
    tables, numbers = [], range(1, len(comparison["folds"]) + 1)
    name = f"{comparison['metric']}@{comparison['k']}"
    note = "Small print: 95 % interval over users. Bold: highest value of the column."
    for ranking, title in RANKINGS.items():
        models = [one for one in comparison["models"] if ranking in one]
        if not models:
            continue
        values = [
            [{"value": value} for value in column]
            for column in zip(*(one[ranking]["by_fold"] for one in models), strict=True)
        ]
        columns = [cells([one[ranking] for one in models]), *map(cells, values)]
        heads = [Column("Model", number=False), Column("All splits"), *(Column(f"Split {n}") for n in numbers)]
        rows = [(Cell(one["name"], one["role"]), *row) for one, *row in zip(models, *columns, strict=True)]
        tables.append(Table(f"{name}. {title}", tuple(heads), tuple(rows), note))
    return tables


def splits_table(comparison: dict[str, Any]) -> Table:
    """How each split was made, with its sizes and fingerprint."""
    columns = (
        Column("Split", number=False), Column("Held-out rows", number=False), Column("Training rows"),
        Column("Test rows"), Column("Test users"), Column("Fingerprint", number=False),
    )  # fmt: skip
    sizes = ("train_rows", "test_rows", "test_users")
    rows = tuple(
        (
            Cell(str(number)), Cell(one["how"]), *(Cell(f"{one[key]:,}") for key in sizes), Cell(one["fingerprint"]),
        )
        for number, one in enumerate(comparison["folds"], 1)
    )  # fmt: skip
    return Table(
        "The splits", columns, rows, "Numbers of two reports are comparable only if these fingerprints are equal."
    )


def settings_table(comparison: dict[str, Any]) -> Table | None:
    """How settings were chosen on each split; None if nothing was tuned."""
    tuned = [one for one in comparison["models"] if any(one["tuned"])]
    columns = [Column("Model", number=False)]
    columns += [Column(f"Split {number}", number=False) for number in range(1, len(comparison["folds"]) + 1)]
    rows = tuple((Cell(one["name"]), *map(_setting, one["tuned"])) for one in tuned)
    return Table("Chosen settings", tuple(columns), rows) if tuned else None


def _setting(words: str | None) -> Cell:
    """Fields and values, and in small print how they were found."""
    setting, _, how = (words or "–").partition(": ")
    return Cell(setting, how)


def as_measures(comparison: dict[str, Any]) -> dict[str, Any]:
    """The means over all splits in the form of a comparison on one split, for its plots."""
    place = {"metric": comparison["metric"], "k": comparison["k"]}
    models = [
        {
            "name": one["name"],
            **{ranking: {"measures": [{**place, **one[ranking]}]} if ranking in one else None for ranking in RANKINGS},
        }
        for one in comparison["models"]
    ]
    return {"k": comparison["k"], "models": models}
