"""`palate train`: fit one recipe, measure it, save it."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, cast

import typer

import palate
from palate import signals
from palate.cli import options
from palate.cli.console import console, note, print_json, show_place, show_progress
from palate.cli.evaluate import show_ratings, show_reports
from palate.cli.index import index_if_large
from palate.cli.saving import save
from palate.errors import RecipeError

if TYPE_CHECKING:
    from palate.base import Recipe, TrainOptions
    from palate.data.dataset import Dataset
    from palate.data.splits.split import Split
    from palate.evaluation.rating_prediction import RatingsReport
    from palate.evaluation.report import Report


@options.reads_rows
def train(
    words: Annotated[
        list[str] | None,
        typer.Argument(metavar="[RECIPE] DATA", help="A recipe (gmf, mlp, ...) and the data, or the data."),
    ] = None,
    out: Annotated[Path, typer.Option("--out", help="Folder for the bundle.")] = Path("bundles/trained"),
    set_: Annotated[
        list[str] | None, typer.Option("--set", help="A hyperparameter: --set epochs=5 --set layers=[32,16]")
    ] = None,
    config: Annotated[
        Path | None,
        typer.Option("--config", help="A TOML file with the hyperparameters, and the recipe if it is not named."),
    ] = None,
    published: Annotated[
        bool, typer.Option("--published", help="Published defaults instead of the fast preset.")
    ] = False,
    split: Annotated[
        str | None,
        typer.Option(
            "--split",
            help="leave-one-out, time, random, cold-users, cold-items, or none to train on all rows. Default: time, or "
            "random without times.",
        ),
    ] = None,
    test_size: options.TestSize = 0.2,
    save_split: Annotated[
        Path | None, typer.Option("--save-split", help="Keep the split in this folder, for train and evaluate.")
    ] = None,
    negatives: Annotated[
        int, typer.Option("--negatives", min=0, help="Also measure against this many sampled candidates.")
    ] = 0,
    patience: Annotated[
        int | None,
        typer.Option(
            "--patience",
            min=1,
            help="Stop after so many epochs without a better NDCG on validation rows; then fit all rows as long.",
        ),
    ] = None,
    no_refit: Annotated[
        bool,
        typer.Option("--no-refit", help="With --patience: keep the fit without the validation rows."),
    ] = False,
    folder: Annotated[
        Path | None, typer.Option("--folder", help="Checkpoints and logs; a killed run resumes from here.")
    ] = None,
    logger: Annotated[
        Literal["none", "csv", "tensorboard", "mlflow", "wandb"],
        typer.Option("--logger", help="Log the losses, into --folder."),
    ] = "none",
    track: options.Track = None,
    precision: Annotated[
        Literal["32-true", "bf16-mixed"], typer.Option("--precision", help="Of the numbers in training.")
    ] = "32-true",
    reading: options.Reading = options.Reading(),
    items: options.ItemFeatures = None,
    k: options.K = 10,
    seed: options.Seed = 0,
    device: options.Device = "auto",
    threads: options.Threads = None,
    json: options.Json = False,
) -> None:
    """Fit a recipe on the training rows, measure it on the held-out rows, save the bundle.

    Without a recipe a few fast ones are compared on validation rows and the best is chosen; a line on stderr
    states the reason. The fast preset is the default, --published takes the paper's settings.

    Example: palate train neumf ml-100k --split leave-one-out --negatives 100 --set epochs=5
    """
    from palate.bundle import Bundle, check_target
    from palate.data.splits.split import Split
    from palate.evaluation.collapse import collapse
    from palate.experiment.tracking import by_epoch, check_service, figures_of, tracked
    from palate.models import make_recipe

    check_target(out)
    check_service(track)
    signals.on_stop(f"the same command resumes from {folder}" if folder else "with --folder it could be resumed")
    named, data = _recipe_and_data([*(words or []), *([""] if reading.train else [])])
    name, fields = recipe_and_fields(named, config, set_ or [])
    if name is not None:
        make_recipe(name, fields, fast=not published)  # a field out of bounds ends here, before the data are read
    source = reading.of(data, items)
    rows: Split | Dataset
    rows = source.dataset() if split == "none" else options.split_rows(source, split, test_size, seed)
    dataset = rows.train if isinstance(rows, Split) else rows
    training = options.make_run(seed, device, threads, precision=precision, folder=folder, logger=logger)
    given_rows = isinstance(rows, Split) and rows.validation is not None
    if given_rows and name is not None and patience is None:
        note("the validation rows are not used: they choose a recipe where none is named, or epochs with --patience")
    chosen_by = rows if given_rows else dataset
    recipe = _recipe(name, fields, published, dataset, chosen_by, training, k)
    with tracked(track, f"{recipe.name} on {dataset.name}") as run:
        run.parameters(_parameters(recipe, dataset, rows, training))
        with show_progress() as progress:
            heard = dataclasses.replace(training, progress=by_epoch(run, recipe.name, progress))
            model = _fit(recipe, chosen_by, heard, patience, k, refit=not no_refit)
        reports: list[Report] = []
        ratings: list[RatingsReport] = []
        if isinstance(rows, Split):
            rows = options.with_negatives(rows, negatives, seed)
            if save_split is not None:
                rows.save(save_split)
            reports = options.measure(model, rows, k, recipe.name)
            ratings = options.measure_ratings(model, rows, recipe.name)
        findings = collapse(model, dataset, rows if isinstance(rows, Split) else None, k=k, seed=seed)
        for line in findings:
            note(line)
        measured: list[Report | RatingsReport] = [*reports, *ratings]
        bundle = Bundle.of(
            recipe, model, dataset, [row for report in measured for row in report.rows()],
            split_fingerprint=rows.fingerprint if isinstance(rows, Split) else None,
            candidates_fingerprint=reports[-1].fingerprints["candidates"] if reports else None,
        )  # fmt: skip
        save(dataclasses.replace(bundle, recommender=index_if_large(bundle.recommender)), out)
        run.figures({name: value for one in measured for name, value in figures_of(one.to_dict()).items()})
        run.file(out / "manifest.json")
        show_place(run)
    if json:
        fields = dataclasses.asdict(recipe)
        print_json({
            "recipe": recipe.name, "fields": fields, "bundle": str(out),
            "columns": dataset.columns, "feedback": dataset.feedback_record(), "findings": findings,
            "reports": [report.to_dict() for report in measured],
        })  # fmt: skip
        return
    show_reports(reports)
    show_ratings(ratings)
    console().print(f"The bundle is in {out}. Next: palate recommend {out} USER", markup=False, soft_wrap=True)


def _parameters(recipe: Recipe[Any], dataset: Dataset, rows: Dataset | Split, training: TrainOptions) -> dict[str, Any]:
    """The parameters of a tracked run."""
    split = {} if rows is dataset else {"split": rows.how, "split_fingerprint": rows.fingerprint}  # type: ignore[union-attr]
    return {
        "recipe": recipe.name, **dataclasses.asdict(cast(Any, recipe)), "data": dataset.name, "rows": len(dataset),
        "users": dataset.n_users, "items": dataset.n_items, **split, "seed": training.seed,
        "device": training.device, "precision": training.precision, "palate": palate.__version__,
    }  # fmt: skip


def _fit(
    recipe: Recipe[Any], rows: Dataset | Split, training: TrainOptions, patience: int | None, k: int, *, refit: bool
) -> Any:
    """The fitted model; with patience for as many epochs as are best on validation rows."""
    if patience is None:
        return recipe.fit(getattr(rows, "train", rows), training)
    from palate.experiment import fit_until_worse

    stopped = fit_until_worse(recipe, rows, training, patience, k, refit=refit)
    note(f"NDCG@{k}: {stopped.words}")
    return stopped.model


def _recipe_and_data(words: list[str]) -> tuple[str | None, str]:
    if len(words) < 2:
        return None, words[0] if words else ""
    if len(words) == 2:
        return words[0], words[1]
    raise RecipeError(f"expected [RECIPE] DATA, got {len(words)} words ({' '.join(words)}): give a recipe and the data")


def _recipe(
    name: str | None,
    fields: dict[str, Any],
    published: bool,
    dataset: Dataset,
    rows: Dataset | Split,
    training: TrainOptions,
    k: int,
) -> Recipe[Any]:
    """The recipe named or chosen on validation rows, with the values that the data choose."""
    from palate.base import Trainable
    from palate.models import make_recipe

    given = (
        _best_of_few(fields, dataset, rows, training, k)
        if name is None
        else make_recipe(name, fields, fast=not published)
    )
    recipe = given.for_data(dataset)
    if chosen := recipe.chosen(given):
        note(f"chosen for {dataset}: {chosen}")
    if training.logger != "none" and not (isinstance(recipe, Trainable) or recipe.has_members):
        note(f"{recipe.name} is not trained by gradient descent: --logger {training.logger} writes nothing")
    note(f"training {recipe.name}: {dataclasses.asdict(recipe)}")
    return recipe


def _best_of_few(
    fields: dict[str, Any], dataset: Dataset, rows: Dataset | Split, training: TrainOptions, k: int
) -> Recipe[Any]:
    """The best of a few fast recipes on validation rows."""
    from palate.experiment import plan_quickstart, rank_on_validation

    if fields:
        raise RecipeError(f"fields {', '.join(fields)} were set but no recipe was named: palate train RECIPE DATA")
    quick = plan_quickstart(dataset).recipes
    note(f"comparing {len(quick)} recipes on validation rows")
    failed: dict[str, str] = {}
    with show_progress() as progress:
        values = rank_on_validation(quick, rows, training, failed, k=k, progress=progress)
    for one, reason in failed.items():
        note(f"{one} failed: {reason}")
    if not values:
        raise RecipeError(
            f"{dataset} is too little to choose a recipe on validation rows: palate train popularity DATA"
        )
    best = max(quick, key=lambda one: values.get(one.name, -1.0))
    others = ", ".join(f"{name} {value:.4f}" for name, value in values.items())
    note(f"no recipe named: {best.name} has the best NDCG@{k} on validation rows ({others})")
    return best


def recipe_and_fields(name: str | None, config: Path | None, pairs: list[str]) -> tuple[str | None, dict[str, Any]]:
    """The recipe's name, which the file of --config may give as ``recipe``, and its fields; those of --set win.

    Raises:
        RecipeError: the file is of another recipe, or one of both cannot be read.
    """
    import json

    from palate.experiment import read_toml

    fields = read_toml(config, "--config") if config else {}
    recipe = fields.pop("recipe", name)
    if name is not None and recipe != name:
        raise RecipeError(f"--config {config} is of recipe {recipe!r}, not {name!r}: name that one, or none")
    for pair in pairs:
        key, sign, value = pair.partition("=")
        if not sign:
            raise RecipeError(f"--set {pair!r} is not field=value: write it like --set epochs=5")
        try:
            fields[key] = json.loads(value)
        except json.JSONDecodeError:
            fields[key] = value
    return recipe, fields
