"""The command line: `palate COMMAND`. Each command is a function here or beside; heavy imports stay inside them."""

from __future__ import annotations

import logging
import re
import sys
from typing import Annotated

import typer

import palate
from palate import signals
from palate.cli import (
    bundle,
    check,
    cold_start,
    compare,
    data,
    demo,
    doctor,
    drift,
    estimate,
    evaluate,
    explain,
    export,
    index,
    keys,
    off_policy,
    onboard,
    prepare,
    quickstart,
    recipes,
    recommend,
    refit,
    report,
    reproduce,
    serve,
    train,
    tune,
    why_not,
)
from palate.cli.console import console
from palate.errors import PalateError

__all__ = ["app", "main"]

app = typer.Typer(
    name="palate",
    help="Evaluated, personal recommendations from a log of interactions.\n\n"
    "Start with: palate quickstart clicks.csv   (your own file)   or: palate demo   (MovieLens 100K)",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _show_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"palate {palate.__version__}")
        raise typer.Exit


@app.callback()
def global_options(
    version: Annotated[
        bool, typer.Option("--version", is_eager=True, callback=_show_version, help="Print the version and exit.")
    ] = False,
    verbose: Annotated[bool, typer.Option("-v", "--verbose", help="Show the log of the library on stderr.")] = False,
) -> None:
    """Options that stand before the command."""
    if verbose:
        logging.basicConfig(format="%(asctime)s %(name)s: %(message)s", datefmt="%H:%M:%S")
        logging.getLogger("palate").setLevel(logging.DEBUG)


app.command("quickstart")(quickstart.quickstart)
app.command("demo")(demo.demo)
app.add_typer(data.app, name="data")
app.command("check")(check.check)
app.command("prepare")(prepare.prepare)
app.command("recipes")(recipes.recipes)
app.command("estimate")(estimate.estimate)
app.command("train")(train.train)
app.command("tune")(tune.tune)
app.command("compare")(compare.compare)
app.command("evaluate")(evaluate.evaluate)
app.command("recommend")(recommend.recommend)
app.command("similar")(recommend.similar)
app.command("explain")(explain.explain)
app.command("why-not")(why_not.why_not)
app.command("onboard")(onboard.onboard)
app.command("cold-start")(cold_start.cold_start)
app.command("drift")(drift.drift)
app.command("off-policy")(off_policy.off_policy)
app.command("index")(index.index)
app.command("export")(export.export)
app.command("report")(report.report)
app.command("reproduce")(reproduce.reproduce)
app.command("serve")(serve.serve)
app.command("refit")(refit.refit)
app.add_typer(bundle.app, name="bundle")
app.add_typer(keys.app, name="keys")
app.command("doctor")(doctor.doctor)


def main() -> None:
    """Run a command; mistakes of the user end with one readable line and exit code 2, signals with 128 + n."""
    with signals.stoppable():
        _run()


def _run() -> None:
    try:
        app(standalone_mode=False)
    except PalateError as error:
        console(stderr=True).print(f"error: {error}", style="red", markup=False, soft_wrap=True)
        sys.exit(2)
    except typer.TyperException as error:  # a wrong option or argument; the bare command shows its help
        message = error.format_message().replace("Value error, ", "")
        if found := re.search(r"No such option: (-\d\S*)", message):
            message = (
                f"{found[1]} is no option: an id that begins with - goes behind all options and after --: -- {found[1]}"
            )
        context = getattr(error, "ctx", None)
        if message.startswith("Missing") and context is not None:
            command = context.command_path.removeprefix(context.find_root().command_path)
            message = f"{message.rstrip('.')}: palate{command} --help has an example"
        bare = message.startswith("Usage:")
        console(stderr=True).print(
            message if bare else f"error: {message}", style=None if bare else "red", markup=False, soft_wrap=True
        )
        sys.exit(2)
    except signals.Stopped as stop:
        console(stderr=True).print(str(stop), markup=False, soft_wrap=True)
        sys.exit(stop.code)
    except (KeyboardInterrupt, typer.Abort):
        console(stderr=True).print("stopped")
        sys.exit(130)
    except BrokenPipeError:  # the reader of a pipe went away: `palate recommend ... | head`
        sys.stderr.close()
        sys.exit(0)
    except OSError as error:  # a folder that is a file, no rights, a full disk
        where = f": {error.filename}" if error.filename else ""
        text = f"error: {error.strerror or error}{where}: check the path, its rights and the free space"
        console(stderr=True).print(text, style="red", markup=False, soft_wrap=True)
        sys.exit(2)
