"""The user's mistakes: exit code 2 and one readable line, never a traceback."""

from __future__ import annotations

import os

import pytest
from terminal import board, mistake, palate, start

FILES = {
    "clicks.csv": board(size=12),
    "empty.csv": "",
    "header.csv": "user,item\n",
    "one_user.csv": "user,item\n" + "".join(f"ann,i{n}\n" for n in range(9)),
    "one_item.csv": "user,item\n" + "".join(f"u{n},tea\n" for n in range(9)),
    "nan.csv": "user,item,rating\nann,tea,5\nann,milk,nan\nbob,tea,3\n",
    "time.csv": "user,item,time\nann,tea,2020-01-31\nann,milk,soon\nbob,tea,2020-02-01\n",
    "one_byte.csv": "u",
    "latin.csv": "user,item\nann,caf\xe9\nbob,tea\n",
    "bad.toml": "= 3\n",
    "wrong.toml": "epoch = 3\n",
}
TRAIN = "train gmf clicks.csv"
MISTAKES = {
    "serve": "Missing argument 'bundles': palate serve --help has an example",
    "bundle sign": "palate bundle sign --help has an example",
    "quickstart nothing.csv": "nothing.csv: no such file, saved split or named data set",
    "quickstart ml100k": "did you mean ml-100k?",
    "data info movielens1m": "did you mean 'ml-1m'",
    "data fetch nothing-like-it": "Known are ml-100k",
    "quickstart clicks.csv --user nobody": "no column 'nobody' for the user",
    "quickstart clicks.csv --user usr": "did you mean 'user'",
    "quickstart empty.csv": "the file is empty",
    "quickstart header.csv": "no rows",
    "quickstart one_user.csv": "only the value 'ann'",
    "quickstart one_item.csv": "only the value 'tea'",
    "quickstart nan.csv": "row 2 (line 3): nan",
    "quickstart time.csv": "'soon'",
    "quickstart latin.csv": "latin-1",
    "train ease clicks.csv --device tpu": "'--device': 'tpu' is not one of 'auto', 'cpu', 'cuda'",
    "quickstart clicks.csv -k 0": "greater than or equal to 1",
    "quickstart": "no DATA: name a file",
    "quickstart clicks.csv --nope": "No such option: --nope",
    "quikstart clicks.csv": "No such command 'quikstart'",
    "train gfm clicks.csv": "unknown recipe 'gfm': did you mean gmf?",
    "train gmf clicks.csv extra": "expected [RECIPE] DATA, got 3 words",
    "train clicks.csv --set epochs=3": "no recipe was named",
    f"{TRAIN} --set epochs": "write it like --set epochs=5",
    f"{TRAIN} --set epochs=many": "field epochs='many'",
    f"{TRAIN} --set epoch=3": "no field 'epoch'",
    "train gmf no-such-file.csv --set learning_rate=1e300": "learning_rate=1e+300: must be at most",
    **({"train gmf pipe.csv": "pipe.csv is a pipe"} if hasattr(os, "mkfifo") else {}),
    "train gmf clicks.csv --encoding zlib": "encoding='zlib' is unknown",
    "train gmf one_byte.csv": "no column looks like the user",
    f"{TRAIN} --set dim=[1]": "field dim=[1]",
    f"{TRAIN} --set learning_rate=-1": "learning_rate=-1: must be above 0",
    f"{TRAIN} --config none.toml": "none.toml cannot be read",
    f"{TRAIN} --config bad.toml": "bad.toml cannot be read as TOML",
    f"{TRAIN} --config wrong.toml": "no field 'epoch'",
    f"{TRAIN} --split sideways": "--split 'sideways' is not a split",
    f"{TRAIN} --split random --test-size 2": "test_size=2.0",
    f"{TRAIN} --negatives 500": "fewer than 500 unseen items",
    f"{TRAIN} --seed -1": "--seed",
    f"{TRAIN} --device toaster": "toaster",
    f"{TRAIN} --precision 12": "--precision",
    f"{TRAIN} --logger csv": "needs a folder",
    f"{TRAIN} --folder clicks.csv": "clicks.csv: check the path",
    f"{TRAIN} --patience 0": "--patience",
    f"{TRAIN} --items none.csv": "none.csv does not exist",
    f"{TRAIN} --out clicks.csv --set epochs=0": "is a file",
    f"{TRAIN} --save-split clicks.csv --set epochs=0": "is not a split",
    "recommend nowhere u1": "bundle nowhere does not exist",
    "recommend clicks.csv u1": "bundle clicks.csv is a file",
    "recommend . u1": "is not a palate bundle",
    "evaluate nowhere clicks.csv": "bundle nowhere does not exist",
    "similar nowhere i1": "bundle nowhere does not exist",
    "reproduce Z": "unknown system 'Z': there are",
    "reproduce B --json nowhere/rows.json": "there is no folder nowhere",
    "reproduce B --role worst": "--role worst: choose from trivial, faithful, best",
    "reproduce B E --workers 2 --threads 2": "have a thread each",
}
WITH_A_BUNDLE = {
    "recommend b": "no users given",
    "recommend b u1 -k 0": "greater than or equal to 1",
    "recommend b u1 u2 --history i1": "--history belongs to one user, 2 were given",
    "recommend b --all": "give --out",
    "recommend b --all --out lists.csv": "give --out lists.parquet",
    "recommend b --all --out nowhere/lists.parquet": "cannot write nowhere/lists.parquet",
    "recommend b u1 --out nowhere/lists.csv": "cannot write nowhere/lists.csv",
    "similar b i99": "unknown item 'i99'",
    "evaluate b clicks.csv": "--allow-trained-rows",
    "evaluate b nothing.csv": "nothing.csv: no such file",
    "evaluate b clicks.csv --split sideways": "is not a split",
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    made = tmp_path_factory.mktemp("mistakes")
    for name, text in FILES.items():
        (made / name).write_text(text, encoding="latin-1")
    if hasattr(os, "mkfifo"):
        os.mkfifo(made / "pipe.csv")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(made)
        palate("train", "gmf", "clicks.csv", "--split", "none", "--set", "epochs=1", "--out", "b").ok()
    return made


@pytest.mark.parametrize(("line", "said"), [*MISTAKES.items(), *WITH_A_BUNDLE.items()])
def test_a_mistake_ends_with_one_readable_line(line, said, folder, monkeypatch):
    monkeypatch.chdir(folder)
    assert said in mistake(palate(*line.split()))


def test_a_bundle_that_was_tampered_with_is_refused(folder, monkeypatch, tmp_path):
    monkeypatch.chdir(folder)
    palate("train", "popularity", "clicks.csv", "--split", "none", "--out", tmp_path / "b").ok()
    weights = next((tmp_path / "b").glob("weights-*"))
    data = bytearray(weights.read_bytes())
    data[-1] ^= 1
    weights.write_bytes(data)
    assert "checksum differs" in mistake(palate("recommend", tmp_path / "b", "u1"))


def test_a_real_process_ends_with_code_2_and_one_line(folder):
    process = start("quickstart", "nan.csv", folder=folder)
    out, err = process.communicate(timeout=120)
    assert (process.returncode, out) == (2, "")
    assert err.count("\n") == 1
    assert err.startswith("error: nan.csv: a NaN or infinite rating in column 'rating' in 1 row: row 2 (line 3): nan")
