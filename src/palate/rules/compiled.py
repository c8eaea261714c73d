"""Rules compiled for a catalog: the items each rule excludes, caps and pins as rows and codes, and notes on the rules.

In this order: (1) the user's own items go (exclude), with the items that deny, allow, flags and recency exclude; one of
them is enough. (2) Pins take their places, the first places first. (3) The other places are filled from the top, by
score or by MMR, with the best item that breaks no cap. Pinned items count for caps and for similarity.

A wrong column, or a value of the wrong type, is an error: a rule with a typing mistake must not let everything through.
Facts that can change with the catalog (an unknown item or value, a pin of an excluded item) are notes.

Shape legend: I items, S values of one item at most, G distinct values of capped columns (code 0 is none), K listed
items, N pins, D width of a vector.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from palate.data.dataset import History, Note
from palate.data.ids import IdMap
from palate.errors import RuleError
from palate.rules.catalog import Catalog
from palate.rules.rules import ITEM_ID, Rules

SHOWN = 5  # ids or values named in a message


class Block(NamedTuple):
    """One rule that excludes items: its name, the column it reads, and the items it excludes, (I,) bool."""

    name: str
    column: str
    out_I: NDArray[np.bool_]


class Caps(NamedTuple):
    """Values of all capped columns as codes of one table, with the maximum number of items of each.

    Args:
        codes_IS: int64, 0 in empty places; without a cap, S is 0.
        limit_G: int32 by code; code 0 has no limit.
        names: by code.
    """

    codes_IS: Tensor
    limit_G: Tensor
    names: tuple[str, ...]


@dataclass(frozen=True, eq=False)
class CompiledRules:
    """Rules whose names are rows of one catalog; they never change, so requests and threads share them at no cost.

    Args:
        rules: the source.
        items: the id map.
        blocks: the rules that exclude items, with the items.
        allowed_I: bool, items that no rule excludes.
        pins: (place from 0, item row), by place.
        caps: of all capped columns.
        diversity: strength of MMR.
        similarity_ID: unit rows to compare items by; None without diversity.
        notes: facts about the rules in this catalog: typing mistakes, dropped pins, number of excluded items.
    """

    rules: Rules
    items: IdMap
    blocks: tuple[Block, ...]
    allowed_I: Tensor
    pins: tuple[tuple[int, int], ...]
    caps: Caps
    diversity: float
    similarity_ID: Tensor | None
    notes: tuple[Note, ...]
    _on_devices: dict[torch.device, CompiledRules] = field(default_factory=dict, init=False, repr=False)

    @property
    def pin_items(self) -> Tensor:
        """(N,) int64 rows of the pinned items, by place."""
        return torch.tensor([row for _, row in self.pins], dtype=torch.int64)

    @property
    def reorders(self) -> bool:
        """Whether a list may differ from the first k allowed candidates."""
        return bool(self.pins or self.rules.caps or self.diversity)

    def to(self, device: torch.device) -> CompiledRules:
        """The same rules on a device; copied once per device, since the tables are as long as the catalog."""
        if device == self.allowed_I.device:
            return self
        if device not in self._on_devices:
            caps = self.caps._replace(codes_IS=self.caps.codes_IS.to(device), limit_G=self.caps.limit_G.to(device))
            similarity_ID = None if self.similarity_ID is None else self.similarity_ID.to(device)
            self._on_devices[device] = replace(
                self, allowed_I=self.allowed_I.to(device), caps=caps, similarity_ID=similarity_ID
            )
        return self._on_devices[device]

    def blocked_by(self, item: int) -> list[str]:
        """Names of the rules that exclude an item row."""
        return [block.name for block in self.blocks if block.out_I[item]]

    def full_caps(self, item: int, listed: NDArray[np.integer]) -> list[tuple[str, int, NDArray[np.integer]]]:
        """The caps that leave an item row no room beside listed rows: name, maximum, and the listed rows that count."""
        codes_IS, limit_G, names = self.caps
        code_KS = codes_IS[torch.from_numpy(listed.astype(np.int64))]
        found = []
        for code in codes_IS[item][codes_IS[item] > 0].tolist():
            counts = listed[(code_KS == code).any(1).numpy()]
            if len(counts) >= int(limit_G[code]):
                found.append((names[code], int(limit_G[code]), counts))
        return found

    def excluded(self, history: History) -> History:
        """The events of each user whose items are excluded by the rule ``exclude``; all of them where it is not set."""
        if self.rules.exclude in (None, "seen"):
            return history
        threshold = np.inf if self.rules.bought_from is None else self.rules.bought_from
        kept_H = history.weights >= threshold
        offsets = np.concatenate([[0], np.cumsum(kept_H)])[history.offsets]
        times = None if history.times is None else history.times[kept_H]
        return History(offsets, history.items[kept_H], history.weights[kept_H], times)


def compile_rules(rules: Rules, catalog: Catalog, now: float | None = None) -> CompiledRules:
    """Look up the columns, values and items of rules in a catalog.

    Args:
        rules: the rules.
        catalog: the items and their features.
        now: time of the request in seconds since 1970. Default: the time of the latest interaction.

    Raises:
        RuleError: a column is missing or of the wrong type, or diversity has nothing to compare items by.
    """
    notes: list[Note] = []
    blocks = _blocks(rules, catalog, now, notes)
    out_I = np.any([block.out_I for block in blocks], axis=0) if blocks else np.zeros(len(catalog), bool)
    # An id in allow shows the intent to list this item, so another rule that excludes it is worth a note.
    named = [str(value) for condition in rules.allow for value in condition.get(ITEM_ID, ())]
    named_row = np.unique(catalog.items.rows(named)) if named else np.zeros(0, np.int32)
    for block in blocks:
        row = named_row[named_row >= 0]
        row = row[block.out_I[row]]
        if len(row):
            ids = _shown(catalog.items.external(row).to_list())
            notes.append(Note(f"items that allow names ({ids}) are kept out by {block.name}", len(row)))
    # One table of codes for all capped columns, so that reranking counts them together. Code 0, "no value", is shared
    # by all columns and has no limit.
    names, parts, limits = [""], [torch.zeros((len(catalog), 0), dtype=torch.int64)], [torch.iinfo(torch.int32).max]
    for column, most in rules.caps.items():
        codes_IS, values = catalog.codes(column, f"cap on {column}")
        parts.append(torch.where(codes_IS > 0, codes_IS + len(names) - 1, 0))
        limits += [most] * len(values)
        names += [f"{column} = {value}" for value in values]
    caps = Caps(torch.cat(parts, 1), torch.tensor(limits, dtype=torch.int32), tuple(names))
    pins = _pins(rules, catalog, blocks, caps, notes)
    notes += [Note(f"items kept out by {block.name}", int(block.out_I.sum())) for block in blocks]
    if out_I.all() and len(out_I):
        notes.append(Note("the rules keep out every item of the catalog", len(out_I)))
    similarity_ID = catalog.similarity_vectors if rules.diversity else None
    if rules.diversity and similarity_ID is None:
        raise RuleError(
            f"diversity = {rules.diversity}: the model has no item vectors and the items no features to compare: "
            "leave it out, or give a table of item features"
        )
    return CompiledRules(
        rules,
        catalog.items,
        tuple(blocks),
        torch.from_numpy(~out_I),
        tuple(pins),
        caps,
        rules.diversity or 0.0,
        similarity_ID,
        tuple(notes),
    )


def _blocks(rules: Rules, catalog: Catalog, now: float | None, notes: list[Note]) -> list[Block]:
    """The rules that exclude items; a note for values that no item has."""
    blocks = []
    for kind, conditions in (("deny", rules.deny), ("allow", rules.allow)):
        for column, values in ((name, values) for one in conditions for name, values in one.items()):
            rule = f"{kind} {column}"
            found_I, unknown = catalog.having(column, values, rule)
            if unknown:
                hint = "" if column == ITEM_ID else catalog.near(column, unknown[0], rule)
                notes.append(Note(f"{rule} names what no item has ({_shown(unknown)}{hint})", len(unknown)))
            blocks.append(Block(f"{rule}: {_shown(values)}", column, found_I if kind == "deny" else ~found_I))
    blocks += [Block(f"flag {name}", name, ~catalog.true(name, f"flag {name}")) for name in rules.flags]
    for window in rules.recency:
        rule = f"recency {window.column}"
        inside_I = catalog.since(window.column, window.days, window.since, rule, now)
        reach = f"since {window.since}" if window.days is None else f"the last {window.days:g} days"
        blocks.append(Block(f"{rule}: {reach}", window.column, ~inside_I))
    return blocks


def _pins(rules: Rules, catalog: Catalog, blocks: list[Block], caps: Caps, notes: list[Note]) -> list[tuple[int, int]]:
    """(place from 0, item row) of the pins whose items may be listed, by place; a note for each dropped pin."""
    pins, over_caps, count_G = [], [], torch.zeros_like(caps.limit_G)
    for pin in sorted(rules.pins, key=lambda pin: pin.at):
        row = int(catalog.items.rows([pin.item])[0])
        reasons = ["no such item"] if row < 0 else [block.name for block in blocks if block.out_I[row]]
        if reasons:
            notes.append(Note(f"pin of {pin.item} at {pin.at} dropped ({'; '.join(reasons)})", 1))
            continue
        pins.append((pin.at - 1, row))
        codes = caps.codes_IS[row][caps.codes_IS[row] > 0]
        full = codes[count_G[codes] >= caps.limit_G[codes]].tolist()
        if full:
            # It stays a pin: where a user has had one of the pins before it, the cap has room again.
            cap = _shown([f"{caps.names[code]} at most {int(caps.limit_G[code])}" for code in full])
            over_caps.append(
                Note(f"pin of {pin.item} at {pin.at} dropped where the pins before it fill a cap ({cap})", 1)
            )
        else:
            count_G[codes] += 1
    notes += over_caps
    return pins


def _shown(values: Sequence[object]) -> str:
    more = f" and {len(values) - SHOWN} more" if len(values) > SHOWN else ""
    return ", ".join(str(value) for value in values[:SHOWN]) + more
