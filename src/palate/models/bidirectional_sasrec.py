"""BidirectionalSASRec: items missing from a history, by two SASRec networks that read it forwards and backwards.

    score(u, i) = log sum_t P(i | events 1 to t)  +  log sum_t P(i | events T to t)

P is each network's softmax over the user's unseen items. Each sum is the expected number of times the item stood in
one of the gaps of the history: one with holes, as a random split leaves it, or one from which events were lost, is
filled in rather than continued. To predict the next item, use ``sasrec``.

The two networks are fitted as the recipe ``sasrec`` says, one on the histories, one on the reversed histories. Windows
of a long history overlap by half, so that every position sees at least half a window of earlier events.

Fold-in: all users are answered from the history in the query. Without one the networks' mean
states answer, and ``can_personalize`` says False.

Shape legend: B users of a query, C candidates, I items, L events of a window, D width.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar, Self, cast

import numpy as np
import torch
from torch import Tensor, nn

from palate.base import DataSpec, Query, Recipe, TrainOptions
from palate.data.dataset import Dataset, Fingerprint
from palate.errors import RecipeError
from palate.models.registry import make_recipe
from palate.models.sasrec import SASRec, SASRecModel

LEAST = 1e-6  # expected times below this are as good as never


class BidirectionalSASRecModel(nn.Module):
    """Two fitted networks and the sum over the gaps.

    Args:
        forwards: fitted on the histories as they are.
        backwards: fitted on the reversed histories.
    """

    trained_on: Fingerprint | None = None

    def __init__(self, forwards: SASRecModel, backwards: SASRecModel) -> None:
        super().__init__()
        self.spec = forwards.spec
        self.forwards, self.backwards = forwards, backwards

    def score(self, query: Query, items: Tensor | None = None) -> Tensor:
        """(B, C) or (B, I); one user at a time, whose windows are one batch."""
        known_B = self.can_personalize(query)
        rows = []
        for row in range(len(query)):
            history, gaps = self._history(query, row)
            seen_I = torch.zeros(self.spec.items, dtype=torch.bool, device=history.device)
            seen_I[history] = True
            total_I = torch.zeros(self.spec.items, device=history.device)
            for net, order in ((self.forwards, history), (self.backwards, history.flip(0))):
                if not known_B[row]:
                    total_I = total_I + net.item_vectors() @ torch.cat([net.typical, net.typical.new_ones(1)])
                else:
                    turned = gaps if net is self.forwards else torch.cat([gaps[:1], gaps.flip(0)[:-1]])
                    total_I = total_I + _expected(net, order, turned, seen_I).clamp(min=LEAST).log()
            rows.append(total_I if items is None else total_I[items[row]])
        return torch.stack(rows) if rows else torch.zeros(0, self.spec.items if items is None else items.shape[1])

    def can_personalize(self, query: Query) -> Tensor:
        """Users with at least one event in the query that is not a dislike."""
        return self.forwards.can_personalize(query)

    def _history(self, query: Query, row: int) -> tuple[Tensor, Tensor]:
        """Items and seconds since the event before of one user, without the dislikes."""
        if query.offsets is None or query.items is None:
            return query.user.new_zeros(0), torch.zeros(0, device=query.user.device)
        part = slice(int(query.offsets[row]), int(query.offsets[row + 1]))
        keep = query.positive()[part]
        item_H = query.items[part][keep]
        gap_H = torch.zeros(len(item_H), device=item_H.device)
        if query.times is not None and len(item_H) > 1:
            gap_H[1:] = query.times[part][keep].diff()
        return item_H, gap_H


def _expected(net: SASRecModel, item_H: Tensor, gap_H: Tensor, seen_I: Tensor) -> Tensor:
    """The sum over all positions of the chance of each item there, (I,)."""
    item_IE, half = net.item_vectors(), max(1, net.max_seq_len // 2)
    total_I = torch.zeros_like(item_IE[:, 0])
    for start in range(0, len(item_H), half):
        first, last = max(0, start - half), min(len(item_H), start + half)
        x_LD = net.encode(item_H[None, first:last], gap_H[None, first:last])[0, start - first :]
        score_LI = torch.addmm(item_IE[:, -1], x_LD, item_IE[:, :-1].T).masked_fill(seen_I, -torch.inf)
        total_I += score_LI.softmax(1).nan_to_num().sum(0)  # a user who has seen all items has no finite score
    return total_I


@dataclass(frozen=True)
class BidirectionalSASRec(Recipe[BidirectionalSASRecModel]):
    """Two SASRec networks that read a history from both ends.

    Args:
        network: fields of the recipe ``sasrec`` that both networks have; kept with all fields.
    """

    name: ClassVar[str] = "bidirectional-sasrec"
    has_members: ClassVar[bool] = True

    network: Mapping[str, Any] = field(default_factory=dict, hash=False)

    def __post_init__(self) -> None:
        super().__post_init__()
        object.__setattr__(self, "network", _plain(_recipe(self.network)))
        if self.network["request_time"]:
            raise RecipeError("network.request_time=True: bidirectional-sasrec asks about the past; leave it out")

    @classmethod
    def fast(cls) -> Self:
        """The fast preset of ``sasrec``, twice."""
        return cls(network=_plain(SASRec.fast()))

    def _for_rows(self, rows: Dataset) -> Self:
        """The network with the values that the data choose for it."""
        return replace(self, network=_plain(_recipe(self.network).for_data(rows)))

    def build(self, spec: DataSpec) -> BidirectionalSASRecModel:
        """Two untrained networks."""
        recipe = _recipe(self.network)
        return BidirectionalSASRecModel(recipe.build(spec), recipe.build(spec))

    def _fit(self, train: Dataset, options: TrainOptions) -> BidirectionalSASRecModel:
        """Fit both networks on the order of each user's rows; ``options.validation_callback`` is not called.

        ``options.folder`` gets a folder for each network.

        Raises:
            RecipeError: no user has two rows.
            DataError: a wanted feature column is missing or of an unfitting kind.
        """
        rows = train.interactions
        # Reversed rows as well as negative times: the order of the rows breaks ties, and stands for missing times.
        rows = rows.take(np.arange(len(rows))[::-1])
        backwards = train.with_rows(replace(rows, time=None if rows.time is None else -rows.time))
        nets = []
        for kind, data in (("forwards", train), ("backwards", backwards)):
            folder = None if options.folder is None else options.folder / kind
            nets.append(_recipe(self.network).fit(data, replace(options, folder=folder, validation_callback=None)))
        model = BidirectionalSASRecModel(*nets)
        model.trained_on = train.fingerprint
        return model.eval()


def _recipe(fields: Mapping[str, Any]) -> SASRec:
    if "recipe" in fields:
        raise RecipeError("network holds fields of sasrec only: leave recipe out")
    return cast(SASRec, make_recipe("sasrec", dict(fields)))


def _plain(recipe: SASRec) -> dict[str, Any]:
    """All fields as plain data, the same before and after JSON."""
    return {name: list(value) if isinstance(value, tuple) else value for name, value in vars(recipe).items()}
