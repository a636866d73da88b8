"""Jobs: records that are whole or absent, found instead of repeated; a failure stays a failure of its own job."""

import errno
import json
import os
import re
import shutil

import pandas as pd
import pytest
import torch
from safetensors.torch import load_file
from torch.nn import functional as F

from editbench.base.errors import BadFile, EditbenchError
from editbench.base.spaces import Codes, Space
from editbench.report import load
from editbench.run.record import Record
from editbench.run.settings import Settings
from editbench.walk.trajectory import Trajectories
from tests.by_config import folder_of, record_of, refusal, run_job
from tests.toy_world import AlongColumn, toy_config


def test_a_job_leaves_a_whole_record(tmp_path):
    cfg = toy_config(tmp_path)
    outcome = run_job(cfg)
    assert (outcome.status, outcome.reason, outcome.reused) == ("done", "", False)
    folder = folder_of(cfg, outcome)
    files = {
        "status.json",
        "config.yaml",
        "provenance.json",
        "trajectory.parquet",
        "codes.parquet",
        "rows.parquet",
        "samples.parquet",
        "strips.safetensors",
        "metrics.json",
        "checksums.json",
    }
    assert {path.name for path in folder.iterdir()} == files
    rows = pd.read_parquet(folder / "rows.parquet").set_index("metric")
    assert (
        rows.loc["success_rate", "value"] == 1.0
    )  # the exact direction crosses from everywhere within the cap
    provenance = json.loads((folder / "provenance.json").read_text())
    assert provenance["labels_used"] == 600 and provenance["bank_n"] == 1000
    table = Record.open(folder).trajectories().table
    assert provenance["walk_generator_calls"] == (table["step"] > 0).sum() + min(
        2, table["start"].nunique()
    )
    strips = load_file(folder / "strips.safetensors")
    assert strips["images"].shape[:2] == (2, 8) and strips["steps"][:, 0].tolist() == [0, 0]


def test_a_finished_job_is_found_and_its_content_decides(tmp_path):
    first = run_job(toy_config(tmp_path))
    again = run_job(toy_config(tmp_path))
    assert again.reused and again.run_id == first.run_id
    others = [
        toy_config(tmp_path, delta=0.25),
        toy_config(tmp_path, "seed=1"),
        toy_config(tmp_path, "attribute=b"),
        toy_config(tmp_path, "engine.max_steps=19"),
    ]
    assert len({run_job(cfg).run_id for cfg in others} | {first.run_id}) == 5
    batch = toy_config(tmp_path)
    batch.method.about = "labels for people do not count"
    assert run_job(batch).run_id == first.run_id


def test_all_methods_get_the_same_starts_and_targets(tmp_path):
    tables = []
    for cfg in (
        toy_config(tmp_path),
        toy_config(tmp_path, delta=0.2),
        toy_config(tmp_path, "seed=3"),
    ):
        outcome = run_job(cfg)
        table = Record.open(folder_of(cfg, outcome)).trajectories().table
        tables.append(table[table["step"] == 0].drop(columns="path").reset_index(drop=True))
    assert tables[0].equals(tables[1]) and tables[0].equals(tables[2])


def test_a_draw_without_starts_is_told_before_the_bank(tmp_path):
    with pytest.raises(EditbenchError, match=r"no start was drawn for b: raise starts\.n=1"):
        run_job(toy_config(tmp_path, "attribute=b", "starts.n=1"))
    assert list(tmp_path.iterdir()) == []


def test_a_folder_without_a_whole_record_says_so(tmp_path):
    with pytest.raises(BadFile, match="nowhere does not exist; give the folder of a record"):
        Record.read(tmp_path / "nowhere")
    with pytest.raises(BadFile, match=r"checksums\.json is missing: not a complete record; "):
        Record.read(tmp_path)


def test_trajectories_of_another_format_are_refused(tmp_path, monkeypatch):
    cfg = toy_config(tmp_path)
    walks = Record.open(folder_of(cfg, run_job(cfg))).trajectories()
    walks.save(tmp_path / "same.parquet")
    pd.testing.assert_frame_equal(Trajectories.load(tmp_path / "same.parquet").table, walks.table)
    monkeypatch.setattr("editbench.walk.trajectory.VERSION", 7)
    walks.save(tmp_path / "other.parquet")
    monkeypatch.undo()
    with pytest.raises(BadFile, match="has format 7, but this version of editbench reads"):
        Trajectories.load(tmp_path / "other.parquet")


def test_a_skip_is_a_result(tmp_path):
    outcome = run_job(toy_config(tmp_path, fail="skip"))
    assert (outcome.status, outcome.reason) == ("skipped", "no control found")
    assert run_job(toy_config(tmp_path, fail="skip")).reused
    assert load(tmp_path).runs["no_control"].tolist() == [1]


def test_a_failure_is_kept_for_reading_and_never_taken_for_a_result(tmp_path):
    cfg = toy_config(tmp_path, fail="crash")
    outcome = run_job(cfg)
    assert outcome.status == "failed" and "RuntimeError: a defect of the method" in outcome.reason
    assert "Traceback" in (folder_of(cfg, outcome) / "log.txt").read_text()
    assert not run_job(cfg).reused


def test_a_method_that_ends_the_program_fails_alone_and_in_one_line(tmp_path):
    """As a parser of arguments does, in whose message there may be several lines."""
    outcome = run_job(toy_config(tmp_path, _target_=f"{__name__}.Ending"))
    assert outcome.status == "failed"
    assert re.match(
        r"SystemExit: usage \(.*test_job\.py:\d+\) \(see .*; `editbench conform` checks the method\)",
        outcome.reason,
    )


def test_ctrl_c_leaves_no_record_and_the_next_start_goes_on(tmp_path):
    cfg = toy_config(tmp_path, fail="interrupt")
    with pytest.raises(KeyboardInterrupt):
        run_job(cfg)
    assert not [path for path in tmp_path.iterdir() if path.name.startswith((".partial", "along"))]
    assert run_job(toy_config(tmp_path)).status == "done"


def test_what_a_killed_job_left_is_swept_and_not_believed(tmp_path):
    cfg = toy_config(tmp_path)
    outcome = run_job(cfg)
    folder = folder_of(cfg, outcome)
    half = folder.parent / f".partial-{folder.name}-99999"
    shutil.copytree(folder, half)
    (folder / "status.json").write_text('{"status": "do')  # cut in the middle
    again = run_job(cfg)
    assert (again.status, again.reused) == ("done", False)
    assert not half.exists() and Record.open(folder).final


def test_names_that_do_not_exist_get_the_nearest_and_the_list(tmp_path):
    cfg = toy_config(tmp_path)
    cfg.attribute = "aa"
    assert "unknown attribute 'aa'. Did you mean 'a'? Available: a, b, c." in refusal(cfg)
    cfg = toy_config(tmp_path)
    cfg.evaluated = ["b", "c"]
    assert "attribute=a is not evaluated, evaluated=[b,c]" in refusal(cfg)
    cfg.evaluated = ["a", "bb"]
    assert "unknown attribute in 'evaluated' 'bb'. Did you mean 'b'?" in refusal(cfg)
    # all of it is known from the options and the scorer: nothing was built
    assert not (tmp_path / "cache" / "banks").exists()


@pytest.mark.parametrize("name", ["rows", "samples", "trajectory"])
def test_a_damaged_record_is_not_believed(tmp_path, name):
    cfg = toy_config(tmp_path)
    folder = folder_of(cfg, run_job(cfg))
    file = folder / f"{name}.parquet"
    file.write_bytes(file.read_bytes()[:50])
    assert Record.open(folder) is None
    again = run_job(cfg)
    assert (again.status, again.reused) == ("done", False) and Record.open(folder) is not None


def test_costs_are_those_up_to_the_crossing(tmp_path):
    short, long = toy_config(tmp_path), toy_config(tmp_path, "engine.sweep_steps=15")
    costs = [record_of(cfg).provenance() for cfg in (short, long)]
    assert costs[0]["generator_calls"] == costs[1]["generator_calls"]
    assert costs[0]["walk_generator_calls"] < costs[1]["walk_generator_calls"]
    table = Record.open(folder_of(short, run_job(short))).trajectories().table
    stops = (
        table[table["stopped"]]["step"].sum()
        + 20 * (~table.groupby("start")["crossed"].any()).sum()
    )
    assert costs[0]["generator_calls"] == stops


def test_a_target_class_by_name_or_index_and_one_out_of_range(tmp_path):
    by_name, by_index = (
        run_job(toy_config(tmp_path, "attribute=c", f"target={t}")) for t in ("z", 2)
    )
    record = Record.open(tmp_path / by_name.run_id)
    table = record.trajectories().table
    assert (table["target"] == 2).all() and (table["source"] != 2).all()
    # One job, and so one record.
    assert by_index.run_id == by_name.run_id and by_index.reused
    by_index_alone = run_job(toy_config(tmp_path / "other", "attribute=c", "target=2"))
    other = Record.open(tmp_path / "other" / by_index_alone.run_id)
    assert other.trajectories().table.equals(table)
    assert by_index_alone.run_id == by_name.run_id
    assert other.config()["target"] == "z"
    reason = refusal(toy_config(tmp_path, "attribute=c", "target=3"))
    assert "target=3 is no class of the attribute 'c', which has 0 (x), 1 (y), 2 (z)" in reason


def test_layers_outside_the_generator_and_a_missing_device_name_the_key(tmp_path):
    outcome = run_job(toy_config(tmp_path, layers=[1, 5]))
    assert outcome.status == "failed"
    assert "layers [1, 5) lie outside the generator's rows [0, 2)" in outcome.reason
    if not torch.cuda.is_available():
        cfg = toy_config(tmp_path)
        cfg.device = "cuda:7"
        assert "no CUDA device" in refusal(cfg)


class AwayFromTheBatch(AlongColumn):
    def step(self, walk):
        return walk.codes + F.normalize(walk.codes - walk.codes.mean(0), dim=-1)


def test_a_method_whose_step_depends_on_its_batch_fails_before_it_walks(tmp_path):
    cfg = toy_config(tmp_path)
    cfg.method._target_ = f"{__name__}.AwayFromTheBatch"
    outcome = run_job(cfg)
    assert outcome.status == "failed"
    assert "`step` gives a sample other codes alone than in a batch" in outcome.reason
    assert not list(tmp_path.glob("*/trajectory.parquet"))


def test_an_unwritable_place_is_explained(tmp_path):
    cfg = toy_config(tmp_path / "file")
    cfg.cache = str(tmp_path / "cache")
    settings = Settings.from_config(cfg)
    (tmp_path / "file").write_text("in the way since then")
    with pytest.raises(EditbenchError, match=r"cannot write .*set out=DIR"):
        run_job(settings)
    # It is noticed before the bank is built.
    assert not (tmp_path / "cache").exists()


@pytest.mark.parametrize(
    ("number", "words", "remedy"),
    [
        (errno.ENOSPC, "the disk is full", "free some space, or set out=DIR"),
        (errno.EFBIG, "the file would be larger than allowed", "(`ulimit -f`), or set out=DIR"),
    ],
)
def test_a_disk_without_room_is_explained_and_the_job_is_done_later(
    number, words, remedy, tmp_path, monkeypatch
):
    def full(*_):
        raise OSError(number, os.strerror(number))

    cfg = toy_config(tmp_path)
    with monkeypatch.context() as patch:
        patch.setattr(Trajectories, "save", full)
        outcome = run_job(cfg)
    assert outcome.status == "failed" and words in outcome.reason and remedy in outcome.reason
    assert run_job(cfg).status == "done"


class Ending(AlongColumn):
    def fit(self, data):
        raise SystemExit("\n  usage\n  more")


class Shifted(AlongColumn):
    def codes(self, walk):
        moved = walk.codes.clone()
        moved[-1] += 0.1
        return Codes(Space.W, moved)


def test_an_editor_that_moves_any_start_at_step_0_fails(tmp_path):
    outcome = run_job(toy_config(tmp_path, _target_=f"{__name__}.Shifted"))
    assert outcome.status == "failed" and "changes the starts at step 0" in outcome.reason
