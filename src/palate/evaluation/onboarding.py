"""How much better than popularity a few answers make the lists, measured on users whose histories are hidden.

    report = evaluate_onboarding(EASE(), load("ml-100k"))
    print(report.frame)

Some users are held out of training altogether. Each is asked about items until 5 answers are there: an item of their
history is one they know. The answers are then all that the model is told of them, by fold-in, and the rest of their
history is what the lists should hold. Popularity is measured for the same users, relevant items and candidates.

Four ways of asking: "interview", each question chosen by the answers before it; "list", the same questions for all;
"popular", the most known items; "random", not asked at all but told of five random items of the history.

Shape legend: B held-out users, M items that may be asked about, I items, T questions.
"""

from __future__ import annotations

from dataclasses import asdict, astuple, dataclass, replace
from typing import Any, NamedTuple

import numpy as np
import polars as pl
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from palate.base import Query, Recipe, TrainOptions
from palate.data.dataset import Dataset, Fingerprint, History, Interactions, Note
from palate.data.splits.split import Split
from palate.errors import DataError
from palate.evaluation.evaluate import evaluate
from palate.evaluation.significance import paired
from palate.models.popularity import Popularity
from palate.recommend import Recommender
from palate.recommend.onboarding import Interview, Tastes

__all__ = ["WAYS", "Asked", "OnboardingReport", "evaluate_onboarding", "newcomers"]

WAYS = ("interview", "list", "popular", "random")
TOGETHER = 1_024  # users interviewed at once: a few hundred MB at most
_REST = ("the rest of their rows", "the answers")


@dataclass(frozen=True)
class Asked:
    """One way of asking, and what its answers are worth.

    Args:
        way: of asking.
        users: measured.
        questions, answers: mean number per user.
        ndcg, popularity: mean NDCG@k of the model told the answers, and of popularity.
        difference, low, high, p: of the two, paired over users, with a 95 % interval (see ``significance.paired``).
    """

    way: str
    users: int
    questions: float
    answers: float
    ndcg: float
    popularity: float
    difference: float
    low: float
    high: float
    p: float


@dataclass(frozen=True)
class OnboardingReport:
    """What was measured, by way of asking.

    Args:
        recipe, data: names.
        how: users, questions, relevant items and candidates in words.
        asked: one entry per way.
        notes: users that were left out, counted.
    """

    recipe: str
    data: str
    how: str
    asked: tuple[Asked, ...]
    notes: tuple[Note, ...] = ()

    @property
    def frame(self) -> pl.DataFrame:
        """One row per way of asking."""
        return pl.DataFrame([asdict(one) for one in self.asked])

    def of(self, way: str) -> Asked:
        """The entry of one way.

        Raises:
            DataError: it was not measured.
        """
        for one in self.asked:
            if one.way == way:
                return one
        raise DataError(f"way={way!r} was not measured: there are {', '.join(one.way for one in self.asked)}")


class _Held(NamedTuple):
    """Users (B,) out of training, their distinct rows that questions may touch, and those that are relevant or None."""

    users: NDArray[np.int64]
    known: Interactions
    hidden: Interactions | None


class _Told(NamedTuple):
    """Answers as (user (N,), item (N,)) in the order they were given, and the questions asked of each user (B,)."""

    user: NDArray[np.int64]
    item: NDArray[np.int64]
    questions: NDArray[np.int64]


class _Newcomers(nn.Module):
    """A model that knows of each user only what was answered; popularity answers where it can say nothing personal."""

    def __init__(self, recommender: Recommender, answers: History) -> None:
        super().__init__()
        self.recommender, self.answers = recommender, answers
        self.trained_on: Fingerprint | None = recommender.model.trained_on

    def score(self, query: Query, items: Tensor | None = None) -> Tensor:
        """As the recommender scores strangers."""
        told = Query.of(np.full(len(query), -1), self.answers.select(query.user.cpu().numpy()))
        told = told.to(self.recommender.device)
        model = self.recommender.model
        popular = self.recommender.popular
        fallback = popular.expand(len(query), -1) if items is None else popular[items]
        return model.score(told, items).where(model.can_personalize(told)[:, None], fallback)

    def can_personalize(self, query: Query) -> Tensor:
        """Everybody is answered."""
        return torch.ones(len(query), dtype=torch.bool)


def evaluate_onboarding(
    recipe: Recipe[Any],
    dataset: Dataset,
    *,
    answers: int = 5,
    questions: int = 30,
    ways: tuple[str, ...] = WAYS,
    share: float = 0.1,
    hidden: float = 0.0,
    k: int = 10,
    run: TrainOptions = TrainOptions(),
) -> OnboardingReport:
    """Fit without some users, ask them, and measure the lists that their answers give.

    Args:
        recipe: fitted once, on the other users.
        dataset: all rows.
        answers: a user is asked until so many items were known.
        questions: but not more often than this.
        ways: of asking, of ``WAYS``.
        share: of the users, held out. Those with too few rows to leave any behind the answers are not measured.
        hidden: share of each user's rows that no question touches. With 0 the rest of the history is relevant, which
            differs from one way of asking to the next. Above 0 the hidden rows are, and all others leave the lists:
            so ways of asking can be compared with each other.
        k: length of the lists.
        run: how to fit; its seed also chooses the users.

    Raises:
        DataError: a number out of range, an unknown way, or nobody to measure.
    """
    _check(answers, questions, ways, share, hidden)
    rng = np.random.default_rng([run.seed, 1])
    held, notes = _held_out(dataset, answers, share, hidden, run.seed, rng)
    rows = dataset.interactions
    train = dataset.with_rows(rows.take(~np.isin(rows.user, held.users)))
    recommender = Recommender.of(recipe.fit(train, run), train)
    popularity = Popularity().fit(train)
    asked = []
    for way in ways:
        told = _ask(way, recommender, held, answers, questions, rng)
        split, history = _split(train, held, told)
        models = (_Newcomers(recommender, history).eval(), popularity)
        ours, theirs = (evaluate(model, split, k=k, resamples=0).per_user[f"NDCG@{k}"] for model in models)
        difference, low, high, p, _ = astuple(paired(ours, theirs))
        counts = float(told.questions.mean()), len(told.item) / len(held.users)
        means = float(ours.mean()), float(theirs.mean())
        asked.append(Asked(way, len(ours), *counts, *means, difference, low, high, p))
    what, others = (f"the hidden {hidden:.0%} of their rows", "their other rows") if hidden else _REST
    how = f"{len(held.users):,} users not in training, asked until {answers} answers or {questions} questions; "
    how += f"relevant: {what}; candidates: all {dataset.n_items:,} items but {others}"
    return OnboardingReport(recipe.name, dataset.name, how, tuple(asked), notes)


def _check(answers: int, questions: int, ways: tuple[str, ...], share: float, hidden: float) -> None:
    if answers < 1 or questions < answers:
        raise DataError(f"answers={answers}, questions={questions}: ask for at least 1 answer in as many questions")
    if unknown := [way for way in ways if way not in WAYS]:
        raise DataError(f"ways={unknown}: choose among {', '.join(WAYS)}")
    if not (0 < share < 1 and 0 <= hidden < 1):
        raise DataError(f"share={share:g}, hidden={hidden:g}: shares are below 1, that of the users above 0")


def newcomers(dataset: Dataset, share: float, seed: int = 0) -> NDArray[np.int32]:
    """The random users that ``evaluate_onboarding`` holds out, ascending: choose settings on the rows of the others."""
    there = np.unique(dataset.interactions.user)
    return np.sort(np.random.default_rng(seed).permutation(there)[: max(1, int(share * len(there)))])


def _held_out(
    dataset: Dataset, answers: int, share: float, hidden: float, seed: int, rng: np.random.Generator
) -> tuple[_Held, tuple[Note, ...]]:
    """Random users with more rows than answers, and a note on those with fewer."""
    rows, chosen = dataset.interactions, newcomers(dataset, share, seed)
    mine = rows.take(np.isin(rows.user, chosen))
    once = mine.take(np.unique(_pairs(mine.user, mine.item, dataset.n_items), return_index=True)[1])
    count_U = np.bincount(once.user, minlength=dataset.n_users)
    users = chosen[count_U[chosen] > answers].astype(np.int64)
    few = len(chosen) - len(users)
    notes = (Note(f"held-out users with {answers} items or fewer, in neither part", few),) if few else ()
    if not len(users):
        raise DataError(f"none of {few} held-out users has more than {answers} items: ask for fewer answers")
    once = once.take(np.isin(once.user, users))
    if not hidden:
        return _Held(users, once, None), notes
    aside = _turns(once.user, rng) < np.maximum(1, np.floor(hidden * count_U))[once.user]
    return _Held(users, once.take(~aside), once.take(aside)), notes


def _pairs(user: NDArray[Any], item: NDArray[Any], items: int) -> NDArray[np.int64]:
    pair: NDArray[np.int64] = user.astype(np.int64) * items + item
    return pair


def _turns(user: NDArray[Any], rng: np.random.Generator) -> NDArray[np.int64]:
    """The place of each row among those of its user, in random order."""
    order = np.lexsort((rng.random(len(user)), user))
    turn = np.empty(len(user), np.int64)
    turn[order] = np.arange(len(user)) - np.searchsorted(user[order], user[order])
    return turn


def _ask(
    way: str, recommender: Recommender, held: _Held, answers: int, questions: int, rng: np.random.Generator
) -> _Told:
    """What the users answered when they were asked in one way."""
    known = held.known
    if way == "random":
        first = known.take(_turns(known.user, rng) < answers)
        return _Told(first.user.astype(np.int64), first.item.astype(np.int64), np.zeros(len(held.users), np.int64))
    tastes = Tastes.of(recommender)
    place_I = np.full(len(recommender.items), -1)
    place_I[tastes.item] = np.arange(len(tastes.item))
    known_BM = np.zeros((len(held.users), len(tastes.item)), dtype=bool)
    place = place_I[known.item]
    known_BM[np.searchsorted(held.users, known.user)[place >= 0], place[place >= 0]] = True
    questions = min(questions, len(tastes.item))
    if way == "interview":
        place_BT = _interviews(tastes, known_BM, questions)
    else:
        places = tastes.first(questions) if way == "list" else np.arange(questions)
        place_BT = np.broadcast_to(places, (len(held.users), questions))
    yes_BT = np.take_along_axis(known_BM, place_BT, axis=1)
    # Nobody is asked on when the answers are there.
    asked_BT = np.cumsum(yes_BT, axis=1) - yes_BT < answers
    row, turn = np.nonzero(yes_BT & asked_BT)
    return _Told(held.users[row], tastes.item[place_BT[row, turn]], asked_BT.sum(axis=1))


def _interviews(tastes: Tastes, known_BM: NDArray[np.bool_], questions: int) -> NDArray[np.int64]:
    """Places (B, T) that each user is asked about, in turn, whether or not the answers were there before."""
    place_BT = np.empty((len(known_BM), questions), np.int64)
    for first in range(0, len(known_BM), TOGETHER):
        known, place = known_BM[first : first + TOGETHER], place_BT[first : first + TOGETHER]
        interview, rows = Interview(tastes, len(known)), np.arange(len(known))
        for turn in range(questions):
            place[:, turn] = interview.next()
            interview.answer(place[:, turn], known[rows, place[:, turn]])
    return place_BT


def _split(train: Dataset, held: _Held, told: _Told) -> tuple[Split, History]:
    """The split to measure on, and the answers as histories: in the order they were given, after all training rows."""
    known, rows = held.known, train.interactions
    pair = _pairs(known.user, known.item, train.n_items)
    order = np.argsort(pair)
    row = order[np.searchsorted(pair[order], _pairs(told.user, told.item, train.n_items))]
    answered = known.take(row)
    if rows.time is not None:
        answered = replace(answered, time=np.full(len(row), rows.time.max()))
    if held.hidden is None:
        removed, relevant = answered, known.take(np.setdiff1d(np.arange(len(known)), row))
    else:
        removed, relevant = known, held.hidden
    test = train.with_rows(relevant)
    split = Split(train.with_rows(_joined(rows, removed)), test, "onboarding: answers of users not in training")
    return split, answered.history(train.n_users)


def _joined(first: Interactions, second: Interactions) -> Interactions:
    time = None if first.time is None or second.time is None else np.concatenate([first.time, second.time])
    user, item, weight = (np.concatenate([getattr(first, c), getattr(second, c)]) for c in ("user", "item", "weight"))
    return Interactions(user, item, weight, time)
