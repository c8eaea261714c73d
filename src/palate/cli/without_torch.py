"""Lists of trained users from a bundle by NumPy alone: importing torch takes longer than all the rest of the command.

The files of the bundle are checked as ``Bundle.load`` checks them, except for the shapes of tensors that are not read.
All that is less plain, and every doubt about the bundle, is left to ``Bundle.load``, whose errors name the reason.

Shape legend: I items, U users, D width of a user vector, H events of one user.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from palate.errors import PalateError

if TYPE_CHECKING:
    import numpy as np
    import polars as pl
    from numpy.typing import NDArray

    from palate.data.dataset import History

# Recipes whose models score trained users by p_u . q_i with stored vectors (``DotProductModel``).
DOT_PRODUCT = ("ials", "feature-ials", "wals", "bpr", "logistic-mf", "mf", "svdpp", "bmf")
OF_RATINGS = ("mf", "svdpp", "bmf")  # of them, those that learn from every rating, not from positive events only
MOST_USERS = 100  # more are answered sooner by matrix products, which torch makes in chunks


def lists(bundle: Path, users: list[str], k: int, *, exclude_seen: bool = True) -> pl.DataFrame | None:
    """The k best items of each user, with the columns of ``Recommender.recommend``; None where that has to answer.

    Answered here are users with training rows, from bundles of ``DOT_PRODUCT``, ``ease`` and ``edlae`` without an index
    and without exploration.

    Args:
        bundle: folder of the bundle.
        users: ids; one given twice is answered once.
        k: list length.
        exclude_seen: leave out the items of each user's training rows. Default: True.
    """
    import numpy as np
    import polars as pl
    from safetensors import SafetensorError
    from safetensors.numpy import load_file

    from palate.bundle import PARTS, Bundle, history_of
    from palate.bundle_checks import check_manifest, check_tables, read_table
    from palate.data.ids import IdMap
    from palate.storage import verify_file

    if k < 1 or len(users) > MOST_USERS:
        return None
    try:
        manifest = Bundle.info(bundle)
        check_manifest(manifest)
        if (
            manifest["recipe"]["name"] not in (*DOT_PRODUCT, "ease", "edlae")
            or manifest["index"] is not None
            or manifest["cold"].get("explore")
        ):
            return None
        files = {part: verify_file(bundle, manifest["files"][part]) for part in PARTS}
        user_table, item_table, seen = (read_table(files[part]) for part in ("users", "items", "seen"))
        check_tables(user_table, item_table, seen, manifest["sizes"])
        state = load_file(files["weights"])
        history = history_of(user_table, seen, manifest)
    except (PalateError, SafetensorError, KeyError, TypeError, OSError):
        return None
    asked = pl.Series("user_id", users).unique(maintain_order=True)
    # Items without training rows are ranked by their features and have a source of their own.
    by_features = manifest["recipe"]["name"] == "feature-ials" and (item_table["popularity"] == 0).any()
    if by_features or not all(np.isfinite(tensor).all() for tensor in state.values()):
        return None
    parts: list[pl.DataFrame] = []
    for user in IdMap(user_table["id"]).rows(asked).tolist():
        score_I = None if user < 0 else _scores(manifest["recipe"], state, history.select(np.array([user])), user)
        if score_I is None or len(score_I) != len(item_table):
            return None
        if exclude_seen:
            score_I[history.of(user)] = -np.inf
        bound = np.partition(score_I, -k)[-k] if k < len(score_I) else -np.inf
        item_C = np.flatnonzero((score_I >= bound) & (score_I > -np.inf))
        # Items ascend where scores are equal, so a stable sort keeps the tie rule of ``palate.top_k``.
        item_K = item_C[(-score_I[item_C]).argsort(kind="stable")[:k]]
        columns = {
            "user_id": pl.repeat(asked[len(parts)], len(item_K), eager=True),
            "item_id": item_table["id"].gather(item_K),
            "rank": np.arange(1, len(item_K) + 1, dtype=np.int32),
            "score": score_I[item_K],
            "source": pl.repeat("model", len(item_K), eager=True),
        }
        titles = {"title": item_table["title"].gather(item_K)} if "title" in item_table.columns else {}
        parts.append(pl.DataFrame(columns | titles))
    return pl.concat(parts)


def _scores(
    recipe: Mapping[str, Any], state: Mapping[str, NDArray[Any]], history: History, user: int
) -> NDArray[np.float32] | None:
    """Scores (I,) of a user by the equations of the model; None without a personal score, or for unexpected tensors."""
    import numpy as np

    name, fields = recipe["name"], recipe["fields"]
    if name in DOT_PRODUCT:
        user_UD, item_IE, trained_U = (
            state.get(part, np.zeros(0)) for part in ("user_table.weight", "item_table.weight", "trained")
        )
        if user_UD.dtype != np.float32 or item_IE.dtype != np.float32 or trained_U.dtype != np.bool_:
            return None
        learned = history if name in OF_RATINGS or fields.get("bias") else history.positives()
        if not len(learned.items) or not trained_U[user]:
            return None
        dim = user_UD.shape[1]
        score_I: NDArray[np.float32] = item_IE[:, :dim] @ user_UD[user]
        return score_I + item_IE[:, dim] if item_IE.shape[1] > dim else score_I  # the last column is a bias
    weights_II, events = state.get("weights"), history.positives(dislikes=True)
    if weights_II is None or weights_II.dtype != np.float32 or fields.get("half_life_events"):
        return None
    if name == "edlae":
        item_H = np.unique(events.items[events.weights >= 0])
        sign_H, personal = np.ones(len(item_H), np.float32), len(item_H) > 0
    else:  # of several events with one item the latest counts, and a dislike is subtracted
        _, from_end = np.unique(events.items[::-1], return_index=True)
        latest_H = np.sort(len(events.items) - 1 - from_end)
        item_H, sign_H = events.items[latest_H], np.where(events.weights[latest_H] < 0, np.float32(-1), np.float32(1))
        personal = bool((state["popularity"][item_H] > 0).any())
    score_I = np.zeros(len(weights_II), np.float32)
    for item, sign in zip(item_H.tolist(), sign_H, strict=True):  # in this order, so that sums round as in torch
        score_I += sign * weights_II[item]
    return score_I if personal else None
