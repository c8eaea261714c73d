"""Soak: real commands under kill -9, a full disk and starts at the same time: what is lost, doubled, torn or left over.

    python benchmarks/soak.py [minutes]        default: 10 (make soak, make soak MINUTES=3)

The commands work in a folder on a small file system of its own (tmpfs as root on Linux, else no disk is full). Each has
a result that does not depend on how often it was killed: after some rounds of trouble it runs once to its end, and
the result is compared with that of a run that nothing has disturbed.

    lost        the command does not end well, or its result is another one; an acknowledged event is missing
    doubled     a trial, a list or an event is there twice
    torn        a file under its final name cannot be read, right after a kill
    left over   temporary files after the whole run, and processes
    tracebacks  of commands that were not killed
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import polars as pl

from palate.bundle import Bundle
from palate.errors import BundleError

PALATE = [sys.executable, "-m", "palate"]
SHOP = Path(__file__).parents[1] / "examples" / "data" / "clicks.csv"
SIZE = 48 << 20  # of the small file system
COMMANDS = {
    "train": "train gmf clicks.csv --set epochs=6 --set dim=8 --folder run --out bundle",
    "batch": "recommend good --all -k 20 --out lists.parquet",
    "tune": "tune item-knn clicks.csv --trials 4 --out study",
    "compare": "compare clicks.csv --recipes popularity,item-knn --no-baselines --no-report --out runs",
}
counts: Counter[str] = Counter()


def start(words: str, folder: Path) -> subprocess.Popen[str]:
    with (folder.parent / "errors.txt").open("a") as errors:
        return subprocess.Popen(
            [*PALATE, *words.split()],
            cwd=folder, stdout=subprocess.DEVNULL, stderr=errors, text=True, start_new_session=True,
        )  # fmt: skip


def kill(process: subprocess.Popen[str]) -> None:
    """Kill a command; its workers have to end by themselves."""
    with contextlib.suppress(ProcessLookupError):
        os.kill(process.pid, signal.SIGKILL)
    process.wait()
    deadline = time.monotonic() + 120
    while True:
        try:
            os.killpg(process.pid, 0)
        except ProcessLookupError:
            return
        if time.monotonic() > deadline:
            report("left over", f"processes of {process.args}")
            os.killpg(process.pid, signal.SIGKILL)
            return
        time.sleep(0.2)


def report(kind: str, text: str) -> None:
    counts[kind] += 1
    print(f"{kind}: {text}", flush=True)


def result(name: str, folder: Path) -> object:
    """The result of a command, free of times and folders."""
    if name == "train":
        Bundle.load(folder / "bundle")
        (weights,) = (folder / "bundle").glob("weights-*")
        return hashlib.sha256(weights.read_bytes()).hexdigest()
    if name == "batch":
        lists = pl.read_parquet(folder / "lists.parquet").select("user_id", "item_id", "rank")
        if lists.select("user_id", "rank").is_duplicated().any():
            report("doubled", "lists of a user")
        return lists.rows()
    if name == "tune":
        return (folder / "study" / "best.toml").read_text()
    document = json.loads((folder / "runs" / "comparison.json").read_text())
    rows = re.findall(r'"value": (-?[\d.]+)', json.dumps(document))
    return sorted(rows)


def check_torn(folder: Path) -> None:
    """Read what has a final name."""
    for path in sorted(folder.rglob("*")):
        if not path.is_file() or any(part.startswith(".") for part in path.relative_to(folder).parts):
            continue
        try:
            if path.suffix == ".json":
                json.loads(path.read_text())
            elif path.suffix == ".parquet":
                pl.read_parquet(path)
            elif path.suffix == ".ckpt":
                import torch

                torch.load(path, weights_only=True)
        except FileNotFoundError:
            continue
        except Exception as error:
            report("torn", f"{path.relative_to(folder)}: {error!r}"[:300])
    if (folder / "bundle" / "manifest.json").exists():
        try:
            Bundle.load(folder / "bundle")
        except BundleError as error:
            report("torn", f"bundle: {error}")


def trouble(words: str, folder: Path, rng: random.Random, seconds: float, small: bool) -> None:
    """One round: a kill at a random moment, two starts at once, or a disk that fills up."""
    how = rng.choice(["kill", "kill", "twice", "full"] if small else ["kill", "kill", "twice"])
    counts[f"rounds: {how}"] += 1
    if how == "kill":
        process = start(words, folder)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(rng.uniform(0.2, 1.0) * seconds)
        kill(process)
    elif how == "twice":
        pair = [start(words, folder) for _ in range(2)]
        codes = sorted(process.wait() for process in pair)
        if codes not in ([0, 0], [0, 2]):
            report("lost", f"two starts of {words} ended with {codes}")
    else:
        process, fill = start(words, folder), folder / "fill"
        time.sleep(rng.uniform(0, 0.8) * seconds)
        with contextlib.suppress(OSError):
            fill.write_bytes(bytes(max(0, shutil.disk_usage(folder).free - rng.randrange(0, 200_000))))
        if process.wait() not in (0, 2):
            report("lost", f"{words} on a full disk ended with {process.returncode}")
        fill.unlink(missing_ok=True)
    check_torn(folder)


def whole(name: str, folder: Path, expected: object) -> None:
    """Run a command to its end, and compare."""
    if start(COMMANDS[name], folder).wait() != 0:
        report("lost", f"{name}: the last run failed")
    elif result(name, folder) != expected:
        report("lost", f"{name}: another result than that of an undisturbed run")
    for path in folder.rglob("*"):
        if re.match(r"\.palate-tmp-|\.split\.new-|\..*\.old$|.*\.tmp$", path.name):
            report("left over", f"{name}: {path.relative_to(folder)}")


def serve(folder: Path, rng: random.Random, kills: int) -> None:
    """Events one by one, kill -9 in between: each acknowledged event is stored once."""
    acknowledged: list[str] = []
    for turn in range(kills + 1):
        log = folder.parent / f"serve-{turn}.txt"
        with log.open("w") as stream:
            process = subprocess.Popen(
                [*PALATE, "serve", "good", "--port", "0"], cwd=folder, stderr=stream, start_new_session=True
            )
        while not (found := re.search(r"listens on (http://\S+)", log.read_text())):
            if process.poll() is not None:
                report("lost", f"the server does not start again: {log.read_text()[-300:]}")
                return
            time.sleep(0.1)
        url, end = found[1], time.monotonic() + rng.uniform(0.5, 4)
        while turn < kills and time.monotonic() < end:
            name = f"e{len(acknowledged)}-{turn}"
            body = {"user_id": "u0001", "item_id": "p001", "type": "click", "event_id": name}
            if ask(f"{url}/v1/feedback", body) is not None:
                acknowledged.append(name)
        if turn == kills:
            stored: list[str] = []
            page: dict | None = {"next": "9" * 18}
            while page and page["next"]:
                page = ask(f"{url}/v1/events?limit=1000&cursor={page['next']}")
                stored += [one["event_id"] for one in page["events"]] if page else []
            if page is None:
                report("lost", "the server does not list its events")
            for name in set(acknowledged) - set(stored):
                report("lost", f"event {name}")
            for name, times in Counter(stored).items():
                if times > 1:
                    report("doubled", f"event {name}")
            counts["events acknowledged"] += len(acknowledged)
        kill(process)  # type: ignore[arg-type]
    for path in folder.glob("palate-serve.db*"):
        path.unlink()


def ask(url: str, body: object = None) -> dict | None:
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(url, data, {"content-type": "application/json"})
    try:
        with urllib.request.urlopen(request, timeout=60) as answer:
            return json.loads(answer.read())
    except OSError:
        return None


@contextlib.contextmanager
def small_disk(folder: Path) -> Iterator[bool]:
    """Whether the folder is a small file system."""
    mount = ["mount", "-t", "tmpfs", "-o", f"size={SIZE}", "tmpfs", str(folder)]
    mounted = sys.platform == "linux" and os.geteuid() == 0 and subprocess.run(mount, check=False).returncode == 0
    try:
        yield mounted
    finally:
        if mounted:
            subprocess.run(["umount", "-l", str(folder)], check=True)


def main(minutes: float, seed: int) -> int:
    rng = random.Random(seed)
    with tempfile.TemporaryDirectory() as temporary:
        reference, folder = Path(temporary) / "reference", Path(temporary) / "small disk"
        for one in (reference, folder):
            one.mkdir()
        with small_disk(folder) as small:
            shutil.copy(SHOP, reference)
            assert start("train item-knn clicks.csv --out good", reference).wait() == 0
            for one in ("clicks.csv", "good"):
                copy = shutil.copytree if (reference / one).is_dir() else shutil.copy
                copy(reference / one, folder / one)
            seconds, expected = {}, {}
            for name, words in COMMANDS.items():
                begin = time.monotonic()
                assert start(words, reference).wait() == 0, (Path(temporary) / "errors.txt").read_text()[-2000:]
                seconds[name], expected[name] = time.monotonic() - begin, result(name, reference)
            end = time.monotonic() + 60 * minutes
            while time.monotonic() < end:
                name = rng.choice([*COMMANDS, "serve"])
                if name == "serve":
                    counts["rounds: serve"] += 1
                    serve(folder, rng, 2)
                    continue
                for _ in range(rng.randrange(1, 4)):
                    trouble(COMMANDS[name], folder, rng, seconds[name], small)
                whole(name, folder, expected[name])
                for made in ("run", "bundle", "study", "runs", "lists.parquet"):
                    path = folder / made
                    shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)
        errors = (Path(temporary) / "errors.txt").read_text()
        for _ in range(errors.count("Traceback")):
            report("tracebacks", "")
        if "Traceback" in errors:
            print(errors[max(0, errors.index("Traceback") - 200) :][:3000])
    bad = ("lost", "doubled", "torn", "left over", "tracebacks")
    print({name: counts[name] for name in bad}, {name: value for name, value in counts.items() if name not in bad})
    return int(any(counts[name] for name in bad))


if __name__ == "__main__":
    sys.exit(main(float(sys.argv[1]) if len(sys.argv) > 1 else 10, int(sys.argv[2]) if len(sys.argv) > 2 else 0))
