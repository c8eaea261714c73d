"""Run the notebooks and keep what they print and draw: python examples/notebooks/run.py [NAME.ipynb ...]

One kernel runs them all, emptied between them, since each start costs seconds. Outputs are kept in the files, because
readers see them on the web; what a cell writes to standard error, such as a download, is not. Needs the extra dev.
"""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import nbformat
from jupyter_client.manager import KernelManager
from nbclient import NotebookClient

FOLDER = Path(__file__).resolve().parent


@contextmanager
def kernel() -> Iterator[KernelManager]:
    """A running kernel in an empty folder beside which the example data lie, as they lie beside the notebooks."""
    with tempfile.TemporaryDirectory() as parent:
        (Path(parent) / "data").symlink_to(FOLDER.parent / "data")
        here = Path(parent) / "notebooks"
        here.mkdir()
        manager = KernelManager(kernel_name="python3")
        manager.start_kernel(cwd=str(here))
        try:
            yield manager
        finally:
            manager.shutdown_kernel(now=True)


def run(path: Path, manager: KernelManager) -> nbformat.NotebookNode:
    """The notebook with fresh outputs, without the names of one that ran before.

    Raises:
        nbclient.exceptions.CellExecutionError: a cell raised an exception.
    """
    notebook = nbformat.read(path, as_version=4)
    emptied = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell("%reset -f")])
    for one in (emptied, notebook):
        client = NotebookClient(one, km=manager, timeout=900, startup_timeout=600, record_timing=False)
        client.execute()
        client.kc.stop_channels()
    for number, cell in enumerate([one for one in notebook.cells if one.cell_type == "code"], 1):
        cell.execution_count = number
        cell.outputs = [one for one in cell.outputs if one.get("name") != "stderr"]
        for one in cell.outputs:
            if "execution_count" in one:
                one.execution_count = number
    return notebook


def main() -> None:
    """Run the notebooks that are named, or all, and write them."""
    with kernel() as manager:
        for path in map(Path, sys.argv[1:]) if sys.argv[1:] else sorted(FOLDER.glob("*.ipynb")):
            nbformat.write(run(path, manager), path)
            print(path.name, f"{path.stat().st_size / 1000:.0f} kB", flush=True)


if __name__ == "__main__":
    main()
