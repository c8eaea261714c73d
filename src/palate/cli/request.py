"""The options of one request, shared by `palate recommend`, `explain` and `why-not`, so that the three agree."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from math import isfinite
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from palate.cli import options
from palate.cli.console import note
from palate.errors import DataError

if TYPE_CHECKING:
    from palate.recommend import Recommender
    from palate.rules import CompiledRules


@dataclass(frozen=True)
class Request:
    """The options of a request, apart from its users: a command that takes one gets these options by ``asks``."""

    history: Annotated[
        str | None,
        typer.Option(
            "--history",
            help="Comma-separated item ids, oldest first, that the one USER touched; after the known history.",
        ),
    ] = None
    exclude_seen: Annotated[
        bool, typer.Option("--exclude-seen/--include-seen", help="Leave out the items that the user has had, or not.")
    ] = True
    items: Annotated[
        str | None, typer.Option("--items", help="Comma-separated ids of the items to rank; all items if left out.")
    ] = None
    rules: Annotated[
        Path | None, typer.Option("--rules", help="A TOML file: allow, deny, caps, pins, diversity and more.")
    ] = None
    user_features: Annotated[
        list[str] | None,
        typer.Option("--user-features", help="column=value of the one USER, if unknown; may be repeated."),
    ] = None
    new_items: Annotated[
        Path | None, typer.Option("--new-items", help="A table of items that came after training: ids and features.")
    ] = None
    cold: Annotated[
        Literal["popular", "recent"] | None,
        typer.Option("--cold", help="The answer to users without any information: popular or recent items."),
    ] = None
    segment: Annotated[
        str | None,
        typer.Option("--segment", help="A user feature: new users get the items popular among users with their value."),
    ] = None
    explore: Annotated[
        float | None, typer.Option("--explore", help="Share of the places that less known items get, such as 0.1.")
    ] = None
    at: Annotated[
        str | None,
        typer.Option("--at", help="Time of the request: 2026-11-28, 2026-11-28T18:30 (UTC), or seconds since 1970."),
    ] = None

    def recommender(self, bundle: Path) -> Recommender:
        """The recommender of a bundle under the policy of the request, with its new items."""
        from palate.bundle import Bundle
        from palate.data.readers import read_table

        recommender = Bundle.load(bundle).recommender
        policy = {"fallback": self.cold, "segment": self.segment, "explore": self.explore}
        given = {name: value for name, value in policy.items() if value is not None}
        if given:
            recommender = replace(recommender, cold=replace(recommender.cold, **given))  # type: ignore[arg-type]
        if self.new_items is None:
            return recommender
        grown = recommender.with_items(read_table(self.new_items, header=True))
        old, new = len(recommender.items), len(grown.items) - len(recommender.items)
        note(f"{new:,} new items of {self.new_items} join {old:,}")
        return grown

    def arguments(self, recommender: Recommender, users: Sequence[str]) -> dict[str, Any]:
        """The keyword arguments of ``Recommender.recommend``, ``explain`` and ``why_not``, apart from k."""
        now, histories = _moment(self.at), None
        for line in recommender.unknown_users(list(users)):
            note(line)
        if self.history is not None:
            if len(users) != 1:
                raise DataError(f"--history belongs to one user, {len(users)} were given: ask for one at a time")
            histories = {users[0]: _ids(self.history)}
            unknown = recommender.unknown_items(histories)
            if unknown is not None:
                note(unknown)
        return {
            "exclude_seen": self.exclude_seen,
            "items": None if self.items is None else _ids(self.items),
            "histories": histories,
            "features": self._features(users),
            "rules": self._rules(recommender, now),
            "at": now,
        }

    def _features(self, users: Sequence[str]) -> dict[str, dict[str, str]] | None:
        if not self.user_features:
            return None
        if len(users) != 1:
            raise DataError(f"--user-features belong to one user, {len(users)} were given: ask for one at a time")
        values = {}
        for pair in self.user_features:
            column, sign, value = pair.partition("=")
            if not sign:
                raise DataError(f"--user-features {pair!r} is not column=value: write it like --user-features gender=F")
            values[column] = value
        return {users[0]: values}

    def _rules(self, recommender: Recommender, at: float | None) -> CompiledRules | None:
        """The rules of the file, compiled for the catalog, with a line about each thing that is odd about them."""
        if self.rules is None:
            return None
        from palate.rules import Rules

        compiled = recommender.bind(Rules.load(self.rules), at)
        assert compiled is not None
        for line in compiled.notes:
            note(line)
        return compiled


asks: Callable[[Callable[..., None]], Callable[..., None]] = options.expand(Request)


def _ids(text: str) -> list[str]:
    return [part.strip() for part in text.split(",") if part.strip()]


def _moment(text: str | None) -> float | None:
    """Seconds since 1970 of a date, a time or a number; without a zone it is UTC."""
    if text is None:
        return None
    with suppress(ValueError):
        if isfinite(seconds := float(text)):
            return seconds
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        raise DataError(
            f"--at {text}: no moment; write 2026-11-28, 2026-11-28T18:30, 2026-11-28T18:30+01:00 or seconds since 1970"
        ) from None
    return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()
