"""The engine on the linear world, where the crossing step, the path and every logit are known in closed form."""

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch

from editbench.bank.starts import Starts
from editbench.base.errors import BadFile, EditbenchError
from editbench.base.images import to_bytes
from editbench.base.spaces import Codes, Space
from editbench.walk.observation import DuringWalk, WalkObserver
from editbench.walk.spec import EngineSpec
from tests.linear_walks import setup, walk
from tests.toy_world import AlongColumn, ToyGenerator, ToyScorer, V


def test_crossing_step_is_the_closed_form():
    _, logits, starts = setup()
    norm = V[:, 0].norm().item()
    table = walk().table
    stop = table[table["stopped"]].set_index("start")["step"]
    expected = np.floor(np.abs(logits[:, 0].numpy()) / (0.5 * norm)).astype(int) + 1
    assert dict(stop) == dict(zip(starts.index, expected))
    path = table[table["stopped"]].set_index("start")["path"]
    assert np.allclose(path, 0.5 * stop, atol=1e-5)


def test_every_logit_of_the_walk_is_linear_in_the_step():
    table = walk(spec=EngineSpec(30, 10, 16, 0)).table
    _, logits, _ = setup()
    direction = (V[:, 0] / V[:, 0].norm() @ V).numpy()
    first = logits.numpy()[table["start"] - 100]
    sign = np.where(table["target"] == 1, 1, -1)[:, None]
    expected = first + sign * 0.5 * table["step"].to_numpy()[:, None] * direction
    got = table[[c for c in table if c.startswith("logit:")]].to_numpy()
    assert np.allclose(got, expected, atol=1e-4)


@pytest.mark.parametrize("stride", [0.3, 1.0, 2.2])
def test_a_stride_moves_the_crossing_to_the_next_multiple(stride):
    _, logits, starts = setup()
    table = walk(spec=EngineSpec(200, 0, 16, 3), stride=stride).table
    stop = table[table["stopped"]].set_index("start")
    own = np.abs(logits[:, 0].numpy()) / (0.5 * V[:, 0].norm().item())
    expected = np.floor(own / stride).astype(int) + 1
    assert dict(stop["step"]) == dict(zip(starts.index, expected))
    assert np.allclose(stop["path"], 0.5 * stride * stop["step"], atol=1e-4)


def test_finished_samples_leave_the_batch_and_nothing_is_decoded_twice():
    generator = ToyGenerator()
    result = walk(generator=generator)
    walked = result.table[result.table["step"] > 0]
    assert generator.decoded == len(walked) + 3  # and step 0 of the three with pictures
    assert (
        walked.groupby("start")["step"].max()
        == walked[walked["stopped"]].set_index("start")["step"]
    ).all()
    assert not walked.duplicated(["start", "step"]).any()


def test_the_sweep_goes_past_the_crossing_and_keeps_it():
    table = walk(spec=EngineSpec(30, 12, 16, 0)).table
    assert (table.groupby("start")["stopped"].sum() == 1).all()
    plain = walk().table
    stops = [t[t["stopped"]].set_index("start")["step"] for t in (table, plain)]
    assert (stops[0] == stops[1]).all()
    # Step 12 is the last one of a walk that crosses before it.
    assert (table.groupby("start")["step"].max() == stops[0].clip(lower=12)).all()
    crossed = table.groupby("start")["crossed"]
    assert crossed.apply(lambda c: c.is_monotonic_increasing).all()


@pytest.mark.parametrize("batch", [1, 7, 64])
def test_batch_size_changes_nothing(batch):
    base = walk().table
    other = walk(spec=EngineSpec(30, 0, batch, 3)).table
    assert np.abs(base.to_numpy(float) - other.to_numpy(float)).max() < 1e-5


def test_order_of_the_starts_changes_nothing():
    w, logits, starts = setup()
    order = np.random.default_rng(0).permutation(len(w))
    shuffled = Starts(starts.index[order], starts.source[order], starts.target[order], 1.0)
    other = walk(starts=shuffled, w=w[order], logits=logits[order]).table
    assert np.abs(walk().table.to_numpy(float) - other.to_numpy(float)).max() < 1e-5


def test_a_non_crossing_walks_to_the_cap():
    table = walk(AlongColumn(fail="frozen"), spec=EngineSpec(5, 0, 16, 0)).table
    assert (table.groupby("start")["step"].max() == 5).all() and not table["crossed"].any()


def test_a_diverged_sample_stops_and_is_marked():
    table = walk(AlongColumn(fail="nan")).table
    odd = table[table["start"] % 2 == 1]
    assert (odd.groupby("start")["step"].max() == 1).all()
    assert (~odd[odd["step"] == 1]["finite"]).all() and not odd["crossed"].any()
    assert table[table["start"] % 2 == 0]["finite"].all()


def test_a_generator_that_gives_nan_is_a_failed_sample_not_a_crash():
    w, _, _ = setup()
    poison = float(w[:3, 0].max()) + 1e-3  # the starts whose image is checked are sound
    assert (w[:, 0] > poison).any()
    table = walk(generator=ToyGenerator(poison)).table
    bad = table[~table["finite"]]
    assert len(bad) and not bad["crossed"].any() and table[table["step"] == 0]["finite"].all()
    last = table.groupby("start")["step"].max()
    assert (
        bad.set_index("start")["step"] == last[bad["start"]]
    ).all()  # nothing is decoded after it
    others = table[~table["start"].isin(bad["start"])]
    assert others["finite"].all() and others.groupby("start")["crossed"].any().all()


def test_a_wrong_shape_and_a_foreign_bank_are_errors():
    with pytest.raises(EditbenchError, match=r"AlongColumn.step returned codes of shape \(40, 7\)"):
        walk(AlongColumn(fail="shape"))
    _, logits, _ = setup()
    with pytest.raises(BadFile, match="the bank was built with another generator or judge"):
        walk(logits=logits + 0.1)


def test_codes_and_pictures_are_those_of_the_walk(tmp_path):
    result = walk(codes_file=tmp_path / "codes.parquet")
    stored = pq.read_table(tmp_path / "codes.parquet").to_pandas()
    table = result.table
    assert len(stored) == len(table)
    merged = table.merge(stored, on=["start", "step"])
    redone = ToyScorer()(torch.tensor(np.stack(merged["codes"])).reshape(-1, 1, 2, 4))
    assert np.allclose(redone[:, 0], merged["logit:a"], atol=1e-5)
    pictures = result.pictures
    keys = list(zip(pictures.start, pictures.step))
    assert sorted(set(pictures.start)) == [100, 101, 102] and len(keys) == len(set(keys))
    assert sum(table["start"].isin([100, 101, 102])) == len(keys)


class FirstLogit(DuringWalk):
    """The logit of the edited attribute, read from the decoded sample once more."""

    def measure(self, walk, codes, decoded, reference):
        return {"own_logit": ToyScorer()(decoded)[:, 0]}


@pytest.mark.parametrize("sweep, observations", [(0, {"own": FirstLogit()}), (12, {})])
def test_a_refined_crossing_lies_just_behind_the_boundary(sweep, observations, tmp_path):
    """The world is linear: the boundary lies |logit| / |v| along the path, and a step is 0.5 long."""
    _, logits, starts = setup()
    refined = walk(
        spec=EngineSpec(30, sweep, 16, 3, refine=8),
        codes_file=tmp_path / "codes.parquet",
        observer=WalkObserver(observations),
    )
    plain = walk(spec=EngineSpec(30, sweep, 16, 3)).table
    table = refined.table
    stop = table[table["stopped"]].set_index("start").loc[starts.index]
    beyond = stop["path"].to_numpy() - np.abs(logits[:, 0].numpy()) / V[:, 0].norm().item()
    assert (beyond > -1e-5).all() and (beyond < 0.5 / 2**8 + 1e-5).all()
    # Every other row is that of the walk without refinement.
    assert (table["step"] == plain["step"]).all() and (table["stopped"] == plain["stopped"]).all()
    others = ~table["stopped"]
    gap = table.loc[others, plain.columns].to_numpy(float) - plain[others].to_numpy(float)
    assert np.abs(gap).max() < 1e-5
    # What is kept of the step is of the same point: codes, pictures, observations, and the end.
    stored = pq.read_table(tmp_path / "codes.parquet").to_pandas()
    merged = table.merge(stored, on=["start", "step"])
    redone = ToyScorer()(torch.tensor(np.stack(merged["codes"])).reshape(-1, 1, 2, 4))
    assert np.allclose(redone[:, 0], merged["logit:a"], atol=1e-5)
    if observations:
        assert np.allclose(table["own_logit"], table["logit:a"], atol=1e-5)
    pictures = refined.pictures
    images = dict(zip(zip(pictures.start, pictures.step), pictures.images))
    seen = merged[merged["stopped"]].set_index("start").loc[[100, 101, 102]]
    for start, row in seen.iterrows():
        expected = to_bytes(ToyGenerator().decode(Codes(Space.W, torch.tensor(row["codes"])[None])))
        assert torch.equal(images[start, row["step"]], expected[0])
    if not sweep:
        assert np.allclose(refined.codes.numpy(), np.stack(stop_codes(merged, starts)), atol=1e-6)


def stop_codes(merged, starts):
    return merged[merged["stopped"]].set_index("start").loc[starts.index]["codes"]


def test_layer_range_edits_only_its_rows():
    editor = AlongColumn(layers=(1, 2))
    editor.bind(ToyGenerator())
    table = walk(
        editor, spec=EngineSpec(3, 3, 16, 0)
    ).table  # the toy decodes row 0: nothing may change
    logits = table.pivot(index="start", columns="step", values="logit:a")
    assert (logits.sub(logits[0], axis=0) == 0).all().all()


def test_layers_that_are_no_pair_say_so():
    for layers in (3, [1, 2, 3], ["a", 2]):
        with pytest.raises(EditbenchError, match=r"must be two numbers.*method\.layers=\[a,b\]"):
            AlongColumn(layers=layers).rows("a")
