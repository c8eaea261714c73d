"""`palate prepare` and commands on its store."""

from __future__ import annotations

from terminal import board, mistake, palate


def test_commands_take_a_store_where_they_take_a_file(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    lines = board().splitlines()
    (tmp_path / "a.csv").write_text("\n".join(lines[:100]) + "\n")
    (tmp_path / "b.csv").write_text("\n".join([lines[0], *lines[100:]]) + "\n")
    made = palate("prepare", "a.csv", "b.csv", "--out", "store", "--json").ok().json
    assert made["fingerprint"]["rows"] == len(lines) - 1
    assert made["statistics"]["rows_per_user"]["median"] == 12
    palate("train", "item-knn", "store", "--out", "from-store", "--json").ok()
    ways = (("store",), ("a.csv", "--more", "b.csv"))
    found = [palate("train", "popularity", *way, "--out", "other", "--json").ok().json for way in ways]
    for made in found:  # the names of the data differ, and the seconds
        made["reports"] = [
            {name: one[name] for name in ("protocol", "users", "fingerprints")} for one in made["reports"]
        ]
    assert found[0]["reports"] == found[1]["reports"]
    assert palate("check", "store", "--split", "leave-one-out").code == 0
    assert palate("recommend", "from-store", "u3").ok().out
    assert "cannot change them" in mistake(palate("train", "popularity", "store", "--rating", "x"))
    assert "named data set" in mistake(palate("prepare", "ml-100k", "--out", "other"))
