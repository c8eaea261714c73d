"""Rules bound to a catalog: which items each rule keeps out, and what is odd about the rules.

In this order: (1) the user's own items go (exclude), with what deny, allow, flags and recency keep out; an item goes if
one of them says so. (2) Pins take their places, the first places first. (3) The other places are filled from the top,
by score or by MMR, with the best item that breaks no cap. Pinned items count for caps and for likeness.

A wrong column, or a value of the wrong kind, is an error: a rule with a typing mistake must not let everything through.
What may become untrue as the catalog changes (an unknown item or value, a pin of an item that is kept out) is a Note.

Shape legend: I items, N pins, H history events, B users, P candidates of the pool, K places.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from palate.data.dataset import History, Note
from palate.data.ids import IdMap
from palate.errors import RuleError
from palate.rules.catalog import Catalog, near
from palate.rules.rerank import Caps, Picked, Shape, pick
from palate.rules.rules import ITEM_ID, Condition, Recency, Rules

__all__ = ["Block", "BoundRules", "bind"]

POOL = 200  # candidates at least, where rules look beyond the first k
POOL_PER_PLACE = 20
WIDEN = 8  # a pool that ran out is asked again this many times as wide
SHOWN = 5  # ids or values named in a message


class Block(NamedTuple):
    """One rule that keeps items out: its name, the column it looks at, and which items it keeps out, (I,) bool."""

    name: str
    column: str
    out_I: NDArray[np.bool_]


Best = Callable[[NDArray[np.int64], int], tuple[Tensor, Tensor]]
"""Of some users, by place in the batch, the P best items: values and rows (b, P), best first, -inf where empty."""


@dataclass(frozen=True, eq=False)
class BoundRules:
    """Rules whose names are rows of one catalog; it does not change, so threads may share it.

    Args:
        rules: what was bound.
        items: the id map.
        blocks: the rules that keep items out, with the items.
        shape: pins, caps and diversity, as ``pick`` wants them.
        notes: what is odd about the rules in this catalog, and how many items each rule keeps out.
    """

    rules: Rules
    items: IdMap
    blocks: tuple[Block, ...]
    shape: Shape
    notes: tuple[Note, ...]

    @property
    def allowed_I(self) -> Tensor:
        """(I,) bool: items that no rule keeps out."""
        return self.shape.allowed_I

    @property
    def pin_items(self) -> Tensor:
        """(N,) int64 rows of the pinned items, by place."""
        return torch.tensor([row for _, row in self.shape.pins], dtype=torch.int64)

    def blocked_by(self, item: int) -> list[str]:
        """Names of the rules that keep an item row out."""
        return [block.name for block in self.blocks if block.out_I[item]]

    def full_caps(self, item: int, listed: NDArray[np.integer]) -> list[tuple[str, int, NDArray[np.integer]]]:
        """The caps that leave an item row no room beside listed rows: name, most, and the listed rows that count."""
        codes_IS, limit_G, names = self.shape.caps
        code_KS = codes_IS[torch.from_numpy(listed.astype(np.int64))]
        found = []
        for code in codes_IS[item][codes_IS[item] > 0].tolist():
            counts = listed[(code_KS == code).any(1).numpy()]
            if len(counts) >= int(limit_G[code]):
                found.append((names[code], int(limit_G[code]), counts))
        return found

    def excluded(self, history: History) -> History:
        """The events of each user whose items stay out, by the rule ``exclude``; all of them where it is not set."""
        if self.rules.exclude in (None, "seen"):
            return history
        threshold = np.inf if self.rules.bought_from is None else self.rules.bought_from
        kept_H = history.weights >= threshold
        offsets = np.concatenate([[0], np.cumsum(kept_H)])[history.offsets]
        times = None if history.times is None else history.times[kept_H]
        return History(offsets, history.items[kept_H], history.weights[kept_H], times)

    def pool(self, k: int) -> int:
        """How many candidates per user ``pick`` wants to see first."""
        wanted = max(POOL, POOL_PER_PLACE * k) if self.shape.reorders else k
        return min(wanted, len(self.items))

    def pick(
        self,
        values_BP: Tensor,
        items_BP: Tensor,
        k: int,
        *,
        excluded: History | None = None,
        pin_values_BN: Tensor | None = None,
    ) -> Picked:
        """Lists out of a pool of candidates.

        Args:
            values_BP, items_BP: per user distinct candidates, best first, without the user's excluded items; -inf or -1
                mark empty places. Items that the rules keep out are passed over.
            k: list length.
            excluded: one history per user, whose items are not pinned to this user.
            pin_values_BN: scores of ``pin_items``; without them a pin that is not in the pool has the score NaN.
        """
        return pick(self.shape, values_BP, items_BP, k, excluded, pin_values_BN)

    def fill(
        self, best: Best, users: int, k: int, *, excluded: History | None = None, pin_values_BN: Tensor | None = None
    ) -> Picked:
        """Lists of ``users`` users that end early only where no item is left: a pool that runs out is made wider.

        Args:
            best: gives the best candidates of some of the users; asked for the whole catalog at the widest.
            users: B.
            k, excluded, pin_values_BN: as for ``pick``.
        """
        width = self.pool(k)
        row_B = np.arange(users)
        whole = self.pick(*best(row_B, width), k, excluded=excluded, pin_values_BN=pin_values_BN)
        short = whole.short_B.nonzero().squeeze(1)
        while len(short) and width < len(self.items):
            width = min(width * WIDEN, len(self.items))
            row = short.cpu().numpy()
            part = self.pick(
                *best(row, width),
                k,
                excluded=None if excluded is None else excluded.select(row),
                pin_values_BN=None if pin_values_BN is None else pin_values_BN[short],
            )
            for all_BK, new in zip(whole, part, strict=True):
                all_BK[short] = new
            short = short[part.short_B]
        return whole


def bind(rules: Rules, catalog: Catalog) -> BoundRules:
    """Look up the columns, values and items of rules; see ``Rules.bind``."""
    notes: list[Note] = []
    blocks = [
        *_conditions("deny", rules.deny, catalog, notes),
        *_conditions("allow", rules.allow, catalog, notes),
        *(Block(f"flag {name}", name, ~catalog.true(name, f"flag {name}")) for name in rules.flags),
        *(_window(window, catalog) for window in rules.recency),
    ]
    out_I = np.any([block.out_I for block in blocks], axis=0) if blocks else np.zeros(len(catalog), bool)
    notes += _kept_out_although_allowed(rules, catalog, blocks)
    pins = _pins(rules, catalog, blocks, notes)
    caps = _caps(rules, catalog)
    notes += _pins_over_caps(pins, caps, catalog)
    notes += [Note(f"items kept out by {block.name}", int(block.out_I.sum())) for block in blocks]
    if out_I.all() and len(out_I):
        notes.append(Note("the rules keep out every item of the catalog", len(out_I)))
    likeness = catalog.likeness if rules.diversity else None
    if rules.diversity and likeness is None:
        raise RuleError(
            f"diversity = {rules.diversity}: the model has no item vectors and the items no features to compare: "
            "leave it out, or give a table of item features"
        )
    shape = Shape(torch.from_numpy(~out_I), tuple(pins), caps, rules.diversity or 0.0, likeness)
    return BoundRules(rules, catalog.items, tuple(blocks), shape, tuple(notes))


def _conditions(kind: str, conditions: tuple[Condition, ...], catalog: Catalog, notes: list[Note]) -> list[Block]:
    blocks = []
    for column, values in ((name, values) for one in conditions for name, values in one.items()):
        rule = f"{kind} {column}"
        found_I, unknown = catalog.having(column, values, rule)
        if unknown:
            hint = "" if column == ITEM_ID else near(unknown[0], catalog.column(column, rule))
            notes.append(Note(f"{rule} names what no item has ({_shown(unknown)}{hint})", len(unknown)))
        blocks.append(Block(f"{rule}: {_shown(values)}", column, found_I if kind == "deny" else ~found_I))
    return blocks


def _window(window: Recency, catalog: Catalog) -> Block:
    rule = f"recency {window.column}"
    inside_I = catalog.since(window.column, window.days, window.since, rule)
    reach = f"since {window.since}" if window.days is None else f"the last {window.days:g} days"
    return Block(f"{rule}: {reach}", window.column, ~inside_I)


def _kept_out_although_allowed(rules: Rules, catalog: Catalog, blocks: list[Block]) -> list[Note]:
    """A note for every rule that keeps out items which allow names by their ids."""
    named = [str(value) for condition in rules.allow for value in condition.get(ITEM_ID, ())]
    row = catalog.items.rows(np.array(named, dtype=str).tolist()) if named else np.zeros(0, np.int32)
    row = np.unique(row[row >= 0])
    notes = []
    for block in blocks:
        out = row[block.out_I[row]] if len(row) else row
        if len(out):
            ids = _shown(catalog.items.external(out).to_list())
            notes.append(Note(f"items that allow names ({ids}) are kept out by {block.name}", len(out)))
    return notes


def _pins(rules: Rules, catalog: Catalog, blocks: list[Block], notes: list[Note]) -> list[tuple[int, int]]:
    """(place from 0, item row) of the pins whose items may be listed, by place; a note for each other."""
    pins = []
    for pin in sorted(rules.pins, key=lambda pin: pin.at):
        row = int(catalog.items.rows([pin.item])[0])
        reasons = ["no such item"] if row < 0 else [block.name for block in blocks if block.out_I[row]]
        if reasons:
            notes.append(Note(f"pin of {pin.item} at {pin.at} dropped ({'; '.join(reasons)})", 1))
        else:
            pins.append((pin.at - 1, row))
    return pins


def _caps(rules: Rules, catalog: Catalog) -> Caps:
    """The values of all capped columns as codes of one table, with the cap of each."""
    names, parts, limits = [""], [torch.zeros((len(catalog), 0), dtype=torch.int64)], [torch.iinfo(torch.int32).max]
    for column, most in rules.caps.items():
        codes_IS, values = catalog.codes(column, f"cap on {column}")
        parts.append(torch.where(codes_IS > 0, codes_IS + len(names) - 1, 0))
        limits += [most] * len(values)
        names += [f"{column} = {value}" for value in values]
    return Caps(torch.cat(parts, 1), torch.tensor(limits, dtype=torch.int32), tuple(names))


def _pins_over_caps(pins: list[tuple[int, int]], caps: Caps, catalog: Catalog) -> list[Note]:
    notes, count_G = [], torch.zeros_like(caps.limit_G)
    for place, row in pins:
        codes = caps.codes_IS[row][caps.codes_IS[row] > 0]
        full = codes[count_G[codes] >= caps.limit_G[codes]].tolist()
        if full:
            item = catalog.items.external([row])[0]
            cap = _shown([f"{caps.names[code]} at most {int(caps.limit_G[code])}" for code in full])
            notes.append(Note(f"pin of {item} at {place + 1} dropped where the pins before it fill a cap ({cap})", 1))
        else:
            count_G[codes] += 1
    return notes


def _shown(values: tuple[object, ...] | list[object] | list[str]) -> str:
    more = f" and {len(values) - SHOWN} more" if len(values) > SHOWN else ""
    return ", ".join(str(value) for value in values[:SHOWN]) + more
