"""`palate keys`: the API keys of a server."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from palate.cli import options
from palate.cli.console import note, print_json, table
from palate.errors import DataError

if TYPE_CHECKING:
    from palate.serve.store import Store

app = typer.Typer(help="API keys of a server.", no_args_is_help=True, rich_markup_mode=None)
Where = Annotated[str | None, typer.Option("--store", help="Database of the server; as for palate serve.")]
Config = Annotated[Path | None, typer.Option("--config", help="The TOML file of the server.")]


@app.command()
def create(
    name: Annotated[str, typer.Argument(help="What the key is for; shown in lists and messages.")],
    role: Annotated[
        Literal["read", "feedback", "admin"], typer.Option("--role", help="Each may do what those before it may.")
    ] = "read",
    store: Where = None,
    config: Config = None,
    json: options.Json = False,
) -> None:
    """Make a key. It is shown once: the store keeps only a salted hash.

    Example: palate keys create shop --role feedback
    """
    from palate.serve.security import add_key

    opened = _open(store, config)
    with opened.engine.begin() as connection:
        text, key = add_key(connection, name, role)
    if json:
        print_json({"key_id": key.key_id, "name": name, "role": role, "key": text})
    else:
        note(f"{role} key for {name}: keep it, it is not shown again")
        typer.echo(text)


@app.command("list")
def list_(store: Where = None, config: Config = None, json: options.Json = False) -> None:
    """The keys without their secrets.

    Example: palate keys list
    """
    from datetime import UTC, datetime

    from palate.serve.security import KeyRing

    ring = KeyRing()
    _open(store, config).read_now(ring.load)
    rows = [
        (key.key_id, key.name, key.role, f"{datetime.fromtimestamp(key.created, UTC):%Y-%m-%d}")
        for key in ring.keys.values()
    ]
    if json:
        print_json([dict(zip(("key_id", "name", "role", "created"), row, strict=True)) for row in rows])
    else:
        table("API keys", ("key_id", "name", "role", "created"), rows)


@app.command()
def revoke(
    key_id: Annotated[str, typer.Argument(help="As palate keys list shows it.")],
    store: Where = None,
    config: Config = None,
) -> None:
    """Delete a key; servers refuse it within seconds.

    Example: palate keys revoke 5f2c9a10b3d4
    """
    from palate.serve.security import remove_key

    opened = _open(store, config)
    with opened.engine.begin() as connection:
        if not remove_key(connection, key_id):
            raise DataError(f"no key {key_id!r}: palate keys list shows them")
    note(f"key {key_id} is deleted")


def _open(store: str | None, config: Path | None) -> Store:
    try:
        from palate.serve.store import Store
    except ModuleNotFoundError as error:
        raise DataError(f"the keys need {error.name}: pip install 'palate[serve]'") from None
    from palate.serve.settings import Settings

    return Store(Settings.read(config, {"store": store}).store)
