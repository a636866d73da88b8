"""Completion with TAB, and the flags that Hydra's users know."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from editbench.base.conf import group_options, groups
from editbench.cli import COMMANDS, main
from editbench.commands.command_line import SHOWING
from editbench.commands.completion import FLAGS, LAUNCHERS, SCRIPTS, complete_line
from editbench.commands.list import network_words
from editbench.run.answer_cache import recall_answer
from editbench.run.launch import EXTRAS

ROOT = Path(__file__).parents[1]
TOY = ["--config-dir", str(ROOT / "tests" / "conf"), "generator=toy", "scorer=toy", "budget=toy"]


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("editbench pl", ["plan "]),
        ("editbench run meth", ["method.", "method="]),
        ("editbench run method=interfacegan_", None),
        (
            "editbench run -m seed=1 method=sefa,gansp",
            ["method=sefa,ganspace", "method=sefa,ganspace_activations"],
        ),
        ("editbench run 'metric=[locality,logit", ["metric=[locality,logit_scatter"]),
        ("editbench run method=sefa,sef", []),
        ("editbench run method=gradctrl method.del", ["method.delta="]),
        ("editbench run budget=demo starts.ne", ["starts.near="]),
        ("editbench run scorer=mnist_lenet attribute=", ["attribute=digit"]),
        ("editbench run +experiment=mnist", ["+experiment=mnist_digits"]),
        ("editbench plan --j", ["--json"]),
        ("editbench run --cfg ", ["all", "hydra", "job"]),
        (
            "editbench run hydra/launcher=sub",
            ["hydra/launcher=submitit_local", "hydra/launcher=submitit_slurm"],
        ),
        ("editbench new wo", ["world "]),
        ("editbench report ru", []),
    ],
)
def test_what_a_word_may_become(line, expected):
    if expected is None:
        names = [name for name in group_options("method") if name.startswith("interfacegan_")]
        expected = [f"method={name}" for name in names]
    assert complete_line(line) == expected


def test_options_of_the_users_own_and_every_group():
    conf = ROOT / "tests" / "conf"
    assert complete_line(f"editbench run --config-dir {conf} method=al") == ["method=along"]
    found = complete_line("editbench run ")
    assert {f"{group}=" for group in groups()} < set(found) and "attribute=" in found


def test_attributes_that_only_the_weights_know(monkeypatch):
    monkeypatch.setattr(
        "editbench.commands.list.find_attributes",
        lambda words, more: [{"name": "smile"}, {"name": "age"}] if "scorer=faces" in words else [],
    )
    assert complete_line("editbench run attribute=") == ["attribute=age", "attribute=smile"]
    assert complete_line("editbench run attribute=smile,") == ["attribute=smile,age"]


def test_attributes_that_list_has_found_are_remembered_for_the_shell(monkeypatch, tmp_path, capsys):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert main(["list", "attributes"]) == 0
    found = recall_answer(["attributes", *network_words("faces32", "faces")])
    assert [item["name"] for item in found][:2] == ["smile", "eyeglasses"]
    monkeypatch.setattr("editbench.run.answer_cache.keep_answer", None)  # nothing is looked up anew
    assert "attribute=smile" in complete_line("editbench run attribute=")
    capsys.readouterr()


@pytest.mark.parametrize("flag", ["--config-dir {}", "--config-dir={}", "-cd {}"])
def test_every_way_to_name_the_users_folder(flag):
    conf = ROOT / "tests" / "conf"
    line = f"editbench run {flag.format(conf)} method=al"
    assert complete_line(line) == ["method=along"]


def test_the_lists_are_those_of_the_commands():
    assert set(FLAGS) <= set(COMMANDS)
    assert {flag for flag in SHOWING if flag.startswith("--")} < set(FLAGS["run"])
    assert set(EXTRAS) == set(LAUNCHERS) - {"basic"}


def test_scripts_are_printed_for_known_shells(capsys):
    for shell in SCRIPTS:
        assert main(["run", "-sc", f"install={shell}"]) == 0
        assert "editbench run -sc query=" in capsys.readouterr().out
        assert main(["run", "-sc", f"uninstall={shell}"]) == 0
    assert main(["run", "-sc", "install=bsh"]) == 2
    assert "Did you mean 'bash'" in capsys.readouterr().err
    assert main(["run", "-sc"]) == 1
    assert "-sc install=SHELL" in capsys.readouterr().err


@pytest.mark.skipif(shutil.which("bash") is None, reason="no bash")
def test_bash_gets_its_answers():
    script = SCRIPTS["bash"] + (
        "editbench() { " + f"{sys.executable} -m editbench.cli" + ' "$@"; }\n'
        "COMP_LINE='editbench run method=gradctrl_5'; COMP_POINT=${#COMP_LINE}\n"
        "_editbench_completion; echo ${COMPREPLY[@]}\n"
    )
    done = subprocess.run(
        ["bash", "-c", script], capture_output=True, text=True, cwd=ROOT, env=dict(os.environ)
    )
    assert done.stdout.split() == ["method=gradctrl_500"]


# -- flags of Hydra --------------------------------------------------------------------------------
def test_info_without_a_value_and_in_a_sweep(capsys):
    assert main(["run", "--info", "defaults", "method=random"]) == 0
    assert "Defaults List" in capsys.readouterr().out
    assert main(["run", "-m", "-i", "method=random,sefa"]) == 0  # all
    text = capsys.readouterr().out
    assert "engine:" in text and "max_steps: 50" in text
    assert main(["run", "--info=nothing"]) == 1
    assert "'nothing' is not an override" in capsys.readouterr().err


def test_a_configuration_is_printed_for_each_job_of_a_sweep(capsys):
    words = ["-m", "method=random,sefa", "--cfg=job", "--package", "method"]
    assert main(["run", *words]) == 0
    text = capsys.readouterr().out
    assert text.count("# @package method") == 2 and "--- # method=sefa" in text
    assert main(["run", "--cfg", "job", "-p", "nowhere"]) == 1
    assert "package 'nowhere' not found" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("word", "message"),
    [
        ("+foo=1", "unknown option 'foo'"),
        ("+hydra.foo=1", "unknown option of 'hydra' 'foo'"),
        ("hydra.jobb.chdir=true", "Did you mean 'job'"),
        ("++hydra.job.chdirr=true", "unknown option of 'hydra.job' 'chdirr'. Did you mean 'chdir'"),
        ("+method=sefa", "write method=sefa"),
        ("+network.foo=1", "unknown option of 'network' 'foo'"),
        ("+method.foo=1", "unknown option of 'method' 'foo'"),
        ("+starts.foo=1", "unknown option of 'starts' 'foo'"),
        ("+experiment.foo=1", "unknown option of 'experiment' 'foo'"),
        ("+budget.foo=1", "unknown option of 'budget' 'foo'"),
    ],
)
def test_a_key_that_nobody_reads_is_refused(word, message, tmp_path, capsys):
    places = ["method=along", "attribute=a", f"out={tmp_path}", f"cache={tmp_path}/cache"]
    assert main(["run", *TOY, *places, word]) in (1, 2)
    assert message in capsys.readouterr().err and not list(tmp_path.iterdir())


def test_free_keys_of_hydra_are_free(capsys):
    words = ["+hydra.job.env_set.MINE=1", "hydra.sweep.dir=here", "+hydra.launcher.mine=2"]
    assert main(["run", *words, "--cfg", "hydra", "-p", "hydra.job.env_set"]) == 0
    assert "MINE: '1'" in capsys.readouterr().out


# -- dry runs --------------------------------------------------------------------------------------
def test_a_dry_run_is_the_plan(tmp_path, capsys):
    words = [*TOY, "method=along,skip", "attribute=a,b", f"out={tmp_path}", f"cache={tmp_path}/c"]
    assert main(["plan", *words, "--json"]) == 0
    planned = json.loads(capsys.readouterr().out)
    assert main(["run", "-m", "--dry-run", *words, "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == planned
    assert planned["totals"]["to_run"] == 4 and not list(tmp_path.iterdir())
    assert main(["run", "--dry-run", *words]) == 1
    assert "needs -m" in capsys.readouterr().err
