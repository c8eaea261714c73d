"""Where a named data set comes from: a folder of one's own, the cache, its host, a package; each tried in turn."""

from __future__ import annotations

import os
import tempfile
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from urllib.parse import urlsplit

from palate.data.dataset import Dataset
from palate.datasets.download import Log, cache_folder, checksum_of, fetch, locked, pip_download, replace_with
from palate.datasets.formats import Archive, ml_100k_from_recbole
from palate.errors import DataError, SourceError

__all__ = ["Entry", "Located", "Remote", "find", "locate"]


@dataclass(frozen=True)
class Remote:
    """A file on an official host.

    Args:
        url: its address.
        size: bytes, or None where it changes.
        checksum: "md5:...", or None where the host publishes none.
    """

    url: str
    size: int | None = None
    checksum: str | None = None


@dataclass(frozen=True)
class Entry:
    """A named data set.

    Args:
        name: what users call it.
        description: one line.
        rows, users, items: counts of the official release (users and items with ratings).
        size: bytes to download, or None where no program may download it.
        license: terms of use in one line.
        citation: what publications are asked to cite.
        read: from an opened copy to a Dataset.
        needs: the files that a copy must hold; each inner tuple is one accepted layout.
        remotes: the official files; one zip file, or several files that make up a folder.
        wheel: requirement of a Python package that holds a copy.
        digest: digest of the fingerprint of the official rows, where it is known.
        by_hand: where a person has to get it, for a set that no program may download.
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


@dataclass(frozen=True)
class Located:
    """Where a copy of a data set is on this machine.

    Args:
        path: a zip file or a folder.
        source: where it comes from, in words.
        notes: what is special about this copy.
        converted: it was made from a package, and its rows are the official ones.
    """

    path: Path
    source: str
    notes: tuple[str, ...] = ()
    converted: bool = False


def find(entry: Entry, *, log: Log | None = None) -> Located | None:
    """The first complete copy on this machine, without looking into it or downloading anything; None if there is none.

    Copies that are damaged or incomplete are passed over, and ``log`` is told.
    """
    for path, source in _places(entry):
        if not path.exists():
            continue
        try:
            archive = Archive.open(path)
        except DataError as error:
            _tell(log, f"{entry.name}: {error}; passed over")
            continue
        if any(all(file in archive for file in layout) for layout in entry.needs):
            return Located(path, source, converted=path == _converted(entry))
        if source == "PALATE_DATA":  # in the cache this is a download that was not finished
            _tell(log, f"{entry.name}: {path} does not hold {_files(entry)}; passed over")
    return None


def locate(entry: Entry, *, log: Log | None = None, progress: bool = True, timeout: float = 5.0) -> Located:
    """A copy on this machine, downloaded to the cache first where there is none.

    Args:
        entry: what to get.
        log: told in one line each what happens, with size, license and citation before a download.
        progress: show a progress bar where the standard error is a terminal.
        timeout: seconds after which a host that does not answer is given up.

    Raises:
        SourceError: no source has it; the message lists each source and what to do.
    """
    failures: list[str] = []

    def fail(line: str) -> None:
        failures.append(line.removeprefix(f"{entry.name}: ").removesuffix("; passed over"))
        _tell(log, line)

    if (found := find(entry, log=fail)) is not None:
        return replace(found, notes=_provenance(entry, found))
    sources: list[Callable[[], Located]] = []
    if entry.remotes:
        size = "unknown size" if entry.size is None else f"{entry.size / 1e6:,.1f} MB"
        _tell(log, f"{entry.name}: {size}; license: {entry.license}; please cite: {entry.citation}")
        sources.append(partial(_from_host, entry, log, progress, timeout=timeout))
    if entry.wheel:
        sources.append(partial(_from_wheel, entry, log))
    for number, source in enumerate(sources, start=1):
        try:
            return source()
        except DataError as error:
            failures.append(str(error))
            _tell(log, f"{error}; " + ("trying the next source" if number < len(sources) else "no source is left"))
    raise SourceError(_verdict(entry, failures))


def _places(entry: Entry) -> Iterator[tuple[Path, str]]:
    """Where a copy may lie, best first."""
    if local := os.environ.get("PALATE_DATA"):
        yield Path(local) / f"{entry.name}.zip", "PALATE_DATA"
        yield Path(local) / entry.name, "PALATE_DATA"
    yield cache_folder() / f"{entry.name}.zip", "cache"
    yield cache_folder() / entry.name, "cache"
    if entry.wheel:
        yield _converted(entry), f"cache, converted from {entry.wheel}"


def _provenance(entry: Entry, located: Located) -> tuple[str, ...]:
    if located.converted:
        return (_wheel_note(entry),)
    if located.source != "PALATE_DATA":
        return ()
    if located.path.is_dir():
        return ("unpacked copy: not compared with the official checksum",)
    official = [remote.checksum for remote in entry.remotes if remote.checksum]
    if len(official) == 1 and checksum_of(located.path, official[0]) != official[0]:
        return ("repacked copy: checksum differs from the official archive",)
    return ()


def _from_host(entry: Entry, log: Log | None, progress: bool, *, timeout: float) -> Located:
    """Download the official files: one zip file, or several files into a folder."""
    single = len(entry.remotes) == 1
    path = cache_folder() / (f"{entry.name}.zip" if single else entry.name)
    for remote in entry.remotes:
        to = path if single else path / remote.url.rpartition("/")[2]
        size, checksum = remote.size, remote.checksum
        fetch(remote.url, to, checksum=checksum, size=size, timeout=timeout, progress=progress, log=log)
    return Located(path, f"downloaded from {urlsplit(entry.remotes[0].url).hostname}")


def _from_wheel(entry: Entry, log: Log | None) -> Located:
    """Convert the copy in a Python package; it becomes ours only if its rows are the official ones."""
    to = _converted(entry)
    with locked(to, log or (lambda _: None)):
        if not to.exists():
            _tell(log, f"{entry.name}: getting the copy inside {entry.wheel} through pip")
            with tempfile.TemporaryDirectory(dir=to.parent) as scratch:
                new = Path(scratch) / to.name
                wheel = Archive.open(pip_download(str(entry.wheel), Path(scratch)))
                with zipfile.ZipFile(new, "w", zipfile.ZIP_DEFLATED) as file:
                    for name, data in ml_100k_from_recbole(wheel).items():
                        file.writestr(name, data)
                found = entry.read(Archive.open(new)).fingerprint.digest
                if found != entry.digest:
                    raise SourceError(f"{entry.wheel}: refused, its rows have fingerprint {found}, not {entry.digest}")
                replace_with(new, to)
    return Located(to, f"converted from {entry.wheel}", (_wheel_note(entry),), converted=True)


def _converted(entry: Entry) -> Path:
    return cache_folder() / f"{entry.name}-from-wheel.zip"


def _wheel_note(entry: Entry) -> str:
    return f"copy from {entry.wheel}: rows equal the official ones, titles put together again, no release dates"


def _verdict(entry: Entry, failures: list[str]) -> str:
    given = os.environ.get("PALATE_DATA")
    local = f"PALATE_DATA ({given}) has no {entry.name}.zip" if given else "PALATE_DATA is not set"
    tried = "; ".join([local, f"the cache ({cache_folder()}) has no {entry.name}.zip", *failures])
    several = len(entry.remotes) > 1
    first = next(filter(None, [entry.by_hand, *(remote.url for remote in entry.remotes), entry.wheel, entry.name]))
    origin = f"the files in {first.rpartition('/')[0]}/" if several else first
    folder = f"the folder {given}" if given else f"a folder that PALATE_DATA names (or {cache_folder()})"
    unpacked = f"{_files(entry)} in a folder {entry.name}"
    put = unpacked if several else f"it as {entry.name}.zip, or {unpacked}"
    return f"{entry.name} is not to be had: {tried}. What to do: get {origin} by hand and put {put}, into {folder}"


def _files(entry: Entry) -> str:
    return ", or ".join(" and ".join(layout) for layout in entry.needs)


def _tell(log: Log | None, line: str) -> None:
    if log is not None:
        log(line)
