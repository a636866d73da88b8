"""The command line, as a user meets it: help, sweeps, summaries, wrong names, Ctrl-C and kill -9."""

import errno
import json
import os
import pickle
import shutil
import signal
import time
from pathlib import Path
from typing import NamedTuple

import pytest

from editbench.base.files import CannotWrite
from editbench.cli import COMMANDS, main
from tests.fake_records import fake_run, metric_rows
from tests.processes import ROOT, Started, forbid_locks
from tests.sweep_editors import records

TOY = ["--config-dir", "tests/conf", "generator=toy", "scorer=toy", "budget=toy"]


class Ended(NamedTuple):
    """What a command left."""

    returncode: int
    stdout: str
    stderr: str


@pytest.fixture
def editbench(capfd, monkeypatch):
    """A function that runs a command in this process."""
    monkeypatch.chdir(ROOT)

    def run(*words):
        capfd.readouterr()
        return Ended(main([*words]), *capfd.readouterr())

    return run


@pytest.fixture
def toy_run(editbench, tmp_path):
    """A function that runs `editbench run` on the toy world, with its output in `tmp_path`."""
    return lambda *words: editbench("run", *toy_words(tmp_path), *words)


def toy_words(folder):
    return [*TOY, f"out={folder}", f"cache={folder}/cache"]


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_has_help_with_examples(command, capsys):
    try:
        code = main([command, "--help"])
    except SystemExit as end:
        code = end.code
    text = capsys.readouterr().out
    assert code == 0 and "example" in text and f"editbench {command}" in text
    assert "(default: )" not in " ".join(text.split())


@pytest.mark.parametrize(
    "words",
    [
        "bank import",
        "bank info",
        "invert show",
        "invert compare",
        "dataset pack",
        "dataset info",
        "human make",
        "human analyse",
        "world train-gan",
        "world train-scorers",
        "world train-parser",
        "world card",
        "world pack",
    ],
)
def test_every_subcommand_has_help_with_its_own_examples_alone(words, capsys):
    with pytest.raises(SystemExit) as end:
        main([*words.split(), "--help"])
    text = capsys.readouterr().out
    assert end.value.code == 0
    shown = [line for line in text.partition("examples:\n")[2].splitlines() if "editbench" in line]
    assert shown and all(line.startswith(f"  editbench {words} ") for line in shown)


def test_help_shows_no_default_that_is_an_empty_list(capsys):
    with pytest.raises(SystemExit):
        main(["world", "card", "--help"])
    text = " ".join(capsys.readouterr().out.split())
    assert "(default: 10000)" in text and "[])" not in text


def test_help_lists_the_commands(capsys):
    assert main(["--help"]) == 0
    text = capsys.readouterr().out
    assert all(command in text for command in COMMANDS)
    assert main([]) == 2
    assert main(["rn"]) == 2
    assert "unknown command 'rn'. Did you mean 'run'?" in capsys.readouterr().err


def test_list_shows_a_line_each(capsys):
    assert main(["list"]) == 0
    text = capsys.readouterr().out
    for line in text.splitlines():
        assert not line.startswith("  ") or len(line.split()) > 1, (
            f"{line.strip()} is not described"
        )
    for word in (
        "gradctrl",
        "interfacegan",
        "random",
        "faces32",
        "crossing_accuracy",
        "ffhq_latents",
        "mnist_digits",
        "eyeglasses",
        "hair_color",
    ):
        assert word in text
    assert main(["list", "method"]) == 2
    assert "Did you mean 'methods'" in capsys.readouterr().err


def test_attributes_of_a_scorer_that_cannot_be_read_are_an_error_if_asked_for(tmp_path, capsys):
    broken = tmp_path / "broken.yaml"
    broken.write_text("a: [")
    assert main(["list", "attributes", f"--scorer={broken}"]) == 1
    assert "not readable YAML" in capsys.readouterr().err
    # A list of everything shows the rest.
    assert main(["list", f"--scorer={broken}"]) == 0
    printed = capsys.readouterr().out
    assert "gradctrl" in printed
    assert f"attributes of scorer {broken}" in printed
    assert "not available" in printed


def test_list_takes_flags_and_overrides_in_any_order_and_names_what_is_shown(capsys):
    words = ["list", "attributes", "--scorer", "digiface", "--generator", "renders", "scorer=faces"]
    assert main(words) == 0
    assert capsys.readouterr().out.startswith("attributes of scorer faces ")
    assert main(["list", "layers", "generator=faces32_rho00"]) == 0
    assert capsys.readouterr().out.startswith("layers of generator faces32_rho00 ")


def test_list_prints_nothing_but_the_error_where_there_is_one(capsys):
    for words in (["attributes", "--scorer", "nope"], ["--scorer", "nope"]):
        assert main(["list", *words]) == 2
        captured = capsys.readouterr()
        assert not captured.out and captured.err.startswith("error: unknown scorer 'nope'. Avail")


@pytest.mark.parametrize(
    ("word", "expected"),
    [
        ("method=gradctl", "unknown method 'gradctl'. Did you mean 'gradctrl'? Available: "),
        ("atribute=smile", "unknown option 'atribute'. Did you mean 'attribute'?"),
        ("starts.nn=3", "unknown option of 'starts' 'nn'. Did you mean 'n'?"),
        ("method.delt=3", "unknown option of 'method' 'delt'. Did you mean 'delta'?"),
        ("+experiment=mnist", "unknown experiment 'mnist'. Did you mean 'mnist_digits'?"),
        ("smile", "'smile' is not an override: write key=value"),
    ],
)
def test_a_wrong_word_gets_the_nearest_and_the_list(word, expected, capsys):
    assert main(["run", word]) in (1, 2)
    assert expected in capsys.readouterr().err


@pytest.mark.parametrize(
    ("word", "message"),
    [
        (["attribute=aa"], "unknown attribute 'aa'. Did you mean 'a'? Available: a, b"),
        (["attribute=c", "target=zz"], "unknown class of attribute 'c' 'zz'. Did you mean 'z'?"),
    ],
)
def test_an_unknown_name_is_wrong_usage_with_the_list_be_it_a_sweep_or_not(
    word, message, tmp_path, toy_run
):
    for words in ([], ["-m"]):
        run = toy_run(*words, "method=along", *word)
        assert run.returncode == 2
        assert run.stderr.startswith(f"error: {message}")
        assert "Traceback" not in run.stderr and not records(tmp_path)


def test_a_sweep_runs_what_is_missing_or_failed_and_says_why(tmp_path, toy_run):
    sweep = ["-m", "method=along,skip,crash", "attribute=a,b"]
    first = toy_run(*sweep)
    assert first.returncode == 1
    assert "6 jobs: 2 done, 2 skipped, 2 failed" in first.stderr
    # A reason that several jobs share is told once.
    assert "skipped  skip x a, seed 0; skip x b, seed 0: no control found" in first.stderr
    assert "failed  crash x b, seed 0: RuntimeError: a defect of the method" in first.stderr
    assert (
        sorted(s["status"] for s in records(tmp_path).values())
        == ["done"] * 2 + ["failed"] * 2 + ["skipped"] * 2
    )
    stamps = {
        name: (tmp_path / name / "status.json").stat().st_mtime_ns for name in records(tmp_path)
    }
    again = toy_run(*sweep)
    assert "6 jobs: 2 done, 2 skipped, 2 failed (4 reused)" in again.stderr
    for name, status in records(tmp_path).items():
        same = (tmp_path / name / "status.json").stat().st_mtime_ns == stamps[name]
        assert same == (status["status"] != "failed")


def main_without_an_end(words):
    """`main`, whose job with the seed 3 waits until somebody stops it."""
    from editbench.run import job

    run_job = job.run_job

    def run_or_wait(settings):
        if settings.seed == 3:
            time.sleep(3600)
        return run_job(settings)

    job.run_job = run_or_wait
    return main(words)


@pytest.mark.parametrize("kill", [signal.SIGKILL, signal.SIGINT])
def test_a_sweep_that_is_stopped_loses_nothing_finished(tmp_path, toy_run, kill):
    sweep = ["-m", "method=along", "attribute=a", "seed=0,1,2,3"]
    # However late the signal comes, it finds the sweep under way.
    process = Started(main_without_an_end, ["run", *toy_words(tmp_path), *sweep])
    deadline = time.monotonic() + 60
    while len(records(tmp_path)) < 2 and time.monotonic() < deadline:
        time.sleep(0.005)
    process.send_signal(kill)
    _, err = process.communicate(timeout=60)
    finished = records(tmp_path)
    assert 2 <= len(finished) < 4 and all(s["status"] == "done" for s in finished.values())
    if kill == signal.SIGINT:
        assert process.returncode == 130 and "what was finished is kept" in err
    again = toy_run(*sweep)
    assert again.returncode == 0
    assert f"4 jobs: 4 done, 0 skipped, 0 failed ({len(finished)} reused" in again.stderr
    assert not list(tmp_path.glob(".partial-*"))


@pytest.mark.parametrize(("command", "goes_on"), [("run", True), ("report", False)])
def test_ctrl_c_promises_to_go_on_only_where_the_command_does(
    command, goes_on, monkeypatch, capsys
):
    def stop(words):
        raise KeyboardInterrupt

    monkeypatch.setattr("editbench.cli.run_command", stop)
    assert main([command]) == 130
    err = capsys.readouterr().err
    assert err.startswith("stopped") and ("goes on from there" in err) == goes_on


def test_ctrl_c_that_a_library_turns_into_an_error_of_its_own_is_told_as_ctrl_c(
    monkeypatch, capsys
):
    def answer_as_numpy_does(words):
        try:
            signal.raise_signal(signal.SIGINT)
        except KeyboardInterrupt:
            raise ImportError("cannot load module more than once per process") from None

    monkeypatch.setattr("editbench.cli.run_command", answer_as_numpy_does)
    before = signal.getsignal(signal.SIGINT)
    assert main(["doctor"]) == 130
    assert capsys.readouterr().err == "stopped\n"
    assert signal.getsignal(signal.SIGINT) is before


@pytest.mark.parametrize(
    ("words", "near"),
    [
        (["run", "--dry-runn"], "--dry-run"),
        (["run", "--dry-run", "--cfgg=job"], "--cfg"),
        (["plan", "--jsn"], "--json"),
        (["bank", "--part=8"], "--parts"),
        (["bank", "info", "x", "--foo"], ""),
        (["report", "runs", "--comparee", "a", "b"], "--compare"),
        (["list", "methods", "--generatr=x"], "--generator"),
        (["world", "card", "--out", "x", "--jugde", "y"], "--judge"),
    ],
)
def test_an_unknown_flag_is_named_with_the_nearest_one_and_the_help(words, near, capsys):
    assert main(words) == 2
    err = capsys.readouterr().err
    wrong = next(
        word for word in words if word.startswith("--") and word not in ("--dry-run", "--out")
    )
    hint = f" Did you mean '{near}'?" if near else ""
    assert err.startswith(f"error: unknown flag '{wrong.partition('=')[0]}'.{hint} Available: ")
    assert err.endswith(" --help`.\n") and f"See `editbench {words[0]}" in err
    assert err.count("\n") == 1


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
@pytest.mark.parametrize("key", ["out", "cache"])
def test_an_unwritable_folder_is_explained(key, tmp_path, editbench):
    words = {name: f"{name}={tmp_path}/{name}" for name in ("out", "cache")}
    (tmp_path / "sealed").mkdir(mode=0o500)
    words[key] = f"{key}={tmp_path}/sealed/{key}"
    run = editbench("run", *TOY, *words.values(), "method=along", "attribute=a")
    assert run.returncode == 1 and f"set {key}=DIR" in run.stderr


@pytest.mark.parametrize(
    ("words", "keys"),
    [
        (["report", "runs", "--out", "report"], None),
        (["baseline", "runs", "--out", "way/pins.json", "--reason", "a test"], None),
        (["check", "runs", "--baseline", "pins.json", "--junit", "way/junit.xml"], None),
        (["new", "metric", "kept_nowhere", "--folder", "way"], None),
        (["bank", "cache=kept"], "cache=DIR"),
        (["run", "method=along", "attribute=a", "cache=kept"], "cache=DIR"),
        (["run", "method=along", "attribute=a", "cache=fitted", "out=new"], "cache=DIR"),
        (["run", "-m", "method=along", "attribute=a", "cache=kept", "out=swept"], "out=DIR"),
    ],
)
def test_what_cannot_be_written_is_told_with_the_words_of_its_command(
    words, keys, tmp_path, monkeypatch, capsys
):
    """Where a command has neither out= nor cache=, the message names no such words."""
    toy = ["--config-dir", str(ROOT / "tests" / "conf"), *TOY[2:]]
    monkeypatch.chdir(tmp_path)
    fake_run(tmp_path / "runs", "alpha", "smile", metric_rows(0.7))
    assert main(["baseline", "runs", "--out", "pins.json", "--reason", "a test"]) == 0
    # A file in the way of what is written, which stops root too.
    for place in (
        "way",
        "report/figures",
        "kept/banks",
        "fitted/fits",
        "swept/.sweeps",
    ):
        Path(place).parent.mkdir(exist_ok=True)
        Path(place).write_text("in the way")
    capsys.readouterr()
    composes = words[0] in ("run", "bank")
    assert main([*words[:1], *toy, *words[1:]] if composes else words) == 1
    error = capsys.readouterr().err
    if keys is None:
        assert ": choose a folder you may write to" in error and "DIR" not in error
    else:
        assert f": set {keys} to a folder you may write to" in error


def test_a_full_disk_is_told_with_the_words_of_its_command(tmp_path, monkeypatch, capsys):
    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    folder = str(tmp_path)
    assert main(["new", "metric", "too_large", "--folder", folder]) == 1
    error = capsys.readouterr().err
    assert "free some space, or choose a folder on another disk" in error
    assert main(["run", *TOY, "method=along", "attribute=a", f"out={folder}", f"cache={folder}"])
    error = capsys.readouterr().err
    assert "free some space, or set cache=DIR to a folder on another disk" in error


def test_a_disk_that_is_full_as_a_sweep_begins_is_told_with_the_folder(
    tmp_path, monkeypatch, capsys
):
    def full(*_):
        # Of a write, whose error names no file.
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("omegaconf.OmegaConf.save", full)
    words = toy_words(tmp_path)
    assert main(["run", "-m", *words, "method=along", "attribute=a,b"]) == 1
    (folder,) = (tmp_path / ".sweeps").iterdir()
    assert f"error: the disk is full: could not write {folder}. What" in capsys.readouterr().err


def test_a_file_that_a_sweep_may_not_write_is_told_by_its_own_name(tmp_path, monkeypatch, capsys):
    def refused(*_):
        raise PermissionError(errno.EACCES, "Permission denied", "/elsewhere/file")

    monkeypatch.setattr("omegaconf.OmegaConf.save", refused)
    words = toy_words(tmp_path)
    assert main(["run", "-m", *words, "method=along", "attribute=a,b"]) == 1
    assert "error: cannot write /elsewhere/file (Permission denied)" in capsys.readouterr().err


def test_an_error_of_the_disk_survives_the_way_out_of_a_worker():
    error = CannotWrite(Path("there"), errno.EACCES, "cache=DIR")
    assert str(pickle.loads(pickle.dumps(error))) == str(error)


def test_a_finished_bank_and_fit_serve_jobs_that_may_not_write_to_the_cache(tmp_path, editbench):
    words = ["run", *TOY, "method=along", "attribute=a"]
    assert editbench(*words, f"out={tmp_path}/one", f"cache={tmp_path}/cache").returncode == 0
    # A copy, which this process has not opened yet.
    shared = tmp_path / "shared"
    shutil.copytree(tmp_path / "cache", shared)
    forbid_locks(shared)
    before = {path: path.read_bytes() for path in shared.rglob("*") if path.is_file()}
    run = editbench(*words, f"out={tmp_path}/two", f"cache={shared}")
    assert run.returncode == 0, run.stderr
    (provenance,) = tmp_path.glob("two/*/provenance.json")
    assert json.loads(provenance.read_text())["fit_cached"]
    assert {path: path.read_bytes() for path in shared.rglob("*") if path.is_file()} == before


@pytest.mark.parametrize("place", ["way", "way/deeper"])
def test_a_file_in_the_way_of_the_output_is_told_before_any_work(place, tmp_path, capsys):
    way = tmp_path / "way"
    way.write_text("in the way")
    words = toy_words(tmp_path / place)
    for command in (
        ["run", *words, "method=along", "attribute=a"],
        ["run", *words, "-m", "method=along", "attribute=a,b"],
        ["report", str(tmp_path), "--out", str(tmp_path / place)],
        ["demo", "--out", str(tmp_path / place)],
    ):
        assert main(command) == 1
        out, err = capsys.readouterr()
        assert f"{way} is a file; give a folder" in err and out == ""


def test_a_path_that_the_system_refuses_is_told_without_a_traceback(tmp_path, capsys):
    """Here a name of more than 255 bytes, which stops root too; a folder that may not be entered
    takes the same way.
    """
    refused = tmp_path / ("x" * 256)
    words = toy_words(refused)
    for command in (
        ["run", *words, "method=along", "attribute=a"],
        ["run", *words, "-m", "method=along", "attribute=a,b"],
        ["plan", *words, "-m", "method=along", "attribute=a,b"],
        ["report", str(refused)],
        ["report", str(tmp_path), "--out", str(refused)],
        ["report", "--compare", str(refused), str(tmp_path)],
        ["run", "method=random", "attribute=smile", "--config-dir", str(refused)],
    ):
        assert main(command) == 1, command
        out, err = capsys.readouterr()
        assert err.startswith(f"error: {refused}") and err.count("\n") == 1 and out == ""
        assert os.strerror(errno.ENAMETOOLONG) in err


def test_a_current_folder_that_was_deleted_is_told(tmp_path, monkeypatch, capsys):
    gone = tmp_path / "gone"
    gone.mkdir()
    monkeypatch.chdir(gone)
    gone.rmdir()
    try:
        for words in (["run", "method=random", "attribute=smile"], ["report"], ["list"]):
            assert main(words) == 1
            assert capsys.readouterr().err == (
                "error: the current folder was deleted: change to another one\n"
            )
        assert main(["--version"]) == 0
    finally:
        # What runs after this test needs a folder.
        os.chdir(tmp_path)


def test_bank_builds_describes_and_imports(tmp_path, editbench):
    built = editbench("bank", *toy_words(tmp_path))
    assert built.returncode == 0 and "1000 samples" in built.stdout and "samples in" in built.stderr
    (folder,) = (tmp_path / "cache" / "banks").glob("[!.]*")
    # A bank that is named by its path is opened, and not built.
    named = editbench("bank", *toy_words(tmp_path), f"bank.path={folder}")
    assert named.returncode == 0 and f"verified {folder}:" in named.stderr
    info = editbench("bank", "info", str(folder))
    assert info.stdout == built.stdout
    (folder / "shard-00001" / "w.npy").write_bytes(b"cut")
    broken = editbench("bank", "info", str(folder))
    assert broken.returncode == 1
    assert "is truncated or altered" in broken.stderr
    assert "Traceback" not in broken.stderr


def test_doctor_passes_on_this_machine(editbench):
    run = editbench("doctor")
    assert run.returncode == 0, run.stdout + run.stderr
    assert "self-test                  passed" in run.stdout


@pytest.mark.parametrize(
    "words", [["check", "runs"], ["world"], ["report", "--out"], ["convert", "x.pkl", "--out"]]
)
def test_wrong_usage_is_one_line_that_names_the_help(words, capsys):
    with pytest.raises(SystemExit, match="2"):
        main(words)
    err = capsys.readouterr().err
    assert err.startswith("error: ") and err.count("\n") == 1
    assert f"(see `editbench {words[0]} --help`)" in err
