"""The gain of a few onboarding answers over popularity, measured on users whose histories are held out.

    report = evaluate_onboarding(EASE(), load("ml-100k"))
    print(report.to_frame())

Some users are held out of training altogether. Each is asked about items until 5 answers are there: a user knows the
items of the own history. The model gets the answers alone, by fold-in, and the rest of the history is relevant.
Popularity is measured for the same users, relevant items and candidates.

Four strategies: "interview", each question chosen by the answers before it; "list", the same questions for all users;
"popular", the most known items; "random", no questions but five random items of the history.

Shape legend: B held-out users, N answers, M items that may be asked about, I items, T questions.
"""

from __future__ import annotations

from dataclasses import astuple, dataclass, replace
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from palate.base import Query, Recipe, TrainOptions
from palate.data.dataset import Dataset, Fingerprint, History, Interactions, Note
from palate.data.splits.split import Split
from palate.errors import DataError
from palate.evaluation.evaluate import evaluate
from palate.evaluation.significance import paired
from palate.evaluation.tables import Plain, Tabular
from palate.models.popularity import Popularity
from palate.recommend import Recommender
from palate.recommend.onboarding import Interview, Tastes

STRATEGIES = ("interview", "list", "popular", "random")


@dataclass(frozen=True)
class StrategyResult(Plain):
    """The measured gain of one strategy.

    Args:
        strategy: name.
        users: number of measured users.
        questions, answers: mean number per user.
        ndcg, popularity: mean NDCG@k of the model given the answers, and of popularity.
        difference, low, high, p: of the two, paired over users, with a 95 % interval (see ``significance.paired``).
    """

    strategy: str
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
class OnboardingReport(Tabular):
    """Results by strategy.

    Args:
        recipe, data: names.
        how: users, questions, relevant items and candidates in words.
        results: one entry per strategy.
        notes: number of users that were left out.
    """

    recipe: str
    data: str
    how: str
    results: tuple[StrategyResult, ...]
    notes: tuple[Note, ...] = ()

    def rows(self) -> list[dict[str, Any]]:
        """One row per strategy."""
        return [one.to_dict() for one in self.results]

    def of(self, strategy: str) -> StrategyResult:
        """The result of one strategy.

        Raises:
            DataError: it was not measured.
        """
        for one in self.results:
            if one.strategy == strategy:
                return one
        names = ", ".join(one.strategy for one in self.results)
        raise DataError(f"strategy={strategy!r} was not measured: there are {names}")


class _HeldOut(NamedTuple):
    """Users (B,) out of training, their distinct rows that questions may touch, and hidden rows that are relevant."""

    users: NDArray[np.int64]
    known: Interactions
    hidden: Interactions | None


class _Answers(NamedTuple):
    """Answers as (user (N,), item (N,)) in the order they were given, and the questions asked of each user (B,)."""

    user: NDArray[np.int64]
    item: NDArray[np.int64]
    questions: NDArray[np.int64]


class _NewUsers(nn.Module):
    """A model that gets only the answers of each user; popularity scores where it cannot personalize."""

    def __init__(self, recommender: Recommender, answers: History) -> None:
        super().__init__()
        self.recommender, self.answers = recommender, answers
        self.trained_on: Fingerprint | None = recommender.model.trained_on

    def score(self, query: Query, items: Tensor | None = None) -> Tensor:
        """Scores as the recommender gives them to new users."""
        answered = Query.of(np.full(len(query), -1), self.answers.select(query.user.cpu().numpy()))
        answered = answered.to(self.recommender.device)
        model = self.recommender.model
        popular = torch.from_numpy(self.recommender.popularity).to(self.recommender.device)
        fallback = popular.expand(len(query), -1) if items is None else popular[items]
        return model.score(answered, items).where(model.can_personalize(answered)[:, None], fallback)

    def can_personalize(self, query: Query) -> Tensor:
        """True for all users: popularity is an answer too."""
        return torch.ones(len(query), dtype=torch.bool)


def evaluate_onboarding(
    recipe: Recipe[Any],
    dataset: Dataset,
    *,
    answers: int = 5,
    questions: int = 30,
    strategies: tuple[str, ...] = STRATEGIES,
    test_size: float = 0.1,
    hidden_size: float = 0.0,
    k: int = 10,
    options: TrainOptions = TrainOptions(),
    users_at_once: int = 1_024,
) -> OnboardingReport:
    """Fit without some users, ask them, and measure the lists that follow from their answers.

    Args:
        recipe: fitted once, on the other users.
        dataset: all rows.
        answers: number of known items after which questions end. Default: 5.
        questions: maximum number of questions per user. Default: 30.
        strategies: of ``STRATEGIES``.
        test_size: share of the users to hold out. Users with too few rows to leave any behind the answers are not
            measured. Default: 0.1.
        hidden_size: share of each user's rows that no question touches. With 0 the rest of the history is relevant,
            which differs between strategies. Above 0 the hidden rows are relevant and all others leave the lists, so
            that strategies can be compared with each other.
        k: list length. Default: 10.
        options: training options; the seed also chooses the users.
        users_at_once: users interviewed at once; bounds the memory to a few hundred MB.

    Raises:
        DataError: a number out of range, an unknown strategy, or no user to measure.
    """
    if answers < 1 or questions < answers:
        raise DataError(f"answers={answers}, questions={questions}: ask for at least 1 answer in as many questions")
    if unknown := [one for one in strategies if one not in STRATEGIES]:
        raise DataError(f"strategies={unknown}: choose among {', '.join(STRATEGIES)}")
    if not (0 < test_size < 1 and 0 <= hidden_size < 1):
        raise DataError(f"test_size={test_size:g}, hidden_size={hidden_size:g}: give shares below 1, test_size above 0")
    rng = np.random.default_rng([options.seed, 1])  # not the stream that chooses the users
    held, notes = _held_out(dataset, answers, test_size, hidden_size, options.seed, rng)
    rows = dataset.interactions
    train = dataset.with_rows(rows.take(~np.isin(rows.user, held.users)))
    recommender = Recommender.of(recipe.fit(train, options), train)
    popularity = Popularity().fit(train)
    results = []
    for strategy in strategies:
        given = _ask(strategy, recommender, held, answers, questions, rng, users_at_once)
        split, history = _split(train, held, given)
        # Both see the same split: popularity leaves out the answers too.
        models = (_NewUsers(recommender, history).eval(), popularity)
        ours, theirs = (evaluate(model, split, k=k, resamples=0).per_user[f"NDCG@{k}"] for model in models)
        difference, low, high, p, _ = astuple(paired(ours, theirs))
        counts = float(given.questions.mean()), len(given.item) / len(held.users)
        means = float(ours.mean()), float(theirs.mean())
        results.append(StrategyResult(strategy, len(ours), *counts, *means, difference, low, high, p))
    relevant, removed = "the rest of their rows", "the answers"
    if hidden_size:
        relevant, removed = f"the hidden {hidden_size:.0%} of their rows", "their other rows"
    how = f"{len(held.users):,} users not in training, asked until {answers} answers or {questions} questions; "
    how += f"relevant: {relevant}; candidates: all {dataset.n_items:,} items but {removed}"
    return OnboardingReport(recipe.name, dataset.name, how, tuple(results), notes)


def held_out_users(dataset: Dataset, test_size: float, seed: int = 0) -> NDArray[np.int32]:
    """The random users that ``evaluate_onboarding`` holds out, ascending: choose settings on the rows of the others."""
    users = np.unique(dataset.interactions.user)
    return np.sort(np.random.default_rng(seed).permutation(users)[: max(1, int(test_size * len(users)))])


def _held_out(
    dataset: Dataset, answers: int, test_size: float, hidden_size: float, seed: int, rng: np.random.Generator
) -> tuple[_HeldOut, tuple[Note, ...]]:
    """Random users with more rows than answers, and a note on those with fewer."""
    rows, chosen = dataset.interactions, held_out_users(dataset, test_size, seed)
    mine = rows.take(np.isin(rows.user, chosen))
    # A repeated item is one answer: its first row stands for it.
    once = mine.take(np.unique(_pairs(mine.user, mine.item, dataset.n_items), return_index=True)[1])
    count_U = np.bincount(once.user, minlength=dataset.n_users)
    users = chosen[count_U[chosen] > answers].astype(np.int64)
    few = len(chosen) - len(users)
    notes = (Note(f"held-out users with {answers} items or fewer, in neither part", few),) if few else ()
    if not len(users):
        raise DataError(f"none of {few} held-out users has more than {answers} items: ask for fewer answers")
    once = once.take(np.isin(once.user, users))
    if not hidden_size:
        return _HeldOut(users, once, None), notes
    hidden = _turns(once.user, rng) < np.maximum(1, np.floor(hidden_size * count_U))[once.user]
    return _HeldOut(users, once.take(~hidden), once.take(hidden)), notes


def _pairs(user: NDArray[Any], item: NDArray[Any], items: int) -> NDArray[np.int64]:
    pair: NDArray[np.int64] = user.astype(np.int64) * items + item
    return pair


def _turns(user: NDArray[Any], rng: np.random.Generator) -> NDArray[np.int64]:
    """The position of each row among those of its user, in random order."""
    # One sort by user, then by a random number, shuffles the rows of all users at once.
    order = np.lexsort((rng.random(len(user)), user))
    turn = np.empty(len(user), np.int64)
    turn[order] = np.arange(len(user)) - np.searchsorted(user[order], user[order])
    return turn


def _ask(
    strategy: str,
    recommender: Recommender,
    held: _HeldOut,
    answers: int,
    questions: int,
    rng: np.random.Generator,
    users_at_once: int,
) -> _Answers:
    """The answers of all users under one strategy."""
    known = held.known
    if strategy == "random":
        first = known.take(_turns(known.user, rng) < answers)
        none = np.zeros(len(held.users), np.int64)
        return _Answers(first.user.astype(np.int64), first.item.astype(np.int64), none)
    tastes = Tastes.of(recommender)
    place_I = np.full(len(recommender.items), -1)  # -1: never asked about
    place_I[tastes.item] = np.arange(len(tastes.item))
    known_BM = np.zeros((len(held.users), len(tastes.item)), dtype=bool)
    place = place_I[known.item]
    known_BM[np.searchsorted(held.users, known.user)[place >= 0], place[place >= 0]] = True
    questions = min(questions, len(tastes.item))
    place_BT = np.empty((len(held.users), questions), np.int64)
    if strategy == "interview":
        # All questions are asked of all users, so that a chunk stays together; the surplus is cut off below.
        for start in range(0, len(known_BM), users_at_once):
            known_CM, place_CT = (table[start : start + users_at_once] for table in (known_BM, place_BT))
            interview, user_C = Interview(tastes, len(known_CM)), np.arange(len(known_CM))
            for turn in range(questions):
                place_CT[:, turn] = interview.next()
                interview.answer(place_CT[:, turn], known_CM[user_C, place_CT[:, turn]])
    else:
        place_BT[:] = tastes.questions(questions) if strategy == "list" else np.arange(questions)
    yes_BT = np.take_along_axis(known_BM, place_BT, axis=1)
    asked_BT = np.cumsum(yes_BT, axis=1) - yes_BT < answers  # questions end when the answers are there
    row, turn_N = np.nonzero(yes_BT & asked_BT)
    return _Answers(held.users[row], tastes.item[place_BT[row, turn_N]], asked_BT.sum(axis=1))


def _split(train: Dataset, held: _HeldOut, given: _Answers) -> tuple[Split, History]:
    """The split to measure on, and the answers as histories: in the order they were given, after all training rows."""
    known, rows = held.known, train.interactions
    pair = _pairs(known.user, known.item, train.n_items)
    order = np.argsort(pair)
    row = order[np.searchsorted(pair[order], _pairs(given.user, given.item, train.n_items))]
    answered = known.take(row)
    if rows.time is not None:
        # Answers are given now: no row of training is later.
        answered = replace(answered, time=np.full(len(row), rows.time.max()))
    # Without hidden rows the relevant ones depend on the questions: strategies are then measured on different rows.
    if held.hidden is None:
        removed, relevant = answered, known.take(np.setdiff1d(np.arange(len(known)), row))
    else:
        removed, relevant = known, held.hidden
    columns = {
        name: np.concatenate([getattr(rows, name), getattr(removed, name)]) for name in ("user", "item", "weight")
    }
    timed = rows.time is not None and removed.time is not None
    seen = Interactions(**columns, time=np.concatenate([rows.time, removed.time]) if timed else None)
    split = Split(train.with_rows(seen), train.with_rows(relevant), "onboarding: answers of users not in training")
    return split, answered.history(train.n_users)
