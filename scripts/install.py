"""Install Palate and its libraries into .venv, in the versions of constraints.txt; `make demo` and `make test` call it.

    python scripts/install.py runtime     the library and its command line: enough for `make demo`
    python scripts/install.py serve,rank  the same with these extras
    python scripts/install.py all         what `make test` needs: the tools of development and every extra, apart from
                                          those that only send results to a service (mlflow, wandb)

A file that differs from its digest in scripts/hashes.txt is refused. PyTorch's CPU build has no digest there: it comes
from an index of its own.

Uses the standard library alone, so that any Python 3.11 or newer runs it, also on Windows where there is no make.
"""

from __future__ import annotations

import argparse
import os
import platform
import re
import shutil
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
# The one place that names the index of PyTorch's CPU builds. Where it cannot be reached, the plain index is used.
CPU_BUILDS = "https://download.pytorch.org/whl/cpu"
SERVICES = ("mlflow", "wandb")  # 60 MB each, for one option
STARTED = time.monotonic()


def main() -> None:
    """Make the virtual environment if need be, install into it and compile what a first start imports."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("what", help="runtime, all, or extras with commas between them")
    parser.add_argument("--venv", type=Path, default=ROOT / ".venv", help="folder of the environment (default: .venv)")
    parser.add_argument("--no-hashes", action="store_true", help="install by version alone, without digests")
    arguments = parser.parse_args()
    if sys.version_info < (3, 11):  # noqa: UP036, an older Python starts this file too
        sys.exit(
            f"Palate needs Python 3.11 or newer, this is {platform.python_version()}: set PYTHON=/path/to/python3.11"
        )
    folder: Path = arguments.venv
    python = folder / ("Scripts/python.exe" if os.name == "nt" else "bin/python")
    if not python.exists():
        say(f"environment {folder} for Python {platform.python_version()}")
        subprocess.run([sys.executable, "-m", "venv", str(folder)], check=True)
    gpu = shutil.which("nvidia-smi") or Path("/dev/nvidiactl").exists()
    if platform.system() == "Linux" and not gpu and not version(python, "torch"):
        say("PyTorch for the CPU: there is no GPU here")
        # Without its requirements: they come from the plain index with the rest.
        pip(python, "--no-deps", *cpu_build(), needed=False)
    import tomllib  # here: an older Python is told its version instead

    about = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    optional = about["project"]["optional-dependencies"]
    what = {"runtime": [], "all": [one for one in optional if one not in SERVICES]}.get(
        arguments.what, arguments.what.split(",")
    )
    if unknown := set(what) - set(optional):
        sys.exit(f"no extra {', '.join(sorted(unknown))}: the extras are {', '.join(optional)}")
    if pinless := set(what) & set(SERVICES):
        sys.exit(f"{', '.join(sorted(pinless))} has no pinned versions here: pip install 'palate[{pinless.pop()}]'")
    needs = about["build-system"]["requires"] + about["project"]["dependencies"]
    needs += [one for extra in what for one in optional[extra]]
    say(
        "Palate and its libraries"
        + (", with every extra and the tools of development" if arguments.what == "all" else "")
    )
    with tempfile.TemporaryDirectory() as temporary:
        path = Path(temporary) / "requirements.txt"
        # PyTorch's CPU build needs no CUDA, of which the list has several GB.
        path.write_text(with_hashes(needs, cuda="+cpu" not in version(python, "torch")), encoding="utf-8")
        hashed = not arguments.no_hashes and pip(python, "--require-hashes", "-r", str(path), needed=False)
    if not hashed:
        say("  versions are held by constraints.txt alone, without digests")
    # A folder such as Palate's own has no digest; by now it needs nothing else.
    pip(
        python,
        *(("--no-deps", "--no-build-isolation") if hashed else ()),
        "-e",
        f"{ROOT}[{','.join(what)}]" if what else str(ROOT),
    )
    remove_test_programs(folder)
    say("compiling what a first start imports")
    compile_imported(python)
    size = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file() and not path.is_symlink())
    say(f"done: {size / 1e9:.2f} GB in {folder.name}")


def cpu_build() -> list[str]:
    """What pip has to install for PyTorch's CPU build: from its index, or from the one that pip is set to."""
    (pinned,) = re.findall(r"^torch==\S+", (ROOT / "constraints.txt").read_text(encoding="utf-8"), re.M)
    try:
        with urllib.request.urlopen(f"{CPU_BUILDS}/torch/", timeout=5):
            return ["--index-url", CPU_BUILDS, pinned]
    except (urllib.error.URLError, TimeoutError, OSError):
        say("the index of PyTorch's CPU builds does not answer: looking in the index that pip is set to")
        return [f"{pinned}+cpu"]


def with_hashes(needs: list[str], cuda: bool) -> str:
    """The lines of hashes.txt for these requirements and all that they need, by its notes on what is there via what."""
    text = (ROOT / "scripts/hashes.txt").read_text(encoding="utf-8")
    blocks = re.findall(r"^(([\w.-]+)==.*(?:\n +--hash.*)+)\n +# via (.*)", text, re.M)
    found, more = set[str](), {re.split(r"[^\w.-]", one)[0].lower() for one in needs}
    while more:
        found |= more
        more = {name for _, name, via in blocks if name not in found and not found.isdisjoint(via.split(", "))}
        more = {name for name in more if cuda or not name.startswith(("nvidia-", "cuda-", "triton"))}
    return "\n".join(block for block, name, _ in blocks if name in found)


def version(python: Path, name: str) -> str:
    """The version of a package in the environment if it is the one of the constraints, else ""."""
    code = f"from importlib.metadata import version; print(version({name!r}))"
    found = subprocess.run([python, "-c", code], capture_output=True, text=True, check=False).stdout.strip()
    held = (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    return found if f"{name}=={found.partition('+')[0]}" in held else ""


def pip(python: Path, *arguments: str, needed: bool = True) -> bool:
    """Whether pip could install; of its lines, those about large downloads, installation and errors are shown."""
    command = [str(python), "-m", "pip", "install", "--disable-pip-version-check", "--no-compile"]
    command += ["-c", str(ROOT / "constraints.txt"), *arguments]
    lines: list[str] = []
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, encoding="utf-8", errors="replace"
    ) as process:
        for line in process.stdout or ():
            lines.append(line)
            if re.match(r"\s*(Downloading .+ MB|Processing .+\.whl|ERROR)", line):
                say(f"  {line.strip()[:120]}")
            elif line.startswith("Installing collected packages"):
                say(f"  installing {line.count(',') + 1} packages")
    if process.returncode and any("DO NOT MATCH THE HASHES" in line for line in lines):
        sys.exit(
            f"{''.join(lines[-20:])}\na file differs from its digest in scripts/hashes.txt: it was damaged or changed "
            "on its way. If your index builds its own files, add --no-hashes"
        )
    if process.returncode and needed:
        sys.exit(f"{''.join(lines[-20:])}\npip could not install what Palate needs: read its last lines above")
    return process.returncode == 0


def remove_test_programs(folder: Path) -> None:
    """Remove the C++ test programs that PyTorch's packages carry, 130 MB that nothing uses."""
    for torch in [*folder.glob("lib/python*/site-packages/torch"), *folder.glob("Lib/site-packages/torch")]:
        shutil.rmtree(torch / "test", ignore_errors=True)
        for path in torch.glob("bin/*"):
            if path.is_file() and path.name != "torch_shm_manager":  # processes that share tensors start this one
                path.unlink()


def compile_imported(python: Path) -> None:
    """Import Palate's modules once: pip's own compilation takes twice as long, for modules that nobody imports."""
    code = (
        "import contextlib, importlib, pkgutil, palate\n"
        "for module in pkgutil.walk_packages(palate.__path__, 'palate.', onerror=lambda name: None):\n"
        "    with contextlib.suppress(Exception):\n"
        "        if '__main__' not in module.name: importlib.import_module(module.name)\n"
        "import pytorch_lightning"
    )
    # Containers often forbid the files of compiled modules; without them each start would compile anew.
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    subprocess.run([python, "-W", "ignore", "-c", code], env=environment, check=False)


def say(line: str) -> None:
    """Print a line with the seconds since the start."""
    print(f"[{time.monotonic() - STARTED:5.0f} s] {line}", flush=True)


if __name__ == "__main__":
    main()
