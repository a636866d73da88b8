"""Banks of a job: those of other networks and imported ones with wrong logits are told."""

import copy
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from omegaconf import DictConfig

from editbench.bank.importing import import_bank
from editbench.base.attributes import Attribute, Attributes
from editbench.report import load
from editbench.report.caveats import foreign_logits
from editbench.report.style import Style
from editbench.report.text_tables import by_name
from editbench.run import loading
from editbench.run.caveats import remarks
from editbench.run.record import Record
from tests.by_config import folder_of, refusal, run_job
from tests.processes import forbid_locks
from tests.toy_world import ATTRIBUTES, DIM, ToyScorer, toy_config


class Turned(ToyScorer):
    attributes = Attributes(
        [*ATTRIBUTES.items[:1], Attribute("b", ("yes", "no")), *ATTRIBUTES.items[2:]]
    )


def test_scorers_with_classes_in_another_order_are_told_apart(tmp_path):
    cfg = toy_config(tmp_path)
    assert run_job(cfg).status == "done"
    (folder,) = (tmp_path / "cache" / "banks").glob("*/bank.json")
    cfg.scorer.judge._target_ = f"{__name__}.Turned"
    assert refusal(cfg).endswith("in the same order: 'b' with the classes no, yes and yes, no")
    cfg.scorer.teacher._target_ = f"{__name__}.Turned"
    cfg.bank.path = str(folder.parent)
    assert refusal(cfg).endswith(": 'b' with the classes no, yes and yes, no")


def test_a_bank_of_another_generator_is_refused(tmp_path):
    cfg = toy_config(tmp_path)
    run_job(cfg)
    (bank,) = (tmp_path / "cache" / "banks").glob("[!.]*")
    other = toy_config(tmp_path)
    other.bank.path = str(bank)
    assert run_job(other).reused
    other.generator.digest = "another"
    assert "was built with another generator (toy) than this run's" in refusal(other)


def with_imported_bank(tmp_path: Path, mistake: str = "", wrong: int = 100) -> DictConfig:
    """A job on an imported bank.

    Args:
        tmp_path: folder of the bank.
        mistake: role whose logits of the first samples are not those of the scorer.
        wrong: number of these samples.
    """
    w = torch.randn(1000, DIM, generator=torch.Generator().manual_seed(0))
    own = ToyScorer()(w)
    other = own.clone()
    other[:wrong, 0] *= -1
    np.save(tmp_path / "w.npy", w.numpy())
    for role in ("teacher", "judge"):
        np.save(tmp_path / f"{role}.npy", (other if role == mistake else own).numpy())
    (tmp_path / "attributes.yaml").write_text(yaml.safe_dump(ATTRIBUTES.as_config()))
    files = [tmp_path / name for name in ("w.npy", "teacher.npy", "attributes.yaml", "judge.npy")]
    import_bank(tmp_path / "bank", *files)
    cfg = toy_config(tmp_path)
    cfg.bank.path = str(tmp_path / "bank")
    return cfg


def test_runs_and_fits_on_an_imported_bank_follow_the_networks(tmp_path, monkeypatch):
    cfg = with_imported_bank(tmp_path)
    first = run_job(cfg)
    assert run_job(cfg).reused
    other = copy.deepcopy(cfg)
    other.scorer.judge.digest = "another"
    second = run_job(other)
    assert not second.reused and second.run_id != first.run_id
    # Code of one's own may change without any weights.
    monkeypatch.setattr(loading, "networks_code", lambda settings: "another")
    third = run_job(cfg)
    assert third.run_id not in (first.run_id, second.run_id)
    made = Record.read(folder_of(cfg, third)).provenance()
    assert not made["fit_cached"]


@pytest.mark.parametrize("mistake", ["", "teacher", "judge"])
def test_an_imported_bank_of_another_scorer_is_told(mistake, tmp_path, monkeypatch):
    cfg = with_imported_bank(tmp_path, mistake)
    cfg.engine.batch = 7
    sizes = []
    forward = ToyScorer.forward

    def counted(self, decoded):
        sizes.append(len(decoded))
        return forward(self, decoded)

    monkeypatch.setattr(ToyScorer, "forward", counted)
    outcome = run_job(cfg)
    # Pictures of another size of batch might not fit the memory.
    assert max(sizes) <= 7
    made = Record.read(folder_of(cfg, outcome)).provenance()
    # 100 of the 256 samples that are scored again.
    told = (
        [f"logits of a in the bank are from another {mistake}: 61% same class"] if mistake else []
    )
    assert [word for word in remarks(made) if "another" in word] == told
    results = load(Path(cfg.out))
    (said,) = foreign_logits(results, by_name(results, Style())) or [""]
    assert (f"a of the {mistake} (61% same class)" in said) == bool(mistake)
    assert bool(said) == bool(mistake)
    # Another job of the sweep takes the answer, though it may not lock; one with another scorer
    # does not.
    monkeypatch.setattr("editbench.bank.agreement._score_again", None)
    kept_in = Path(cfg.cache) / "agreement"
    forbid_locks(kept_in)
    cfg.seed = 1
    again = run_job(cfg)
    kept = Record.read(folder_of(cfg, again)).provenance()
    assert kept["imported_agreement"] == made["imported_agreement"]
    (kept_in / ".locks").unlink()
    cfg.scorer.judge.digest = "another"
    assert "'NoneType' object is not callable" in run_job(cfg).reason


def test_the_attribute_whose_sign_an_imported_bank_has_wrong_is_named(tmp_path):
    outcome = run_job(with_imported_bank(tmp_path, "judge", wrong=1000))
    assert outcome.status == "failed"
    assert f"bank.path={tmp_path / 'bank'}" in outcome.reason
    assert "a (0% equal). Check the sign (positive_is_low)" in outcome.reason
