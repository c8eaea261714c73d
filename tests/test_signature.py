"""Signatures of bundles: a bundle that its owner did not sign as it is now is refused, in Python and at a shell."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import polars as pl
import pytest

from palate import storage
from palate.bundle import Bundle
from palate.errors import BundleError, DataError
from palate.signature import fingerprint, make_keys, public_keys
from test_bundle import bundle, file_of, forge


@pytest.fixture(scope="module")
def signed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a signed bundle, the key that signed it, and another key."""
    folder = tmp_path_factory.mktemp("signed")
    bundle().save(folder / "shop")
    for name in ("owner", "other"):
        make_keys(folder / name)
    Bundle.sign(folder / "shop", folder / "owner")
    return folder


@pytest.fixture
def copy(signed: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(signed, tmp_path / "copy"))


def test_a_signed_bundle_is_the_bundle_and_keys_can_be_replaced(copy: Path) -> None:
    (owner,) = public_keys(copy / "owner.pub")
    assert Bundle.verify(copy / "shop", copy / "owner.pub") == fingerprint(owner)
    loaded = Bundle.load(copy / "shop", trusted_key=copy / "owner.pub")
    assert loaded.trained_on == Bundle.load(copy / "shop").trained_on
    both = copy / "both.pub"
    both.write_bytes((copy / "other.pub").read_bytes() + (copy / "owner.pub").read_bytes())
    assert Bundle.verify(copy / "shop", both) == fingerprint(owner)
    Bundle.sign(copy / "shop", copy / "other")  # in the place of the first signature
    with pytest.raises(BundleError, match="is signed by the key"):
        Bundle.load(copy / "shop", trusted_key=copy / "owner.pub")
    loaded.save(copy / "shop")  # a save leaves no old signature behind
    assert not (copy / "shop" / "signature.json").exists()
    with pytest.raises(BundleError, match=r"shop is not signed: palate bundle sign"):
        Bundle.load(copy / "shop", trusted_key=both)


def other_rows(folder: Path) -> None:
    """A table changed, and its digest in the manifest as well."""
    path = file_of(folder, "items")
    pl.read_parquet(path).with_columns(popularity=pl.lit(7, pl.Float32)).write_parquet(path)
    forge(folder, lambda manifest: manifest["files"].update(items=storage.file_record(path)))


def other_bytes(folder: Path) -> None:
    path = file_of(folder, "items")
    path.write_bytes(path.read_bytes()[:-1] + b"x")


def other_key(folder: Path) -> None:
    """The signature of another key under the name of the trusted one."""
    name = storage.read_json(folder / "signature.json")["key"]
    Bundle.sign(folder, folder.parent / "other")
    record = storage.read_json(folder / "signature.json")
    storage.write_manifest(
        folder / "signature.json", record["kind"], 1, {"key": name, "signature": record["signature"]}
    )


def no_signature(folder: Path) -> None:
    (folder / "signature.json").unlink()


def pipe(folder: Path) -> None:
    no_signature(folder)
    os.mkfifo(folder / "signature.json")


def odd(folder: Path) -> None:
    """A signature of other types than texts."""
    record = storage.read_json(folder / "signature.json")
    storage.write_manifest(folder / "signature.json", record["kind"], 1, {"key": record["key"], "signature": [1]})


CHANGES: list[tuple[Callable[[Path], None], str]] = [
    (other_rows, "was changed after it was signed"),
    (lambda folder: forge(folder, lambda manifest: manifest.update(data="x")), "was changed after it was signed"),
    (other_bytes, r"shop.items-\w+\.parquet was changed after it was saved"),
    (other_key, "was changed after it was signed"),
    (no_signature, "is not signed"),
    (pipe, "no regular file|is not signed"),
    (odd, "was changed after it was signed"),
]


@pytest.mark.parametrize(("change", "message"), CHANGES)
def test_a_bundle_that_is_not_the_signed_one_is_refused(
    copy: Path, change: Callable[[Path], None], message: str
) -> None:
    change(copy / "shop")
    for read in (
        lambda: Bundle.load(copy / "shop", trusted_key=copy / "owner.pub"),
        lambda: Bundle.verify(copy / "shop", copy / "owner.pub"),
    ):
        with pytest.raises(BundleError, match=message) as raised:
            read()
        assert str(copy / "shop") in str(raised.value)


def test_keys_that_cannot_be_used_are_named(copy: Path, tmp_path: Path) -> None:
    from cryptography.hazmat.primitives import serialization as pem
    from cryptography.hazmat.primitives.asymmetric import ec, ed25519

    assert (copy / "owner").stat().st_mode & 0o777 == 0o600
    for path in (copy / "owner", copy / "new"):
        (copy / "new.pub").touch()
        with pytest.raises(DataError, match="exists: choose another name"):
            make_keys(path)
    assert not (copy / "new").exists()
    form = (pem.Encoding.PEM, pem.PrivateFormat.PKCS8)
    curve, secret = ec.generate_private_key(ec.SECP256R1()), ed25519.Ed25519PrivateKey.generate()
    (tmp_path / "curve").write_bytes(curve.private_bytes(*form, pem.NoEncryption()))
    (tmp_path / "secret").write_bytes(secret.private_bytes(*form, pem.BestAvailableEncryption(b"x")))
    (tmp_path / "noise").write_bytes(os.urandom(100))
    (tmp_path / "curve.pub").write_bytes(
        curve.public_key().public_bytes(pem.Encoding.PEM, pem.PublicFormat.SubjectPublicKeyInfo)
    )
    for name, message in (
        ("curve", "another kind of key than Ed25519"),
        ("secret", "encrypted with a passphrase"),
        ("noise", "no private key in PEM form"),
        ("none", "is missing"),
    ):
        with pytest.raises(DataError, match=message):
            Bundle.sign(copy / "shop", tmp_path / name)
    for path, message in (
        (tmp_path / "curve.pub", "another kind of key than Ed25519"),
        (copy / "owner", "it is the private key"),
        (tmp_path / "noise", "no public key in PEM form"),
        (tmp_path, "is no file"),
    ):
        with pytest.raises(DataError, match=message):
            Bundle.load(copy / "shop", trusted_key=path)


def test_the_commands(tmp_path: Path) -> None:
    bundle().save(tmp_path / "shop")

    def palate(*words: str) -> tuple[int, str, str]:
        command = [sys.executable, "-m", "palate", "bundle", *words]
        done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
        return done.returncode, done.stdout, done.stderr

    code, name, _ = palate("keygen", "release key")
    assert code == 0
    assert palate("sign", "shop", "--key", "release key")[::2] == (0, f"shop is signed by the key {name}")
    verify = ("verify", "shop", "--trusted-key", "release key.pub")
    assert palate(*verify)[0] == 0
    other_bytes(tmp_path / "shop")
    code, out, err = palate(*verify)
    assert (code, out, err.count("\n")) == (2, "", 1)
    assert "was changed after it was saved" in err
