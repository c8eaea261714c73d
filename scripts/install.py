"""Install Palate and its libraries into .venv, in the versions of constraints.txt; `make demo` and `make test` call it.

    python scripts/install.py runtime     the library and its command line: enough for `make demo`
    python scripts/install.py serve,rank  the same with these extras
    python scripts/install.py all         every extra and the tools of development: what `make test` needs

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
import time
import urllib.error
import urllib.request
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
# The one place that names the index of PyTorch's CPU builds. Where it cannot be reached, the plain index is used.
CPU_BUILDS = "https://download.pytorch.org/whl/cpu"
STARTED = time.monotonic()


def main() -> None:
    """Make the virtual environment if need be, install into it and compile what a first start imports."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("what", help="runtime, all, or extras with commas between them")
    parser.add_argument("--venv", type=Path, default=ROOT / ".venv", help="folder of the environment (default: .venv)")
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
    if wants_cpu_build() and not installed(python, "torch"):
        say("PyTorch for the CPU: there is no GPU here")
        # Without its requirements: they come from the plain index with the rest.
        pip(python, "--index-url", CPU_BUILDS, "--no-deps", "torch", needed=False)
    extras = {"runtime": "", "all": f"[{every_extra()}]"}.get(arguments.what, f"[{arguments.what}]")
    say(
        "Palate and its libraries"
        + (", with every extra and the tools of development" if arguments.what == "all" else "")
    )
    pip(python, "-e", f"{ROOT}{extras}")
    remove_test_programs(folder)
    say("compiling what a first start imports")
    compile_imported(python)
    size = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file() and not path.is_symlink())
    say(f"done: {size / 1e9:.2f} GB in {folder.name}")


def every_extra() -> str:
    """The names of all extras, with commas between them."""
    import tomllib  # here: an older Python is told its version instead

    return ",".join(tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"])


def wants_cpu_build() -> bool:
    """Linux without a GPU, where the plain index would bring several GB of CUDA libraries, and the index answers."""
    gpu = shutil.which("nvidia-smi") or Path("/dev/nvidiactl").exists()
    if platform.system() != "Linux" or gpu:
        return False
    try:
        with urllib.request.urlopen(f"{CPU_BUILDS}/torch/", timeout=5):
            return True
    except (urllib.error.URLError, TimeoutError, OSError):
        say("the index of PyTorch's CPU builds does not answer: PyTorch comes from the index that pip is set to")
        return False


def installed(python: Path, name: str) -> bool:
    """Whether the environment has a package of this name, in the version that the constraints hold."""
    pinned = next(line for line in (ROOT / "constraints.txt").read_text().splitlines() if line.startswith(f"{name}=="))
    version = pinned.partition("==")[2].split()[0]
    code = f"from importlib.metadata import version; print(version({name!r}))"
    found = subprocess.run([python, "-c", code], capture_output=True, text=True, check=False).stdout.strip()
    return found.partition("+")[0] == version


def pip(python: Path, *arguments: str, needed: bool = True) -> None:
    """Run pip; of its lines, those about large downloads, installation and errors are shown."""
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
    if process.returncode:
        if not needed:
            say("  not installed from there: it comes with the rest")
            return
        sys.exit(f"{''.join(lines[-20:])}\npip could not install what Palate needs: read its last lines above")


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
