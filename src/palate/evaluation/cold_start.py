"""How good is a recipe for people and items it has never met? Cold users and cold items, measured apart.

    print(evaluate_cold_start(TwoTower.fast(), load("ml-100k")))

One fit on the warm part of the rows: those of warm users on warm items, without each user's latest. Measured are

    warm users     their latest row, which is what a leave-one-out split measures
    cold users     by what is told about them: their first rows (the later ones are relevant), features only, nothing
    cold items     the rows of warm users on them, ranked among cold items only, and among all items

Cold users are asked as strangers: no row number, only their history and features. Everything is ranked by
``evaluate``; the difference to the reference, on the same users, is tested as in ``significance``.

Shape legend: B users, C candidates, I items, T test users.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor, nn

from palate.base import Model, Query, Recipe, TrainOptions
from palate.data.dataset import Dataset, Fingerprint, Note
from palate.data.splits.cold import hold_out_items, hold_out_users, reveal
from palate.data.splits.split import Candidates, Split, leave_one_out
from palate.evaluation.evaluate import Report, evaluate
from palate.evaluation.significance import Paired, paired
from palate.recommend.cold_start import ColdStart, Fallback

__all__ = ["ColdReport", "ColdRow", "evaluate_cold_start", "usual_policies"]

Entry = tuple[str, str, Model]  # what is told, who answers, the model
FEW_VALUES = 100  # a user feature with at most so many values can part users into segments


@dataclass(frozen=True, eq=False)
class ColdRow:
    """One measurement.

    Args:
        who: "warm users", "cold users" or "cold items".
        told: what is told about the users; for cold items the candidates.
        by: who answers: the source of the rows ("model", "fold-in", "features"), a policy, "popular" or "random".
        report: of ``palate.evaluation.evaluate``.
        against: the reference, or None for the reference itself.
        lift: difference of NDCG to the reference on the same users.
    """

    who: str
    told: str
    by: str
    report: Report
    against: str | None = None
    lift: Paired | None = None


@dataclass(frozen=True, eq=False)
class ColdReport:
    """What ``evaluate_cold_start`` found.

    Args:
        recipe, data: names.
        k: list length.
        how: what was held out, in words.
        rows: the measurements.
        notes: what was left out, and what the model cannot do.
    """

    recipe: str
    data: str
    k: int
    how: str
    rows: tuple[ColdRow, ...]
    notes: tuple[str, ...] = ()

    def value(self, who: str, told: str, by: str, metric: str = "NDCG") -> float:
        """The mean of one metric at k; raises KeyError where there is no such row."""
        for row in self.rows:
            if (row.who, row.told, row.by) == (who, told, by):
                return row.report.value(metric, self.k)
        raise KeyError(f"{who}, {told}, {by}")

    def cells(self) -> tuple[list[str], list[list[Any]]]:
        """The table: names of the columns, and the rows."""
        k = self.k
        names = ["who", "told", "answered by", "users", f"NDCG@{k}", f"Recall@{k}", "NDCG minus reference", "p"]
        return names, [[row.who, row.told, row.by, row.report.users, *self._numbers(row)] for row in self.rows]

    def to_dict(self) -> dict[str, Any]:
        """Ready for JSON."""
        words = {"recipe": self.recipe, "data": self.data, "k": self.k, "how": self.how, "notes": list(self.notes)}
        return {**words, "rows": [self._plain(row) for row in self.rows]}

    def __str__(self) -> str:
        names, rows = self.cells()
        lines = [names, *([str(cell) for cell in row] for row in rows)]
        widths = [max(len(line[column]) for line in lines) for column in range(len(names))]
        padded = ("  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)) for line in lines)
        title = f"{self.recipe} on {self.data}: {self.how}"
        return "\n".join([title, *(line.rstrip() for line in padded), *(f"note: {note}" for note in self.notes)])

    def _numbers(self, row: ColdRow) -> list[str]:
        shown = [row.report.measure(metric, self.k) for metric in ("NDCG", "Recall")]
        cells = [f"{one.value:.4f} ({one.low:.4f} to {one.high:.4f})" for one in shown]
        if row.lift is None:
            return [*cells, "", ""]
        lift = row.lift
        return [*cells, f"{lift.difference:+.4f} ({lift.low:+.4f} to {lift.high:+.4f})", f"{lift.p:.2g}"]

    def _plain(self, row: ColdRow) -> dict[str, Any]:
        words = {"who": row.who, "told": row.told, "by": row.by, "candidates": row.report.candidates}
        measures = [row.report.measure(metric, self.k).to_dict() for metric in ("NDCG", "Recall")]
        lift = None if row.lift is None else row.lift.to_dict()
        return {**words, "users": row.report.users, "measures": measures, "reference": row.against, "lift": lift}


def evaluate_cold_start(
    recipe: Recipe[Any],
    dataset: Dataset,
    *,
    users: float = 0.1,
    items: float = 0.1,
    histories: Sequence[int] = (1, 5, -1),
    policies: Sequence[ColdStart] | None = None,
    k: int = 10,
    seed: int = 0,
    run: TrainOptions = TrainOptions(),
    resamples: int = 1_000,
) -> ColdReport:
    """Fit a recipe on the warm part of the rows and measure it on warm users, cold users and cold items.

    Args:
        recipe: any.
        dataset: all rows; they are split in here.
        users, items: shares of them that are held out entirely.
        histories: how many first rows of a cold user are told; -1 is all but the latest.
        policies: for strangers whom the model does not know; ``usual_policies`` where None.
        k: list length.
        seed: of the choice of users and items.
        run: of the fit.
        resamples: of the intervals.

    Raises:
        DataError: too few rows for what is to be held out.
    """
    away = hold_out_users(dataset, users, seed)
    unmet = hold_out_items(away.train, items, seed)
    warm = leave_one_out(unmet.train, cold="keep")
    model = recipe.fit(warm.train, run)
    bench, asked = _Bench(warm.train, k, resamples), _Strangers(model, warm.train)
    strangers, cold, notes = _cold_users(warm.train, away), _cold_items(warm.train, unmet), []
    rows = bench.measured("warm users", warm, [("all rows but the latest", "model", model)])
    for events in histories:
        rows += bench.measured("cold users", reveal(strangers, events), [(_events(events), "fold-in", asked)])
    policies = usual_policies(dataset) if policies is None else policies
    entries: list[Entry] = [(p.segment or "nothing", _named(p), _Policy(p, warm.train)) for p in policies]
    if bool(asked.can_personalize(Query.of(strangers.test_users)).any()):
        entries.insert(0, ("all features", "features", asked))
    else:
        notes.append(f"{recipe.name} says nothing about users by their features: no row for features")
    rows += bench.measured("cold users", strangers, entries)
    if not hasattr(model, "with_items"):
        notes.append(f"{recipe.name} has no item tower: what it scores for cold items means nothing")
    item_rows = np.unique(unmet.test.interactions.item)
    listed = np.tile(item_rows, (len(cold.test_users), 1))
    among = Candidates(cold.test_users, listed, f"all {len(item_rows):,} held-out items")
    rows += bench.measured("cold items", cold, [("among cold items", "model", model)], among)
    rows += bench.measured("cold items", cold, [("among all items", "model", model)])
    counted = [str(note) for split in (strangers, cold) for note in split.notes]
    how = f"{away.how}; then {unmet.how}; warm users: {warm.how}; all items ranked unless said otherwise, seen removed"
    return ColdReport(recipe.name, dataset.name, k, how, tuple(rows), (*counted, *notes))


def usual_policies(dataset: Dataset) -> tuple[ColdStart, ...]:
    """What can be done without a model: what is recent, where there are times, and segments by a user feature."""
    recent = () if dataset.interactions.time is None else (ColdStart("recent"),)
    features = dataset.user_features
    columns = (
        [] if features is None else [c for c in features if not c.dtype.is_nested() and c.n_unique() <= FEW_VALUES]
    )
    return (*recent, *(ColdStart(segment=column.name) for column in columns))


class _Strangers(nn.Module):
    """A model that is asked about users as strangers: by history and features, without their row number."""

    def __init__(self, model: Model, train: Dataset) -> None:
        super().__init__()
        self.model, self.features = cast(nn.Module, model), train.user_features
        self.trained_on: Fingerprint | None = model.trained_on

    def stranger(self, query: Query) -> Query:
        """The query as the recommender makes it for somebody without training rows."""
        features = None if self.features is None else self.features[query.user.cpu().numpy()]
        return replace(query, user=torch.full_like(query.user, -1), features=features)

    def score(self, query: Query, items: Tensor | None = None) -> Tensor:
        """(B, C) or (B, I)."""
        return cast(Tensor, cast(Any, self.model).score(self.stranger(query), items))

    def can_personalize(self, query: Query) -> Tensor:
        """(B,) bool."""
        return cast(Tensor, cast(Any, self.model).can_personalize(self.stranger(query)))


class _Policy(nn.Module):
    """What a policy scores for users of whom the model knows nothing."""

    trained_on: Fingerprint | None = None

    def __init__(self, policy: ColdStart, train: Dataset) -> None:
        super().__init__()
        counts = np.bincount(train.interactions.item, minlength=train.n_items).astype(np.float32)
        self.fallback = Fallback.of(policy, train.history, counts, train.user_features)
        self.features = train.user_features

    def score(self, query: Query, items: Tensor | None = None) -> Tensor:
        """(B, C) or (B, I)."""
        features = None if self.features is None else self.features[query.user.cpu().numpy()]
        score_BI = torch.from_numpy(self.fallback.scores(len(query), features))
        return score_BI if items is None else score_BI.gather(1, items)

    def can_personalize(self, query: Query) -> Tensor:
        """Nobody: all False."""
        return torch.zeros(len(query), dtype=torch.bool)


class _Random(nn.Module):
    """Scores without meaning: what luck achieves."""

    trained_on: Fingerprint | None = None

    def __init__(self, items: int) -> None:
        super().__init__()
        self.items, self.dice = items, torch.Generator().manual_seed(0)

    def score(self, query: Query, items: Tensor | None = None) -> Tensor:
        """(B, C) or (B, I)."""
        return torch.rand(len(query), self.items if items is None else items.shape[1], generator=self.dice)

    def can_personalize(self, query: Query) -> Tensor:
        """Nobody: all False."""
        return torch.zeros(len(query), dtype=torch.bool)


class _Bench:
    """Measures models and references on one split after another."""

    def __init__(self, train: Dataset, k: int, resamples: int) -> None:
        self.k, self.resamples = k, resamples
        self.popular, self.random = _Policy(ColdStart(), train), _Random(train.n_items)

    def measured(
        self, who: str, split: Split, entries: Sequence[Entry], among: Candidates | None = None
    ) -> list[ColdRow]:
        """A row for each entry, compared with popularity or, for cold items, with luck, and that of the reference."""
        by, model = ("random", self.random) if who == "cold items" else ("popular", self.popular)
        reference, key = self._report(model, split, among), f"NDCG@{self.k}"
        reports = [self._report(one, split, among) for *_, one in entries]
        lifts = [paired(report.per_user[key], reference.per_user[key]) for report in reports]
        rows = [
            ColdRow(who, told, name, report, by, lift)
            for (told, name, _), report, lift in zip(entries, reports, lifts, strict=True)
        ]
        told = entries[0][0] if len(entries) == 1 else "nothing"
        return [*rows, ColdRow(who, told, by, reference)]

    def _report(self, model: Model, split: Split, among: Candidates | None) -> Report:
        return evaluate(model, split, k=self.k, candidates=among, resamples=self.resamples)


def _cold_users(train: Dataset, away: Split) -> Split:
    """The rows of the held-out users on items that training has."""
    there = np.bincount(train.interactions.item, minlength=train.n_items) > 0
    return _kept(train, away, there[away.test.interactions.item], "rows of cold users on cold items, left out")


def _cold_items(train: Dataset, unmet: Split) -> Split:
    """The rows on held-out items of users whom training has."""
    there = train.history.counts > 0
    return _kept(train, unmet, there[unmet.test.interactions.user], "rows on cold items of users without others")


def _kept(train: Dataset, split: Split, kept: Any, what: str) -> Split:
    dropped = int((~kept).sum())
    notes = (Note(what, dropped),) if dropped else ()
    return Split(train, split.test.with_rows(split.test.interactions.take(kept)), split.how, notes)


def _events(events: int) -> str:
    return "all rows but the latest" if events == -1 else f"first {events} row{'s' if events > 1 else ''}"


def _named(policy: ColdStart) -> str:
    kind = "popular" if policy.fallback == "popular" else f"recent (half-life {policy.half_life:g} days)"
    return kind if policy.segment is None else f"{kind} by {policy.segment}"
