"""`palate quickstart` and `palate demo`: from rows to recommendations in one command."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from palate.cli import options
from palate.cli.console import console, frame_table, note, print_json, show_progress, table

if TYPE_CHECKING:
    from palate.base import Recipe
    from palate.data.splits.split import Split
    from palate.experiment import Comparison
    from palate.progress import Progress
    from palate.recommend import Recommender

METRICS = ("NDCG", "HitRate", "Recall", "MRR", "Coverage")


@options.reads_rows
def quickstart(
    data: options.Data,
    reading: options.Reading = options.Reading(),
    items: options.ItemFeatures = None,
    out: Annotated[Path, typer.Option("--out", help="Folder for the bundle.")] = Path("bundles/quickstart"),
    k: options.K = 10,
    seed: options.Seed = 0,
    device: options.Device = "auto",
    threads: options.Threads = None,
    json: options.Json = False,
) -> None:
    """From your own file to recommendations: check it, compare a few fast models, save the best one.

    Finds the columns by name, holds out the newest fifth of the rows (a random fifth where there is no time), picks
    the best model on validation rows, measures all of them on the held-out rows, and saves the best one, fitted
    again on all rows, as a bundle.

    Example: palate quickstart clicks.csv --user visitor --item page
    """
    from palate.bundle import Bundle
    from palate.experiment import hold_out, quick_recipes

    dataset = reading.of(data, items).dataset()
    recipes = quick_recipes(dataset)
    if dataset.interactions.time is None:
        note("no time column: held-out rows are random ones, which flatters models; name one with --time")
    split = hold_out(dataset, seed=seed)
    note(split.how)
    for line in split.notes:
        note(f"  {line}")
    with show_progress() as progress:
        best, validation, found = _chosen(split, recipes, k, seed, device, threads, progress)
        note(f"training {best.name} on all rows for the bundle")
        model = best.fit(dataset, options.make_run(seed, device, threads, progress=progress))
    bundle = Bundle.of(best, model, dataset, found.report(best.name).rows(), split_fingerprint=split.fingerprint)
    bundle.save(out)
    example = examples(bundle.recommender, k)
    if json:
        print_json({
            "data": dataset.name, "rows": len(dataset), "users": dataset.n_users, "items": dataset.n_items,
            "notes": [str(one) for one in (*dataset.notes, *split.notes)], "protocol": split.how,
            "validation": validation, "best": best.name, "bundle": str(out),
            "reports": [found.report(recipe.name).to_dict() for recipe in recipes], "examples": example.to_dicts(),
        })  # fmt: skip
        return
    show_comparison(found, validation, k)
    console().print(f"Best on validation rows: {best.name} (NDCG@{k} {validation[best.name]:.4f} there).", markup=False)
    frame_table("Example recommendations", example)
    _next_steps(out, example["user_id"][0])


def demo(
    out: Annotated[Path, typer.Option("--out", help="Folder for the bundle.")] = Path("bundles/demo"),
    seed: options.Seed = 0,
    device: options.Device = "auto",
    threads: options.Threads = None,
    json: options.Json = False,
) -> None:
    """MovieLens 100K: four models against a published table, then recommendations with titles.

    Example: palate demo
    """
    from palate.bundle import Bundle
    from palate.models.popularity import Popularity
    from palate.reproduce import system_b
    from palate.reproduce.rows import Options

    with show_progress() as progress:
        split = system_b.split(Options(training=options.make_run(seed, device, threads, progress=progress)))
        note(split.train)
        recipes: list[Recipe[Any]] = [Popularity(), *system_b.FAST]
        best, _, found = _chosen(split, recipes, 10, seed, device, threads, progress)
    fitted = found.fitted(best.name)
    report = fitted.reports["sampled"]
    Bundle.of(
        best, fitted.model, split.train, report.rows(),
        split_fingerprint=report.fingerprints["split"], candidates_fingerprint=report.fingerprints["candidates"],
    ).save(out)  # fmt: skip
    bundle = Bundle.load(out)
    user = bundle.recommender.users.ids[0]
    lists = bundle.recommender.recommend([user], 10)
    if json:
        reports = [found.report(recipe.name, "sampled").to_dict() for recipe in recipes]
        print_json({"best": best.name, "bundle": str(out), "reports": reports, "examples": lists.to_dicts()})
        return
    table(
        f"System B: {report.data}, {report.candidates}; {report.ties}; {report.users} users",
        ["model", "published HR@10", "ours", "95 % interval", "published NDCG@10", "ours", "95 % interval", "seconds"],
        [_beside_published(found, recipe.name, system_b.FIGURES) for recipe in recipes],
    )
    console().print(f"Best on validation rows (latest fifth of the training rows): {best.name}.", markup=False)
    frame_table(f"Top 10 for user {user}", lists)
    _next_steps(out, user)


def _chosen(
    split: Split, recipes: list[Recipe[Any]], k: int, seed: int, device: str, threads: int | None, progress: Progress
) -> tuple[Recipe[Any], dict[str, float], Comparison]:
    """The best recipe on validation rows, the value of each there, and all of them on the test rows."""
    from palate.experiment import CompareOptions, choose, compare, validation_split

    training = options.make_run(seed, device, threads)
    best, values, _ = choose(recipes, validation_split(split.train), training, k=k, progress=progress)
    settings = CompareOptions(k, (), (seed,), resamples=1_000, device=device, threads=training.threads)
    found = compare(split, recipes, options=settings, progress=progress)
    return best, {recipes[number].name: value for number, value in values.items()}, found


def show_comparison(found: Comparison, validation: dict[str, float], k: int) -> None:
    """One table of several models in full ranking."""
    from palate.experiment import comparability_line

    rows = []
    for one in found.outcomes:
        report = found.report(one.name)
        values = [report.value(metric, k) for metric in METRICS]
        first = report.measure("NDCG", k)
        interval = f"{first.low:.4f} to {first.high:.4f}"
        rows.append([one.name, values[0], interval, *values[1:], validation[one.name], found.fitted(one.name).seconds])
    report = found.report(found.outcomes[0].name)
    table(
        f"{report.data}: {report.candidates}; {report.ties}; {report.users} users",
        ["model", f"NDCG@{k}", "95 % interval", *(f"{m}@{k}" for m in METRICS[1:]), f"validation NDCG@{k}", "seconds"],
        rows,
        caption=f"{report.protocol}\n{comparability_line(report)}",
    )


def examples(recommender: Recommender, k: int, users: int = 2) -> Any:
    """The lists of the users with the longest histories, cut to five rows each."""
    import numpy as np

    longest = np.argsort(-recommender.seen.counts, kind="stable")[:users]
    return recommender.recommend(recommender.users.external(longest), min(k, 5))


def _beside_published(found: Comparison, name: str, figures: dict[str, dict[tuple[str, int], float]]) -> list[Any]:
    row: list[Any] = [name]
    for metric in ("HitRate", "NDCG"):
        measure = found.report(name, "sampled").measure(metric, 10)
        known = figures.get(name, {}).get((metric, 10))
        row += [known, measure.value, f"{measure.low:.4f} to {measure.high:.4f}"]
    return [*row, found.fitted(name).seconds]


def _next_steps(out: Path, user: Any) -> None:
    console().print(
        f"\nThe bundle is in {out}. What next:\n"
        f"  palate recommend {out} {user} -k 5             more lists, for one user or many\n"
        f"  palate recommend {out} --all --out lists.parquet    the lists of all users in one file\n"
        "  palate train --help                          another recipe, other settings\n"
        "  palate reproduce B                           the full published protocol",
        markup=False,
        soft_wrap=True,
    )
