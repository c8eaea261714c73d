"""`palate bundle`: sign bundles, and verify their signatures and files."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from palate.cli import options
from palate.cli.console import note, print_json

app = typer.Typer(help="Sign and verify bundles.", no_args_is_help=True, rich_markup_mode=None)
Folder = Annotated[Path, typer.Argument(help="Folder of a bundle.")]


@app.command()
def keygen(
    path: Annotated[
        Path, typer.Argument(help="File for the private key; the public one is written beside it as .pub.")
    ],
    json: options.Json = False,
) -> None:
    """Make an Ed25519 key: the private part signs bundles, the public part is given to servers.

    Example: palate bundle keygen release.key
    """
    from palate.signature import fingerprint, make_keys, public_keys

    public = make_keys(path)
    name = fingerprint(public_keys(public)[0])
    if json:
        print_json({"private": str(path), "public": str(public), "key": name})
    else:
        note(f"{path} is the private key: keep it secret. {public} is for servers: --trusted-key {public}")
        typer.echo(name)


@app.command()
def sign(
    bundle: Folder,
    key: Annotated[Path, typer.Option("--key", help="File of the private key.")],
    json: options.Json = False,
) -> None:
    """Sign a bundle after checking the digests of all its files; a signature that is there is replaced.

    Example: palate bundle sign bundles/shop --key release.key
    """
    from palate.bundle import Bundle

    name = Bundle.sign(bundle, key)
    if json:
        print_json({"bundle": str(bundle), "key": name})
    else:
        note(f"{bundle} is signed by the key {name}")


@app.command()
def verify(
    bundle: Folder,
    trusted_key: Annotated[
        Path, typer.Option("--trusted-key", help="File of public keys; one of them must have signed.")
    ],
    json: options.Json = False,
) -> None:
    """Check the signature of a bundle and the digests of its files: exit code 0 if all is right, else 2.

    Example: palate bundle verify bundles/shop --trusted-key release.key.pub
    """
    from palate.bundle import Bundle

    name = Bundle.verify(bundle, trusted_key)
    if json:
        print_json({"bundle": str(bundle), "key": name})
    else:
        note(f"{bundle} is signed by the key {name}, and its files are those that were signed")
