"""What determines the id of a run: options, networks, the code and the files behind them."""

import hashlib
import subprocess
from dataclasses import replace

import pytest
import torch
from omegaconf import OmegaConf
from torch import Tensor

from editbench.base import identity
from editbench.base.identity import content
from editbench.base.spaces import Codes
from editbench.run import environment, job
from editbench.run.record import Record
from editbench.run.settings import Settings
from tests.by_config import make_run_id, networks_code, refusal, run_job
from tests.toy_world import ToyGenerator, toy_config


class Brighter(ToyGenerator):
    """Its digest leaves the option out."""

    def __init__(self, gain: float = 1.0, weights: str = "") -> None:
        super().__init__()
        self.gain = gain

    def _decode(self, codes: Codes) -> Tensor:
        return self.gain * super()._decode(codes)


@pytest.mark.parametrize("role", ["generator", "teacher", "judge"])
def test_options_of_a_users_network_count_whatever_its_digest_says(tmp_path, role):
    outcomes = []
    for value in (1.0, 2.0):
        cfg = toy_config(tmp_path)
        if role == "generator":
            cfg.generator = {"name": "b", "_target_": f"{__name__}.Brighter", "gain": value}
        else:
            scorer = {"_target_": "tests.toy_world.ToyScorer", "digest": role, "scale": value}
            cfg.scorer[role] = scorer
        outcomes.append(run_job(cfg))
    first, second = outcomes
    assert first.run_id != second.run_id and not second.reused


@pytest.mark.parametrize(
    "key, target", [("generator", "ToyGenerator"), ("scorer.judge", "ToyScorer")]
)
def test_a_network_without_a_digest_is_refused(tmp_path, key, target):
    cfg = toy_config(tmp_path)
    OmegaConf.update(cfg, key, {"_target_": f"tests.toy_world.{target}", "digest": ""})
    assert refusal(cfg).startswith(f"{key}._target_=tests.toy_world.{target} has no digest: set")


def test_the_code_that_finds_a_stride_counts_where_there_is_one(tmp_path, monkeypatch):
    digest = identity.modules_digest
    ids = []
    for code in ("now", "later"):

        def changed(modules, code=code):
            return code if modules == identity.STRIDE_CODE else digest(modules)

        monkeypatch.setattr(identity, "modules_digest", changed)
        for effect in ("null", "0.5"):
            config = toy_config(tmp_path, f"engine.step_effect={effect}")
            ids.append(make_run_id(config, "bank", ["a", "b"]))
    assert ids[0] == ids[2]
    assert ids[1] != ids[3]


def test_what_changes_no_number_makes_no_record_of_its_own(tmp_path):
    def ask(*words):
        config = toy_config(tmp_path, *words)
        outcome = run_job(config)
        assert job.find_job(Settings.from_config(config)) is not None
        assert outcome.status == "done"
        return outcome

    first = ask("engine.pictures=2", "save_codes=false")
    for words in (["engine.pictures=1"], ["engine.pictures=2", "engine.batch=7"]):
        assert ask(*words, "save_codes=false") == replace(first, reused=True)
    # What was not kept is made: the same numbers under the same name, with more beside them.
    before = Record.open(tmp_path / first.run_id)
    table = before.trajectories().table
    assert not before.has(Record.CODES)
    for words in (["engine.pictures=3", "save_codes=false"], ["engine.pictures=2"]):
        assert ask(*words) == first
        assert Record.open(tmp_path / first.run_id).trajectories().table.equals(table)
    assert Record.open(tmp_path / first.run_id).has(Record.CODES)


def test_a_package_in_a_checkout_of_something_else_has_no_commit(tmp_path, monkeypatch):
    """As in an environment that lies within a user's own project."""
    place = tmp_path / "environment.py"
    place.touch()
    git = ["git", "-C", str(tmp_path), "-c", "user.name=a", "-c", "user.email=a@b"]
    subprocess.run([*git, "init", "-q"], check=True)
    subprocess.run([*git, "commit", "-q", "--allow-empty", "-m", "theirs"], check=True)
    monkeypatch.setattr(environment, "__file__", str(place))
    assert environment.git_commit() is None
    subprocess.run([*git, "add", "."], check=True)
    assert environment.git_commit().endswith("+")


def test_text_that_names_no_file_is_itself_and_a_file_its_bytes(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    long = "a." * 200  # longer than the system takes for a name
    assert content({"text": long, "zero": "a.\0"}) == {"text": long, "zero": "a.\0"}
    (tmp_path / "part").mkdir()
    for name in ("one.npy", "part/one", "one"):
        (tmp_path / name).write_bytes(b"1")
    found = content(["one.npy", "part/one", "one"])
    # A word alone is the name of something else, whatever lies beside the user.
    assert found == [f"sha256:{hashlib.sha256(b'1').hexdigest()}"] * 2 + ["one"]


def test_the_files_of_a_users_network_are_hashed_once_until_they_change(tmp_path, monkeypatch):
    reads = []
    hashed = identity.file_sha256
    monkeypatch.setattr(identity, "file_sha256", lambda path: reads.append(path) or hashed(path))
    file = tmp_path / "weights.npy"
    cfg = toy_config(tmp_path)
    cfg.generator = {"name": "b", "_target_": f"{__name__}.Brighter", "weights": str(file)}
    found = []
    for text in ("old", "other"):
        file.write_text(text)
        found += [networks_code(cfg) for _ in range(3)]
    assert found[0] == found[2] != found[3] == found[5]
    assert reads.count(file) == 2


def test_weights_behind_a_part_of_the_configuration_are_its_content():
    part = {"_target_": "torch.nn.Linear", "in_features": 2, "out_features": 1}
    torch.manual_seed(0)
    first = content({"embedding": part, "depth": 2})
    identity._weights_digest.cache_clear()
    assert content({"embedding": part, "depth": 2}) != first  # drawn anew: other weights
    assert content({"embedding": {"_target_": "no.such"}})["embedding"]["network"] == ""
    assert content({"_target_": "torch.nn.Linear"}) == {"_target_": "torch.nn.Linear"}
