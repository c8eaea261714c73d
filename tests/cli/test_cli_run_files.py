"""Run files of TREC and ranx: read as trec_eval reads them; what they cannot hold is refused."""

from __future__ import annotations

import json

import polars as pl
import pytest
from terminal import board, mistake, palate

from palate.errors import DataError
from palate.evaluation.run_files import read_run, write_run

LISTS = pl.DataFrame(
    {"user_id": ["u1", "u1", "u2"], "item_id": ["a", "b", "a"], "rank": [1, 2, 1], "score": [0.5, 0.1, 3.0]}
)


def test_a_written_run_is_read_back_in_the_order_of_the_ranks(tmp_path):
    write_run(LISTS.sample(fraction=1.0, shuffle=True, seed=1), tmp_path / "lists.trec", "mine")
    assert sorted((tmp_path / "lists.trec").read_text().splitlines()) == [
        "u1 Q0 a 1 1.0 mine",
        "u1 Q0 b 2 0.5 mine",
        "u2 Q0 a 1 1.0 mine",
    ]
    back = read_run(tmp_path / "lists.trec")
    assert back.filter(pl.col("user_id") == "u1")["item_id"].to_list() == ["a", "b"]


def test_trec_eval_gives_the_measures_that_palate_gives(tmp_path):
    pytrec_eval = pytest.importorskip("pytrec_eval", reason="pytrec-eval-terrier is not installed")
    (tmp_path / "rows.csv").write_text(board("user,item"))
    data = [tmp_path / "rows.csv", "--split", "random", "--seed", "1"]
    bundle, split = tmp_path / "ease", tmp_path / "split"
    palate("train", "ease", *data, "--out", bundle, "--save-split", split).ok()
    users = [f"u{number}" for number in range(24)]
    palate("recommend", bundle, *users, "-k", "20", "--out", tmp_path / "lists.trec").ok()
    (report,) = palate("evaluate", split, "--lists", tmp_path / "lists.trec", "-k", "10", "--json").ok().json
    found = {one["metric"]: one["value"] for one in report["measures"]}
    from palate.data.splits.split import Split

    held = Split.load(split)
    names = (
        held.test.users.external(held.test.interactions.user),
        held.test.items.external(held.test.interactions.item),
    )
    qrel = {}
    for user, item in zip(*(column.to_list() for column in names), strict=True):
        qrel.setdefault(user, {})[item] = 1
    run = {}
    for line in (tmp_path / "lists.trec").read_text().splitlines():
        user, _, item, _, score, _ = line.split()
        run.setdefault(user, {})[item] = float(score)
    theirs = pytrec_eval.RelevanceEvaluator(qrel, {"ndcg_cut.10", "recall.10"}).evaluate(run)
    for metric, key in (("NDCG", "ndcg_cut_10"), ("Recall", "recall_10")):
        assert found[metric] == pytest.approx(sum(one[key] for one in theirs.values()) / len(qrel), abs=1e-6)
    ours = palate("evaluate", bundle, split, "-k", "10", "--json").ok().json
    (whole,) = [one for one in ours if "measures" in one]
    assert {one["metric"]: one["value"] for one in whole["measures"]}["NDCG"] == pytest.approx(found["NDCG"])


@pytest.mark.parametrize("ending", [".json", ".parquet"])
def test_files_of_ranx_are_ordered_by_their_scores(ending, tmp_path):
    path = tmp_path / f"run{ending}"
    if ending == ".json":
        path.write_text(json.dumps({"1": {"10": 0.1, "20": 0.7}, "2": {"10": 1}}))
    else:
        pl.DataFrame({"q_id": [1, 1, 2], "doc_id": [10, 20, 10], "score": [0.1, 0.7, 1.0]}).write_parquet(path)
    back = read_run(path)
    assert back.filter(pl.col("user_id") == 1)["item_id"].to_list() == [20, 10]


def test_other_files_are_no_runs_and_damaged_ones_are_refused(tmp_path):
    LISTS.write_parquet(tmp_path / "lists.parquet")
    assert read_run(tmp_path / "lists.parquet") is None
    assert read_run(tmp_path / "lists.csv") is None
    (tmp_path / "bad.json").write_text('{"u1": ["a"]}')
    with pytest.raises(DataError, match="no run of ranx"):
        read_run(tmp_path / "bad.json")
    (tmp_path / "bad.trec").write_text("u1 Q0 a 1 high name\nu1 Q0 b 2 low name\n")
    with pytest.raises(DataError, match="a score is no number"):
        read_run(tmp_path / "bad.trec")
    with pytest.raises(DataError, match="cannot hold the blank in 'u 1'"):
        write_run(LISTS.with_columns(pl.lit("u 1").alias("user_id")), tmp_path / "lists.trec")


def test_a_bundle_and_lists_together_are_refused(tmp_path):
    (tmp_path / "lists.csv").write_text("user_id,item_id\nu1,i1\n")
    assert "give DATA alone" in mistake(palate("evaluate", "bundle", "clicks.csv", "--lists", tmp_path / "lists.csv"))
