"""Why this item: the items of a history that raise its score, measured on the model itself.

    exact           effect(j) = sum over the events of j of their part of score(u, i), by the model (``Explains``)
    leave-one-out   effect(j) = score(u, i) - score(u, i without j in the history)

    share(j) = effect(j) / sum of all effects above 0;  an item supports where its effect is above 0

The explained score is that of a new user with the same history. Most models give trained users that score; where a
trained user has a learned vector, it is the score after a fold-in of the same history. Leave-one-out scores once per
item of the history, all candidates of a user at a time; of long histories the latest items are tested.

Shape legend: B users, C candidates of each, H events, P distinct (user, item) pairs of the histories, R listed rows.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal, NamedTuple

import numpy as np
import polars as pl
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from palate.base import Explains, Model, Query
from palate.data.dataset import History
from palate.data.ids import IdMap
from palate.parallel import needs_polars

LONGEST = 100  # items of a history that are left out one by one, the latest
LEFT_OUT_EVENTS = 500_000  # events of the histories scored at once: 12 MB, and the intermediate tensors of the model
CELLS = 4_000_000  # effects held at once while reasons are chosen
USERS = 256  # users of a chunk at most, for models that score the catalog of each
WHOLE = "your history as a whole: no single item of it raises the score"
NEW = "new: no user had it yet"
PROFILE = "your profile: there is no history"
NOISE = 1e-5  # an effect below this share of the score is rounding


class Effects(NamedTuple):
    """The effect of each item of the histories on its user's candidates.

    owner (P,): place of the user in the query, ascending; item (P,): row; weight (P,): of its latest event; effect
    (P, C): above 0 where the item supports; untested (B,): items of each history that were too far back to be tested.
    """

    owner: Tensor
    item: Tensor
    weight: Tensor
    effect: Tensor
    untested: Tensor


def method(model: Model) -> Literal["exact", "leave-one-out"]:
    """How effects are computed: "exact" where the model can take its score apart."""
    return "exact" if isinstance(model, Explains) else "leave-one-out"


def effects(model: Model, query: Query, items: Tensor, *, longest: int = LONGEST) -> Effects:
    """The effect of each distinct item of the histories on the scores of ``items`` (B, C).

    Args:
        model: a fitted model.
        query: histories; the row numbers of the users are not used.
        items: (B, C) candidates.
        longest: leave-one-out: so many of the latest distinct items of a history are tested.
    """
    pairs = _Pairs.of(query)
    with torch.inference_mode():
        if isinstance(model, Explains):
            event_HC = model.contributions(query, items).event
            effect_PC = event_HC.new_zeros(len(pairs.item), items.shape[1]).index_add_(0, pairs.of_event, event_HC)
            untested_B = torch.zeros_like(query.user)
        else:
            tested_P = pairs.since(len(query)) < longest
            effect_PC = _left_out(model, query, items, pairs, tested_P)
            untested_B = torch.zeros_like(query.user).index_add_(0, pairs.owner, (~tested_P).long())
            pairs, effect_PC = pairs.where(tested_P), effect_PC[tested_P]
    return Effects(pairs.owner, pairs.item, pairs.weight, effect_PC, untested_B)


class _Pairs(NamedTuple):
    """Distinct (user, item) of the histories, by user and then by their latest event; of_event (H,): each one's."""

    owner: Tensor
    item: Tensor
    weight: Tensor
    of_event: Tensor

    @classmethod
    def of(cls, query: Query) -> _Pairs:
        if query.items is None or not len(query.items):
            none = query.user[:0]
            return cls(none, none, none.float(), none)
        place_H = torch.arange(len(query.items), device=query.user.device)
        owner_H = torch.repeat_interleave(torch.arange(len(query), device=place_H.device), query.counts())
        # One integer per (user, item), so that one ``unique`` finds the pairs of all users.
        pair, inverse_H = (owner_H * (query.items.max() + 1) + query.items).unique(return_inverse=True)
        latest = torch.zeros_like(pair).scatter_reduce_(0, inverse_H, place_H, "amax", include_self=False)
        latest, order = latest.sort()
        rank = torch.empty_like(order)
        rank[order] = torch.arange(len(order), device=order.device)
        weight_H = torch.ones_like(place_H, dtype=torch.float32) if query.weights is None else query.weights
        return cls(owner_H[latest], query.items[latest], weight_H[latest], rank[inverse_H])

    def since(self, users: int) -> Tensor:
        """Number of items of the same user with a later event, (P,)."""
        end_B = torch.bincount(self.owner, minlength=users).cumsum(0)
        return end_B[self.owner] - 1 - torch.arange(len(self.owner), device=self.owner.device)

    def where(self, mask: Tensor) -> _Pairs:
        """Some of the pairs; ``of_event`` is empty then."""
        return _Pairs(self.owner[mask], self.item[mask], self.weight[mask], self.of_event[:0])


def _left_out(model: Model, query: Query, items: Tensor, pairs: _Pairs, tested_P: Tensor) -> Tensor:
    """Scores less those without each tested pair, (P, C); zeros for the others."""
    effect_PC = torch.zeros(len(pairs.item), items.shape[1], device=items.device)
    count_B = query.counts()
    if not bool(tested_P.any()):
        return effect_PC
    base_BC = torch.cat(
        [model.score(_new_users(query, part), items[part]) for part in _split(count_B, LEFT_OUT_EVENTS)]
    ).float()
    tested = tested_P.nonzero().squeeze(1)
    for part in _split(count_B[pairs.owner[tested]], LEFT_OUT_EVENTS):
        pair, owner = tested[part], pairs.owner[tested[part]]
        left_RC = model.score(_new_users(query, owner, pairs.of_event, pair), items[owner]).float()
        drop_RC = base_BC[owner] - left_RC
        effect_PC[pair] = drop_RC.where(drop_RC.abs() > NOISE * base_BC[owner].abs(), 0)
    return effect_PC


def _split(size_R: Tensor, limit: int) -> Iterator[Tensor]:
    """Adjacent rows whose sizes are bounded together."""
    chunk_R = (size_R + 1).cumsum(0) // limit
    sizes = chunk_R.unique_consecutive(return_counts=True)[1].tolist()
    yield from torch.arange(len(size_R), device=size_R.device).split(sizes)


def _new_users(query: Query, owner: Tensor, pair_of_event: Tensor | None = None, pair: Tensor | None = None) -> Query:
    """The histories of the users ``owner`` (R,) as those of new users; each without the events of its ``pair`` (R,)."""
    if query.offsets is None:
        return Query(torch.full_like(owner, -1), at=None if query.at is None else query.at[owner])
    count_R = query.counts()[owner]
    first_R = query.offsets[owner] - F.pad(count_R.cumsum(0), (1, 0))[:-1]
    event = torch.repeat_interleave(first_R, count_R) + torch.arange(int(count_R.sum()), device=owner.device)
    if pair_of_event is not None and pair is not None:
        row = torch.repeat_interleave(torch.arange(len(owner), device=owner.device), count_R)
        kept = pair_of_event[event] != pair[row]
        event, count_R = event[kept], torch.bincount(row[kept], minlength=len(owner))
    items, weights, times = (None if x is None else x[event] for x in (query.items, query.weights, query.times))
    offsets, at = F.pad(count_R.cumsum(0), (1, 0)), None if query.at is None else query.at[owner]
    return Query(torch.full_like(owner, -1), offsets, items, weights, times, at)


class Explanation(NamedTuple):
    """The effects behind the score of one item for one user.

    Args:
        method: "exact" or "leave-one-out".
        score: of the item, for a new user with this history.
        rest: exact: the part of the score that comes from no event, so effects and rest add up to it; None otherwise.
        untested: items of the history that were too far back to be tested.
        effects: item_id, title, weight, effect (in units of the score, largest first) and share of the support, null
            where the effect is not above 0.
    """

    method: str
    score: float
    rest: float | None
    untested: int
    effects: pl.DataFrame


class _Reasons(NamedTuple):
    """Supporting items of listed rows: the row, the item, the weight of its latest event, its share; (n,) each."""

    row: NDArray[np.int64]
    item: NDArray[np.int64]
    weight: NDArray[np.float32]
    share: NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Explainer:
    """Reasons with ids and titles, in words.

    Args:
        model: a fitted model.
        items: the id map of the training data.
        seen: the positive events of the training history, one (perhaps empty) history per user row.
        titles: one readable name per item row, or None.
    """

    model: Model
    items: IdMap
    seen: History
    titles: pl.Series | None = None

    def because(
        self, query: Query, who: NDArray[np.int64], item: NDArray[np.int64], personal: NDArray[np.bool_], top: int = 3
    ) -> pl.DataFrame:
        """Reasons of R listed rows: ``because``, lists of {item_id, title, weight, share}, and ``why``, in words.

        Arguments as for ``reasons``.
        """
        needs_polars("reasons need")
        because, why = self.reasons(query, who, item, personal, top)
        names: dict[str, Any] = {"item_id": self.items.ids.dtype, "title": pl.String}
        reason = pl.Struct({**names, "weight": pl.Float32, "share": pl.Float64})
        return pl.DataFrame([
            pl.Series("because", because, dtype=pl.List(reason)), pl.Series("why", why, dtype=pl.String)
        ])  # fmt: skip

    def reasons(
        self, query: Query, who: NDArray[np.int64], item: NDArray[np.int64], personal: NDArray[np.bool_], top: int = 3
    ) -> tuple[list[list[dict[str, Any]]], list[str]]:
        """Reasons of R listed rows: lists of item_id, title, weight and share, and sentences.

        Args:
            query: the B users with all their events.
            who: (R,) place in the query of each row's user.
            item: (R,) row number of each row's item.
            personal: (B,) whether the model itself answers; the reason of other rows is the popularity of the item.
            top: supporting items named for each row, the largest share first; only items that raise the score.
        """
        # Python: a request of a server has thirty reasons, for which one call of polars takes as long as all of this.
        asked = np.flatnonzero(personal[who])
        best = self._best(query, who[asked], item[asked], top)
        because: list[list[dict[str, Any]]] = [[] for _ in range(len(who))]
        words: list[list[str]] = [[] for _ in range(len(who))]
        verb = np.where(best.weight < 0, "disliked", np.where(best.weight >= self._usual_weight, "liked", "had"))
        names = (column.to_list() for column in self._names(best.item).values())
        rows = (asked[best.row].tolist(), best.weight.tolist(), best.share.tolist(), verb.tolist(), *names)
        last: tuple[int, str] | None = None
        for row, weight, share, did, item_id, title in zip(*rows, strict=True):
            because[row].append({"item_id": item_id, "title": title, "weight": weight, "share": share})
            # liked Green Tea (41 %), Oolong (22 %), disliked Coffee (4 %): a verb is not repeated.
            word = f"{item_id if title is None else title} ({round(100 * share)} %)"
            words[row].append(word if last == (row, did) else f"{did} {word}")
            last = (row, did)
        if all(words):
            without = [""] * len(words)
        else:
            without = self._without_reasons(item, personal[who], query.counts().cpu().numpy()[who] > 0)
        why = [f"because you {', '.join(one)}" if one else other for one, other in zip(words, without, strict=True)]
        return because, why

    def explain(self, query: Query, item: int) -> Explanation:
        """All effects of one user's history on one item, for and against it."""
        needs_polars("an explanation needs")
        candidate = torch.tensor([[item]], device=query.user.device)
        found = effects(self.model, query, candidate)
        columns = (found.item, found.weight, found.effect[:, 0].double())
        frame = pl.DataFrame(dict(zip(("item", "weight", "effect"), (c.cpu().numpy() for c in columns), strict=True)))
        support = pl.col("effect").clip(lower_bound=0)
        share = pl.when(pl.col("effect") > 0).then(support / support.sum())
        frame = frame.sort("effect", descending=True, maintain_order=True)
        frame = frame.with_columns(**self._names(frame["item"].to_numpy()))
        with torch.inference_mode():
            score = float(self.model.score(_new_users(query, torch.zeros_like(query.user)), candidate))
        how = method(self.model)
        return Explanation(
            how,
            score,
            score - float(frame["effect"].sum()) if how == "exact" else None,
            int(found.untested[0]),
            frame.select("item_id", "title", "weight", "effect", share=share),
        )

    def _best(self, query: Query, who: NDArray[np.int64], item: NDArray[np.int64], top: int) -> _Reasons:
        """The support of each row; the largest share first."""
        parts = [_Reasons(np.zeros(0, np.int64), np.zeros(0, np.int64), np.zeros(0, np.float32), np.zeros(0))]
        order = np.argsort(who, kind="stable")
        user, first, count = np.unique(who[order], return_index=True, return_counts=True)
        # Rows of one user side by side: their history is read, and each of its events left out, once for all of them.
        row_BC = np.full((len(user), count.max(initial=0)), -1)
        row_BC[np.repeat(np.arange(len(user)), count), np.arange(len(who)) - np.repeat(first, count)] = order
        # A shorter list is padded with its first item, which exists; the effects on the padding are dropped.
        item_BC = torch.from_numpy(item[np.where(row_BC >= 0, row_BC, row_BC[:, :1])].astype(np.int64))
        owner = torch.from_numpy(user.astype(np.int64)).to(query.user.device)
        for some in _split(query.counts()[owner] * max(1, row_BC.shape[1]), CELLS):
            for part in some.split(USERS):
                found = effects(self.model, _new_users(query, owner[part]), item_BC[part.cpu()].to(owner.device))
                parts.append(_top(found, row_BC[part.cpu().numpy()], top))
        row, item, weight, share = (np.concatenate(columns) for columns in zip(*parts, strict=True))
        order = np.argsort(row, kind="stable")
        return _Reasons(row[order], item[order], weight[order], share[order])

    def _names(self, rows: NDArray[np.int64]) -> dict[str, pl.Series]:
        """The columns item_id and title (null where there are none) of row numbers."""
        none = pl.Series([None] * len(rows), dtype=pl.String)
        title = none if self.titles is None else self.titles.gather(rows)
        return {"item_id": self.items.external(rows), "title": title}

    def _without_reasons(
        self, item: NDArray[np.int64], personal: NDArray[np.bool_], history: NDArray[np.bool_]
    ) -> list[str]:
        """The text for rows (R,) that no item of the history supports."""
        wanted, place = np.unique(np.where(personal, -1, item), return_inverse=True)
        people = f"{int((self.seen.counts > 0).sum())} users had it" if wanted[-1:].max(initial=-1) >= 0 else ""
        popular = [f"popular: {had} of {people}" if had else NEW for had in self._users_of(wanted).tolist()]
        text: list[str] = np.where(
            personal, np.where(history, WHOLE, PROFILE), np.array(popular, object)[place]
        ).tolist()
        return text

    def _users_of(self, wanted: NDArray[np.int64]) -> NDArray[np.int64]:
        """Number of users with each of some ascending item rows; 0 for -1."""
        if wanted[-1:].max(initial=-1) < 0:
            return np.zeros(len(wanted), np.int64)
        # Only events of the wanted items are sorted; an item that a user had twice counts once.
        event = np.flatnonzero(np.isin(self.seen.items, wanted))
        owner = np.searchsorted(self.seen.offsets, event, side="right") - 1
        item, _ = np.unique(np.stack([self.seen.items[event], owner]), axis=1)
        return np.bincount(np.searchsorted(wanted, item), minlength=len(wanted))

    @cached_property
    def _usual_weight(self) -> float:
        """The least weight of a like: that of the rule for positive rows, else the mean of the training rows."""
        if self.seen.feedback.min_rating is not None:
            return self.seen.feedback.min_rating
        # Hours and pieces tell how much was used: nobody said that it was liked.
        if self.seen.feedback.kind == "quantity" and len(self.seen.weights) and np.ptp(self.seen.weights) > 0:
            return np.inf
        return float(self.seen.weights.mean(dtype=np.float64)) if len(self.seen.weights) else 1.0


def _top(found: Effects, row_BC: NDArray[np.int64], top: int) -> _Reasons:
    """The ``top`` largest effects above 0 of each (user, candidate) that has a row, with their share of all of them."""
    owner, item, weight, effect_PC = (tensor.cpu().numpy() for tensor in found[:4])
    row_PC = row_BC[owner]
    pair, column = np.nonzero((effect_PC > 0) & (row_PC >= 0))
    row, effect = row_PC[pair, column], effect_PC[pair, column].astype(np.float64)
    share = effect / np.bincount(row, effect)[row]
    order = np.lexsort((-pair, -share, row))
    row = row[order]
    # The place among the reasons of the row, from 0.
    place = np.arange(len(row)) - np.searchsorted(row, row)
    best = order[place < top]
    return _Reasons(row[place < top], item[pair[best]], weight[pair[best]], share[best])
