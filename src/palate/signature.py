"""Signatures of bundles: Ed25519, in a file of the folder, over the manifest, which holds the digests of all files.

    signature.json    kind, version, key (fingerprint of the public key), signature (hex), checksum

Keys are PEM files as OpenSSL makes them: PKCS #8 for the private key, SubjectPublicKeyInfo for the public one. A file
of trusted keys may hold several, one below the other, so that a key can be replaced while both are in use.
``cryptography`` is needed.
"""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, cast

from palate import storage
from palate.errors import BundleError, DataError

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

__all__ = ["SIGNATURE", "check_signature", "fingerprint", "make_keys", "private_key", "public_keys", "sign_manifest"]

SIGNATURE = "signature.json"
KIND, VERSION = "signature of a palate bundle", 1
PUBLIC = re.compile(rb"-----BEGIN PUBLIC KEY-----.*?-----END PUBLIC KEY-----", re.DOTALL)
KEY_BYTES = 1 << 20


def make_keys(path: Path) -> Path:
    """Write a new private key to ``path``, readable by its owner alone, and the public one to ``path.pub``.

    Returns:
        The path of the public key.

    Raises:
        DataError: one of the files exists: a key that was replaced could not sign any more.
    """
    serialization = _library().serialization
    private = _library().ed25519.Ed25519PrivateKey.generate()
    public = path.with_name(f"{path.name}.pub")
    for one in (path, public):
        if one.exists():
            raise DataError(f"{one} exists: choose another name for the new key")
    path.parent.mkdir(parents=True, exist_ok=True)
    text = private.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    try:
        handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        try:
            with open(handle, "wb") as file:
                file.write(text)
            storage.sync(path)
            with storage.replacing(public) as temporary:
                temporary.write_bytes(
                    private.public_key().public_bytes(
                        serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
                    )
                )
        except BaseException:  # half a pair is of no use, and the file would be in the way of the next attempt
            path.unlink(missing_ok=True)
            raise
    except FileExistsError:
        raise DataError(f"{path} exists: choose another name for the new key") from None
    return public


def private_key(path: Path) -> Ed25519PrivateKey:
    """The private key in a PEM file.

    Raises:
        DataError: the file cannot be read, or holds none that can be used.
    """
    content = _read(path)
    library = _library()
    try:
        key = library.serialization.load_pem_private_key(content, None)
    except TypeError:
        raise DataError(f"{path} is encrypted with a passphrase: give a key without one") from None
    except (ValueError, library.UnsupportedAlgorithm):
        raise DataError(
            f"{path} holds no private key in PEM form: give the file that palate bundle keygen wrote"
        ) from None
    if not isinstance(key, library.ed25519.Ed25519PrivateKey):
        raise DataError(f"{path} holds another kind of key than Ed25519: palate bundle keygen makes one")
    return cast("Ed25519PrivateKey", key)


def public_keys(path: Path) -> list[Ed25519PublicKey]:
    """The public keys in a PEM file, at least one.

    Raises:
        DataError: the file cannot be read, or holds none that can be used.
    """
    content = _read(path)
    library = _library()
    keys = []
    for text in PUBLIC.findall(content):
        try:
            keys.append(library.serialization.load_pem_public_key(text))
        except (ValueError, library.UnsupportedAlgorithm):
            raise DataError(f"{path} holds a public key that cannot be read: copy it again") from None
    if not keys:
        hint = "it is the private key, which stays with the owner: give the .pub file" if b"PRIVATE" in content else ""
        raise DataError(
            f"{path} holds no public key in PEM form: {hint or 'give the .pub file that palate bundle keygen wrote'}"
        )
    if not all(isinstance(key, library.ed25519.Ed25519PublicKey) for key in keys):
        raise DataError(f"{path} holds another kind of key than Ed25519: palate bundle keygen makes one")
    return keys


def fingerprint(key: Ed25519PublicKey) -> str:
    """The first 16 hex digits of the SHA-256 of a public key: short enough to be compared by eye."""
    return hashlib.sha256(key.public_bytes_raw()).hexdigest()[:16]


def sign_manifest(folder: Path, manifest: Mapping[str, Any], key: Ed25519PrivateKey) -> str:
    """Write the signature of a manifest into the folder of its bundle.

    Args:
        folder: of the bundle.
        manifest: as ``storage.read_manifest`` has read it.
        key: the private key.

    Returns:
        The fingerprint of the public key.
    """
    name = fingerprint(key.public_key())
    record = {"key": name, "signature": key.sign(_message(manifest)).hex()}
    storage.write_manifest(folder / SIGNATURE, KIND, VERSION, record)
    return name


def check_signature(folder: Path, manifest: Mapping[str, Any], keys: list[Ed25519PublicKey]) -> str:
    """Check that one of the keys has signed a manifest.

    Args:
        folder: of the bundle.
        manifest: as ``storage.read_manifest`` has read it; its digests still have to be compared with the files.
        keys: trusted public keys.

    Returns:
        The fingerprint of the key.

    Raises:
        BundleError: the bundle is not signed, was signed by another key, or was changed afterwards.
    """
    again = "palate bundle sign, by the owner of a trusted key, signs it"
    if not (folder / SIGNATURE).exists():
        raise BundleError(f"bundle {folder} is not signed: {again}")
    record = storage.read_manifest(folder / SIGNATURE, KIND, VERSION)
    known = {fingerprint(key): key for key in keys}
    key = known.get(str(record.get("key")))
    if key is None:
        other = str(record.get("key"))[:64]
        raise BundleError(f"bundle {folder} is signed by the key {other}, trusted are {', '.join(known)}: {again}")
    with suppress(ValueError, TypeError, _library().InvalidSignature):
        key.verify(bytes.fromhex(record.get("signature", "")), _message(manifest))
        return fingerprint(key)
    raise BundleError(f"bundle {folder} was changed after it was signed: {again} again")


def _message(manifest: Mapping[str, Any]) -> bytes:
    # The content as it was parsed and will be used, not the bytes of the file, which could be replaced in between.
    return f"{KIND} {VERSION}\n{storage.digest_json(manifest)}".encode()


def _read(path: Path) -> bytes:
    try:
        if not path.is_file():  # a pipe would be waited for without end
            raise DataError(
                f"{path} is {'no file' if path.exists() else 'missing'}: give the path of a key in PEM form"
            )
        with path.open("rb") as file:
            return file.read(KEY_BYTES)
    except OSError as error:
        raise DataError(f"cannot read the key {path} ({error.strerror}): check the path and its rights") from None


def _library() -> Any:
    """The parts of ``cryptography`` that are used here, imported when they are."""
    try:
        from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
        from cryptography.hazmat.primitives import serialization
        from cryptography.hazmat.primitives.asymmetric import ed25519
    except ModuleNotFoundError as error:
        raise DataError(f"signatures need {error.name}: pip install 'palate[sign]'") from None
    return SimpleNamespace(
        InvalidSignature=InvalidSignature,
        UnsupportedAlgorithm=UnsupportedAlgorithm,
        serialization=serialization,
        ed25519=ed25519,
    )
