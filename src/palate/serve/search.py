"""Search in titles: words and beginnings of words, without regard to case and diacritics."""

from __future__ import annotations

import re
import unicodedata
from bisect import bisect_left, insort
from collections.abc import Iterable

WORD = re.compile(r"\w+")


def fold(text: str) -> str:
    """A text without case and diacritics: "Amélie" and "AMELIE" are equal, "ß" is "ss"."""
    parts = unicodedata.normalize("NFKD", text.casefold())
    return "".join(one for one in parts if not unicodedata.combining(one))


class TitleIndex:
    """Titles by their words.

    Args:
        titles: pairs of a key, such as an item id, and its title.
    """

    def __init__(self, titles: Iterable[tuple[str, str | None]]) -> None:
        self._folded: dict[str, str] = {}
        self._words: list[tuple[str, str]] = []
        for key, title in titles:
            folded = self._folded[key] = fold(title or key)
            self._words += [(word, key) for word in set(WORD.findall(folded))]
        self._words.sort()

    def put(self, key: str, title: str | None) -> None:
        """Add a title, or replace that of a key."""
        self.remove(key)
        folded = self._folded[key] = fold(title or key)
        for word in set(WORD.findall(folded)):
            insort(self._words, (word, key))

    def remove(self, key: str) -> None:
        """Remove a title, if it is there."""
        folded = self._folded.pop(key, None)
        if folded is None:
            return
        for word in set(WORD.findall(folded)):
            place = bisect_left(self._words, (word, key))
            if place < len(self._words) and self._words[place] == (word, key):
                del self._words[place]

    def find(self, query: str) -> list[tuple[int, str]]:
        """(place, key) of titles that have all words of the query, each perhaps as the beginning of a word.

        Place 0: the title begins with the query; 1: it holds the query as it is; 2: all others.
        """
        folded = " ".join(fold(query).split())
        words = sorted(set(WORD.findall(folded)), key=len, reverse=True)
        if not words:
            return []
        # The longest word has the fewest matches.
        keys = self._starting(words[0])
        for word in words[1:]:
            keys &= self._starting(word)
        texts = self._folded
        return [(0 if texts[key].startswith(folded) else 1 if folded in texts[key] else 2, key) for key in keys]

    def _starting(self, word: str) -> set[str]:
        first = bisect_left(self._words, (word, ""))
        last = bisect_left(self._words, (word + "\U0010ffff", ""))
        return {key for _, key in self._words[first:last]}
