"""Search over 1,000,000 x 64 vectors on one core: approximate against exact, and exact against FAISS's flat index.

    OMP_NUM_THREADS=1 python benchmarks/index.py [--vectors fitted] [--items 1000000] [--kinds ivf hnsw] [--rounds 9]

Vectors, `fitted`: iALS (64 factors) is fitted to ml-1m; each vector is one of its item vectors plus two differences
between other items and the centers of their k-means cells (100 cells), each times a normal number of spread 0.5.
Queries are the vectors of its 6,040 users. `drawn`: 4,000 normal centers whose coordinate d has spread d^-0.25, cluster
sizes rank^-0.8, half of that spread within a cluster, lengths log-normal (0.25); a query is the mean of 8 items of 3
clusters. Neither is white noise.

Printed, for each kind: parameters, seconds to build; for single queries (k = 100) that neither tuned nor measured it:
recall@100 against exact, p50 and p99 of wall time, and the median of CPU time, which other processes on the machine
disturb less; the size of the codes, and the memory of the vectors. Then exact against FAISS's IndexFlatIP, alternating,
for 1 and for 32 queries: medians and their ratio; also for the 3,706 item vectors of ml-1m.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from dataclasses import replace
from statistics import median
from typing import Any

import numpy as np
import torch

from palate.retrieval import Approximate, Exact, build_index

DIM = 64


def factors() -> tuple[np.ndarray, np.ndarray]:
    """Vectors of users and items of ml-1m."""
    from palate.base import Query
    from palate.datasets.registry import load
    from palate.models import RECIPES

    train = load("ml-1m", min_rating="any")
    model = replace(RECIPES["ials"].fast(), dim=DIM).fit(train)
    with torch.inference_mode():
        return model.query_vectors(Query.of(np.arange(train.n_users))).numpy(), model.item_vectors().numpy()


def fitted(items: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    import faiss

    user_UD, item_ID = factors()
    kmeans = faiss.Kmeans(DIM, 100, niter=10, seed=1, min_points_per_centroid=1)
    kmeans.train(item_ID)
    rest_ID = item_ID - kmeans.centroids[kmeans.index.search(item_ID, 1)[1].ravel()]
    rows = item_ID[rng.integers(len(item_ID), size=items)].astype(np.float64)
    for _ in range(2):
        rows += 0.5 * rng.standard_normal((items, 1)) * rest_ID[rng.integers(len(item_ID), size=items)]
    return rows.astype(np.float32), user_UD[rng.permutation(len(user_UD))].astype(np.float32)


def drawn(items: int, rng: np.random.Generator, centers: int = 4_000, users: int = 3_000) -> tuple[Any, Any]:
    spread = np.arange(1, DIM + 1) ** -0.25
    share = np.arange(1, centers + 1) ** -0.8
    share /= share.sum()
    center = rng.standard_normal((centers, DIM)) * spread
    cluster = np.sort(rng.choice(centers, items, p=share))
    rows = center[cluster] + 0.5 * rng.standard_normal((items, DIM)) * spread
    rows *= np.exp(0.25 * rng.standard_normal((items, 1)))
    first = np.searchsorted(cluster, np.arange(centers + 1))
    tastes = cluster[rng.integers(items, size=(users, 3))]
    of = tastes[np.arange(users)[:, None], rng.integers(3, size=(users, 8))]
    liked = first[of] + (rng.random((users, 8)) * (first[of + 1] - first[of])).astype(int)
    return rows.astype(np.float32), rows[liked].mean(1).astype(np.float32)


def timed(call: Callable[[], Any]) -> tuple[float, float]:
    """Milliseconds: (wall, CPU)."""
    wall, cpu = time.perf_counter(), time.thread_time()
    call()
    return 1e3 * (time.perf_counter() - wall), 1e3 * (time.thread_time() - cpu)


def approximate(exact: Exact, kind: Any, query: torch.Tensor, asked: int) -> None:
    index = build_index(exact.vectors, kind, queries_QD=query[asked:])
    assert isinstance(index, Approximate)
    info = index.info
    print(f"{kind}: {info.parameters}, recorded recall@{info.k} {info.recall:.4f} over {info.queries} queries")
    truth = exact.search(query[:asked], 100).items.tolist()
    index.search(query[asked : asked + 5], 100)
    found, taken = [], []
    for row in range(asked):
        one = query[row : row + 1]
        taken.append(timed(lambda one=one: found.append(index.search(one, 100).items[0].tolist())))
    recall = np.mean([len(set(a) & set(b)) / 100 for a, b in zip(found, truth, strict=True)])
    wall, cpu = np.array(taken).T
    import faiss

    megabytes = len(faiss.serialize_index(index.codes.index)) / 2**20
    print(f"  build, tuning and measuring included   {info.build_seconds:8.1f} s")
    print(f"  recall@100 of {asked} other queries       {recall:8.4f}")
    print(f"  single query, wall p50 / p99            {median(wall):8.3f} / {np.quantile(wall, 0.99):.3f} ms")
    print(f"  single query, CPU median                {median(cpu):8.3f} ms")
    print(f"  codes {megabytes:.0f} MiB beside the vectors' {exact.vectors.nbytes / 2**20:.0f} MiB")
    begin = time.perf_counter()
    more = index.add(query[:100])
    print(f"  adding 100 items {time.perf_counter() - begin:.3f} s, now {len(more):,}", flush=True)


def against_flat(rows: np.ndarray, query: np.ndarray, rounds: int) -> None:
    import faiss

    faiss.omp_set_num_threads(1)
    exact, flat = Exact.of(torch.from_numpy(rows)), faiss.IndexFlatIP(rows.shape[1])
    flat.add(rows)
    for batch in (1, 32):
        for k in (10, 100):
            asked = query[:batch]
            calls = (lambda a=asked, k=k: exact.search(torch.from_numpy(a), k), lambda a=asked, k=k: flat.search(a, k))
            taken = np.array([[timed(call) for call in calls] for _ in range(rounds + 1)])[1:]  # one to warm up
            (ours, ours_cpu), (theirs, theirs_cpu) = np.median(taken, axis=0)
            print(
                f"exact {len(rows):,} x {rows.shape[1]}, {batch:2} queries, k = {k:3}: {ours:8.3f} ms, FAISS flat "
                f"{theirs:8.3f} ms, ratio {ours / theirs:.2f} (CPU {ours_cpu:.3f} / {theirs_cpu:.3f})",
                flush=True,
            )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--vectors", choices=["fitted", "drawn"], default="fitted")
    parser.add_argument("--kinds", nargs="*", choices=["ivf", "hnsw"], default=["ivf", "hnsw"])
    for name, default in (("items", 1_000_000), ("queries", 1_000), ("rounds", 9)):
        parser.add_argument(f"--{name}", type=int, default=default)
    asked = parser.parse_args()
    torch.set_num_threads(1)
    rng = np.random.default_rng(0)
    rows, query = (fitted if asked.vectors == "fitted" else drawn)(asked.items, rng)
    print(f"{asked.vectors}: {len(rows):,} x {DIM}, one core", flush=True)
    if asked.rounds:
        against_flat(rows, query, asked.rounds)
        if asked.vectors == "fitted":
            against_flat(factors()[1], query, 20 * asked.rounds)
    for kind in asked.kinds:
        approximate(Exact.of(torch.from_numpy(rows)), kind, torch.from_numpy(query), asked.queries)


if __name__ == "__main__":
    main()
