"""`palate refit`: train a served bundle again, with the events that its server has stored."""

from __future__ import annotations

import os
import sys
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from palate.cli import options
from palate.cli.console import console, note, print_json, show_progress
from palate.cli.index import index_if_large
from palate.cli.saving import save
from palate.errors import DataError

if TYPE_CHECKING:
    from palate.bundle import Bundle
    from palate.data.dataset import Dataset
    from palate.serve.refit import Log
    from palate.serve.settings import Settings

KEY = "PALATE_API_KEY"


@options.reads_rows
def refit(
    bundle: Annotated[Path, typer.Argument(help="The bundle that answers now.")],
    out: Annotated[Path, typer.Option("--out", help="Folder for the new bundle.")],
    store: Annotated[str | None, typer.Option("--store", help="Database of the server; as for palate serve.")] = None,
    config: Annotated[
        Path | None, typer.Option("--config", help="The TOML file of the server, with its event types.")
    ] = None,
    data: Annotated[
        str | None,
        typer.Option("--data", help="Original rows, if not those of the bundle: as DATA elsewhere, or another bundle."),
    ] = None,
    reading: options.Reading = options.Reading(),
    items: options.ItemFeatures = None,
    test_size: options.TestSize = 0.2,
    k: options.K = 10,
    activate: Annotated[
        str | None,
        typer.Option("--activate", help="URL of a server that loads the new bundle, and answers by it if recommended."),
    ] = None,
    key: Annotated[
        Path | None, typer.Option("--key", help="Private key that signs the new bundle, for servers that ask for it.")
    ] = None,
    exit_code: Annotated[
        bool, typer.Option("--exit-code", help="End with 1 if the switch is not recommended.")
    ] = False,
    seed: options.Seed = 0,
    device: options.Device = "auto",
    threads: options.Threads = None,
    json: options.Json = False,
) -> None:
    """Train the recipe of a bundle on its rows and the stored events, after a comparison on the newest events.

    Example: palate refit models/shop --store sqlite:///palate-serve.db --out models/shop-2
    """
    try:
        from palate.serve.refit import Refit
        from palate.serve.refit_check import compare, summary
    except ModuleNotFoundError as error:
        raise DataError(f"refit needs {error.name}: pip install 'palate[serve]'") from None
    from palate.bundle import Bundle, check_target
    from palate.serve.settings import Settings
    from palate.signature import private_key

    if out.resolve() == bundle.resolve():
        raise DataError(f"--out {out} is the bundle itself: choose another folder, so that the switch can be undone")
    check_target(out)
    if key is not None:
        private_key(key)  # a mistake shows before the training
    settings = Settings.read(config, {"store": store})
    log = _log(settings)
    old = Bundle.load(bundle)
    base = _base(old, data, reading, items)
    with show_progress() as progress:
        training = options.make_run(seed, device, threads, progress=progress)
        job = Refit(old, bundle, base, log, settings.events, training)
        note(f"{len(base):,} original rows, {len(job.rows(log.events)):,} rows of {len(log.events):,} stored events")
        for line in log.notes:
            note(f"  {line}")
        note("training without the newest events, to compare")
        comparison, report = compare(job, test_size, k)
        note("training on all rows")
        new = job.final()
    if report is not None:
        new = replace(new, metrics=tuple(report.rows()))
    new = replace(new, recommender=index_if_large(new.recommender))
    save(new, out)
    if key is not None:
        Bundle.sign(out, key)
    active = None if activate is None else _activate(activate, out, bool(comparison.recommended))
    if json:
        print_json({"bundle": str(out), "activated": active, **summary(comparison, old, new)})
    else:
        console().print(comparison.sentence, markup=False, soft_wrap=True)
        console().print(_words(old, new, out), markup=False, soft_wrap=True)
    if exit_code and not comparison.recommended:
        sys.exit(1)


def _log(settings: Settings) -> Log:
    from sqlalchemy import make_url

    from palate.serve.refit import Log
    from palate.serve.store import Store

    kind, _, file = settings.store.partition(":///")
    if kind == "sqlite" and not Path(str(make_url(settings.store).database)).exists():
        raise DataError(f"no store {file}: give the --store of palate serve")
    opened = Store(settings.store)
    log = opened.read_now(Log.read)
    opened.engine.dispose()
    if log.events.is_empty():
        raise DataError(f"the store {kind}:///{Path(file).name} has no events of users: there is nothing to learn from")
    return log


def _base(old: Bundle, data: str | None, reading: options.Reading, items: Path | None) -> Dataset:
    from palate.bundle import MANIFEST, Bundle
    from palate.serve.refit import rows_of_bundle

    if data is None:
        return rows_of_bundle(old)
    if (Path(data) / MANIFEST).exists():
        return rows_of_bundle(Bundle.load(data))
    found = reading.of(data, items).dataset()
    rule = old.recommender.seen.feedback
    # The rule of training, unless another one is asked for: a file that has grown may have another scale.
    same = rule.kind == found.feedback.kind and reading.min_rating == "auto"
    return replace(found, feedback=rule) if same else found


def _activate(url: str, out: Path, recommended: bool) -> bool:
    from palate.client import Client

    with Client(url, os.environ.get(KEY), timeout=600) as client:
        version = client.load_model(out.name)
        if recommended:
            client.activate_model(version)
    note(
        f"{url} has loaded {version}" + (", which answers now" if recommended else "; the old model goes on answering")
    )
    return recommended


def _words(old: Bundle, new: Bundle, out: Path) -> str:
    counts: list[Any] = [
        (len(getattr(new.recommender, name)) - len(getattr(old.recommender, name)), name) for name in ("users", "items")
    ]
    more = " and ".join(f"{count:+,} {name}" for count, name in counts)
    return f"The bundle is in {out}, with {more}. Next: load it, see docs/serve.md"
