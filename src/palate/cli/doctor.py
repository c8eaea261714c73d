"""`palate doctor`: versions, devices and threads of this machine, and settings that cost time."""

from __future__ import annotations

import importlib.util
import os
import platform
import re
import sys
import tempfile
import time
from importlib import metadata
from pathlib import Path
from typing import Any

from palate.cli import options
from palate.cli.console import console, print_json

SMALL = 50  # products of small matrices, as training makes them: milliseconds on one thread
SLOWDOWN = 1.5  # several threads that take this much longer than one are worth a line
SLOW_DISK = 0.1  # seconds for a write that reaches the disk


def doctor(json: options.Json = False) -> None:
    """Versions, devices, threads and extras of this machine, and settings that cost time; nothing is changed.

    Example: palate doctor
    """
    found = _found()
    advice = _advice(found)
    if json:
        print_json({**found, "advice": advice})
        return
    out = console()
    for name, part in found.items():
        out.print(name, style="bold", markup=False)
        for key, value in part.items():
            out.print(f"  {key:<24} {'unknown' if value is None else value}", markup=False, soft_wrap=True)
    out.print("advice", style="bold", markup=False)
    for line in advice or ["nothing found that costs time"]:
        out.print(f"  {line}", markup=False, soft_wrap=True)


def _found() -> dict[str, dict[str, Any]]:
    began = time.process_time()
    import torch

    imported = time.process_time() - began
    from palate.datasets.download import cache_folder

    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    one, several = _seconds(1), _seconds(torch.get_num_threads())
    load = os.getloadavg()[0] if hasattr(os, "getloadavg") else None
    gpus = [torch.cuda.get_device_name(number) for number in range(torch.cuda.device_count())]
    return {
        "versions": {
            "palate": _version("palate"),
            "python": f"{platform.python_version()} ({sys.executable})",
            "system": f"{platform.system()} {platform.release()}, {platform.machine()}",
            **{name: _version(name) for name in ("torch", "pytorch-lightning", "numpy", "polars", "pyarrow")},
        },
        "devices": {
            "GPU": ", ".join(gpus) or ("Apple (mps)" if torch.backends.mps.is_available() else "none"),
            "cores": cores,
            "processes that want one": None if load is None else round(load, 1),
        },
        "threads": {
            "OMP_NUM_THREADS": os.environ.get("OMP_NUM_THREADS", "not set: training takes 1 thread"),
            "torch": torch.get_num_threads(),
            "NumPy and SciPy": _blas_threads(),
            "ms on one thread": round(1000 * one, 1),
            "ms on all of them": round(1000 * several, 1),
        },
        "time": {
            "s to import torch": round(imported, 1),
            "modules are compiled": Path(importlib.util.cache_from_source(torch.__file__)).exists(),
            "ms to reach the disk": round(1000 * _write_seconds(), 1),
        },
        "data": {"PALATE_DATA": os.environ.get("PALATE_DATA", "not set"), "cache": str(cache_folder())},
        "extras": _extras(),
    }


def _advice(found: dict[str, dict[str, Any]]) -> list[str]:
    lines = []
    threads, devices, slow = found["threads"], found["devices"], found["time"]["ms to reach the disk"]
    times = threads["ms on all of them"] / threads["ms on one thread"]
    if times > SLOWDOWN:
        lines.append(
            f"{threads['torch']} threads take {times:.1f} times as long as one for small matrices, since other "
            "processes want the cores: export OMP_NUM_THREADS=1"
        )
    if (devices["processes that want one"] or 0) > devices["cores"] + 0.5:
        lines.append(
            f"{devices['processes that want one']} processes share {devices['cores']} cores: fits take longer than the "
            "seconds in the documentation"
        )
    if slow > 1000 * SLOW_DISK:
        lines.append(f"a write takes {slow} ms to reach the disk of {Path.cwd()}: give --out and --folder elsewhere")
    if not found["time"]["modules are compiled"]:
        lines.append("the libraries are not compiled, so each start does it again: python -m compileall -q -j 0 .venv")
    return lines


def _blas_threads() -> str:
    """The threads of the linear algebra libraries, and of small systems."""
    import scipy.linalg  # noqa: F401
    from threadpoolctl import threadpool_info

    from palate.parallel import CHOSEN

    found = [str(one["num_threads"]) for one in threadpool_info() if one["user_api"] == "blas"]
    chosen = next((name for name in CHOSEN if os.environ.get(name)), None)
    return f"{', '.join(found) or 'unknown'} ({f'by {chosen}' if chosen else '1 for the small systems of ials'})"


def _seconds(threads: int) -> float:
    """Seconds of small matrix products on so many threads, the best of two."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    left, right = torch.ones(256, 128), torch.ones(128, 256)
    best = float("inf")
    for _ in range(2):
        began = time.perf_counter()
        for _ in range(SMALL):
            left @ right
        best = min(best, time.perf_counter() - began)
    torch.set_num_threads(before)
    return best


def _write_seconds() -> float:
    """Seconds until a small file in the current folder is on the disk; not a number where none can be written."""
    try:
        with tempfile.NamedTemporaryFile(dir=Path.cwd()) as file:
            began = time.perf_counter()
            file.write(b"palate")
            file.flush()
            os.fsync(file.fileno())
            return time.perf_counter() - began
    except OSError:
        return float("nan")


def _extras() -> dict[str, str]:
    """The extras of the package, and for those that lack a library the command that installs them."""
    try:
        requires = metadata.requires("palate") or []
    except metadata.PackageNotFoundError:
        return {}
    needs: dict[str, list[str]] = {}
    for line in requires:
        extra = re.search(r"extra == ['\"]([^'\"]+)", line)
        name = re.match(r"[\w.-]+", line)
        if extra and name and extra[1] != "dev":
            needs.setdefault(extra[1], []).append(name[0])
    missing = {extra: [name for name in names if _version(name) == "not installed"] for extra, names in needs.items()}
    return {
        extra: f"pip install 'palate[{extra}]'   (lacks {', '.join(names)})" if names else "installed"
        for extra, names in missing.items()
    }


def _version(name: str) -> str:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return "not installed"
