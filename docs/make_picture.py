"""Run `palate demo` and draw what it printed as docs/img/demo.svg, without the list of films.

python docs/make_picture.py

The terms of MovieLens do not allow to hand its data on, and the titles belong to them.
"""

from __future__ import annotations

import re
import subprocess
import sys
import tempfile
from pathlib import Path

from rich.console import Console
from rich.text import Text

PICTURE = Path(__file__).parent / "img" / "demo.svg"
DEMO = "from palate.cli import main; main()"


def main() -> None:
    """Run the demo in an empty folder and draw its standard output."""
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-c", DEMO, "demo"]
        done = subprocess.run(command, cwd=folder, stdout=subprocess.PIPE, text=True, check=True)
    draw([line.rstrip() for line in done.stdout.splitlines()])


def draw(lines: list[str]) -> None:
    """Draw the lines but for the table of the list."""
    first = next(place for place, line in enumerate(lines) if line.startswith("Top 10"))
    last = next(place for place, line in enumerate(lines) if place > first and line.startswith("└"))
    lines = [line for place, line in enumerate(lines) if not first <= place <= last]
    with open("/dev/null", "w") as nowhere:
        console = Console(record=True, width=max(map(len, lines)), file=nowhere, force_terminal=True)
        console.print(Text("$ palate demo", style="bold"))
        console.print(Text("\n".join(lines)))
    drawing = console.export_svg(title="palate demo")
    # Rich's font is fetched from the network; any monospace font will do.
    PICTURE.write_text(re.sub(r"@font-face \{.*?\}", "", drawing, flags=re.DOTALL))


if __name__ == "__main__":
    main()
