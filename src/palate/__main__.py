"""``python -m palate``: the command line, where the script ``palate`` is not on the path."""

from __future__ import annotations

import sys

from palate import signals


def main() -> None:
    """The command line; signals that arrive during its imports end it as well with one line."""
    with signals.stoppable():
        try:
            from palate.cli import main as run
        except signals.Stopped as stop:
            sys.stderr.write(f"{stop}\n")
            sys.exit(stop.code)
    run()


if __name__ == "__main__":
    main()
