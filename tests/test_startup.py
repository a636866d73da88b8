"""Commands that compute nothing wait for no library that computes: looked at in a started process."""

import json
import os
import subprocess
import sys

import pytest

from editbench.cli import main

HEAVY = ("torch", "pandas", "scipy", "torchmetrics", "sklearn", "matplotlib")
# A started process runs every command and says which of the libraries came with it.
LOOK = """
import json, sys
from contextlib import redirect_stdout
from io import StringIO
from editbench.cli import main
found = {}
for words in json.loads(sys.argv[1]):
    with redirect_stdout(StringIO()):
        code = main(words)
    found[" ".join(words)] = [code, sorted(set(sys.modules) & set(json.loads(sys.argv[2])))]
print(json.dumps(found))
"""


@pytest.fixture
def own_cache(tmp_path, monkeypatch):
    """A cache of the user that holds nothing yet, and no records."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return ["budget=demo", f"out={tmp_path}/runs", f"cache={tmp_path}/banks"]


def test_looking_things_up_imports_no_library_that_computes(own_cache, capsys):
    commands = [
        ["--version"],
        ["run", "--help"],
        ["list"],
        ["plan", *own_cache],
        ["plan", "-m", "method=gradctrl,sefa", "attribute=smile,age", *own_cache],
    ]
    # What a first process looks up, the next ones remember.
    for words in commands:
        assert main(words) == 0
    capsys.readouterr()
    # A misspelt name or a wrong value is told before anything is loaded that would use it.
    misspelt = [["run", "method=nosuch"], ["run", "-m", "metod=gradctrl,sefa"]]
    wrong = [
        ["run", "starts.n=abc"],
        ["run", "-m", "attribute=smile,age", "engine.max_steps=0"],
        ["bank", "bank.n=-1"],
    ]
    every = json.dumps([*commands, *misspelt, *wrong])
    words = [sys.executable, "-c", LOOK, every, json.dumps(HEAVY)]
    done = subprocess.run(words, capture_output=True, text=True, env=os.environ, timeout=120)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == {
        **{" ".join(words): [0, []] for words in commands},
        **{" ".join(words): [2, []] for words in misspelt},
        **{" ".join(words): [1, []] for words in wrong},
    }


def test_a_remembered_plan_is_the_plan(own_cache, capsys, monkeypatch):
    words = ["plan", "--json", "method=sefa,random", "attribute=smile", *own_cache]
    assert main(words) == 0
    first = json.loads(capsys.readouterr().out)
    # A second look composes nothing.
    monkeypatch.setattr("editbench.run.naming.sweep_settings", None)
    assert main(words) == 0
    assert json.loads(capsys.readouterr().out) == first


def test_an_answer_is_forgotten_when_a_file_behind_it_changes(tmp_path, monkeypatch):
    from editbench.run import answer_cache

    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    file = tmp_path / "weights.bin"
    config = {"generator": {"_target_": "editbench.x.Y", "weights": str(file)}}
    answer_cache.keep_answer(["a"], {"b": 1}, [config])
    assert answer_cache.recall_answer(["a"]) == {"b": 1}
    assert answer_cache.recall_answer(["b"]) is None
    file.write_text("made since")
    assert answer_cache.recall_answer(["a"]) is None
    answer_cache.keep_answer(["a"], {"b": 2}, [config])
    assert answer_cache.recall_answer(["a"]) == {"b": 2}
    monkeypatch.setattr(answer_cache, "_installed", lambda: "another version")
    assert answer_cache.recall_answer(["a"]) is None


@pytest.mark.parametrize(
    "config",
    [
        {"method": {"_target_": "somebody.Mine"}},  # may read anything
        {"scorer": {"_target_": "editbench.x.Y", "function": "somebody.score"}},
        {"inversion": {"images": "."}},  # a folder: its files count
        {"network": {"file": {"url": "https://x.org/y"}}},  # may be fetched meanwhile
    ],
)
def test_what_cannot_be_watched_is_not_remembered(config, tmp_path, monkeypatch):
    from editbench.run import answer_cache

    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    answer_cache.keep_answer(["a"], 1, [config])
    assert answer_cache.recall_answer(["a"]) is None
    answer_cache.keep_answer(["plan", "seed=${oc.env:SEED}"], 1, [{}])
    assert answer_cache.recall_answer(["plan", "seed=${oc.env:SEED}"]) is None
