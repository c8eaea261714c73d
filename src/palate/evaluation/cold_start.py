"""Cold-start evaluation: metrics for users and items without training interactions, apart from those of warm users.

    print(evaluate_cold_start(TwoTower.fast(), load("ml-100k")))

The recipe is fitted once on the warm part of the rows: those of warm users on warm items, without each user's latest.

    warm users     their latest row, as a leave-one-out split measures it
    cold users     by the information provided: their first rows (later rows are relevant), features only, or nothing
    cold items     the rows of warm users on them, ranked among cold items only, and among all items

Cold users are scored as new users: no row number, only their history and features. All rankings come from
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

from palate.base import AddsItems, Model, Query, Recipe, TrainOptions
from palate.data.dataset import Dataset, Fingerprint, Note
from palate.data.splits.cold import hold_out_items, hold_out_users, reveal
from palate.data.splits.split import Candidates, Split
from palate.data.splits.strategies import leave_one_out
from palate.errors import EvaluationError
from palate.evaluation.evaluate import evaluate
from palate.evaluation.report import Report
from palate.evaluation.significance import Paired, paired
from palate.evaluation.tables import Tabular, plain
from palate.recommend.cold_start import ColdStart, Fallback

Entry = tuple[str, str, Model]  # provided information, source of the answer, model
FEW_VALUES = 100  # a user feature with at most this many values can define segments


@dataclass(frozen=True, eq=False)
class ColdStartRow:
    """One measurement.

    Args:
        group: "warm users", "cold users" or "cold items".
        provided: information about the users that the model is given; for cold items the candidates.
        source: of the scores: "model", "fold-in", "features", a cold-start policy, "popular" or "random".
        report: of ``palate.evaluation.evaluate``.
        reference: source that it is compared with, or None for the reference itself.
        lift: difference of NDCG to the reference on the same users.
    """

    group: str
    provided: str
    source: str
    report: Report
    reference: str | None = None
    lift: Paired | None = None


@dataclass(frozen=True, eq=False, repr=False)
class ColdStartReport(Tabular):
    """The result of ``evaluate_cold_start``.

    Args:
        recipe, data: names.
        k: list length.
        how: the held-out users and items, in words.
        measured: the measurements.
        notes: rows that were left out, and limits of the model.
    """

    recipe: str
    data: str
    k: int
    how: str
    measured: tuple[ColdStartRow, ...]
    notes: tuple[str, ...] = ()

    def value(self, group: str, provided: str, source: str, metric: str = "NDCG") -> float:
        """The mean of one metric at k.

        Raises:
            EvaluationError: there is no such row.
        """
        for row in self.measured:
            if (row.group, row.provided, row.source) == (group, provided, source):
                return row.report.value(metric, self.k)
        there = "; ".join(f"{row.group}, {row.provided}, {row.source}" for row in self.measured)
        raise EvaluationError(f"{group}, {provided}, {source} was not measured: there are {there}")

    def rows(self) -> list[dict[str, Any]]:
        """One row per measurement, with intervals."""
        found = []
        for row in self.measured:
            numbers: dict[str, float | None] = {}
            for metric in ("NDCG", "Recall"):
                one = row.report.measure(metric, self.k)
                numbers |= {str(one): one.value, f"{one}_low": one.low, f"{one}_high": one.high}
            lift = dict.fromkeys(("difference", "low", "high", "p")) if row.lift is None else row.lift.to_dict()
            numbers |= {f"lift_{key}" if key != "p" else key: lift[key] for key in ("difference", "low", "high", "p")}
            facts = {"group": row.group, "provided": row.provided, "source": row.source}
            found.append({**facts, "users": row.report.users, **numbers})
        return found

    def cells(self) -> tuple[list[str], list[list[Any]]]:
        """The printed table: names of the columns, and the rows."""
        k = self.k
        names = ["group", "provided", "source", "users", f"NDCG@{k}", f"Recall@{k}", "NDCG minus reference", "p"]
        table: list[list[Any]] = []
        for row in self.measured:
            shown = [row.report.measure(metric, k) for metric in ("NDCG", "Recall")]
            numbers = [f"{one.value:.4f} ({one.low:.4f} to {one.high:.4f})" for one in shown]
            lift = ["", ""]
            if row.lift is not None:
                bounds = f"({row.lift.low:+.4f} to {row.lift.high:+.4f})"
                lift = [f"{row.lift.difference:+.4f} {bounds}", f"{row.lift.p:.2g}"]
            table.append([row.group, row.provided, row.source, row.report.users, *numbers, *lift])
        return names, table

    def to_dict(self) -> dict[str, Any]:
        """Ready for JSON."""
        rows = [
            {name: plain(getattr(row, name)) for name in ("group", "provided", "source", "reference", "lift")}
            | {"candidates": row.report.candidates, "users": row.report.users}
            | {"measures": plain([row.report.measure(metric, self.k) for metric in ("NDCG", "Recall")])}
            for row in self.measured
        ]
        return {**{name: plain(getattr(self, name)) for name in ("recipe", "data", "k", "how", "notes")}, "rows": rows}

    def __str__(self) -> str:
        names, rows = self.cells()
        lines = [names, *([str(cell) for cell in row] for row in rows)]
        widths = [max(len(line[column]) for line in lines) for column in range(len(names))]
        padded = ("  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)) for line in lines)
        title = f"{self.recipe} on {self.data}: {self.how}"
        return "\n".join([title, *(line.rstrip() for line in padded), *(f"note: {note}" for note in self.notes)])

    def __repr__(self) -> str:
        return (
            f"<ColdStartReport of {self.recipe} on {self.data}: {len(self.measured)} rows, k = {self.k}\n  {self.how}>"
        )


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
    options: TrainOptions = TrainOptions(),
    resamples: int = 1_000,
) -> ColdStartReport:
    """Fit a recipe on the warm part of the rows and measure it on warm users, cold users and cold items.

    Args:
        recipe: a recipe, not fitted.
        dataset: all rows; the split is made here.
        users, items: fractions of users and items that are held out entirely. Default: 0.1 each.
        histories: numbers of first rows that are provided of a cold user; -1 is all but the latest. Default: 1, 5, -1.
        policies: cold-start policies for users that the model can't personalize. Default: ``usual_policies``.
        k: list length. Default: 10.
        seed: of the choice of users and items.
        options: training options.
        resamples: number of bootstrap resamples for the intervals.

    Raises:
        DataError: too few rows to hold out these fractions.
    """
    away = hold_out_users(dataset, users, seed)
    unmet = hold_out_items(away.train, items, seed)
    warm = leave_one_out(unmet.train, cold="keep")
    # Items are held out of the training rows of the warm users only, so that cold users and cold items never mix: rows
    # of cold users on cold items tell neither effect from the other.
    model = recipe.fit(warm.train, options)
    bench, as_new = _Bench(warm.train, k, resamples), _AsNewUsers(model, warm.train)
    known_users = warm.train.history.counts > 0
    known_items = np.bincount(warm.train.interactions.item, minlength=dataset.n_items) > 0
    user, item = unmet.test.interactions.user, away.test.interactions.item
    new_users = _kept(warm.train, away, known_items[item], "rows of cold users on cold items, left out")
    cold = _kept(warm.train, unmet, known_users[user], "rows on cold items of users without others")
    notes = []
    rows = bench.measured("warm users", warm, [("all rows but the latest", "model", model)])
    for events in histories:
        provided = "all rows but the latest" if events == -1 else f"first {events} row{'s' if events > 1 else ''}"
        rows += bench.measured("cold users", reveal(new_users, events), [(provided, "fold-in", as_new)])
    policies = usual_policies(dataset) if policies is None else policies
    entries: list[Entry] = [(p.segment or "nothing", _named(p), _Policy(p, warm.train)) for p in policies]
    if bool(as_new.can_personalize(Query.of(new_users.test_users)).any()):
        entries.insert(0, ("all features", "features", as_new))
    else:
        notes.append(f"{recipe.name} scores no users by their features: no row for features")
    rows += bench.measured("cold users", new_users, entries)
    if not isinstance(model, AddsItems):
        notes.append(f"{recipe.name} has no item tower: its scores of cold items carry no information")
    item_rows = np.unique(unmet.test.interactions.item)
    # All held-out items as the negatives of every user; ``evaluate`` lets a relevant one not compete with itself.
    listed = np.tile(item_rows, (len(cold.test_users), 1))
    among = Candidates(cold.test_users, listed, f"all {len(item_rows):,} held-out items")
    rows += bench.measured("cold items", cold, [("among cold items", "model", model)], among)
    rows += bench.measured("cold items", cold, [("among all items", "model", model)])
    counted = [str(note) for split in (new_users, cold) for note in split.notes]
    how = f"{away.how}; then {unmet.how}; warm users: {warm.how}; "
    how += "all items ranked unless noted, seen items removed"
    return ColdStartReport(recipe.name, dataset.name, k, how, tuple(rows), (*counted, *notes))


def usual_policies(dataset: Dataset) -> tuple[ColdStart, ...]:
    """Policies that need no model: recent popularity where there are times, and popularity by a user feature."""
    # Without times nothing is recent, and the policy would refuse.
    recent = () if dataset.interactions.time is None else (ColdStart("recent"),)
    features = dataset.user_features
    columns = (
        [] if features is None else [c for c in features if not c.dtype.is_nested() and c.n_unique() <= FEW_VALUES]
    )
    return (*recent, *(ColdStart(segment=column.name) for column in columns))


class _AsNewUsers(nn.Module):
    """A model that scores all users as new users: by history and features, without their row number."""

    def __init__(self, model: Model, train: Dataset) -> None:
        super().__init__()
        self.model, self.features = cast(nn.Module, model), train.user_features
        self.trained_on: Fingerprint | None = model.trained_on

    def as_new_users(self, query: Query) -> Query:
        """The query as the recommender makes it for users without training rows."""
        features = None if self.features is None else self.features[query.user.cpu().numpy()]
        return replace(query, user=torch.full_like(query.user, -1), features=features)  # -1: no user vector is read

    def score(self, query: Query, items: Tensor | None = None) -> Tensor:
        """(B, C) or (B, I)."""
        return cast(Tensor, cast(Any, self.model).score(self.as_new_users(query), items))

    def can_personalize(self, query: Query) -> Tensor:
        """(B,) bool."""
        return cast(Tensor, cast(Any, self.model).can_personalize(self.as_new_users(query)))


class _Impersonal(nn.Module):
    """A reference that personalizes for no user."""

    trained_on: Fingerprint | None = None

    def can_personalize(self, query: Query) -> Tensor:
        """All False."""
        return torch.zeros(len(query), dtype=torch.bool)


class _Policy(_Impersonal):
    """The scores of a cold-start policy, for users that the model can't personalize."""

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


class _Random(_Impersonal):
    """Random scores: the level of chance among cold items, for which popularity is 0."""

    def __init__(self, items: int) -> None:
        super().__init__()
        # Its own generator: torch's global random numbers stay those of the model.
        self.items, self.dice = items, torch.Generator().manual_seed(0)

    def score(self, query: Query, items: Tensor | None = None) -> Tensor:
        """(B, C) or (B, I)."""
        return torch.rand(len(query), self.items if items is None else items.shape[1], generator=self.dice)


class _Bench:
    """Measures models and references on one split after another."""

    def __init__(self, train: Dataset, k: int, resamples: int) -> None:
        self.k, self.resamples = k, resamples
        self.popular, self.random = _Policy(ColdStart(), train), _Random(train.n_items)

    def measured(
        self, group: str, split: Split, entries: Sequence[Entry], among: Candidates | None = None
    ) -> list[ColdStartRow]:
        """A row for each entry with its difference to the reference: popularity or, for cold items, random scores."""
        # Popularity is 0 for every cold item: among them only chance is a reference.
        source, model = ("random", self.random) if group == "cold items" else ("popular", self.popular)
        reference, key = self._report(model, split, among), f"NDCG@{self.k}"
        # The same users and candidates as the reference, so that the lift is paired by user.
        reports = [self._report(one, split, among) for *_, one in entries]
        lifts = [paired(report.per_user[key], reference.per_user[key]) for report in reports]
        rows = [
            ColdStartRow(group, provided, name, report, source, lift)
            for (provided, name, _), report, lift in zip(entries, reports, lifts, strict=True)
        ]
        provided = entries[0][0] if len(entries) == 1 else "nothing"
        return [*rows, ColdStartRow(group, provided, source, reference)]

    def _report(self, model: Model, split: Split, among: Candidates | None) -> Report:
        return evaluate(model, split, k=self.k, candidates=among, resamples=self.resamples)


def _kept(train: Dataset, split: Split, kept: Any, reason: str) -> Split:
    dropped = int((~kept).sum())
    notes = (Note(reason, dropped),) if dropped else ()
    return Split(train, split.test.with_rows(split.test.interactions.take(kept)), split.how, notes)


def _named(policy: ColdStart) -> str:
    kind = "popular" if policy.fallback == "popular" else f"recent (half-life {policy.half_life:g} days)"
    return kind if policy.segment is None else f"{kind} by {policy.segment}"
