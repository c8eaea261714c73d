"""Saving what a command has fitted: what hours have made must not be lost for want of space."""

from __future__ import annotations

import shlex
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING

from palate.errors import BundleError

if TYPE_CHECKING:
    from palate.bundle import Bundle


def save(bundle: Bundle, out: Path) -> None:
    """Save a bundle to ``out``; where that fails, to the cache folder.

    Raises:
        BundleError: it could not be saved to ``out``; the message names the copy, if there is one.
    """
    from palate.datasets.download import cache_folder

    try:
        bundle.save(out)
    except BundleError as error:
        kept = cache_folder() / "rescued" / f"{out.resolve().name}-{datetime.now():%Y%m%d-%H%M%S-%f}"
        try:
            bundle.save(kept)
        except BundleError:
            raise error from None
        command = shlex.join(["cp", "-r", f"{kept}/.", str(out)])
        raise BundleError(f"{error}; the bundle was saved to another folder instead: {command}") from None
