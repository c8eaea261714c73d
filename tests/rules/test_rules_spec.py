"""Rules as data: what files may say, what they may not, and how a request changes them."""

from __future__ import annotations

import dataclasses
from datetime import date

import pytest

from palate.errors import RuleError
from palate.rules import Pin, Recency, Rules
from palate.rules.rules import LIKE_THIS

EVERYTHING = """
exclude = "bought"
bought_from = 4
flags = ["in_stock"]
diversity = 0.3

[deny]
item_id = [1, 2]
genres = ["Horror"]

[[allow]]
genres = ["Comedy", "Drama"]

[[allow]]
year = [1994, 1995]

[caps]
genres = 3

[[recency]]
column = "release_date"
since = 1990-01-01

[[recency]]
column = "last_event"
days = 30

[[pins]]
item = "50"
at = 1
"""


def test_a_file_holds_every_rule(tmp_path):
    (tmp_path / "rules.toml").write_text(EVERYTHING)
    assert Rules.load(tmp_path / "rules.toml") == Rules(
        exclude="bought",
        bought_from=4,
        deny=({"item_id": (1, 2), "genres": ("Horror",)},),
        allow=({"genres": ("Comedy", "Drama")}, {"year": (1994, 1995)}),
        flags=("in_stock",),
        recency=(Recency("release_date", since=date(1990, 1, 1)), Recency("last_event", days=30)),
        pins=(Pin("50", 1),),
        caps={"genres": 3},
        diversity=0.3,
    )


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('denny = ["a"]', "unknown rule 'denny': did you mean deny? there are exclude, bought_from, deny"),
        ("pins = [{item = 1, place = 2}]", "unknown rule 'pins.0.place': there are item, at"),
        ("pins = [{item = 1}]", "rule 'pins.0.at' is missing"),
        ("pins = [{item = 1, at = 0}]", "rule pins.0.at = 0: Input should be greater than or equal to 1"),
        ("pins = [{item = 1, at = 2}, {item = 3, at = 2}]", "1 and 3 are pinned at the same place 2"),
        ("pins = [{item = 1, at = 2}, {item = '1', at = 3}]", "item '1' is pinned twice"),
        ("caps = {genres = 0}", "rule caps.genres = 0: Input should be greater than or equal to 1"),
        ("deny = ['50']", 'valid dictionary: write it like deny = { item_id = [50], genres = ["Horror"] }'),
        ("diversity = 1.5", "rule diversity = 1.5: Input should be less than or equal to 1"),
        ("diversity = nan", "rule diversity = nan: Input should be"),
        ("[deny]\ngenres = 'Horror'", "rule deny.0.genres = 'Horror': Input should be a valid tuple"),
        ("exclude = 'all'", "rule exclude = 'all': Input should be 'seen', 'bought' or 'none'"),
        ("exclude = 'bought'", "exclude='bought' with bought_from=None"),
        ("bought_from = 3", "exclude=None with bought_from=3"),
        ("recency = [{column = 'year'}]", "recency on 'year' needs one of days and since"),
        ("recency = [{column = 'year', days = 0}]", "rule recency.0.days = 0: Input should be greater than 0"),
        ("caps = ", "is not TOML"),
    ],
)
def test_a_mistake_in_a_file_is_told_in_one_line(tmp_path, text, message):
    path = tmp_path / "rules.toml"
    path.write_text(text)
    with pytest.raises(RuleError) as caught:
        Rules.load(path)
    assert message in str(caught.value)
    assert str(caught.value).startswith(str(path))
    assert "\n" not in str(caught.value)


def test_every_rule_has_a_remedy_that_is_itself_right(tmp_path):
    assert set(LIKE_THIS) == {field.name for field in dataclasses.fields(Rules)}
    path = tmp_path / "rules.toml"
    for name, text in LIKE_THIS.items():
        path.write_text('exclude = "bought"\n' + text if name == "bought_from" else text)
        assert getattr(Rules.load(path), name)


def test_a_file_that_is_not_there_is_told():
    with pytest.raises(RuleError, match=r"cannot read the rules gone.toml \(No such file or directory\)"):
        Rules.load("gone.toml")


def test_a_request_adds_to_what_is_kept_out_and_replaces_what_shapes_the_list():
    shop = Rules.of(
        {
            "exclude": "bought",
            "bought_from": 4,
            "deny": {"genres": ["Horror"]},
            "flags": ["in_stock"],
            "pins": [{"item": 1, "at": 1}, {"item": 2, "at": 2}, {"item": 3, "at": 3}],
            "caps": {"genres": 3, "studio": 1},
            "diversity": 0.5,
        }
    )
    request = Rules.of(
        {
            "exclude": "seen",
            "deny": {"genres": ["War"]},
            "allow": {"genres": ["Comedy"]},
            "flags": ["in_stock", "new"],
            "recency": [{"column": "year", "days": 900}],
            "pins": [{"item": "3", "at": 2}],
            "caps": {"genres": 5},
        }
    )
    assert shop.merged(request) == Rules(
        exclude="seen",
        deny=({"genres": ("Horror",)}, {"genres": ("War",)}),
        allow=({"genres": ("Comedy",)},),
        flags=("in_stock", "new"),
        recency=(Recency("year", 900),),
        pins=(Pin(1, 1), Pin("3", 2)),
        caps={"genres": 5, "studio": 1},
        diversity=0.5,
    )
    assert shop.merged(Rules()) == shop
    assert Rules().merged(shop) == shop


def test_rules_are_keys_that_tell_values_of_different_types_apart():
    data = {"deny": {"genres": ["Horror"]}, "caps": {"genres": 3}, "pins": [{"item": 1, "at": 2}]}
    assert {Rules.of(data): "compiled"}[Rules.of(data)] == "compiled"
    # In a text column each of these values denies other items.
    assert len({Rules.of({"deny": {"maker": [value]}}) for value in (1, 1.0, True, "1")}) == 4
    assert Rules() != Rules(diversity=0.0)


def test_rules_built_in_python_have_the_bounds_of_a_file():
    for build, message in (
        (lambda: Rules(diversity=1.5), "rules, field diversity=1.5: must be at most 1"),
        (lambda: Rules(caps={"genres": 0}), "field caps=0: must be at least 1"),
        (lambda: Pin("50", 0), "pin, field at=0: must be at least 1"),
        (lambda: Recency("year", days=-1), "recency, field days=-1: must be above 0"),
    ):
        with pytest.raises(RuleError, match=message):
            build()


def test_a_dictionary_changed_later_does_not_change_rules():
    caps = {"genres": 3}
    rules = Rules(caps=caps)
    caps["genres"] = 1
    assert rules == Rules(caps={"genres": 3})
