"""Check of LightGBM's text before LightGBM reads it: its parser trusts each number, and its trees may have no cycle.

    tree, version, ...          header, with the bytes of each tree in ``tree_sizes``
    Tree=0, num_leaves, ...     n leaves and n - 1 splits; a child >= 0 is a split, a child < 0 the leaf -child - 1
    end of trees                what follows is not read

Only trees as the ranker grows them are accepted: one class, splits of numbers, constant leaves.
"""

from __future__ import annotations

import re

import numpy as np
from numpy.typing import NDArray

NUMBER = r"-?(?:\d+(?:\.\d+)?(?:e[-+]?\d+)?|inf)"
HEADER = re.compile(
    r"tree\nversion=v[34]\nnum_class=1\nnum_tree_per_iteration=1\nlabel_index=0\nmax_feature_idx=(?P<last>\d{1,6})\n"
    r"objective=(?:lambdarank|binary sigmoid:1)\nfeature_names=(?P<names>[^\n]*)\nfeature_infos=(?P<infos>[^\n]*)\n"
    r"tree_sizes=(?P<sizes>(?:\d{1,9})?(?: \d{1,9})*)\n\n"
)
INFO = re.compile(rf"none|\[{NUMBER}:{NUMBER}\]")
SPLITS = ("split_feature", "split_gain", "threshold", "decision_type", "left_child", "right_child")
LEAVES = ("leaf_value", "leaf_weight", "leaf_count")
INNER = ("internal_value", "internal_weight", "internal_count")
KEYS = ("Tree", "num_leaves", "num_cat", *SPLITS, *LEAVES, *INNER, "is_linear", "shrinkage")
WHOLE = {"split_feature", "decision_type", "left_child", "right_child", "leaf_count", "internal_count"}
END = "end of trees\n"
MOST_LEAVES = 131_072


def checked_trees(text: str) -> str:
    """The part of a text that LightGBM is to read: header and trees.

    Raises:
        ValueError: it is not a text of trees as LightGBM writes it; the message names the place.
    """
    head = HEADER.match(text)
    if head is None:
        raise ValueError("the text of the trees begins in another way than LightGBM's")
    features = int(head["last"]) + 1
    infos = head["infos"].split(" ")
    if len(head["names"].split(" ")) != features or len(infos) != features or not all(map(INFO.fullmatch, infos)):
        raise ValueError(f"the text of the trees does not describe its {features} features")
    place = head.end()
    for number, size in enumerate(map(int, head["sizes"].split())):
        problem = _problem(text[place : place + size], number, features)
        if problem:
            raise ValueError(f"tree {number}: {problem}")
        place += size
    if not text.startswith(END, place):
        raise ValueError("the text of the trees is cut or longer than it says")
    return text[:place] + END


def _problem(block: str, number: int, features: int) -> str:
    """The first thing that is wrong with a tree, or ""."""
    lines = block.removesuffix("\n\n\n").split("\n")
    pairs = dict(line.partition("=")[::2] for line in lines)
    if tuple(pairs) != KEYS or len(lines) != len(KEYS) or not block.endswith("\n\n\n"):
        return "its lines are not those of a tree"
    if (pairs["Tree"], pairs["num_cat"], pairs["is_linear"]) != (str(number), "0", "0"):
        return "it is of another kind than those of the ranker"
    if not re.fullmatch(r"\d{1,6}", pairs["num_leaves"]) or not 1 <= int(pairs["num_leaves"]) <= MOST_LEAVES:
        return f"num_leaves={pairs['num_leaves'][:20]}"
    leaves = int(pairs["num_leaves"])
    values: dict[str, NDArray[np.generic]] = {}
    for name in (*SPLITS, *LEAVES, *INNER, "shrinkage"):
        words = pairs[name].split()
        # A tree that found no split has one leaf, and may leave out the numbers that describe it.
        wanted = 1 if name == "shrinkage" else leaves if name in LEAVES else leaves - 1
        if len(words) != wanted and not (leaves == 1 and not words and name != "leaf_value"):
            return f"{name} has {len(words)} numbers instead of {wanted}"
        try:
            values[name] = np.array(words, dtype="U").astype(np.int64 if name in WHOLE else np.float64)
        except (ValueError, OverflowError):
            return f"{name} holds something else than numbers"
    if not all(np.isfinite(values[name]).all() for name in ("threshold", "leaf_value", "shrinkage")):
        return "it holds values that are not finite"
    splits = leaves - 1
    feature, decision = values["split_feature"], values["decision_type"]
    if splits and (feature.min() < 0 or feature.max() >= features):
        return f"split_feature is outside of 0 to {features - 1}"
    if not np.isin(decision, [0, 2, 4, 6, 8, 10]).all():  # bit 0 is a category; then default side and missing values
        return "decision_type is of another kind than those of the ranker"
    # Each split but the root, and each leaf, is the child of one earlier split: so every path ends in a leaf.
    child = np.concatenate([values["left_child"], values["right_child"]]).astype(np.int64)
    parent = np.tile(np.arange(splits), 2)
    if not np.array_equal(np.sort(child), np.r_[-leaves:0, 1:splits] if splits else child[:0]):
        return "its splits and leaves form no tree"
    if (child[child >= 0] <= parent[child >= 0]).any():
        return "its splits form a circle"
    return ""
