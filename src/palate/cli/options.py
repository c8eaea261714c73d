"""Options shared by several commands, and the functions that open the data they name."""

from __future__ import annotations

import inspect
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields, replace
from functools import partial, wraps
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, cast, get_type_hints

import typer

from palate.cli.console import note, show_progress
from palate.errors import DataError, RecipeError

if TYPE_CHECKING:
    from palate.base import TrainOptions
    from palate.data.dataset import Dataset
    from palate.data.splits.split import Split
    from palate.evaluation.rating_prediction import RatingsReport
    from palate.evaluation.report import Report

__all__ = [
    "ColumnNames",
    "Data",
    "Decimal",
    "Device",
    "DropInvalid",
    "Duplicates",
    "Encoding",
    "EventColumn",
    "EventWeights",
    "Explicit",
    "Header",
    "ItemColumn",
    "ItemFeatures",
    "Json",
    "K",
    "Layout",
    "LeastRating",
    "Missing",
    "More",
    "Query",
    "RatingColumn",
    "Reading",
    "Relevant",
    "Seed",
    "Sentinels",
    "Separator",
    "Source",
    "Strip",
    "TableName",
    "TestFile",
    "TestSize",
    "Threads",
    "TimeColumn",
    "Track",
    "TrainFile",
    "Unit",
    "UserColumn",
    "UserFeatures",
    "ValidIds",
    "ValidationFile",
    "WeightColumn",
    "make_run",
    "measure",
    "measure_ratings",
    "reads_rows",
    "split_rows",
    "with_negatives",
]

Policy = Literal["auto", "last", "sum", "strongest", "error", "keep"]
Data = Annotated[
    str,
    typer.Argument(
        help="A named data set (palate data list), a saved split, or a file: CSV, TSV, JSON lines, Parquet, Excel, "
        "compressed or not; a folder, a quoted pattern ('log-*.csv'), - for standard input, a URL, a database."
    ),
]
UserColumn = Annotated[str | None, typer.Option("--user", help="Column with user ids; found by name if left out.")]
ItemColumn = Annotated[str | None, typer.Option("--item", help="Column with item ids; found by name if left out.")]
RatingColumn = Annotated[str | None, typer.Option("--rating", help="Column with ratings or quantities; '' for none.")]
WeightColumn = Annotated[
    str | None, typer.Option("--weight", help="Column with quantities (plays, hours, pieces) in place of ratings.")
]
EventColumn = Annotated[str | None, typer.Option("--event", help="Column with event types (view, cart, purchase).")]
EventWeights = Annotated[
    str | None,
    typer.Option(
        "--event-weights", help="view=1,cart=3,purchase=10 or a TOML file; 0: history only, below 0: dislike."
    ),
]
Explicit = Annotated[
    bool | None,
    typer.Option("--explicit/--implicit", help="Numbers are ratings, or quantities; by name and values if left out."),
]
TimeColumn = Annotated[str | None, typer.Option("--time", help="Column with times (numbers or dates), if any.")]
Separator = Annotated[
    str | None, typer.Option("--separator", help="Between columns: ';', '::', tab, blank; found if left out.")
]
Header = Annotated[
    bool | None,
    typer.Option("--header/--no-header", help="Whether the first line holds names of columns; found if left out."),
]
ColumnNames = Annotated[
    str | None,
    typer.Option("--columns", help="Names for all columns, in order: user,item,rating,time; _ skips a column."),
]
Query = Annotated[str | None, typer.Option("--query", help="SQL for a database: 'SELECT user, item FROM orders'.")]
TableName = Annotated[str | None, typer.Option("--table", help="A table of a database, or a sheet of a workbook.")]
Layout = Annotated[
    Literal["lines", "wide"] | None,
    typer.Option("--layout", help="lines: one line per user (user item item ...). wide: a matrix of users by items."),
]
Missing = Annotated[float | None, typer.Option("--missing", help="Means no rating in a matrix: 99 (--layout wide).")]
Decimal = Annotated[
    Literal[",", "."] | None, typer.Option("--decimal", help="Decimal mark of ratings: , or . ; found if left out.")
]
More = Annotated[list[str] | None, typer.Option("--more", help="Another file of the same columns; may be repeated.")]
Encoding = Annotated[str | None, typer.Option("--encoding", help="Of a text file, if it is not UTF-8: latin-1.")]
Sentinels = Annotated[
    list[float] | None, typer.Option("--sentinel", help="A rating that means 'not rated', such as -1: such rows go.")
]
Duplicates = Annotated[
    Policy,
    typer.Option("--duplicates", help="Same user and item twice: last, sum, strongest, error or keep; auto by kind."),
]
DropInvalid = Annotated[
    bool, typer.Option("--drop-invalid", help="Drop and count rows with missing or unreadable values.")
]
LeastRating = Annotated[
    str,
    typer.Option("--min-rating", help="Rows that are positive: auto, any rating, or ratings from a number on."),
]
Strip = Annotated[
    bool | None,
    typer.Option(
        "--strip/--no-strip",
        help="Remove blanks around ids and invisible characters, or take ids as they are. Default: refuse them where "
        "two ids are then equal.",
    ),
]
ValidIds = Annotated[
    list[str] | None,
    typer.Option("--valid-id", help="An id that looks like a missing value but is none, such as NA; may be repeated."),
]
Unit = Annotated[
    Literal["auto", "s", "ms", "us", "ns", "dmy", "mdy"],
    typer.Option(
        "--time-unit",
        help="Unit of times that are numbers, of any year then; dmy or mdy: the order of dates such as 3/4/2015.",
    ),
]
Relevant = Annotated[
    str,
    typer.Option("--relevant", help="Held-out rows that count as relevant: auto (the positive ones), any or a number."),
]
ItemFeatures = Annotated[
    Path | None, typer.Option("--items", help="A table about the items: its id column, titles, features.")
]
UserFeatures = Annotated[Path | None, typer.Option("--users", help="A table about the users: its id column, features.")]
TrainFile = Annotated[str | None, typer.Option("--train", help="Training rows, in place of DATA; with --test.")]
TestFile = Annotated[str | None, typer.Option("--test", help="Test rows of a split that was made elsewhere.")]
ValidationFile = Annotated[
    str | None,
    typer.Option("--validation", help="Validation rows of such a split: settings and epochs are chosen by them."),
]
Json = Annotated[bool, typer.Option("--json", help="Print JSON instead of tables.")]
TestSize = Annotated[
    float,
    typer.Option(
        "--test-size", help="Test fraction: of the rows for time and random, of the users or items for cold splits."
    ),
]
K = Annotated[int, typer.Option("-k", "--k", min=1, help="Length of the lists.")]
Seed = Annotated[int, typer.Option("--seed", min=0, help="All randomness derives from it.")]
Device = Annotated[Literal["auto", "cpu", "cuda"], typer.Option("--device", help="auto, cpu or cuda.")]
Track = Annotated[
    Literal["mlflow", "wandb"] | None,
    typer.Option(
        "--track", help="Log parameters, metrics of each epoch, final figures and files to MLflow or Weights & Biases."
    ),
]
Threads = Annotated[int | None, typer.Option("--threads", min=1, help="CPU threads; default OMP_NUM_THREADS, else 1.")]

SPLITS = ("leave-one-out", "time", "random", "cold-users", "cold-items", "none")


@dataclass(frozen=True)
class Reading:
    """How rows are read from a file: a command that takes one gets these options by ``reads_rows``."""

    user: UserColumn = None
    item: ItemColumn = None
    rating: RatingColumn = None
    weight: WeightColumn = None
    event: EventColumn = None
    event_weights: EventWeights = None
    explicit: Explicit = None
    time: TimeColumn = None
    separator: Separator = None
    header: Header = None
    columns: ColumnNames = None
    encoding: Encoding = None
    query: Query = None
    table: TableName = None
    layout: Layout = None
    missing: Missing = None
    decimal: Decimal = None
    more: More = None
    sentinel: Sentinels = None
    duplicates: Duplicates = "auto"
    drop_invalid: DropInvalid = False
    min_rating: LeastRating = "auto"
    strip: Strip = None
    valid_id: ValidIds = None
    time_unit: Unit = "auto"
    users: UserFeatures = None
    train: TrainFile = None
    test: TestFile = None
    validation: ValidationFile = None

    def of(self, data: str, items: Path | None = None) -> Source:
        """The DATA argument or that of --train, read in this way; ``items`` is a table about the items."""
        if data and self.train:
            raise DataError(f"DATA {data} and --train {self.train}: give one of them")
        if not (data or self.train):
            raise DataError("no DATA: name a file, a data set or a saved split, or --train FILE --test FILE")
        if self.train and not (self.test or self.validation):
            raise DataError(f"--train {self.train} without --test: name the test rows, or give {self.train} as DATA")
        return Source(data or str(self.train), self, items)

    def arguments(self, data: str, items: Path | None = None) -> list[str]:
        """DATA and the options as typed, for another command that reads the same rows."""
        hints = get_type_hints(type(self), include_extras=True)
        words = [data]
        for one in fields(self):
            value = getattr(self, one.name)
            # Inside Annotated, typer keeps the name of an option where a default would be.
            option, _, opposite = str(hints[one.name].__metadata__[0].default).partition("/")
            if value == one.default:
                continue
            if isinstance(value, bool):
                words.append(option if value else opposite)
                continue
            for text in map(str, value if isinstance(value, list) else [value]):
                words += [option, text] if text and not text.startswith("-") else [f"{option}={text}"]
        return words if items is None else [*words, "--items", str(items)]


def expand(kind: type[Any]) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """A decorator that gives a command the options of a dataclass in the place of its parameter of that type."""
    hints = get_type_hints(kind, include_extras=True)
    place = inspect.Parameter.POSITIONAL_OR_KEYWORD
    inside = [inspect.Parameter(f.name, place, default=f.default, annotation=hints[f.name]) for f in fields(kind)]

    def expanded(command: Callable[..., None]) -> Callable[..., None]:
        own = inspect.signature(command, eval_str=True)
        name = next(p.name for p in own.parameters.values() if p.annotation is kind)
        parameters = [one for p in own.parameters.values() for one in (inside if p.name == name else [p])]

        @wraps(command)
        def wrapped(**values: Any) -> None:
            given = kind(**{one.name: values.pop(one.name) for one in inside})
            command(**values, **{name: given})

        wrapped.__signature__ = own.replace(parameters=parameters)  # type: ignore[attr-defined]
        wrapped.__annotations__ = {one.name: one.annotation for one in parameters}
        return wrapped

    return expanded


reads_rows = expand(Reading)


@dataclass(frozen=True)
class Source:
    """A DATA argument and how to read it."""

    data: str
    reading: Reading = Reading()
    item_features: Path | None = None

    def dataset(self, store: Path | None = None) -> Dataset:
        """The rows, with a line on stderr about each thing that was dropped or changed; with ``store`` from there."""
        from palate.data.feedback import as_min_rating
        from palate.data.prepare import prepare
        from palate.data.readers import read_interactions
        from palate.data.readers.sources import exists
        from palate.datasets import registry

        for option, file in (("--test", self.reading.test), ("--validation", self.reading.validation)):
            if file is not None:
                raise DataError(
                    f"{option} {file} is not read here, where rows are held out by the command or not at all: omit "
                    f"{option}; palate train, compare, tune and evaluate read it"
                )
        min_rating = as_min_rating(self.reading.min_rating)
        if self.data in registry.names():
            if store is not None:
                raise DataError(
                    f"{self.data} is a named data set: give the path of a log (palate prepare LOG --out ...)"
                )
            with show_progress() as progress:
                dataset = registry.load(self.data, min_rating=min_rating, progress=progress)
        elif exists(self.data):
            how = self.reading
            names = None if how.columns is None else [name.strip() for name in how.columns.split(",")]
            read = read_interactions if store is None else partial(prepare, out=store)
            with show_progress() as progress:
                dataset = read(
                    [self.data, *how.more] if how.more else self.data,
                    user=how.user, item=how.item, rating=how.rating, timestamp=how.time,
                    separator=how.separator, header=how.header, names=names, encoding=how.encoding,
                    query=how.query, table=how.table, layout=how.layout, missing=how.missing,
                    decimal=how.decimal, item_features=self.item_features, user_features=how.users,
                    weight=how.weight, event=how.event, event_weights=how.event_weights, explicit=how.explicit,
                    sentinels=tuple(how.sentinel or ()), duplicates=how.duplicates, drop_invalid=how.drop_invalid,
                    min_rating=min_rating, progress=progress,
                    strip=how.strip, valid_ids=tuple(how.valid_id or ()), time_unit=how.time_unit,
                )  # fmt: skip
        else:
            raise DataError(_nothing_there(self.data))
        note(dataset)
        if dataset.columns:
            note(f"  {dataset.columns}")
        if not dataset.positive.all():
            note(f"  positive: {dataset.positive_rows}; the others are seen, never listed, no positives")
        for line in dataset.notes:
            note(f"  {line}")
        return dataset

    def joined(self, other: str, validation: str | None = None) -> Split:
        """The rows of DATA, those of another file as test rows, and those of a third to choose settings by."""
        from palate.data.splits.parts import join_parts

        plain = replace(self, reading=replace(self.reading, test=None, validation=None))
        others = [replace(plain, data=one, item_features=None) for one in (other, validation) if one is not None]
        train, test, *chosen = (one.dataset() for one in (plain, *others))
        how = f"ready-made parts: {self.data} and {other}; cold test rows kept"
        made = join_parts(train, test, how, *chosen)
        for line in made.notes:
            note(f"  {line}")
        return made

    def ready_made(self) -> Split | None:
        """The split, if DATA is a saved one or a data set that comes split; it keeps its rule unless one is given."""
        from palate.data.feedback import as_min_rating
        from palate.data.splits.split import Split
        from palate.datasets import registry

        if self.reading.validation is not None and self.reading.test is None:
            raise DataError(
                f"--validation {self.reading.validation} without --test: name the test rows too; "
                "only palate tune needs none"
            )
        if self.reading.test is not None:
            return self.joined(self.reading.test, self.reading.validation)
        if self.data == "ncf-ml-1m":
            with show_progress() as progress:
                split = registry.load_split(self.data, progress=progress)
        elif (Path(self.data) / "split.json").exists():
            split = Split.load(self.data)
        else:
            return None
        min_rating = as_min_rating(self.reading.min_rating)
        return split if min_rating == "auto" else split.with_min_rating(min_rating)


def split_rows(source: Source, how: str | None, test_size: float, seed: int) -> Split:
    """The split of the options; by default by time, or at random where the rows have no time.

    Where times are the order of the rows of each user, or a split by time would leave test rows of hardly any user, as
    in session logs, the default is leave one out.
    """
    from palate.data.dataset import Note
    from palate.data.splits import strategies
    from palate.experiment.validation import COLD, MEASURED_USERS

    ready = source.ready_made()
    if ready is not None:
        return ready
    dataset = source.dataset()
    if how is None:
        made = default_split(dataset, test_size, seed)
    elif how == "leave-one-out":
        made = strategies.leave_one_out(dataset)
    elif how == "time":
        made = strategies.by_time(dataset, test_size=test_size)
        if (measured := len(made.test_users)) < MEASURED_USERS * dataset.n_users:
            few = f"test rows of only {measured:,} of {dataset.n_users:,} users; --split leave-one-out measures more"
            made = replace(made, notes=(*made.notes, Note(few, len(made.test))))
    elif how == "random":
        made = strategies.at_random(dataset, test_size=test_size, seed=seed)
    elif how in COLD:
        made = COLD[how](dataset, test_size, seed)
    else:
        raise DataError(f"--split {how!r} is not a split: choose one of {', '.join(SPLITS)}")
    note(made.how)
    for line in made.notes:
        note(f"  {line}")
    return made


def default_split(dataset: Dataset, test_size: float, seed: int) -> Split:
    """Split by time; each user's latest row where time would measure few users; at random without times."""
    from palate.data.dataset import Note
    from palate.data.splits import strategies
    from palate.experiment.validation import MEASURED_USERS

    strategies.check_fraction(test_size, "test_size")
    if dataset.interactions.time is None:
        return strategies.at_random(dataset, test_size=test_size, seed=seed)
    if not dataset.comparable_times:
        return strategies.leave_one_out(dataset)
    try:
        made = strategies.by_time(dataset, test_size=test_size)
        measured = len(made.test_users)
    except DataError:  # every later row is of a new user
        measured = 0
    if measured >= MEASURED_USERS * dataset.n_users:
        return made
    made = strategies.leave_one_out(dataset)
    few = f"each user's latest row is held out: a split by time measures only {measured:,} of {dataset.n_users:,} users"
    return replace(made, notes=(*made.notes, Note(few, len(made.test))))


def make_run(seed: int, device: str, threads: int | None, **more: Any) -> TrainOptions:
    """Training options from the command line; one thread unless the user or OMP_NUM_THREADS says otherwise."""
    import torch

    from palate.base import TrainOptions

    if device == "cuda" and not torch.cuda.is_available():
        raise RecipeError("--device cuda: torch sees no GPU here: choose auto or cpu")
    # One thread is the default: two OpenMP threads on two busy cores can be many times slower than one.
    default = os.environ.get("OMP_NUM_THREADS", "")
    count = threads or (int(default) if default.isdecimal() and int(default) else 1)
    return TrainOptions(seed=seed, device=cast(Any, device), threads=count, **more)


def _nothing_there(data: str) -> str:
    from palate.datasets import registry

    near = registry.suggest(data)
    hint = f"did you mean {near}?" if near else f"named sets are {', '.join(registry.names())}"
    return f"{data}: no such file, saved split or named data set; {hint}"


def with_negatives(rows: Split, negatives: int, seed: int) -> Split:
    """The split with ``negatives`` sampled candidates per user; with 0 it keeps the candidates it has."""
    from palate.training.negative_sampling import draw_candidates

    if not negatives:
        return rows
    return rows.with_candidates(draw_candidates(rows, negatives, seed))


def measure(model: Any, rows: Split, k: int | Sequence[int], name: str, **more: Any) -> list[Report]:
    """Full ranking, and sampled candidates where the split has them: one report each."""
    from palate.evaluation.evaluate import evaluate

    reports = [evaluate(model, rows, k=k, name=name, **more)]
    if rows.candidates is not None:
        reports.append(evaluate(model, rows, k=k, name=name, candidates=rows.candidates, **more))
    return reports


def measure_ratings(model: Any, rows: Split, name: str, *, allow_trained_rows: bool = False) -> list[RatingsReport]:
    """The errors of predicted ratings, where the rows are ratings and the model predicts them: one report or none."""
    from palate.evaluation.rating_prediction import evaluate_ratings

    if not rows.test.explicit or not hasattr(model, "predict"):
        return []
    return [evaluate_ratings(model, rows, name=name, allow_trained_rows=allow_trained_rows)]
