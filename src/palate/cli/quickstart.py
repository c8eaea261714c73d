"""`palate quickstart` and `palate demo`: from rows to recommendations in one command."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from palate.cli import options
from palate.cli.console import console, frame_table, note, print_json, show, table
from palate.progress import silent

if TYPE_CHECKING:
    from palate.base import Recipe
    from palate.experiment import Contender
    from palate.recommend import Recommender

__all__ = ["demo", "quickstart"]

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
    """Your own file: check it, compare a few fast models, save the best, recommend.

    Finds the columns by name, holds out the newest fifth of the rows (a random fifth where there is no time), picks
    the best model on validation rows, measures all of them on the held-out rows, and saves the best one, fitted
    again on all rows, as a bundle.

    Example: palate quickstart clicks.csv --user visitor --item page
    """
    from palate.bundle import Bundle
    from palate.experiment import choose, compare, hold_out, quick_recipes

    dataset = reading.of(data, items).dataset()
    run = options.make_run(
        seed, device, threads, progress=show if not json and console(stderr=True).is_terminal else silent
    )
    recipes = quick_recipes(dataset)
    if dataset.interactions.time is None:
        note("no time column: held-out rows are random ones, which flatters models; name one with --time")
    split = hold_out(dataset, seed=seed)
    note(split.how)
    for line in split.notes:
        note(f"  {line}")
    best, validation = choose(split.train, recipes, run, k=k, log=lambda line: note(f"{line} (validation)"))
    contenders = compare(split, recipes, run, k=k, log=lambda line: note(f"{line} (test)"))
    chosen = next(one for one in contenders if one.recipe is best)
    note(f"training {best.name} on all rows for the bundle")
    bundle = Bundle.of(best, best.fit(dataset, run), dataset, chosen.report.rows(), split_fingerprint=split.fingerprint)
    bundle.save(out)
    example = examples(bundle.recommender, k)
    if json:
        print_json({
            "data": dataset.name, "rows": len(dataset), "users": dataset.n_users, "items": dataset.n_items,
            "notes": [str(one) for one in (*dataset.notes, *split.notes)], "protocol": split.how,
            "validation": validation, "best": best.name, "bundle": str(out),
            "reports": [one.report.to_dict() for one in contenders], "examples": example.to_dicts(),
        })  # fmt: skip
        return
    show_contenders(contenders, validation, k)
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
    from palate.experiment import choose, compare
    from palate.models.popularity import Popularity
    from palate.reproduce import system_b
    from palate.reproduce.rows import Options

    terminal = console(stderr=True).is_terminal
    run = options.make_run(seed, device, threads, progress=show if not json and terminal else silent)
    split = system_b.split(Options(log=note, run=run, progress=terminal))
    note(split.train)
    recipes: list[Recipe[Any]] = [Popularity(), *system_b.FAST]
    best, _ = choose(split.train, recipes, run, log=lambda line: note(f"{line} (validation)"))
    contenders = compare(split, recipes, run, candidates=split.candidates, log=lambda line: note(f"{line} (test)"))
    chosen = next(one for one in contenders if one.recipe is best)
    prints = chosen.report.fingerprints
    Bundle.of(
        best, chosen.model, split.train, chosen.report.rows(),
        split_fingerprint=prints["split"], candidates_fingerprint=prints["candidates"],
    ).save(out)  # fmt: skip
    bundle = Bundle.load(out)
    user = bundle.recommender.users.ids[0]
    lists = bundle.recommender.recommend([user], 10)
    if json:
        reports = [one.report.to_dict() for one in contenders]
        print_json({"best": best.name, "bundle": str(out), "reports": reports, "examples": lists.to_dicts()})
        return
    report = chosen.report
    table(
        f"System B: {report.data}, {report.candidates}; {report.ties}; {report.users} users",
        ["model", "published HR@10", "ours", "95 % interval", "published NDCG@10", "ours", "95 % interval", "seconds"],
        [_beside_published(one, system_b.FIGURES) for one in contenders],
    )
    console().print(f"Best on validation rows (latest fifth of the training rows): {best.name}.", markup=False)
    frame_table(f"Top 10 for user {user}", lists)
    _next_steps(out, user)


def show_contenders(contenders: list[Contender], validation: dict[str, float], k: int) -> None:
    """One table of several models measured alike; others are refused."""
    from palate.experiment import check_comparable, comparability_line

    check_comparable([one.report for one in contenders])
    report = contenders[0].report
    rows = []
    for one in sorted(contenders, key=lambda one: -one.report.value("NDCG", k)):
        values = [one.report.value(metric, k) for metric in METRICS]
        first = one.report.measure("NDCG", k)
        interval = f"{first.low:.4f} to {first.high:.4f}"
        rows.append([one.recipe.name, values[0], interval, *values[1:], validation[one.recipe.name], one.seconds])
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


def _beside_published(one: Contender, figures: dict[str, dict[tuple[str, int], float]]) -> list[Any]:
    known = figures.get(one.recipe.name, {})
    row: list[Any] = [one.recipe.name]
    for metric in ("HitRate", "NDCG"):
        measure = one.report.measure(metric, 10)
        row += [known.get((metric, 10)), measure.value, f"{measure.low:.4f} to {measure.high:.4f}"]
    return [*row, one.seconds]


def _next_steps(out: Path, user: Any) -> None:
    console().print(
        f"\nThe bundle is in {out}. What next:\n"
        f"  palate recommend {out} {user} -k 5             more lists, for one user or many\n"
        f"  palate recommend {out} --all --out lists.parquet    everybody's list in one file\n"
        "  palate train --help                          another recipe, other settings\n"
        "  palate reproduce B                           the full published protocol",
        markup=False,
        soft_wrap=True,
    )
