"""The script behind `make gpu`: without a GPU it says so in one line, and a dry run goes through its parts."""

from __future__ import annotations

import importlib.util
import json
import sys
from pathlib import Path

import pytest
import torch

ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def script():
    spec = importlib.util.spec_from_file_location("gpu_script", ROOT / "benchmarks" / "gpu.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # its dataclass looks its module up
    spec.loader.exec_module(module)
    return module


def test_without_a_gpu_it_says_so_in_one_line(script, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert script.main(["--out", str(tmp_path / "out")]) == 2
    assert capsys.readouterr().err == "--device cuda: torch sees no CUDA device\n"
    assert not (tmp_path / "out").exists()


def test_all_parts_together_keep_within_25_minutes(script):
    assert sum(limit for _, limit in script.PARTS.values()) < 25 * 60
    assert list(script.PARTS)[-1] == "world"


@pytest.mark.parametrize("name", ["machine", "decoding", "ffhq_pass", "world"])
def test_a_dry_run_of_a_part_leaves_its_numbers(name, script, tmp_path, capsys):
    words = ["--device", "cpu", "--tiny", "--out", str(tmp_path), "--part", name]
    assert script.main(words) == 0, capsys.readouterr().err
    found = json.loads((tmp_path / f"{name}.json").read_text())
    assert found["status"] == "done" and found["rows"] and found["device"] == "cpu"


def test_a_part_that_is_done_is_not_repeated_and_one_that_fails_is_told(
    script, tmp_path, monkeypatch, capsys
):
    begun = []

    def run(name, setting):
        begun.append(name)
        if name == "tests":
            return {"status": "failed", "reason": "one test fell", "rows": []}
        return script.run_part(name, setting)

    parts = {name: (lambda setting: [{"x": 1.23456}], 9) for name in script.PARTS}
    monkeypatch.setattr(script, "PARTS", parts)
    monkeypatch.setattr(script, "run_apart", run)
    words = ["--device", "cpu", "--out", str(tmp_path)]
    assert script.main(words) == 1
    text = (tmp_path / "SUMMARY.md").read_text()
    assert "## tests: failed" in text and "one test fell" in text and "| 1.235 |" in text
    begun.clear()
    script.main(words)
    assert begun == ["tests"]


def test_results_of_a_dry_run_and_of_a_full_run_are_not_mixed(
    script, tmp_path, monkeypatch, capsys
):
    parts = {name: (lambda setting: [{"x": 1.0}], 9) for name in script.PARTS}
    monkeypatch.setattr(script, "PARTS", parts)
    monkeypatch.setattr(script, "run_apart", script.run_part)
    words = ["--device", "cpu", "--out", str(tmp_path)]
    assert script.main([*words, "--tiny"]) == 0
    assert script.main([*words, "--tiny"]) == 0
    capsys.readouterr()
    assert script.main(words) == 2
    assert "has results of a dry run on cpu: give another folder" in capsys.readouterr().err


def test_half_a_line_of_a_killed_process_is_left_out(script, tmp_path):
    (tmp_path / "decoding.jsonl").write_text('{"side": 256}\n{"side": 10')
    assert script.read_rows(tmp_path / "decoding.jsonl") == [{"side": 256}]


def stalls(setting):
    """A part that is cut after its first row: nothing in the process sees the signal."""
    yield {"side": 256, "pictures/s": 12.5}
    raise SystemExit


def breaks(setting):
    yield {"side": 256, "pictures/s": 12.5}
    raise ValueError("too large")


def test_a_part_that_is_cut_leaves_what_it_has_measured(script, tmp_path, monkeypatch):
    def run(words, timeout, **_):
        try:
            script.run_part("decoding", setting)
        except SystemExit:
            raise script.subprocess.TimeoutExpired(words, timeout) from None

    setting = script.Setting("cpu", True, tmp_path)
    monkeypatch.setattr(script, "PARTS", script.PARTS | {"decoding": (stalls, 9)})
    monkeypatch.setattr(script.subprocess, "run", run)
    # An earlier try must not be mixed with this one.
    (tmp_path / "decoding.json").write_text('{"status": "failed", "reason": "earlier", "rows": []}')
    (tmp_path / "decoding.jsonl").write_text('{"side": 1}\n')
    found = script.run_apart("decoding", setting)
    assert found["status"] == "done" and found["reason"] == "cut at its limit of 9 s"
    assert found["rows"] == [{"side": 256, "pictures/s": 12.5}]
    assert json.loads((tmp_path / "decoding.json").read_text())["rows"] == found["rows"]


def test_a_part_that_was_cut_before_its_first_row_has_failed(script, tmp_path, monkeypatch):
    def run(words, timeout, **_):
        raise script.subprocess.TimeoutExpired(words, timeout)

    monkeypatch.setattr(script.subprocess, "run", run)
    found = script.run_apart("ffhq_pass", script.Setting("cpu", True, tmp_path))
    assert (found["status"], found["rows"]) == ("failed", [])


def test_a_part_that_fails_keeps_its_rows(script, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(script, "PARTS", script.PARTS | {"decoding": (breaks, 9)})
    found = script.run_part("decoding", script.Setting("cpu", True, tmp_path))
    assert (found["status"], found["reason"]) == ("failed", "ValueError: too large")
    assert found["rows"] == [{"side": 256, "pictures/s": 12.5}]


def test_operations_counted_of_shapes_are_those_that_are_computed(script):
    generator, _ = script.networks(16, "cpu", "bf16")
    with script.FlopCounterMode(display=False) as counter:
        generator.decode(script.Codes(script.Space.W, torch.zeros(1, generator.w_dim)))
    assert script.flops_of(generator) == counter.get_total_flops() > 0
    assert next(generator.parameters()).device.type == "cpu"


def test_two_walks_are_compared_where_both_have_been(script):
    from types import SimpleNamespace

    import pandas as pd

    table = pd.DataFrame({"start": [1, 1, 2], "step": [0, 1, 0], "logit:a": [0.0, 1.0, 2.0]})
    table["stopped"] = [False, True, False]
    other = table.iloc[:2].assign(**{"logit:a": [0.0, 1.5]})
    found = script.compared(SimpleNamespace(table=table), SimpleNamespace(table=other))
    assert found == {"rows": 2, "largest gap, sigma": 0.5, "crossings": 1, "the same": 1}
