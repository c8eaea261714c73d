"""`palate demo`: MovieLens 100K beside a published table, then recommendations with titles."""

from __future__ import annotations

from pathlib import Path
from shlex import quote
from typing import TYPE_CHECKING, Annotated, Any

import typer

from palate.cli import options
from palate.cli.console import console, frame_table, note, print_json, show_progress, table

if TYPE_CHECKING:
    from palate.base import Recipe
    from palate.data.splits.split import Split
    from palate.experiment import Comparison
    from palate.progress import Progress


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
    console().print(
        f"\nThe bundle is in {out}. What next:\n"
        f"  palate recommend {quote(str(out))} {user} -k 5\n"
        "  palate quickstart FILE       the same with your own rows\n"
        "  palate reproduce B           the full published protocol",
        markup=False,
        soft_wrap=True,
    )


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


def _beside_published(found: Comparison, name: str, figures: dict[str, dict[tuple[str, int], float]]) -> list[Any]:
    row: list[Any] = [name]
    for metric in ("HitRate", "NDCG"):
        measure = found.report(name, "sampled").measure(metric, 10)
        known = figures.get(name, {}).get((metric, 10))
        row += [known, measure.value, f"{measure.low:.4f} to {measure.high:.4f}"]
    return [*row, found.fitted(name).seconds]
