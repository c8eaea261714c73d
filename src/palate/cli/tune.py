"""`palate tune`: search the fields of a recipe for the best value on validation rows."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, cast

import typer

from palate import signals
from palate.cli import options
from palate.cli.console import console, note, print_json, show_progress, table
from palate.cli.train import recipe_and_fields
from palate.errors import DataError, RecipeError

if TYPE_CHECKING:
    from palate.base import Recipe
    from palate.data.dataset import Dataset
    from palate.data.splits.split import Split
    from palate.experiment import Trial, Tuned
    from palate.experiment.search_space import Space
    from palate.experiment.validation import How

SHOWN = 5  # trials in the table at the end


@options.reads_rows
def tune(
    recipe: Annotated[str, typer.Argument(help="A recipe: ease, ials, neumf, blend, ...")],
    data: options.Data = "",
    out: Annotated[
        Path | None,
        typer.Option("--out", help="Folder of the study; resumed if it already exists. Default: studies/RECIPE."),
    ] = None,
    trials: Annotated[
        int, typer.Option("--trials", min=1, help="Number of trials, those of earlier runs counted.")
    ] = 20,
    minutes: Annotated[
        float | None, typer.Option("--minutes", min=0, help="Start no trial after so many minutes.")
    ] = None,
    metric: Annotated[
        str, typer.Option("--metric", help="Metric to optimize: NDCG@10, Recall@50, ..., or RMSE for ratings.")
    ] = "NDCG@10",
    candidates: Annotated[
        str, typer.Option("--candidates", help="full, or a number of sampled items for each user: 99.")
    ] = "full",
    exclude_seen: Annotated[
        bool,
        typer.Option("--exclude-seen/--include-seen", help="Take items of the user's training rows out of the lists."),
    ] = True,
    relevant: options.Relevant = "auto",
    search: Annotated[
        list[str] | None,
        typer.Option(
            "--search", help="Field to search instead of the default space: dim=16,32,64 or regularization=10:999:log"
        ),
    ] = None,
    space: Annotated[
        Path | None, typer.Option("--space", help="A TOML file with lines like those of --search.")
    ] = None,
    set_: Annotated[
        list[str] | None, typer.Option("--set", help="Value of a field that is not searched: --set epochs=5")
    ] = None,
    config: Annotated[Path | None, typer.Option("--config", help="A TOML file with values of fields.")] = None,
    published: Annotated[
        bool, typer.Option("--published", help="Start from the published defaults instead of the fast preset.")
    ] = False,
    split: Annotated[
        str | None,
        typer.Option(
            "--split", help="How rows are held out: leave-one-out, time or random; none: DATA has no test rows."
        ),
    ] = None,
    test_size: options.TestSize = 0.2,
    parts: Annotated[
        int, typer.Option("--parts", min=1, help="Number of validation parts; the value of a trial is their mean.")
    ] = 1,
    sample: Annotated[
        float, typer.Option("--sample", help="Share of the users whose training rows are used, drawn with --seed.")
    ] = 1.0,
    workers: Annotated[
        int, typer.Option("--workers", min=1, help="Processes that run trials side by side, one thread each.")
    ] = 1,
    no_prune: Annotated[
        bool, typer.Option("--no-prune", help="Train every trial to its last epoch, on every part.")
    ] = False,
    reading: options.Reading = options.Reading(),
    items: options.ItemFeatures = None,
    seed: options.Seed = 0,
    device: options.Device = "auto",
    threads: options.Threads = None,
    json: options.Json = False,
) -> None:
    """Search the fields of a recipe for the best value on validation rows, which come out of the training rows of DATA.

    The rows that palate train would hold out for the test are not used. The same command resumes a study that was
    stopped or killed. The best recipe is written to OUT/best.toml, which palate train --config reads.

    Example: palate tune ease ml-100k --split leave-one-out --trials 30 --search regularization=10:5000:log
    """
    from palate.data.feedback import as_min_rating
    from palate.experiment import Metric, Task
    from palate.experiment import tune as run_study
    from palate.models import make_recipe

    _, fields = recipe_and_fields(recipe, config, set_ or [])
    preset = make_recipe(recipe, fields, fast=not published)
    searched, measured = _space(preset, space, search or []), Metric.of(metric)
    if not exclude_seen and candidates != "full":
        raise DataError(
            f"--include-seen with --candidates {candidates}: seen items are never sampled, omit one of them"
        )
    source = reading.of(data, items)
    training = options.make_run(seed, device, threads)
    plain = replace(source, reading=replace(reading, validation=None))
    given = "none" if reading.validation is not None and reading.test is None else split
    train, rows, inner = *_training(plain, given, test_size, sample, seed), None
    if reading.validation is not None:
        if sample != 1 or parts != 1:
            raise DataError("--validation names the validation rows: omit --sample and --parts")
        inner = source.joined(reading.validation)
    made = tuple(
        _with_candidates(part.relevant(as_min_rating(relevant)), candidates, seed)
        for part in ([inner] if inner is not None else _parts(train, rows, split, parts, test_size, seed))
    )
    for part in made:
        note(f"validation rows, out of {len(train):,} training rows: {len(part.test):,} ({part.how})")
    task = Task(preset, searched, made, measured, training, prune=not no_prune, exclude_seen=exclude_seen)
    folder = out or Path("studies") / recipe
    signals.on_stop(f"the same command resumes from {folder}")
    with show_progress() as progress:
        found = run_study(task, folder, trials=trials, minutes=minutes, workers=workers, progress=progress)
    plots = _plots(found)
    for line in found.findings:
        note(line)
    if json:
        print_json(
            {
                **found.to_dict(),
                "config": str(folder / "best.toml"),
                "plots": plots,
                "columns": train.columns,
                "feedback": train.feedback_record(),
            }
        )
        return
    _show(found, data or f"--train {reading.train} --test {reading.test}")


def _space(preset: Recipe[Any], path: Path | None, pairs: list[str]) -> Space:
    from palate.experiment import default_space, parse_space, read_toml

    requested: dict[str, Any] = read_toml(path, "--space") if path else {}
    for pair in pairs:
        field, sign, text = pair.partition("=")
        if not sign:
            raise RecipeError(
                f"--search {pair!r} is not field=low:high or field=a,b,c: write it like --search dim=8,16"
            )
        requested[field] = text
    return parse_space(preset, requested) if requested else default_space(preset)


def _training(
    source: options.Source, how: str | None, test_size: float, sample: float, seed: int
) -> tuple[Dataset, Split | None]:
    """Training rows, and the split they are from, whose test rows are only counted."""
    from palate.data.preprocessing import sample_users

    rows = None if how == "none" else options.split_rows(source, how, test_size, seed)
    train = source.dataset() if rows is None else rows.train
    if rows is not None:
        note(f"{len(rows.test):,} test rows are held out and not used")
    if sample != 1:
        train = sample_users(train, sample, seed)
        note(f"{train.n_users:,} users are sampled")
    return train, rows


def _parts(train: Dataset, rows: Split | None, how: str | None, parts: int, test_size: float, seed: int) -> list[Split]:
    """Validation splits of the training rows, in the requested way or that of the test rows."""
    from palate.experiment import validation_parts, validation_split

    if how in ("leave-one-out", "time", "random"):
        return validation_parts(train, cast("How", how), parts, test_size, seed)
    if parts > 1 or (rows is not None and rows.train is not train):
        raise DataError("--parts and --sample need --split leave-one-out, time or random: say how rows are held out")
    return [validation_split(train if rows is None else rows, test_size, seed)]


def _with_candidates(part: Split, candidates: str, seed: int) -> Split:
    from palate.training.negative_sampling import draw_candidates

    if candidates == "full":
        return part
    if not candidates.isdecimal() or not int(candidates):
        raise DataError(f"--candidates {candidates!r}: write full, or a number of sampled items such as 99")
    return part.with_candidates(draw_candidates(part, int(candidates), seed))


def _plots(found: Tuned) -> list[str]:
    from palate.experiment.tune_plots import write_plots

    try:
        return [str(path) for path in write_plots(found)]
    except RecipeError as error:
        note(f"no plots: {error}")
        return []


def _show(found: Tuned, data: str) -> None:
    metric, best, preset = str(found.task.metric), found.best, found.preset
    sign = -1 if found.task.metric.higher_is_better else 1
    complete = [trial for trial in found.trials if trial.state == "complete" and trial.value is not None]
    ranked = sorted(complete, key=lambda trial: (sign * (trial.value or 0.0), trial.number))[:SHOWN]
    shown = [*ranked, *([] if preset in ranked else [preset])]
    states = [trial.state for trial in found.trials]
    table(
        f"{found.task.preset.name}: {metric} on validation rows, {len(states)} trials "
        f"({states.count('pruned')} stopped early, {states.count('failed')} failed)",
        ["trial", metric, "seconds", *found.task.space],
        [
            [f"{t.number}{' (preset)' if t.preset else ''}", t.value, t.seconds, *_searched(t, found.task.space)]
            for t in shown
        ],
        caption=f"{_held_out(found.task.parts)}. The best of many is optimistic: measure it once on test rows.",
    )
    if found.importance:
        table("importance of the fields", ["field", "importance"], found.importance.items())
    to = console()
    to.print(f"preset {preset.value:.4f}, best {best.value:.4f}", markup=False, soft_wrap=True)
    path = found.folder / "best.toml"
    to.print(f"The best recipe is in {path}. Next: palate train --config {path} {data}", markup=False, soft_wrap=True)


def _held_out(parts: tuple[Split, ...]) -> str:
    more = f", and {len(parts) - 1} more such parts" if len(parts) > 1 else ""
    return f"{parts[0].how}{more}"


def _searched(trial: Trial, space: Space) -> list[Any]:
    from palate.experiment.search_space import take

    values = (take(trial.fields, path, "") for path in space)
    return ["none" if value is None else value for value in values]
