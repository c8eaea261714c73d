"""Make the small shop of examples/data: clicks with event types, items with prices, users with countries.

    python examples/make_shop.py

Nobody in it exists. The generator stands here so that the files can be read, changed and made again: the same seed
writes the same bytes.

A user has two favorite categories, and within each a favorite line of products; in three of four cases the next item
comes from there, otherwise from the whole shop by popularity, and often after an item its companion is looked at. So
models that compare users have something to find, the order of a history has a meaning, and the most popular items alone
make poor lists.
"""

from __future__ import annotations

import math
import random
import sys
from datetime import UTC, datetime, timedelta
from itertools import accumulate
from pathlib import Path

SEED = 2026
USERS = 400
START = datetime(2026, 1, 1, tzinfo=UTC)
DAYS = 120
COUNTRIES = {"DE": 6, "FR": 4, "NL": 3, "PL": 3, "SE": 2}
LINES = ("Basic", "Classic", "Organic", "Deluxe")  # from cheap to expensive
CATEGORIES = {
    "tea": ("Black tea", "Green tea", "Herbal tea", "Rooibos", "Fruit tea", "Chai"),
    "coffee": ("Espresso beans", "Filter coffee", "Decaf coffee", "Instant coffee", "Cold brew", "Coffee pods"),
    "sweets": ("Dark chocolate", "Milk chocolate", "Caramels", "Licorice", "Wine gums", "Nougat"),
    "bakery": ("Rye bread", "Crispbread", "Shortbread", "Ginger biscuits", "Rusks", "Waffles"),
    "spreads": ("Honey", "Strawberry jam", "Orange marmalade", "Peanut butter", "Hazelnut cream", "Apple butter"),
    "spices": ("Cinnamon", "Cardamom", "Vanilla", "Turmeric", "Paprika", "Black pepper"),
    "kitchen": ("Teapot", "Tea strainer", "French press", "Milk jug", "Spice mill", "Cake tin"),
    "gifts": ("Gift box", "Greeting cards", "Candles", "Napkins", "Ribbon", "Gift basket"),
}
# An event and the chance that it is followed by the next one of the list for the same item.
FUNNEL = {"view": 0.30, "cart": 0.55, "purchase": 0.0}
FAVORITE, COMPANION = 0.75, 0.3


class Draw:
    """Draws by weight from uniform numbers alone, whose sequence Python guarantees for a seed."""

    def __init__(self, seed: int) -> None:
        self.uniform = random.Random(seed).random

    def one(self, weights: list[float]) -> int:
        """A position, with a chance in proportion to its weight."""
        sums = list(accumulate(weights))
        point = self.uniform() * sums[-1]
        return next(place for place, total in enumerate(sums) if point < total)

    def wait(self, mean: float) -> float:
        """An exponential waiting time."""
        return -mean * math.log(1.0 - self.uniform())


def items() -> list[tuple[str, str, str, float]]:
    """The id, title, category and price of each item; neighbors in the list are companions."""
    made = []
    for category, products in CATEGORIES.items():
        for place, product in enumerate(products):
            for line, name in enumerate(LINES):
                price = (2.0 + 1.3 * place) * (1 + line) * (3 if category == "kitchen" else 1)
                made.append((f"p{len(made) + 1:03d}", f"{name} {product[0].lower()}{product[1:]}", category, price))
    return made


def clicks(draw: Draw, shop: list[tuple[str, str, str, float]]) -> list[tuple[datetime, str, str, str]]:
    """The time, user, item and type of each event, in order of time."""
    # Zipf's law over a shuffled order: popularity is independent of category and line.
    order = sorted(range(len(shop)), key=lambda _: draw.uniform())
    popularity = [0.0] * len(shop)
    for place, item in enumerate(order):
        popularity[item] = 1.0 / (place + 6)
    per_category = len(shop) // len(CATEGORIES)
    rows = []
    for user in range(USERS):
        favorites = {draw.one([1.0] * len(CATEGORIES)): draw.one([3.0, 4.0, 2.0, 2.0]) for _ in range(2)}
        taste = [
            weight * (1.0 if favorites.get(item // per_category) == item % len(LINES) else 0.02)
            for item, weight in enumerate(popularity)
        ]
        day, last = draw.uniform() * 0.6 * DAYS, -1
        pause = 6.0 + draw.wait(15.0)
        while day < DAYS:
            at = START + timedelta(days=day)
            for _ in range(1 + int(draw.wait(2.0))):
                if last >= 0 and draw.uniform() < COMPANION:
                    item = (last + len(LINES)) % len(shop)  # the next product of the same line
                else:
                    item = draw.one(taste if draw.uniform() < FAVORITE else popularity)
                for kind, goes_on in FUNNEL.items():
                    at += timedelta(seconds=5 + int(draw.wait(60.0)))
                    rows.append((at, f"u{user + 1:04d}", shop[item][0], kind))
                    if draw.uniform() >= goes_on:
                        break
                last = item
            day += 0.5 + draw.wait(pause)
    return sorted(row for row in rows if row[0] < START + timedelta(days=DAYS))


def main(folder: Path) -> None:
    """Write clicks.csv, items.csv and users.csv."""
    folder.mkdir(parents=True, exist_ok=True)
    draw, shop = Draw(SEED), items()
    events = [f"{user},{item},{kind},{at:%Y-%m-%d %H:%M:%S}" for at, user, item, kind in clicks(draw, shop)]
    countries = [list(COUNTRIES)[draw.one([float(share) for share in COUNTRIES.values()])] for _ in range(USERS)]
    tables = {
        "clicks.csv": ["user_id,item_id,event,timestamp", *events],
        "items.csv": ["item_id,title,category,price", *(f"{a},{b},{c},{price:.2f}" for a, b, c, price in shop)],
        "users.csv": ["user_id,country", *(f"u{user + 1:04d},{name}" for user, name in enumerate(countries))],
    }
    for name, lines in tables.items():
        (folder / name).write_text("\n".join(lines) + "\n", encoding="utf-8", newline="\n")


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).parent / "data")
