"""Tracked runs as MLflow and Weights & Biases have stored them, offline; skipped where their library is not installed.

pip install 'palate[mlflow,wandb]'
"""

from __future__ import annotations

import json
import struct
import sys
from pathlib import Path
from typing import Any

import pytest

from boards import make_checkerboard
from palate.base import TrainOptions
from palate.data.frame import to_frame
from palate.errors import PalateError, RecipeError
from palate.experiment.tracking import by_epoch, tracked
from palate.models import GMF
from palate.progress import ProgressEvent

# Of the libraries of the services, in whichever version is installed.
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::ResourceWarning")
CLI = Path(__file__).parents[1] / "cli"
FIT = ("train", "gmf", "clicks.csv", "--split", "leave-one-out", "--set", "epochs=3", "--set", "dim=4", "--patience", 2)


@pytest.fixture(autouse=True)
def _here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(CLI))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    to_frame(make_checkerboard(12).train).select("user_id", "item_id", "timestamp").write_csv("clicks.csv")


def run(*words: object) -> Any:
    from terminal import palate

    return palate(*words)


def mlflow_runs() -> dict[str, Any]:
    pytest.importorskip("mlflow", reason="pip install 'palate[mlflow]'")
    import mlflow

    client = mlflow.MlflowClient()
    experiment = client.get_experiment_by_name("palate")
    assert experiment is not None
    return {one.info.run_name: one for one in client.search_runs([experiment.experiment_id])}


def wandb_runs() -> dict[str, dict[str, Any]]:
    """Parameters, epochs, summary, files and exit code of each offline run, by its name."""
    from wandb.proto.wandb_internal_pb2 import Record

    found = {}
    for path in Path("wandb").glob("offline-run-*/*.wandb"):
        data, place, part = path.read_bytes(), 7, b""
        one: dict[str, Any] = {"config": {}, "epochs": [], "summary": {}, "files": [], "exit": None}
        # The format of LevelDB's log: blocks of 32 KB, a record in one piece or several.
        while place + 7 <= len(data):
            if 32_768 - place % 32_768 < 7:
                place += 32_768 - place % 32_768
                continue
            _, length, kind = struct.unpack("<IHB", data[place : place + 7])
            part, place = part + data[place + 7 : place + 7 + length], place + 7 + length
            if kind not in {1, 4}:
                continue
            record, part = Record.FromString(part), b""
            name = record.WhichOneof("record_type")
            if name == "run":
                one |= {"name": record.run.display_name, "group": record.run.run_group, "project": record.run.project}
            elif name == "config":
                one["config"] |= {item.key: json.loads(item.value_json) for item in record.config.update}
            elif name == "history":
                values = {"/".join(item.nested_key): json.loads(item.value_json) for item in record.history.item}
                one["epochs"].append(values)
            elif name == "summary":
                one["summary"] |= {item.key: json.loads(item.value_json) for item in record.summary.update if item.key}
            elif name == "artifact":
                one["files"] += [entry.path for entry in record.artifact.manifest.contents]
            elif name == "exit":
                one["exit"] = record.exit.exit_code
        found[one["name"]] = one
    return found


def test_train_writes_parameters_epochs_figures_and_the_manifest_to_mlflow() -> None:
    pytest.importorskip("mlflow", reason="pip install 'palate[mlflow]'")
    import mlflow

    result = run(*FIT, "--track", "mlflow", "--json").ok()
    (made,) = mlflow_runs().values()
    assert made.info.run_name == "gmf on clicks"
    assert made.info.status == "FINISHED"
    assert made.data.params["dim"] == "4"
    assert made.data.params["users"] == "12"
    report = result.json["reports"][0]
    expected = {f"full/{one['metric']}_at_{one['k']}": one["value"] for one in report["measures"]}
    assert {name: made.data.metrics[name] for name in expected} == pytest.approx(expected)
    client = mlflow.MlflowClient()
    first, second = (client.get_metric_history(made.info.run_id, name) for name in ("loss", "fit_2/loss"))
    assert [one.step for one in first] == [1, 2, 3]
    assert [one.step for one in second] == list(range(1, len(second) + 1))
    assert len(client.get_metric_history(made.info.run_id, "validation")) == 3
    kept = client.download_artifacts(made.info.run_id, "manifest.json")
    assert Path(kept).read_bytes() == Path("bundles/trained/manifest.json").read_bytes()


def test_compare_writes_a_run_for_each_model_inside_one_with_the_report_to_mlflow() -> None:
    pytest.importorskip("mlflow", reason="pip install 'palate[mlflow]'")
    import mlflow

    words = ("compare", "clicks.csv", "--recipes", "ease,popularity", "--no-baselines", "--negatives", 2)
    document = run(*words, "--resamples", 50, "--track", "mlflow", "--json").ok().json
    runs = mlflow_runs()
    assert set(runs) == {"compare-clicks", "ease", "popularity"}
    whole = runs["compare-clicks"]
    assert {runs[name].data.tags["mlflow.parentRunId"] for name in ("ease", "popularity")} == {whole.info.run_id}
    assert {path.path for path in mlflow.MlflowClient().list_artifacts(whole.info.run_id)} >= {"comparison.json"}
    for one in document["models"]:
        values = runs[one["name"]].data.metrics
        for ranking in ("full", "sampled"):
            for measure in one[ranking]["measures"]:
                assert values[f"{ranking}/{measure['metric']}_at_{measure['k']}"] == pytest.approx(measure["value"])
    assert float(runs["ease"].data.params["regularization"]) > 0


def test_windows_are_written_with_a_figure_for_each() -> None:
    pytest.importorskip("mlflow", reason="pip install 'palate[mlflow]'")
    words = ("compare", "clicks.csv", "--recipes", "ease", "--no-baselines", "--folds", 2, "--negatives", 0)
    document = run(*words, "--resamples", 50, "--track", "mlflow", "--json").ok().json
    (model,) = document["models"]
    values = mlflow_runs()["ease"].data.metrics
    assert [values[f"full/NDCG_at_10/fold_{n}"] for n in (1, 2)] == pytest.approx(model["full"]["by_fold"])


def test_train_and_compare_write_offline_runs_of_weights_and_biases() -> None:
    pytest.importorskip("wandb", reason="pip install 'palate[wandb]'")
    result = run(*FIT, "--track", "wandb", "--json").ok()
    run("compare", "clicks.csv", "--recipes", "gmf,ease", "--no-baselines", "--negatives", 0, "--resamples", 50,
        "--no-report", "--track", "wandb").ok()  # fmt: skip
    runs = wandb_runs()
    fit = runs["gmf on clicks"]
    assert fit["project"] == "palate"
    assert fit["config"]["dim"] == 4
    assert fit["files"] == ["manifest.json"]
    assert [one["epoch"] for one in fit["epochs"] if "loss" in one] == [1, 2, 3]
    assert [one["epoch"] for one in fit["epochs"] if "fit_2/loss" in one]
    for one in result.json["reports"][0]["measures"]:
        assert fit["summary"][f"full/{one['metric']}_at_{one['k']}"] == pytest.approx(one["value"])
    assert {name for name, one in runs.items() if one["group"] == "compare-clicks"} == {"compare-clicks", "gmf", "ease"}
    assert len([one for one in runs["gmf"]["epochs"] if "loss" in one]) == GMF.fast().epochs
    assert {one["exit"] for one in runs.values()} == {0}


def test_a_run_that_fails_is_marked_and_the_error_stays_what_it_is() -> None:
    pytest.importorskip("mlflow", reason="pip install 'palate[mlflow]'")
    with pytest.raises(RecipeError, match="my own"), tracked("mlflow", "broken"):
        raise RecipeError("my own")
    assert mlflow_runs()["broken"].info.status == "FAILED"


def test_a_service_that_refuses_is_told_with_a_remedy(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("mlflow", reason="pip install 'palate[mlflow]'")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "nonsense://nowhere")
    with pytest.raises(PalateError, match=r"MLflow refused a run .*check MLFLOW_TRACKING_URI"), tracked("mlflow", "x"):
        pass


@pytest.mark.parametrize("service", ["mlflow", "wandb"])
def test_loggers_of_the_services_write_into_the_folder(service: str, tmp_path: Path) -> None:
    pytest.importorskip(service, reason=f"pip install 'palate[{service}]'")
    options = TrainOptions(folder=tmp_path / "run", logger=service)  # type: ignore[arg-type]
    GMF(dim=4, epochs=2, batch_size=256).fit(make_checkerboard(12).train, options)
    if service == "wandb":
        import wandb

        wandb.finish()
        assert list((tmp_path / "run").glob("wandb/offline-run-*/*.wandb"))
        return
    import mlflow

    client = mlflow.MlflowClient(f"sqlite:///{tmp_path}/run/log/mlflow.db")
    experiment = client.get_experiment_by_name("palate")
    assert experiment is not None
    (made,) = client.search_runs([experiment.experiment_id])
    assert len(client.get_metric_history(made.info.run_id, "train_loss")) == 2


@pytest.mark.parametrize("service", ["mlflow", "wandb"])
@pytest.mark.parametrize("command", ["train", "compare"])
def test_a_service_that_is_not_installed_is_told_before_the_data_are_read(
    command: str, service: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, service, None)
    result = run(command, "missing.csv", "--track", service)
    assert result.code == 2
    assert f"pip install 'palate[{service}]'" in result.err


def test_a_second_fit_and_members_have_names_of_their_own() -> None:
    logged: list[tuple[int, dict[str, float]]] = []

    class Kept:
        def epoch(self, number: int, values: dict[str, float]) -> None:
            logged.append((number, dict(values)))

    heard: list[ProgressEvent] = []
    listen = by_epoch(Kept(), "neumf", heard.append)  # type: ignore[arg-type]
    for stage, done in (("train neumf", 1), ("train neumf", 2), ("train gmf", 1), ("train neumf", 1)):
        listen(ProgressEvent(stage, done, values={"loss": 0.5}))
    listen(ProgressEvent("train neumf", message="no figures"))
    names = [(number, *values) for number, values in logged]
    assert names == [(1, "loss"), (2, "loss"), (1, "gmf/loss"), (1, "fit_2/loss")]
    assert len(heard) == 5
