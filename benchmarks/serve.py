"""A real server under load, over loopback: latency, throughput beside a bare route, durable feedback, start and memory.

    python benchmarks/serve.py [--items 27000] [--dim 64] [--users 100000] [--events 5000000] [--seconds 10]

The server is a process of its own; the clients are raw HTTP connections in this process. The bare route is a FastAPI
application that scores one user with the same arrays, takes the ten best and answers with orjson: it has no store, seen
items, titles or log. Random vectors; k = 10. Other load on the machine hits all rows, so read the ratios: CPU
milliseconds of the server per request are printed as well.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import json
import os
import random
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import polars as pl

from palate.base import DataSpec
from palate.bundle import Bundle
from palate.data.dataset import History
from palate.data.ids import IdMap
from palate.models.ials import IALS
from palate.recommend import Recommender

K = 10
BARE = """
import sys, numpy as np, orjson, torch, uvicorn
from fastapi import FastAPI, Response
from palate.bundle import Bundle
from palate.top_k import top_k
torch.set_num_threads(1)
r = Bundle.load(sys.argv[1]).recommender
u, v, ids = r.model.user_table.weight.detach(), r.model.item_vectors(), [str(i) for i in r.items.ids.to_list()]
app = FastAPI()
@app.get("/v1/recommend")
async def recommend(user_id: str, k: int = 10):
    values, items = top_k(v.mv(u[r.users.row(user_id)])[None], k)
    rows = zip(items[0].tolist(), values[0].tolist())
    return Response(orjson.dumps([{"item_id": ids[i], "score": s} for i, s in rows]), media_type="application/json")
@app.get("/v1/health/ready")
async def ready(): return {}
print("listens on http://127.0.0.1:8199", flush=True)
uvicorn.run(app, port=8199, log_level="error", access_log=False)
"""


def make_bundle(folder: Path, users: int, items: int, dim: int, events: int) -> Path:
    """A bundle with random vectors and ``events`` training events."""
    rng = np.random.default_rng(0)
    recipe = IALS(dim=dim, unobserved_weight=0.3, regularization=0.007)
    model = recipe.build(DataSpec(users, items))
    per_user = events // users
    seen = History(
        np.arange(users + 1, dtype=np.int64) * per_user,
        rng.integers(0, items, users * per_user).astype(np.int32),
        np.ones(users * per_user, np.float32),
        np.tile(1.7e9 + 60.0 * np.arange(per_user), users),
    )
    titles = pl.Series("title", [f"Title of item {n}" for n in range(items)])
    ids = [IdMap(pl.Series("id", np.arange(n, dtype=np.int64))) for n in (users, items)]
    popularity = np.bincount(seen.items, minlength=items).astype(np.float32)
    recommender = Recommender(model, *ids, seen, popularity, titles=titles, name="bench")
    return Bundle(recipe, recommender).save(folder / "bundle")


class Process:
    """A server process; ``url`` is where it listens, ``start`` the seconds until it was ready."""

    def __init__(self, *command: str, folder: Path) -> None:
        began = time.perf_counter()
        self.log = folder / f"log-{time.monotonic_ns()}"
        with self.log.open("w") as stream:
            self.process = subprocess.Popen(command, stdout=stream, stderr=stream, cwd=folder)
        while "listens on" not in self.log.read_text():
            assert self.process.poll() is None, self.log.read_text()
            time.sleep(0.02)
        self.port = int(self.log.read_text().rsplit(":", 1)[1].split()[0])
        while True:
            try:
                status, _ = asyncio.run(one_request(self.port, get("/v1/health/ready")))
                if status == 200:
                    break
            except OSError:
                time.sleep(0.02)
        self.start = time.perf_counter() - began

    def cpu(self) -> float:
        """Seconds of CPU so far."""
        parts = Path(f"/proc/{self.process.pid}/stat").read_text().rsplit(")", 1)[1].split()
        return (int(parts[11]) + int(parts[12])) / os.sysconf("SC_CLK_TCK")

    def memory(self) -> float:
        """Resident megabytes."""
        text = Path(f"/proc/{self.process.pid}/status").read_text()
        return int(text.partition("VmRSS:")[2].split()[0]) / 1024

    def stop(self) -> None:
        self.process.terminate()
        self.process.wait()


def get(path: str) -> bytes:
    return f"GET {path} HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n".encode()


def post(path: str, body: object) -> bytes:
    data = json.dumps(body).encode()
    lines = ["Host: 127.0.0.1", "Content-Type: application/json", f"Content-Length: {len(data)}"]
    return "\r\n".join([f"POST {path} HTTP/1.1", *lines, "", ""]).encode() + data


async def exchange(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, request: bytes) -> tuple[int, bytes]:
    writer.write(request)
    head = await reader.readuntil(b"\r\n\r\n")
    length = int(head.lower().partition(b"content-length:")[2].split(b"\r\n")[0])
    return int(head[9:12]), await reader.readexactly(length)


async def one_request(port: int, request: bytes) -> tuple[int, bytes]:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        return await exchange(reader, writer, request)
    finally:
        writer.close()


async def saturate(port: int, clients: int, seconds: float, make) -> tuple[int, list[float]]:
    """Requests of clients that each wait for their answer; their number and latencies."""
    times: list[float] = []
    end = time.perf_counter() + seconds

    async def client() -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        while time.perf_counter() < end:
            began = time.perf_counter()
            status, body = await exchange(reader, writer, make())
            assert status == 200, body
            times.append(time.perf_counter() - began)
        writer.close()

    await asyncio.gather(*(client() for _ in range(clients)))
    return len(times), times


async def steady(port: int, rate: float, seconds: float, make) -> list[float]:
    """Requests that are sent at a rate, whether or not earlier ones are answered; latencies from the planned time."""
    times: list[float] = []
    free: list[tuple[asyncio.StreamReader, asyncio.StreamWriter]] = []

    async def ask(planned: float) -> None:
        pair = free.pop() if free else await asyncio.open_connection("127.0.0.1", port)
        status, body = await exchange(*pair, make())
        assert status == 200, body
        times.append(time.perf_counter() - planned)
        free.append(pair)

    began = time.perf_counter()
    tasks = []
    for number in range(int(rate * seconds)):
        planned = began + number / rate
        await asyncio.sleep(max(0.0, planned - time.perf_counter()))
        tasks.append(asyncio.create_task(ask(planned)))
    await asyncio.gather(*tasks)
    return times


def ms(times: list[float], share: float) -> str:
    return f"{1000 * float(np.quantile(times, share)):.1f}"


def main() -> None:  # noqa: PLR0915
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--items", type=int, default=27_000)
    parser.add_argument("--dim", type=int, default=64)
    parser.add_argument("--users", type=int, default=100_000)
    parser.add_argument("--events", type=int, default=5_000_000)
    parser.add_argument("--seconds", type=float, default=10)
    parser.add_argument("--store", default="sqlite:///bench.db")
    asked = parser.parse_args()
    users, rng = asked.users, random.Random(0)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        bundle = make_bundle(folder, users, asked.items, asked.dim, asked.events)

        def recommend() -> bytes:
            return get(f"/v1/recommend?user_id={rng.randrange(users)}&k={K}")

        def event() -> dict:
            return {"user_id": str(rng.randrange(users)), "item_id": str(rng.randrange(asked.items)), "type": "click"}

        # A collection takes this process a tenth of a second, which would be counted as latency of the server.
        gc.collect()
        gc.freeze()
        gc.disable()
        print(f"load of the machine: {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores")
        server = Process(
            sys.executable, "-m", "palate", "serve", str(bundle), "--port", "0", "--store", asked.store, folder=folder
        )
        print(f"start to ready: {server.start:.1f} s wall, {server.cpu():.1f} s CPU; memory {server.memory():.0f} MB")
        asyncio.run(saturate(server.port, 4, 1.0, recommend))
        cpu, times = server.cpu(), asyncio.run(steady(server.port, 200, asked.seconds, recommend))
        cpu = 1000 * (server.cpu() - cpu) / len(times)
        print(f"recommend at 200/s: p50 {ms(times, 0.5)} ms, p99 {ms(times, 0.99)} ms, {cpu:.2f} ms CPU a request")
        rates = {}
        bare = Process(sys.executable, "-c", BARE, str(bundle), folder=folder)
        for turn in range(2):  # alternating, so that other load hits both
            for label, one in (("server", server), ("bare route", bare)):
                cpu = one.cpu()
                count, times = asyncio.run(saturate(one.port, 32, asked.seconds / 2, recommend))
                spent = 1000 * (one.cpu() - cpu) / count
                rates.setdefault(label, []).append((count / (asked.seconds / 2), spent))
                print(f"{label}, 32 clients, turn {turn}: {rates[label][-1][0]:,.0f}/s, {spent:.2f} ms CPU a request")
        bare.stop()
        wall = np.mean([a[0] / b[0] for a, b in zip(rates["server"], rates["bare route"], strict=True)])
        spent = np.mean([b[1] / a[1] for a, b in zip(rates["server"], rates["bare route"], strict=True)])
        print(f"saturation: {wall:.2f}x of the bare route by the clock, {spent:.2f}x by CPU")
        library = Bundle.load(bundle).recommender
        began, count, cpu0 = time.perf_counter(), 0, time.process_time()
        while time.perf_counter() - began < asked.seconds / 4:
            library.recommend([rng.randrange(users)], K)
            count += 1
        alone = 1000 * (time.process_time() - cpu0) / count
        print(
            f"Recommender.recommend one by one: {count / (time.perf_counter() - began):,.0f}/s, {alone:.2f} ms CPU each"
        )
        for clients, size in ((32, 1), (8, 100)):
            cpu = server.cpu()
            count, times = asyncio.run(
                saturate(
                    server.port,
                    clients,
                    asked.seconds / 2,
                    lambda size=size: post("/v1/feedback", {"events": [event() for _ in range(size)]}),
                )
            )
            spent = 1000 * (server.cpu() - cpu) / count / size
            rate = count * size / (asked.seconds / 2)
            label = f"durable events, {clients} clients, {size} at a time"
            print(f"{label}: {rate:,.0f}/s, {spent:.2f} ms CPU an event, p99 {ms(times, 0.99)} ms")
        clicks = []
        for _ in range(50):
            user = rng.randrange(users)
            began = time.perf_counter()
            one = {"user_id": str(user), "item_id": str(rng.randrange(asked.items)), "type": "click"}
            assert asyncio.run(one_request(server.port, post("/v1/feedback", one)))[0] == 200
            asyncio.run(one_request(server.port, get(f"/v1/recommend?user_id={user}")))
            clicks.append(time.perf_counter() - began)
        print(f"click to changed answer: p50 {ms(clicks, 0.5)} ms, p99 {ms(clicks, 0.99)} ms")
        print(f"memory at the end: {server.memory():.0f} MB")
        server.stop()


if __name__ == "__main__":
    main()
