"""The table of edits on real images beside generated ones: records written by hand, then real
ones.
"""

from functools import partial

import numpy as np
import pandas as pd
import pytest

from editbench.base.attributes import Attribute, Attributes
from editbench.base.errors import BadFile
from editbench.base.files import seal_folder, write_json
from editbench.cli import main
from editbench.report.load import Results, load
from editbench.report.settings import add_settings
from editbench.run.compose import compose_config
from editbench.studies.real_images import (
    _against_images,
    _distance,
    _key,
    comparison,
    means_of,
)
from editbench.walk.trajectory import Trajectories
from tests.by_config import run_job
from tests.real_job import real_job

PAIR = Attributes([Attribute("a", ("no", "yes")), Attribute("b", ("no", "yes"))])


@pytest.fixture
def record(tmp_path):
    """Two starts: 4 crosses at step 1 towards class 1, and loses b; 9 never crosses towards class
    0.
    """
    table = pd.DataFrame(
        {
            "start": [4, 4, 9, 9],
            "source": [0, 0, 1, 1],
            "target": [1, 1, 0, 0],
            "step": [0, 1, 0, 1],
            "path": 0.0,
            "crossed": [False, True, False, False],
            "stopped": [False, True, False, False],
            "finite": True,
            "logit:a": [-3.0, 1.0, 2.0, 2.5],
            "logit:b": [1.0, -1.0, 1.0, 1.0],
        }
    )
    images = pd.DataFrame(
        {
            "start": [4, 9],
            "truth:a": [0, 1],
            "truth:b": [0, 1],
            "real_judge:a": [-1.0, 1.0],
            "real_judge:b": [1.0, 1.0],
        }
    )

    def write(table=table, images=images):
        Trajectories(table, PAIR, "a", np.array([2.0, 1.0])).save(tmp_path / "trajectory.parquet")
        images.to_parquet(tmp_path / "originals.parquet")
        write_json(tmp_path / "status.json", {"status": "done"})
        seal_folder(tmp_path)
        return tmp_path

    write.table, write.images = table, images
    return write


def test_truth_and_sight_are_of_the_image_and_of_all_starts(record):
    assert _against_images(record()) == {"accuracy_true": 0.5, "accuracy_seen": 0.0}
    none = record.table.assign(crossed=False, stopped=False)
    assert _against_images(record(none)) == {
        "accuracy_true": 0.0,
        "accuracy_seen": 0.0,
    }  # no crossing is a failure
    unknown = _against_images(record(images=record.images.assign(**{"truth:b": -1})))
    assert np.isnan(unknown["accuracy_true"]) and unknown["accuracy_seen"] == 0.0


def test_the_distance_is_positive_and_in_sigmas(record):
    assert _distance(record()) == pytest.approx((3 + 2) / 2 / 2)


def test_a_record_without_its_images_is_named(record):
    folder = record()
    (folder / "originals.parquet").unlink()
    with pytest.raises(BadFile, match=r"originals\.parquet"):
        _against_images(folder)


def test_means_are_over_the_rows_that_have_both():
    rows = pd.DataFrame(
        {
            "real_accuracy": [0.2, 0.4, 0.9],
            "generated_accuracy": [0.1, 0.3, np.nan],
            "real_ad_at": [1.0, 2.0, 3.0],
            "generated_ad_at": [np.nan, 4.0, 5.0],
            "method": "m",
        }
    )
    means = means_of(rows)
    assert means["real_accuracy"] == pytest.approx(0.3)
    assert means["generated_accuracy"] == pytest.approx(0.2)
    assert means["real_ad_at"] == 2.0 and means["generated_ad_at"] == 4.0
    alone = means_of(rows.assign(generated_accuracy=np.nan, generated_ad_at=np.nan))
    assert alone["real_accuracy"] == pytest.approx(0.5) and np.isnan(alone["generated_accuracy"])


def test_pairs_share_configuration_networks_and_precision(tmp_path):
    base = {"method": {"name": "m", "step": 1}, "starts": {"n": 4}, "inversion": {"name": "faces"}}
    configs = {
        "a": base,
        "b": base | {"inversion": {"name": "none"}, "precision": "fp32"},
        "c": base | {"precision": "bf16"},
        "d": base | {"starts": {"n": 5}},
        "e": base,
    }
    made = {run: {"hashes": {"generator": "other" if run == "e" else "g"}} for run in configs}
    results = Results(tmp_path, pd.DataFrame(), pd.DataFrame(), pd.DataFrame(), configs, made)
    keys = {run: _key({"run_id": run, "attribute": "a"}, results) for run in configs}
    assert keys["a"] == keys["b"] and len(set(keys.values())) == 4


def test_inversions_into_other_spaces_are_other_settings():
    runs = pd.DataFrame(
        {
            "run_id": list("abcd"),
            "method": "m",
            "attribute": "smile",
            "generator": "g",
            "seed": 0,
            "judged_in": "image",
            "leaking": False,
        }
    )
    configs = {
        "a": {"inversion": {"name": "none", "space": "w", "steps": 9}},
        "b": {
            "inversion": {"name": "none", "space": "z", "steps": 8}
        },  # of no meaning where there is none
        "c": {"inversion": {"name": "faces", "space": "w", "steps": 9}},
        "d": {"inversion": {"name": "faces", "space": "w_plus", "steps": 9}},
    }
    found = add_settings(runs, configs).set_index("run_id")["setting"]
    assert found["a"] == found["b"] == "inversion.name none"
    assert found["c"] == "inversion.name faces, inversion.space w" and "w_plus" in found["d"]


# -- whole runs ------------------------------------------------------------------------------------
@pytest.fixture(scope="module")
def home(tmp_path_factory):
    return tmp_path_factory.mktemp("beside")


@pytest.fixture(scope="module")
def config(home):
    return partial(real_job, home)


def test_edits_on_real_images_stand_beside_generated_ones(config, home, capsys):
    root = home / "beside"
    ids = {}
    for starts in ("none", "faces"):
        for method in ("random", "interfacegan"):
            words = [f"inversion={starts}", f"method={method}", f"out={root}", "engine.max_steps=6"]
            cfg = config(*words)
            outcome = run_job(cfg)
            assert outcome.status == "done", outcome.reason
            ids[starts, method] = outcome.run_id
            if (
                starts == "faces"
            ):  # so few steps and images: let judge and truth disagree on some of them
                originals = pd.read_parquet(root / outcome.run_id / "originals.parquet")
                originals.loc[::2, "truth:eyeglasses"] = 1 - originals.loc[::2, "truth:eyeglasses"]
                originals.loc[::3, "real_judge:eyeglasses"] *= -1
                originals.to_parquet(root / outcome.run_id / "originals.parquet")
                seal_folder(root / outcome.run_id)
    assert main(["invert", "compare", str(root)]) == 0
    text = capsys.readouterr().out
    table = pd.read_csv(root / "real_images.csv").set_index("method")
    assert set(table.index) == {"random", "interfacegan"}
    assert "Edits of real" in text
    assert "class kept" in text
    for method, row in table.iterrows():
        for starts, name in (("faces", "real"), ("none", "generated")):
            own = (
                pd.read_parquet(root / ids[starts, method] / "rows.parquet")
                .set_index("metric")
                .loc["accuracy"]
            )
            assert row[f"{name}_accuracy"] == pytest.approx(own["value"])
            assert row[f"{name}_accuracy_n"] == own["count"]
        # by hand: crossed, and the glasses as they truly are
        folder = root / ids["faces", method]
        walks = pd.read_parquet(folder / "trajectory.parquet")
        truth = pd.read_parquet(folder / "originals.parquet").set_index("start")
        hits = seen = 0
        for walk in walks[walks["stopped"]].to_dict("records"):
            glasses = walk["logit:eyeglasses"] > 0
            hits += glasses == (truth.loc[walk["start"], "truth:eyeglasses"] == 1)
            seen += glasses == (truth.loc[walk["start"], "real_judge:eyeglasses"] > 0)
        n = walks["start"].nunique()
        assert row["accuracy_true"] == pytest.approx(hits / n)
        assert row["accuracy_seen"] == pytest.approx(seen / n)
    runs = load(root).runs
    assert sorted(runs["setting"].unique()) == [
        "inversion.name faces",
        "inversion.name none",
    ]  # told apart in reports


def test_a_search_without_a_control_failed_on_every_image(config, home, capsys):
    root = home / "failed"
    search = ["method=random_searched", "method.components=2", "method.min_effect=1000"]
    for words in (["method=random"], search):
        for starts in ("none", "faces"):
            outcome = run_job(config(f"inversion={starts}", f"out={root}", *words))
            assert outcome.status == ("done" if words == ["method=random"] else "skipped")
    assert main(["invert", "compare", str(root)]) == 0
    capsys.readouterr()
    table = pd.read_csv(root / "real_images.csv").set_index("method")
    walked = table.loc["random"]
    failed = table.loc["random_searched"]
    for name in ("real_accuracy", "generated_accuracy", "accuracy_true", "accuracy_seen"):
        assert failed[name] == 0
    for name in ("real_accuracy_n", "generated_accuracy_n", "space", "setting"):
        assert failed[name] == walked[name]
    for name in ("real_ad_at", "generated_ad_at", "real_distance", "generated_distance"):
        assert np.isnan(failed[name])


def test_dependency_at_another_effect_is_not_put_beside_it(config, home):
    """The run on generated images is older, and was measured at 0.25 sigma instead of 0.5."""
    root = home / "effects"
    for starts, effect in (("none", 0.25), ("faces", 0.5)):
        words = [f"inversion={starts}", f"out={root}", "engine.max_steps=20", "method=interfacegan"]
        words += ["metric=[crossing_accuracy,attribute_dependency]"]
        outcome = run_job(config(*words, f"metric.attribute_dependency.at={effect}"))
        assert outcome.status == "done", outcome.reason
    (row,) = comparison(load(root)).to_dict("records")
    assert row["ad_effect"] == 0.5
    assert np.isfinite(row["real_ad_at"]) and np.isnan(row["generated_ad_at"])
    assert np.isfinite(row["generated_accuracy"])


def test_without_such_runs_the_comparison_says_what_to_do(config, tmp_path, capsys):
    run_job(config("inversion=none", f"out={tmp_path}"))
    assert main(["invert", "compare", str(tmp_path)]) == 1
    assert "experiment=real_images" in capsys.readouterr().err


def test_the_experiment_is_whole():
    for budget, images in (("demo", 128), ("standard", 256), ("paper", 256)):
        cfg = compose_config(["experiment=real_images", f"budget={budget}"])
        assert cfg.inversion.images == f"faces:{images}"
        assert cfg.starts.n == images
        assert cfg.starts.near == "any"
    assert compose_config(["experiment=real_images", "inversion=none"]).inversion.name == "none"
