"""The sources of a named data set, tried in turn: a local folder, the cache, the official host, a Python package."""

from __future__ import annotations

import os
import tempfile
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from urllib.parse import urlsplit

from palate.data.dataset import Dataset
from palate.datasets.download import cache_folder, checksum_of, fetch, locked, pip_download
from palate.datasets.formats import Archive, ml_100k_from_recbole
from palate.errors import DataError, SourceError
from palate.progress import Progress, ProgressEvent, silent
from palate.storage import replacing


@dataclass(frozen=True)
class Remote:
    """A file on an official host.

    Args:
        url: its address.
        size: bytes, or None where it changes.
        checksum: "md5:HEX", or None where the host publishes none.
    """

    url: str
    size: int | None = None
    checksum: str | None = None


@dataclass(frozen=True)
class Entry:
    """A named data set.

    Args:
        name: the name for ``load`` and the command line.
        description: one line.
        rows, users, items: counts of the official release (users and items with ratings).
        size: bytes to download, or None if it has to be downloaded by hand.
        license: terms of use in one line.
        citation: the publication to cite.
        read: reads an opened copy into a Dataset.
        needs: the files that a copy must hold; each inner tuple is one accepted layout.
        remotes: the official files; one zip file, or several files that make up a folder.
        wheel: requirement of a Python package that holds a copy.
        digest: digest of the fingerprint of the official rows, if known.
        by_hand: address for a manual download, if no automatic one is possible.
    """

    name: str
    description: str
    rows: int
    users: int
    items: int
    size: int | None
    license: str
    citation: str
    read: Callable[[Archive], Dataset]
    needs: tuple[tuple[str, ...], ...]
    remotes: tuple[Remote, ...] = ()
    wheel: str | None = None
    digest: str | None = None
    by_hand: str | None = None

    @property
    def converted(self) -> Path:
        """Path of the copy made from the Python package."""
        return cache_folder() / f"{self.name}-from-wheel.zip"

    @property
    def layouts(self) -> str:
        """The files that a copy must hold, in words."""
        return ", or ".join(" and ".join(layout) for layout in self.needs)


@dataclass(frozen=True)
class Located:
    """A copy of a data set on this machine.

    Args:
        path: a zip file or a folder.
        source: its origin, in words.
        notes: differences from the official copy.
        converted: it was made from a package, and its rows are the official ones.
    """

    path: Path
    source: str
    notes: tuple[str, ...] = ()
    converted: bool = False


def find(entry: Entry, *, progress: Progress = silent) -> Located | None:
    """The first complete copy on this machine, without reading its rows or downloading; None if there is none.

    Damaged or incomplete copies are skipped with a message to ``progress``.
    """
    for path, source in _places(entry):
        if not path.exists():
            continue
        try:
            archive = Archive.open(path)
        except DataError as error:
            progress(ProgressEvent(f"find {entry.name}", message=f"{error}; skipped"))
            continue
        if any(all(file in archive for file in layout) for layout in entry.needs):
            return Located(path, source, converted=path == entry.converted)
        if source == "PALATE_DATA":  # in the cache this is a download that was not finished
            progress(ProgressEvent(f"find {entry.name}", message=f"{path} does not hold {entry.layouts}; skipped"))
    return None


def locate(entry: Entry, *, progress: Progress = silent, timeout: float = 5.0) -> Located:
    """A copy on this machine, downloaded to the cache first where there is none.

    Args:
        entry: the data set.
        progress: receives size, license and citation before a download, then bytes, and a message for each failure.
        timeout: seconds to wait for each answer of a host. Default: 5.

    Raises:
        SourceError: no source has it; the message lists each source and the steps of a manual download.
    """
    stage = f"find {entry.name}"
    failures: list[str] = []

    def skipped(event: ProgressEvent) -> None:
        failures.append(event.message.removesuffix("; skipped"))
        progress(event)

    if (found := find(entry, progress=skipped)) is not None:
        return replace(found, notes=_differences(entry, found))
    sources: list[Callable[[], Located]] = []
    if entry.remotes:
        size = "unknown size" if entry.size is None else f"{entry.size / 1e6:,.1f} MB"
        terms = f"{size}; license: {entry.license}; please cite: {entry.citation}"
        progress(ProgressEvent(stage, message=terms))
        sources.append(lambda: _from_host(entry, progress, timeout))
    if entry.wheel:
        sources.append(lambda: _from_wheel(entry, progress))
    for number, source in enumerate(sources, start=1):
        try:
            return source()
        except DataError as error:
            failures.append(str(error))
            following = "trying the next source" if number < len(sources) else "no source is left"
            progress(ProgressEvent(stage, message=f"{error}; {following}"))
    raise SourceError(_instructions(entry, failures))


def _places(entry: Entry) -> Iterator[tuple[Path, str]]:
    """Possible paths of a copy and their names, in order of preference."""
    if local := os.environ.get("PALATE_DATA"):
        yield Path(local) / f"{entry.name}.zip", "PALATE_DATA"
        yield Path(local) / entry.name, "PALATE_DATA"
    yield cache_folder() / f"{entry.name}.zip", "cache"
    yield cache_folder() / entry.name, "cache"
    if entry.wheel:
        yield entry.converted, f"cache, converted from {entry.wheel}"


def _differences(entry: Entry, located: Located) -> tuple[str, ...]:
    if located.converted:
        return (_wheel_note(entry),)
    if located.source != "PALATE_DATA":
        return ()  # downloads were verified when they arrived
    if located.path.is_dir():
        return ("unpacked copy: not compared with the official checksum",)
    official = [remote.checksum for remote in entry.remotes if remote.checksum]
    if len(official) == 1 and checksum_of(located.path, official[0]) != official[0]:
        return ("repacked copy: checksum differs from the official archive",)
    return ()


def _from_host(entry: Entry, progress: Progress, timeout: float) -> Located:
    """Download the official files: one zip file, or several files into a folder."""
    single = len(entry.remotes) == 1
    path = cache_folder() / (f"{entry.name}.zip" if single else entry.name)
    for remote in entry.remotes:
        to = path if single else path / remote.url.rpartition("/")[2]
        fetch(remote.url, to, checksum=remote.checksum, size=remote.size, timeout=timeout, progress=progress)
    return Located(path, f"downloaded from {urlsplit(entry.remotes[0].url).hostname}")


def _from_wheel(entry: Entry, progress: Progress) -> Located:
    """Convert the copy in a Python package; it is kept only if its rows are the official ones."""
    to = entry.converted
    with locked(to, progress):
        if not to.exists():
            progress(ProgressEvent(f"find {entry.name}", message=f"downloading the copy in {entry.wheel} with pip"))
            with tempfile.TemporaryDirectory() as scratch, replacing(to) as new:
                wheel = Archive.open(pip_download(str(entry.wheel), Path(scratch)))
                with zipfile.ZipFile(new, "w", zipfile.ZIP_DEFLATED) as file:
                    for name, data in ml_100k_from_recbole(wheel).items():
                        file.writestr(name, data)
                # A package is not the official host: the fingerprint proves that its rows are the official ones.
                found = entry.read(Archive.open(new)).fingerprint.digest
                if found != entry.digest:
                    raise SourceError(f"{entry.wheel}: refused, its rows have fingerprint {found}, not {entry.digest}")
    return Located(to, f"converted from {entry.wheel}", (_wheel_note(entry),), converted=True)


def _wheel_note(entry: Entry) -> str:
    return f"copy from {entry.wheel}: rows equal the official ones, titles joined with years, no release dates"


def _instructions(entry: Entry, failures: list[str]) -> str:
    """The error message: the result of each source, and the steps of a manual download."""
    given = os.environ.get("PALATE_DATA")
    local = f"PALATE_DATA ({given}) has no {entry.name}.zip" if given else "PALATE_DATA is not set"
    tried = "; ".join([local, f"the cache ({cache_folder()}) has no {entry.name}.zip", *failures])
    several = len(entry.remotes) > 1
    first = next(filter(None, [entry.by_hand, *(remote.url for remote in entry.remotes), entry.wheel, entry.name]))
    origin = f"the files in {first.rpartition('/')[0]}/" if several else first
    folder = f"the folder {given}" if given else f"a folder that PALATE_DATA names (or {cache_folder()})"
    unpacked = f"{entry.layouts} in a folder {entry.name}"
    put = unpacked if several else f"it as {entry.name}.zip, or {unpacked}"
    return f"{entry.name} is not available: {tried}. Download {origin} by hand and put {put}, into {folder}"
