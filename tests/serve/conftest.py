"""Real servers: a process on a free port, on a small shop whose users of one half like one half of the items."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import httpx
import numpy as np
import polars as pl
import pytest

from forked import Forked
from palate.base import TrainOptions
from palate.bundle import Bundle
from palate.data.dataset import Dataset, Interactions
from palate.data.ids import IdMap
from palate.models.ials import IALS

USERS, ITEMS = 40, 30


def make_shop() -> Dataset:
    """Even users have even items, odd users odd ones; ids are texts with odd characters; the last user has no rows."""
    rng = np.random.default_rng(1)
    rows = [
        (user, item)
        for user in range(USERS - 1)
        for item in rng.choice(np.arange(user % 2, ITEMS, 2), 8, replace=False).tolist()
    ]
    user, item = np.array(sorted(rows)).T
    return Dataset(
        "shop",
        IdMap.of([f"u{n:02}" for n in range(USERS)]),
        IdMap.of([f"i/{n:02} ä" for n in range(ITEMS)]),
        Interactions(
            user.astype(np.int32),
            item.astype(np.int32),
            np.ones(len(user), np.float32),
            1.7e9 + 3600.0 * np.arange(len(user)),
        ),
        titles=pl.Series("title", [f"{'Tea' if n % 2 == 0 else 'Crème'} number {n}" for n in range(ITEMS)]),
        item_features=pl.DataFrame({"kind": ["tea", "cream"] * (ITEMS // 2), "price": [1.0 * n for n in range(ITEMS)]}),
        user_features=pl.DataFrame({"side": ["left", "right"] * (USERS // 2)}),
    )


@pytest.fixture(scope="session")
def shop() -> Dataset:
    return make_shop()


@pytest.fixture(scope="session")
def bundle(shop: Dataset, tmp_path_factory: pytest.TempPathFactory) -> Path:
    recipe = IALS(dim=4, epochs=4)
    model = recipe.fit(shop, TrainOptions(threads=1, device="cpu"))
    return Bundle.of(recipe, model, shop).save(tmp_path_factory.mktemp("bundles") / "shop")


class Server:
    """A server process and a client for it."""

    def __init__(self, process: subprocess.Popen[bytes] | Forked, url: str, log: Path) -> None:
        self.process, self.url, self.log = process, url, log
        self.client = httpx.Client(base_url=url, timeout=60)

    def get(self, path: str, **params: object) -> dict:
        answer = self.client.get(path, params=params)
        assert answer.status_code == 200, answer.text
        return answer.json()

    def post(self, path: str, body: object) -> dict:
        answer = self.client.post(path, json=body)
        assert answer.status_code == 200, answer.text
        return answer.json()

    def ids(self, user: str, **params: object) -> list[str]:
        return [row["item_id"] for row in self.get("/v1/recommend", user_id=user, **params)["items"]]

    def stop(self, how: int = signal.SIGTERM) -> int:
        self.client.close()
        self.process.send_signal(how)
        return self.process.wait(60)


def start(*arguments: str, folder: Path, prefix: Sequence[str] = (), **environment: str) -> Server:
    """Start ``palate serve`` on a free port, perhaps by another command, and wait until it is ready."""
    log = folder / f"serve-{time.monotonic_ns()}.log"
    command, environment = ["serve", *arguments, "--port", "0"], {**os.environ, **environment}
    process: subprocess.Popen[bytes] | Forked
    with log.open("w") as stream:
        if prefix:
            words = [*prefix, sys.executable, "-m", "palate", *command]
            process = subprocess.Popen(words, stdout=stream, stderr=stream, cwd=folder, env=environment)
        else:
            process = Forked(command, folder, environment, log)
    deadline = time.monotonic() + 240
    while time.monotonic() < deadline:
        found = re.search(r"listens on (http://\S+)", log.read_text())
        if found:
            try:
                if httpx.get(found[1] + "/v1/health/ready").status_code == 200:
                    return Server(process, found[1], log)
            except httpx.TransportError:
                pass
        if process.poll() is not None:
            break
        time.sleep(0.05)
    process.kill()
    process.wait()
    raise AssertionError(log.read_text())


@pytest.fixture(scope="session")
def serving(bundle: Path, tmp_path_factory: pytest.TempPathFactory) -> Callable[..., object]:
    """A context manager that starts a server with arguments, and ends it."""

    @contextmanager
    def run(*arguments: str, folder: Path | None = None, **environment: str) -> Iterator[Server]:
        server = start(str(bundle), *arguments, folder=folder or tmp_path_factory.mktemp("serve"), **environment)
        try:
            yield server
        finally:
            server.client.close()
            if server.process.poll() is None:
                server.stop()
            assert "Traceback" not in server.log.read_text(), server.log.read_text()

    return run


@pytest.fixture(scope="session")
def postgres(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[[str], str]]:
    """A PostgreSQL server of our own: the URL of a fresh database by its name. Skipped where it is not installed."""
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"), key=lambda path: int(path.parts[-3]))
    binaries = found[-1].parent if found else Path(shutil.which("initdb") or "/missing").parent
    if not (binaries / "postgres").exists():
        pytest.skip("PostgreSQL is not installed: make services")
    # PostgreSQL refuses to run as root, and a path of a socket may have 107 characters.
    folder = Path(tempfile.mkdtemp(prefix="palate-pg-"))
    as_user = [] if os.getuid() else ["runuser", "-u", "postgres", "--"]
    if as_user:
        shutil.chown(folder, "postgres")
    data = folder / "data"
    subprocess.run(
        [*as_user, binaries / "initdb", "-D", data, "-U", "palate", "-A", "trust", "-E", "UTF8", "--locale=C"],
        check=True,
        capture_output=True,
        cwd=folder,
    )
    options = f"-k {folder} -c listen_addresses='' -c max_connections=50"
    control = [*as_user, binaries / "pg_ctl", "-D", data, "-w", "-l", folder / "log", "-o", options]
    subprocess.run([*control, "start"], check=True, capture_output=True, cwd=folder)

    def database(name: str) -> str:
        socket = [binaries / "createdb", "-h", folder, "-U", "palate", name]
        subprocess.run(socket, check=True, capture_output=True)
        return f"postgresql://palate@/{name}?host={folder}"

    database.restart = lambda how: subprocess.run([*control, *how], check=True, capture_output=True, cwd=folder)  # type: ignore[attr-defined]
    yield database
    subprocess.run([*control, "stop", "-m", "immediate"], check=False, capture_output=True, cwd=folder)
    shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(params=["sqlite", "postgresql"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """The URL of an empty database, of each kind."""
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path}/events.db"
    return request.getfixturevalue("postgres")(f"d{time.monotonic_ns()}")


@pytest.fixture(scope="session")
def server(serving: Callable[..., object]) -> Iterator[Server]:
    """One server for the tests that need nothing special; each of them uses its own users."""
    with serving() as running:  # type: ignore[attr-defined]
        yield running
