"""``python -m palate``: the command line, where the script ``palate`` is not on the path."""

from palate.cli import main

if __name__ == "__main__":
    main()
