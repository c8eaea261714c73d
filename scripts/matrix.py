"""Run the tests of the core on every Python that is here or that uv can get, with the newest and the oldest libraries.

    python scripts/matrix.py                  3.11 to 3.14 with the newest libraries, 3.11 with the oldest allowed ones
    python scripts/matrix.py 3.13 oldest      some of them
    python scripts/matrix.py wheel            the wheel alone, by uvx and by pipx

Prints a table and writes it to .matrix/table.md. A row that cannot be run is counted as skipped, with its reason. An
environment of its own for each row is kept in .matrix/, with PyTorch's CPU build where there is one for that Python.
"""

from __future__ import annotations

import argparse
import re
import shutil
import subprocess
import sys
import time
import tomllib
from datetime import UTC, datetime
from pathlib import Path

from install import ROOT, cpu_build

FOLDER = ROOT / ".matrix"
PYTHONS = ("3.11", "3.12", "3.13", "3.14")
EXTRAS = "report,tune,index,rank,excel,sql,sign,serve,client"
TOOLS = ("pytest", "pytest-timeout", "pytest-xdist", "hypothesis", "pandas", "pytrec-eval-terrier", "hatchling")
TESTS = (
    "tests/data",
    "tests/evaluation",
    "tests/recommend",
    "tests/rules",
    "tests/test_bundle.py",
    "tests/test_imports.py",
)
SHOWN = ("numpy", "scipy", "polars", "pyarrow", "pandas", "torch", "pydantic")


class SkippedError(Exception):
    """The row cannot be run here."""


def main() -> None:
    """Run the rows that are asked for."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("rows", nargs="*", help=f"{', '.join(PYTHONS)}, oldest, wheel; default: all")
    parser.add_argument("--tests", nargs="+", default=list(TESTS), help="files and folders of tests")
    arguments = parser.parse_args()
    FOLDER.mkdir(exist_ok=True)
    uv = tool("uv")
    table = []
    for row in arguments.rows or [*PYTHONS, "oldest", "wheel"]:
        print(f"--- {row}", flush=True)
        try:
            found = wheel(uv) if row == "wheel" else [tested(uv, row, arguments.tests)]
        except SkippedError as reason:
            found = [{"row": row, "result": f"skipped: {reason}"}]
        table += found
        print(markdown(found), flush=True)
    skipped = sum(one["result"].startswith("skipped") for one in table)
    text = f"{datetime.now(UTC):%Y-%m-%d}: {len(table)} rows, {skipped} skipped\n\n{markdown(table)}\n"
    (FOLDER / "table.md").write_text(text, encoding="utf-8")
    print(f"\n{text}")
    sys.exit(any(one["result"] == "failed" for one in table))


def tested(uv: str, row: str, tests: list[str]) -> dict[str, str]:
    """An environment with the libraries of a row, and the result of the tests in it."""
    number = PYTHONS[0] if row == "oldest" else row
    python = FOLDER / row / "bin" / "python"
    if not python.exists():
        run(uv, "venv", "--quiet", "--seed", "--python", interpreter(uv, number), str(FOLDER / row))
    torch = install_torch(uv, python)
    wanted = FOLDER / f"{row}.txt"
    resolution = "lowest-direct" if row == "oldest" else "highest"
    tools = FOLDER / "tools.in"
    dev = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]["optional-dependencies"]["dev"]
    lines = [one for one in dev if re.split(r"[^\w-]", one)[0] in TOOLS] + [f"torch=={torch}"]
    tools.write_text("\n".join(lines), encoding="utf-8")
    extras = [word for extra in EXTRAS.split(",") for word in ("--extra", extra)]
    run(uv, "pip", "compile", "--quiet", "--resolution", resolution, "--python", str(python), *extras,
        "--no-annotate", "--no-emit-package", "torch", "-o", str(wanted), "pyproject.toml", str(tools))  # fmt: skip
    libraries = [
        one for one in wanted.read_text("utf-8").splitlines() if not one.startswith(("nvidia", "cuda", "triton"))
    ]
    wanted.write_text("\n".join(libraries), encoding="utf-8")
    run(uv, "pip", "install", "--quiet", "--no-deps", "--python", str(python), "-r", str(wanted))
    run(uv, "pip", "install", "--quiet", "--no-deps", "--no-build-isolation", "--python", str(python), "-e", ".")
    begin = time.perf_counter()
    log = FOLDER / f"{row}.log"
    with log.open("w", encoding="utf-8") as out:
        command = [python, "-m", "pytest", "-rs", "-p", "no:cacheprovider", *tests]
        done = subprocess.run(command, cwd=ROOT, stdout=out, stderr=out, check=False)
    end = log.read_text("utf-8")[-400:]
    counts = {name: int(count) for count, name in re.findall(r"(\d+) (passed|skipped|failed|error)", end)}
    code = f"from importlib.metadata import version; print(*(f'{{n}} {{version(n)}}' for n in {SHOWN}), sep=', ')"
    versions = subprocess.run([python, "-c", code], capture_output=True, text=True, check=True).stdout.strip()
    exact = subprocess.run([python, "--version"], capture_output=True, text=True, check=True).stdout.split()[1]
    return {
        "row": row, "Python": exact, "result": "failed" if done.returncode else "passed", "libraries": versions,
        "passed": str(counts.get("passed", 0)), "skipped": str(counts.get("skipped", 0)),
        "failed": str(counts.get("failed", 0) + counts.get("error", 0)),
        "seconds": f"{time.perf_counter() - begin:.0f}",
    }  # fmt: skip


def install_torch(uv: str, python: Path) -> str:
    """Install PyTorch, of the CPU if there is such a build for this Python; its version without "+cpu"."""
    (pinned,) = re.findall(r"^torch==(\S+)", (ROOT / "constraints.txt").read_text("utf-8"), re.M)
    if list(python.parent.parent.glob(f"lib/python*/site-packages/torch-{pinned}*")):
        return pinned
    pip = [str(python), "-m", "pip", "install", "--quiet", "--no-deps", "--disable-pip-version-check", *cpu_build()]
    if subprocess.run(pip, check=False, capture_output=True).returncode:
        print("no CPU build of PyTorch for this Python here: the plain one, with several GB of CUDA", flush=True)
        run(uv, "pip", "install", "--quiet", "--python", str(python), f"torch=={pinned}")
    return pinned


def wheel(uv: str) -> list[dict[str, str]]:
    """The wheel by uvx and pipx, as somebody would run it who has nothing but one of them."""
    run(uv, "build", "--quiet", "--wheel", "--out-dir", str(FOLDER / "dist"))
    file = str(max((FOLDER / "dist").glob("palate-*.whl"), key=lambda one: one.stat().st_mtime))
    work = [
        "quickstart",
        str(ROOT / "examples" / "data" / "clicks.csv"),
        "--minutes",
        "0.2",
        "--out",
        str(FOLDER / "shop"),
    ]
    ways = {
        "uvx": [uv, "tool", "run", "--python", sys.executable, "--from", file, "palate", *work],
        "pipx run": [tool("pipx"), "run", "--python", sys.executable, "--spec", file, "palate", *work],
    }
    found = []
    for name, command in ways.items():
        shutil.rmtree(FOLDER / "shop", ignore_errors=True)
        done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=FOLDER)
        (FOLDER / f"{name.partition(' ')[0]}.log").write_text(done.stdout + done.stderr, encoding="utf-8")
        good = done.returncode == 0 and (FOLDER / "shop" / "manifest.json").is_file()
        version = ".".join(map(str, sys.version_info[:3]))
        found.append({"row": f"{name} palate quickstart", "Python": version, "result": "passed" if good else "failed"})
    return found


def interpreter(uv: str, number: str) -> str:
    """A Python of this version: on the path, of pyenv, or one that uv has or can get."""
    places = [shutil.which(f"python{number}"), *map(str, Path.home().glob(f".pyenv/versions/{number}.*/bin/python"))]
    for place in filter(None, places):
        # A shim of pyenv answers for versions that are switched off, too.
        if subprocess.run([place, "--version"], capture_output=True, check=False).returncode == 0:
            return place
    subprocess.run([uv, "python", "install", "--quiet", number], capture_output=True, check=False)
    done = subprocess.run([uv, "python", "find", number], capture_output=True, text=True, check=False)
    if done.returncode:
        raise SkippedError(f"no Python {number} is here, and uv cannot get one")
    return done.stdout.strip()


def tool(name: str) -> str:
    """The path of uv or pipx; if it is missing, in an environment of its own."""
    if found := shutil.which(name):
        return found
    folder = FOLDER / "tools"
    if not folder.exists():
        subprocess.run([sys.executable, "-m", "venv", str(folder)], check=True)
    if not (folder / "bin" / name).exists():
        run(str(folder / "bin" / "python"), "-m", "pip", "install", "--quiet", "--disable-pip-version-check", name)
    return str(folder / "bin" / name)


def run(*command: str) -> None:
    """Run a command; where it fails the row is skipped, and its last line says why."""
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    if done.returncode:
        lines = [line.strip() for line in done.stderr.splitlines() if line.strip()] or ["?"]
        raise SkippedError(f"{Path(command[0]).name} {command[1]} failed: {' '.join(lines)[:300]}")


def markdown(rows: list[dict[str, str]]) -> str:
    """The rows as a table."""
    names = ("row", "Python", "result", "passed", "skipped", "failed", "seconds", "libraries")
    lines = [f"| {' | '.join(one.get(name, '') for name in names)} |" for one in rows]
    return "\n".join([f"| {' | '.join(names)} |", f"|{'---|' * len(names)}", *lines])


if __name__ == "__main__":
    main()
