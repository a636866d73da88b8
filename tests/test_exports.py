"""Records as runs of a tracker: what each of them reads back is what the record holds."""

from __future__ import annotations

import tomllib
from pathlib import Path

import numpy as np
import pytest

from editbench.base.errors import EditbenchError
from editbench.cli import main
from editbench.report import exports, load
from tests.fake_records import fake_run, metric_rows


@pytest.fixture
def runs(tmp_path):
    root = tmp_path / "runs"
    fake_run(root, "m", "smile", metric_rows(0.75, 0.4), method_config={"step": 0.5})
    fake_run(root, "m", "age", status="skipped", reason="no W")
    return root


def needs(name):
    missing = [one for one in exports.EXPORTERS[name].packages if not exports.is_installed(one)]
    return pytest.mark.skipif(bool(missing), reason=f"without {', '.join(missing)}")


def test_a_run_has_the_numbers_of_its_record(runs):
    skipped, done = exports.exported_runs(load(runs))
    assert done.name == "m-smile-s0-abcdef0123" and done.parameters["method.step"] == "0.5"
    assert done.metrics["accuracy"] == 0.75 and done.metrics["fit_seconds"] == 1.5
    assert done.metrics["accuracy_low"] < 0.75 < done.metrics["accuracy_high"]
    # Eleven points, since the twelfth has a note, which no tracker would show.
    assert [x for x, _ in done.curves["ad"]] == [0.125 + 0.25 * k for k in range(11)]
    assert "ad at 2.875: hidden: 12 points are fewer than 30" in done.about["left_out"]
    assert all(np.isfinite(list(done.metrics.values())))
    assert skipped.about["status"] == "skipped" and skipped.about["reason"] == "no W"
    assert not skipped.metrics and not skipped.curves


def test_names_have_only_characters_that_every_tracker_takes():
    name = exports.plain_name("kid_up (inception@07aa, n = 1000)")
    assert name == "kid_up inception-07aa n 1000"


@pytest.mark.parametrize("name", exports.EXPORTERS)
def test_without_the_package_one_line_says_how_to_get_it(name, runs, monkeypatch, capfd):
    package = exports.EXPORTERS[name].packages[0]
    monkeypatch.setattr(exports, "is_installed", lambda wanted: wanted != package)
    assert main(["report", str(runs), f"--{name}"]) == 1
    error = capfd.readouterr().err.splitlines()[-1]
    assert error == f"error: --{name} needs {package}: pip install 'editbench[{name}]'"
    assert not (runs / "report").exists()


def test_a_folder_of_the_same_name_is_no_package(tmp_path, monkeypatch):
    (tmp_path / "runs_of_somebody").mkdir()
    monkeypatch.syspath_prepend(str(tmp_path))
    assert not exports.is_installed("runs_of_somebody") and exports.is_installed("json")


def test_the_extras_install_what_is_asked_for():
    """A package that the code imports and the extra forgets would give an endless loop of advice."""
    project = tomllib.loads((Path(__file__).parents[1] / "pyproject.toml").read_text())["project"]
    distributions = {"mlflow": "mlflow-skinny"}
    for name, exporter in exports.EXPORTERS.items():
        own = project["optional-dependencies"][name]
        for package in exporter.packages:
            assert any(line.startswith(distributions.get(package, package)) for line in own), (
                package
            )


def test_records_that_cannot_be_read_are_named(runs, monkeypatch):
    written = []
    fake = exports.Exporter("fake", (), lambda found, *_: str(written.append(found)))
    monkeypatch.setattr(exports, "EXPORTERS", {"fake": fake})
    (runs / "m-smile-s0-abcdef0123" / "rows.parquet").write_bytes(b"cut")
    [_, broken] = exports.export(load(runs), ["fake"], runs / "report")
    assert broken.startswith("broken: m-smile-s0-abcdef0123:") and len(written[0]) == 1
    (runs / "m-age-s0-abcdef0123" / "status.json").write_text("{")
    with pytest.raises(EditbenchError, match="is readable: m-age"):
        exports.export(load(runs), ["fake"], runs / "report")


@needs("tensorboard")
def test_tensorboard_reads_it_back(runs, capfd):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    for _ in range(2):  # the second time replaces the first
        assert main(["report", str(runs), "--tensorboard"]) == 0
    folder = runs / "report" / "tensorboard"
    assert f"tensorboard --logdir {folder}" in capfd.readouterr().out
    events = EventAccumulator(str(folder / "m-smile-s0-abcdef0123")).Reload()
    [accuracy] = events.Scalars("accuracy")
    assert accuracy.value == 0.75
    assert [point.step for point in events.Scalars("ad")] == [125 + 250 * k for k in range(11)]
    assert (folder / "m-age-s0-abcdef0123").is_dir()


@needs("mlflow")
def test_mlflow_reads_it_back(runs, monkeypatch, capfd):
    import mlflow

    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    for _ in range(2):
        assert main(["report", str(runs), "--mlflow"]) == 0
    address = f"sqlite:///{(runs / 'report' / 'mlflow' / 'mlflow.db').resolve()}"
    assert address in capfd.readouterr().out
    client = mlflow.MlflowClient(tracking_uri=address, registry_uri=address)
    found = client.search_runs([client.get_experiment_by_name("runs").experiment_id])
    assert len(found) == 2
    [run] = [one for one in found if one.info.run_name == "m-smile-s0-abcdef0123"]
    assert run.data.metrics["accuracy"] == 0.75 and run.data.params["method.step"] == "0.5"
    points = client.get_metric_history(run.info.run_id, "ad")
    assert [point.step for point in points] == [125 + 250 * k for k in range(11)]
    assert run.data.tags["left_out"].startswith("ad")


@needs("wandb")
def test_wandb_writes_offline_runs(runs, monkeypatch, capfd):
    monkeypatch.delenv("WANDB_MODE", raising=False)
    for _ in range(2):
        assert main(["report", str(runs), "--wandb"]) == 0
    folder = runs / "report" / "wandb"
    assert f"wandb sync {folder}/offline-run-*" in capfd.readouterr().out
    files = sorted(folder.glob("offline-run-*/*.wandb"))
    assert [file.name.split("-")[2] for file in files] == ["age", "smile"]
    content = files[1].read_bytes()
    for word in (b"accuracy", b"ad/x", b"method.step"):
        assert word in content
