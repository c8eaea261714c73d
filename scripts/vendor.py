"""Copy the JavaScript libraries of the page from the npm registry into the repository, with licenses and checksums.

    python scripts/vendor.py                  # downloads, checks and writes
    python scripts/vendor.py --from FOLDER    # takes the tarballs from a folder, as `npm pack` leaves them there

A browser loads the files as they are: there is no build step. To update a library, change its version and integrity
(`npm view NAME dist.integrity`) here and run the script; tests/serve/test_vendor.py holds files and checksums together.
"""

from __future__ import annotations

import argparse
import base64
import hashlib
import io
import json
import tarfile
import urllib.request
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PAGES = ROOT / "src/palate/serve/pages/vendor"
TESTS = ROOT / "tests/serve/vendor"
REGISTRY = "https://registry.npmjs.org"


@dataclass(frozen=True)
class Library:
    """A package and the files that are taken from it.

    Args:
        name, version, license: as on the registry.
        integrity: SHA-512 of the tarball, as the registry states it.
        files: path in the package -> file name here.
        folder: where the files go.
    """

    name: str
    version: str
    license: str
    integrity: str
    files: dict[str, str]
    folder: Path = PAGES


LIBRARIES = [
    Library(
        "preact",
        "11.2.0",
        "MIT",
        "sha512-/HfHI/7N84e6GrWBJ3J280z3mLaRJiDcSvj/A+y/4AbLnND/1UlGHe1sR6oYuTGwId0nP7dqDU9OnLxMPZ7xBg==",
        {"dist/preact.mjs": "preact.js", "hooks/dist/hooks.mjs": "hooks.js", "LICENSE": "preact.LICENSE"},
    ),
    Library(
        "htm",
        "3.1.1",
        "Apache-2.0",
        "sha512-983Vyg8NwUE7JkZ6NmOqpCZ+sh1bKv2iYTlUkzlWmA5JD2acKoxd4KVxbMmxX/85mtfdnDmTFoNKcg5DGAvxNQ==",
        {"dist/htm.mjs": "htm.js", "LICENSE": "htm.LICENSE"},
    ),
    Library(
        "uplot",
        "1.6.32",
        "MIT",
        "sha512-KIMVnG68zvu5XXUbC4LQEPnhwOxBuLyW1AHtpm6IKTXImkbLgkMy+jabjLgSLMasNuGGzQm/ep3tOkyTxpiQIw==",
        {"dist/uPlot.esm.js": "uplot.js", "dist/uPlot.min.css": "uplot.css", "LICENSE": "uplot.LICENSE"},
    ),
    Library(
        "axe-core",
        "4.14.1",
        "MPL-2.0",
        "sha512-FHfa+lmNjQZfJz1q8wKqIDwC6DExcHt/pkjNQb09a3NPjCKg2rhu5qb2S4r76ASyFNNtuFooJpZe37OgudVGtQ==",
        {
            "axe.min.js": "axe.min.js",
            "LICENSE": "axe-core.LICENSE",
            "LICENSE-3RD-PARTY.txt": "axe-core.LICENSE-3RD-PARTY",
        },
        TESTS,
    ),
]


def tarball(library: Library, folder: Path | None) -> bytes:
    """The package, checked against its integrity."""
    name = f"{library.name}-{library.version}.tgz"
    if folder is None:
        with urllib.request.urlopen(f"{REGISTRY}/{library.name}/-/{name}", timeout=60) as answer:
            content = answer.read()
    else:
        content = (folder / name).read_bytes()
    found = "sha512-" + base64.b64encode(hashlib.sha512(content).digest()).decode()
    if found != library.integrity:
        raise SystemExit(f"{name} has the integrity {found}, expected {library.integrity}: nothing is written")
    return content


def browser_ready(text: str) -> str:
    """A module as a browser loads it without a build: relative imports, no reference to a source map."""
    # An import map would do the same, but it is an inline script, which the content security policy forbids.
    text = text.replace('from"preact"', 'from"./preact.js"')
    return "".join(line for line in text.splitlines(keepends=True) if not line.startswith("//# sourceMappingURL"))


def write(library: Library, content: bytes) -> dict[str, str]:
    """Write the files of a library; their SHA-256 by name."""
    sums = {}
    with tarfile.open(fileobj=io.BytesIO(content)) as package:
        for member, name in library.files.items():
            stream = package.extractfile(f"package/{member}")
            assert stream is not None
            text = stream.read()
            if name.endswith(".js"):
                text = browser_ready(text.decode()).encode()
            (library.folder / name).write_bytes(text)
            sums[name] = hashlib.sha256(text).hexdigest()
    return sums


def main() -> None:
    """Write all files, and in each folder ``vendor.json`` with versions, licenses and checksums."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--from", dest="folder", type=Path, help="folder with the tarballs")
    folder = parser.parse_args().folder
    for target in (PAGES, TESTS):
        target.mkdir(parents=True, exist_ok=True)
        about = [
            {
                "name": one.name,
                "version": one.version,
                "license": one.license,
                "integrity": one.integrity,
                "files": write(one, tarball(one, folder)),
            }
            for one in LIBRARIES
            if one.folder == target
        ]
        (target / "vendor.json").write_text(json.dumps(about, indent=2) + "\n", "utf-8")


if __name__ == "__main__":
    main()
