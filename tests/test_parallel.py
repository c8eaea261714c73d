"""Processes beside this one: one thread each, initialized once, and gone when their parent is killed."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from concurrent.futures import Future
from pathlib import Path

import numpy as np
import pytest
from scipy import linalg
from threadpoolctl import threadpool_info, threadpool_limits

from palate.parallel import CHOSEN, cores, one_blas_thread, pool

PARENT = """
import os, time
from palate.parallel import pool

if __name__ == "__main__":
    with pool(1) as processes:
        print(processes.submit(os.getpid).result(), flush=True)
        processes.submit(time.sleep, 600).result()
"""


FORK = """
import multiprocessing, os, signal, sys
import torch, palate, polars as pl
from concurrent.futures import ProcessPoolExecutor

signal.alarm(200)  # children that wait without end are ended with their parent, by the test
log = pl.DataFrame({"user": ["u", "u", "v", "v", "w"], "item": ["a", "d", "b", "c", "b"]})
train = palate.from_frame(log)
recipe = palate.ItemKNN()
bundle = palate.Bundle.of(recipe, recipe.fit(train), train)
bundle.save("bundle")
recommender = bundle.recommender

def ask(number=0):
    recommender.recommend(["u", "v"] * 20_000, k=2)  # enough for several threads of torch
    return recommender.recommend(["u"], k=2)["item_id"].to_list()

class Rows(torch.utils.data.Dataset):
    def __len__(self):
        return 2
    def __getitem__(self, row):
        return ask()

def fork():
    pid = os.fork()
    if pid == 0:
        signal.alarm(200)
        print(ask())
        for refused in (lambda: recommender.recommend(["u"], k=2, reasons=1), lambda: palate.Bundle.load("bundle")):
            try:
                refused()
            except palate.errors.ModelError as error:
                print(str(error).count("start processes by spawn"))
        sys.stdout.flush()
        os._exit(0)
    return os.waitpid(pid, 0)[1]

if __name__ == "__main__":
    torch.set_num_threads(4)
    ask(), pl.DataFrame({"a": range(10**5)}).group_by("a").len()
    assert fork() == 0
    print(list(torch.utils.data.DataLoader(Rows(), batch_size=None, num_workers=2)))
    for how in ("fork", "spawn"):  # the latter pickles the recommender, as joblib's loky does
        with ProcessPoolExecutor(1, multiprocessing.get_context(how)) as pool:
            print(pool.submit(recommender.recommend, ["u"], 2).result()["item_id"].to_list())
"""


def threads_of_torch() -> int:
    import torch

    return torch.get_num_threads()


def test_each_has_one_thread_and_the_parent_keeps_its_own_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "3")
    monkeypatch.delenv("POLARS_MAX_THREADS", raising=False)
    with pool(1, os.putenv, "GIVEN", "once") as processes:
        assert processes.submit(os.getenv, "POLARS_MAX_THREADS").result() == "1"
        assert processes.submit(threads_of_torch).result() == 1
    assert os.environ["OMP_NUM_THREADS"] == "3"
    assert "POLARS_MAX_THREADS" not in os.environ
    assert cores() >= 1


def test_an_error_does_not_wait_for_what_has_not_begun() -> None:
    waiting: list[Future[None]] = []

    def fail() -> None:
        with pool(1) as processes:
            running = processes.submit(time.sleep, 0.1)
            waiting.extend(processes.submit(time.sleep, 0.5) for _ in range(20))
            running.result()
            raise KeyError

    with pytest.raises(KeyError):
        fail()
    assert sum(future.cancelled() for future in waiting) >= 17  # the queue of a process may hold one or two more


@pytest.mark.skipif(sys.platform == "win32", reason="kill -9 is POSIX")
def test_they_end_when_their_parent_is_killed(tmp_path: Path) -> None:
    script = tmp_path / "parent.py"
    script.write_text(PARENT)
    with subprocess.Popen([sys.executable, str(script)], stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdout is not None
        child = int(parent.stdout.readline())
        os.kill(child, 0)  # it is there
        parent.send_signal(signal.SIGKILL)
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline and _alive(child):
        time.sleep(0.1)
    assert not _alive(child)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="os.fork is POSIX")
def test_a_recommender_answers_in_other_processes_or_says_what_to_do(tmp_path: Path) -> None:
    # In a process of its own: forking the test runner, which has threads, would test pytest as well. The fork comes
    # after polars and torch have started theirs, as with a server that loads a model and then forks its workers.
    (tmp_path / "forks.py").write_text(FORK)
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "forks.py"],
        capture_output=True,
        text=True,
        check=False,
        cwd=tmp_path,
        env={**os.environ, "OMP_NUM_THREADS": "4"},
    )
    answer = "['b', 'c']"
    lines = [answer, "1", "1", f"[{answer}, {answer}]", answer, answer]
    assert (done.returncode, done.stdout.splitlines()) == (0, lines), done.stderr


def _alive(pid: int) -> bool:
    """Whether a process runs; one that has ended and waits to be collected does not."""
    try:
        return (
            Path(f"/proc/{pid}/stat").read_text().split()[2] != "Z" if Path("/proc").is_dir() else not os.kill(pid, 0)
        )
    except (FileNotFoundError, ProcessLookupError):
        return False


def test_small_systems_take_one_thread_unless_the_environment_sets_a_number(monkeypatch):
    def threads() -> set[int]:
        return {one["num_threads"] for one in threadpool_info() if one["user_api"] == "blas"}

    solved = []

    @one_blas_thread()
    def solve() -> None:
        linalg.solve(np.eye(3), np.ones(3))
        solved.append(threads())

    for name in CHOSEN:
        monkeypatch.delenv(name, raising=False)
    with threadpool_limits(2, user_api="blas"):
        solve()
        assert threads() == {2}
        monkeypatch.setenv("OMP_NUM_THREADS", "2")
        solve()
    assert solved == [{1}, {2}]
