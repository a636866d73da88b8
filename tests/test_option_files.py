"""Options of a user: `--config-dir` at every command that composes, and YAML files in place of names."""

from __future__ import annotations

import json
import shlex
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest

from editbench.bank.importing import read_attributes
from editbench.base.conf import read_yaml
from editbench.base.errors import BadFile, EditbenchError
from editbench.cli import main
from editbench.commands.demo import demo_methods
from editbench.commands.invert import invert_settings
from editbench.networks.scorers.config_file import scorer_file
from editbench.run.compose import compose_config, compose_settings, sweep_settings
from editbench.run.option_files import name_files, shell_override
from editbench.run.overrides import check_overrides

CONF = Path(__file__).parent / "conf"
TOY = ["generator=toy", "scorer=toy", "budget=toy", "attribute=a"]
MINE = "name: mine\nabout: one of my own\n_target_: tests.toy_world.AlongColumn\ndelta: 0.25\n"
METRIC = "_target_: editbench.metrics.crossing_accuracy.CrossingAccuracy\n"


# -- files in place of names -----------------------------------------------------------------------
def test_a_file_in_a_configuration_folder_makes_it_one():
    file = CONF / "method" / "along.yaml"
    words, folders = name_files([f"method=gradctrl,{file}", "seed=1"])
    assert words == ["method=gradctrl,along", "seed=1"] and folders == [CONF]
    assert name_files(words, folders) == (words, folders)


def test_a_file_that_hydra_would_not_find_in_its_folder_is_copied(tmp_path):
    (tmp_path / "method").mkdir()
    (tmp_path / "method" / "mine.yml").write_text(MINE)
    settings = compose_settings([*TOY, f"method={tmp_path}/method/mine.yml"], [CONF])
    assert settings.method.name == "mine"


def test_a_loose_file_is_composed_as_an_option(tmp_path):
    (tmp_path / "mine.yaml").write_text(MINE)
    (tmp_path / "mine_too.yml").write_text(MINE.replace("0.25", "0.75"))
    settings = compose_settings([*TOY, f"method={tmp_path}/mine.yaml"], [CONF])
    assert settings.method.name == "mine" and settings.method.options == {"delta": 0.25}
    settings = compose_settings([*TOY, f"method={tmp_path}/mine_too.yml"], [CONF])
    assert settings.method.options == {"delta": 0.75}


@pytest.mark.parametrize("end", ["", "keep_copies()"])
def test_a_copy_ends_with_the_process_unless_it_is_kept(end, tmp_path):
    (tmp_path / "mine.yaml").write_text(MINE)
    code = "from editbench.run.option_files import keep_copies, name_files\n"
    code += f"print(name_files(['method=mine.yaml'])[1][0])\n{end}"
    told = subprocess.check_output([sys.executable, "-c", code], cwd=tmp_path, encoding="utf-8")
    assert Path(told.strip()).is_dir() == bool(end)


def test_a_metric_in_a_list_is_placed_by_its_name(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("my_accuracy.yaml").write_text(METRIC)
    words = [*TOY, "method=along", "metric=[attribute_dependency,my_accuracy.yaml]"]
    assert set(compose_settings(words, [CONF]).metrics) == {"attribute_dependency", "my_accuracy"}


def test_an_experiment_says_what_it_is_about(tmp_path, capsys):
    (tmp_path / "experiment").mkdir()
    text = "# @package _global_\nname: mine\nseed: 3\n"
    (tmp_path / "experiment" / "mine.yaml").write_text(text + "about: smiles in the dark\n")
    (tmp_path / "experiment" / "bare.yaml").write_text(text)
    words, folders = [*TOY, "method=along"], [tmp_path, CONF]
    plain = []
    for name in ("mine", "bare"):
        found = compose_settings([*words, f"experiment={name}"], folders)
        assert found.seed == 3
        plain.append(found.plain)
    # It belongs to no job, so that another word makes no other run.
    assert plain[0] == plain[1]
    (_, swept) = next(iter(sweep_settings([*words, "experiment=mine"], folders)))
    assert swept.plain == plain[0]
    assert main(["list", "experiments", "--config-dir", str(tmp_path)]) == 0
    assert "mine                       smiles in the dark\n" in capsys.readouterr().out


def test_in_a_folder_a_metric_says_where_it_belongs(tmp_path):
    (tmp_path / "metric").mkdir()
    file = tmp_path / "metric" / "my_accuracy.yaml"
    file.write_text(METRIC)
    with pytest.raises(
        EditbenchError, match=r"must begin with the line # @package metric\.my_accuracy"
    ):
        check_overrides(["metric=[my_accuracy]"], [tmp_path])
    with pytest.raises(
        EditbenchError, match=r"must begin with the line # @package metric\.my_accuracy"
    ):
        compose_settings([f"metric=[{file}]"])


@pytest.mark.parametrize(
    ("word", "error", "message"),
    [
        ("method=none.yaml", BadFile, "method=none.yaml: no such file"),
        ("method=gradctrl.yaml", EditbenchError, "has the name of an option of editbench"),
        ("method=bad.yaml", BadFile, "must be a mapping"),
        ("method=mine.yaml,other/mine.yaml", EditbenchError, "have the same name"),
        ("method=größer.yaml", EditbenchError, "the name of an option may contain only a to z"),
        ("method=mine (1).yaml", EditbenchError, "the name of an option may contain only a to z"),
    ],
)
def test_a_file_that_cannot_serve_is_named(word, error, message, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("gradctrl.yaml", "mine.yaml", "other/mine.yaml", "größer.yaml", "mine (1).yaml"):
        Path(name).parent.mkdir(exist_ok=True)
        Path(name).write_text(MINE)
    Path("bad.yaml").write_text("- a list\n")
    with pytest.raises(error, match=message):
        name_files([word])


@pytest.mark.parametrize("text", ["", "null\n", "# @package metric.own\n"])
@pytest.mark.parametrize("group", ["method", "scorer", "bank", "metric"])
def test_a_file_that_holds_nothing_is_named(group, text, tmp_path):
    file = tmp_path / group / "own.yaml"
    file.parent.mkdir()
    file.write_text(text)
    message = rf"own\.yaml: is empty; write the options of the {group} there, as key: value$"
    with pytest.raises(BadFile, match=message):
        check_overrides([f"{group}=own"], [tmp_path])
    with pytest.raises(BadFile, match=message):
        name_files([f"{group}={file}"])


@pytest.mark.parametrize(
    "text, message",
    [
        ("5", "must be a mapping"),
        ("n: ${", "no viable alternative"),
        ("n: {null: 1}", "Incompatible key type"),
        ("n: !!timestamp 2026-13-45", "month must be in 1..12; put text that looks like a date in"),
    ],
)
def test_a_file_that_the_configuration_refuses_is_named(text, message, tmp_path):
    file = tmp_path / "own.yaml"
    file.write_text(text)
    with pytest.raises(BadFile, match=rf"own\.yaml.*{message}"):
        name_files([f"method={file}"])


def test_two_folders_with_one_name_are_refused(tmp_path):
    for name in ("one", "two"):
        (tmp_path / name / "method").mkdir(parents=True)
        (tmp_path / name / "method" / "mine.yaml").write_text(MINE)
    with pytest.raises(EditbenchError, match="have the same name"):
        check_overrides(["method=mine"], [tmp_path / "one", tmp_path / "two"])


# -- the commands ----------------------------------------------------------------------------------
@pytest.fixture
def own(tmp_path):
    """A configuration folder with a method of its own."""
    (tmp_path / "own" / "method").mkdir(parents=True)
    (tmp_path / "own" / "method" / "mine.yaml").write_text(MINE)
    return tmp_path / "own"


def test_list_shows_the_users_options(own, capsys):
    assert main(["list", "methods", "--config-dir", str(own)]) == 0
    text = capsys.readouterr().out
    assert f"  {'mine':26} one of my own\n" in text and "gradctrl" in text


@pytest.mark.parametrize(
    "words",
    [
        ["list"],
        ["list", "attributes"],
        ["run", "method=mine"],
        ["run", "-m", "method=mine,random"],
        ["run", "--dry-run", "method=mine"],
        ["plan", "method=mine"],
        ["bank", "generator=mine"],
        ["conform", "mine"],
        ["demo"],
        ["invert", "pictures", "--out", "codes", "generator=mine"],
        ["scorer", "check", "mine"],
        ["atlas", "method=mine"],
        ["world", "card", "generator=mine", "--out", "card"],
        ["report"],
    ],
    ids=" ".join,
)
def test_a_misspelt_folder_is_told_before_the_names_in_it(words, capsys, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    assert main([*words, "--config-dir", "nowhere"]) == 1
    assert "--config-dir nowhere: no such folder" in capsys.readouterr().err
    (tmp_path / "mine.yaml").touch()
    assert main([*words, "--config-dir", "mine.yaml"]) == 1
    assert "--config-dir mine.yaml: a file, not a folder" in capsys.readouterr().err


@pytest.mark.parametrize(
    "words",
    [
        ["plan", "--config-dir", ".", "cache=runs/cache"],
        ["plan", "--config-dir", ".", "+cache=runs/cache"],
        ["plan", "method=method/mine.yaml", "cache=cache"],  # which makes . a folder of options
        ["run", "-m", "--config-dir", ".", "method=mine", "seed=0,1", "cache=cache"],
        ["plan", "--config-dir", ".", "experiment=swept"],
    ],
    ids=" ".join,
)
def test_a_folder_named_like_a_key_is_told(words, own, capsys, monkeypatch):
    monkeypatch.chdir(own)
    (own / "cache").mkdir()
    check_overrides(["method=mine", "out=runs"], [own])
    (own / "experiment").mkdir()
    (own / "experiment" / "swept.yaml").write_text(
        "# @package _global_\nname: swept\nhydra:\n  sweeper:\n    params:\n      cache: a,b\n"
    )
    assert main(words) == 1
    assert capsys.readouterr().err == (
        f"error: cache=... cannot be set, because Hydra takes the folder {own}/cache for a group of "
        "options 'cache': rename that folder, or keep your options in a folder of their own, as in "
        "--config-dir my_conf\n"
    )


def test_list_shows_the_attributes_of_the_users_scorer(capsys):
    files = ["--scorer", f"{CONF}/scorer/toy.yaml", "--generator", f"{CONF}/generator/toy.yaml"]
    assert main(["list", "attributes", *files]) == 0
    text = capsys.readouterr().out
    assert main(["list", "attributes", "-cd", str(CONF), "--scorer=toy", "--generator=toy"]) == 0
    assert "x, y, z (ordered)" in text
    assert capsys.readouterr().out.splitlines()[1:] == text.splitlines()[1:]


def test_run_and_plan_take_files(own, tmp_path, capfd):
    places = [f"out={tmp_path}/runs", f"cache={tmp_path}/cache"]
    files = [f"{group}={CONF}/{group}/toy.yaml" for group in ("generator", "scorer", "budget")]
    words = [*files, f"method={own}/method/mine.yaml", "attribute=a", *places]
    assert main(["run", *words]) == 0
    assert main(["plan", *words]) == 0
    assert "mine-a-s0" in capfd.readouterr().out
    named = [f"--config-dir={CONF}", f"--config-dir={own}", *TOY, "method=mine", *places]
    assert main(["plan", *named, "--json"]) == 0
    assert json.loads(capfd.readouterr().out)["totals"]["done"] == 1


def test_conform_takes_names_and_files(own, capsys):
    for words in (["mine", "--config-dir", str(own)], [f"{own}/method/mine.yaml"]):
        assert main(["conform", *words, "--only", "constructs", "--json"]) == 0
        assert json.loads(capsys.readouterr().out)[0]["message"] == "walks in W, W units"
    assert main(["conform", "nobody"]) == 2
    assert "an option of method or metric" in capsys.readouterr().err


def test_the_other_commands_find_what_the_folder_holds(own, tmp_path):
    assert "mine" in demo_methods([own]) and "mine" not in demo_methods()
    assert scorer_file("toy", [CONF]) == CONF / "scorer" / "toy.yaml"
    words = ["generator=toy", "scorer=toy"]
    assert invert_settings("faces:2", "w", None, words, [CONF]).generator.name == "toy"


def test_doctor_tests_the_users_world(capsys, monkeypatch):
    monkeypatch.setattr("editbench.commands.doctor.TIMED", 8)
    words = ["--config-dir", str(CONF), "generator=toy", "scorer=toy"]
    assert main(["doctor", *words, "--json"]) in (0, 1)  # 1: the disk may be full
    assert json.loads(capsys.readouterr().out)["self_test"]["passed"]
    main(["doctor", "generator=tooy", "--json"])
    assert "unknown generator 'tooy'" in json.loads(capsys.readouterr().out)["self_test"]["reason"]


def test_a_scorer_is_checked_by_the_name_of_an_option(tmp_path, capsys):
    words = ["--config-dir", str(CONF), "--generator", "toy", "-n", "20", "--out", str(tmp_path)]
    main(["scorer", "check", "toy", *words])
    assert "teacher: 20 images" in capsys.readouterr().out


@pytest.mark.parametrize(
    "text, remedy",
    [
        ("about: a walk: two steps", "put text that has a colon in quotes"),
        ("about: @me", "put text that begins with @"),
        ("_target_: x\nabout:\n\tdeep: 1", "no line with a tab"),
    ],
)
def test_the_usual_mistakes_in_yaml_are_named_with_their_line(text, remedy, tmp_path):
    file = tmp_path / "mine.yaml"
    file.write_text(text)
    line = len(text.splitlines())
    with pytest.raises(BadFile, match=f"mine.yaml, line {line} is not readable YAML.*{remedy}"):
        read_yaml(file)


def test_text_that_looks_like_a_date_is_named(tmp_path):
    file = tmp_path / "mine.yaml"
    file.write_text("about: 2026-13-45")
    with pytest.raises(BadFile, match=r"mine\.yaml is not readable YAML.* date in quotes"):
        read_yaml(file)
    file.write_text("- {name: smile, classes: [2026-13-45, b]}")
    with pytest.raises(BadFile, match=r"mine\.yaml: expected a YAML list"):
        read_attributes(file)


def test_a_record_is_made_again_from_its_configuration(tmp_path, capsys):
    folder = ["--config-dir", str(CONF)]
    words = ["starts.n=14", "engine.max_steps=7", "method.delta=0.3", "seed=3"]
    first, again = tmp_path / "first ä", tmp_path / "again"
    here = [f"out='{first}'", f"cache='{first}/cache'"]
    assert main(["run", *folder, *TOY, "method=along", *words, *here]) == 0
    [record] = first.glob("along-*")
    # Elsewhere, since its own folder has a bank and a fit.
    there = [f"out={again}", f"cache={again}/cache"]
    named = ["generator=toy", "scorer=toy", "method=along", "budget=toy"]
    assert main(["run", *folder, f"experiment={record}/config.yaml", *named, *there]) == 0
    rows, same = (pd.read_parquet(root / record.name / "rows.parquet") for root in (first, again))
    pd.testing.assert_frame_equal(rows, same)
    assert "(reused)" not in capsys.readouterr().out


@pytest.mark.parametrize("quote", ["", "'", '"'])
def test_a_file_is_found_with_and_without_quotes(quote, tmp_path):
    file = tmp_path / "mine ä" / "slow.yaml"
    file.parent.mkdir()
    file.write_text(MINE)
    config = compose_config([*TOY, f"method={quote}{file}{quote}"], [CONF])
    assert config.method.delta == 0.25


@pytest.mark.parametrize("word", ["out=läufe der studentin", "out='läufe der studentin'"])
def test_a_value_with_umlauts_needs_no_quotes(word):
    assert compose_config([word]).out == "läufe der studentin"
    (_, settings) = next(iter(sweep_settings(*name_files([word, "attribute=smile,age"]))))
    assert settings.out == Path("läufe der studentin")
    # A comma could separate the values of a sweep.
    with pytest.raises(EditbenchError, match="stands in quotes"):
        compose_config(["out=läufe,reihe"])


def test_a_forgotten_folder_is_suggested(tmp_path, capsys):
    assert main(["run", "method=zzz", "attribute=smile"]) == 2
    assert "Options of your own need --config-dir FOLDER" in capsys.readouterr().err
    # A name of the user's own may be a little like one of the project's.
    assert main(["run", "generator=my_gan", "attribute=smile"]) == 2
    told = capsys.readouterr().err
    assert "Did you mean 'stylegan3'" in told and "own need --config-dir FOLDER" in told
    # Of no use to who misspelt a name or gave the folder.
    assert main(["run", "method=gradctl", "attribute=smile"]) == 2
    group = tmp_path / "method"
    group.mkdir()
    assert main(["run", "--config-dir", str(tmp_path), "method=zzz", "attribute=smile"]) == 2
    assert "--config-dir" not in capsys.readouterr().err
    # A folder of another level has no options.
    assert main(["run", "--config-dir", str(group), "method=zzz", "attribute=smile"]) == 2
    assert f"--config-dir {group}: no folder 'method' in it" in capsys.readouterr().err


def test_the_folder_that_should_have_been_given_is_named(tmp_path, monkeypatch, capsys):
    file = tmp_path / "my_conf" / "method" / "mine_direction.yaml"
    file.parent.mkdir(parents=True)
    file.write_text("name: mine_direction\n")
    monkeypatch.chdir(tmp_path)
    # The name resembles `direction`, which is not meant.
    for given in ([], ["--config-dir", "my_conf/method"]):
        assert main(["run", *given, "method=mine_direction", "attribute=smile"]) == 2
        told = capsys.readouterr().err
        assert "my_conf/method/mine_direction.yaml exists: give --config-dir my_conf " in told
        assert "Did you mean" not in told


def test_an_experiment_of_a_folder_needs_its_line(tmp_path):
    file = tmp_path / "experiment" / "mine.yaml"
    file.parent.mkdir()
    file.write_text("seed: 3\n")
    with pytest.raises(EditbenchError, match="must begin with the line # @package _global_"):
        compose_settings(["experiment=mine"], [tmp_path])


def test_a_key_that_is_there_twice_is_named(tmp_path, capsys):
    # Of a file that a word names, and of one in a folder that Hydra reads.
    twice = "name: mine\nabout: one\nname: other\n"
    file = tmp_path / "mine.yaml"
    file.write_text(twice)
    assert main(["run", f"method={file}", "attribute=smile"]) == 1
    assert f"{file}, line 3 is not readable YAML: found dup" in capsys.readouterr().err
    preset = tmp_path / "preset" / "mine_demo.yaml"
    preset.parent.mkdir()
    preset.write_text("# @package method\nn: 1\nn: 2\n")
    option = tmp_path / "method" / "mine.yaml"
    option.parent.mkdir()
    option.write_text("name: mine\n_target_: tests.broken_methods.Missing\nn: 1\n")
    words = ["run", "--config-dir", str(tmp_path), "method=mine", "budget=demo"]
    assert main([*words, "attribute=smile"]) == 1
    err = capsys.readouterr().err
    assert f"{preset}, line 3 is not readable YAML" in err and len(err.splitlines()) == 1


@pytest.mark.parametrize(
    "group, text, told",
    [
        ("method", "_target_: torch.nn.ReLU", "method._target_=torch.nn.ReLU gives a ReLU"),
        ("generator", "_target_: torch.nn.ReLU", "generator._target_=torch.nn.ReLU gives a ReLU"),
        (
            "scorer",
            "teacher: {_target_: torch.nn.ReLU}\njudge: {_target_: torch.nn.ReLU}",
            "scorer.teacher._target_=torch.nn.ReLU gives a ReLU",
        ),
        ("metric", "_target_: torch.nn.ReLU", "metric.mine._target_=torch.nn.ReLU gives a ReLU"),
        (
            "observation",
            "_target_: torch.nn.ReLU",
            "observation.mine._target_=torch.nn.ReLU gives a ReLU",
        ),
    ],
)
def test_a_class_of_another_kind_is_refused_by_its_key(group, text, told, tmp_path, capsys):
    (tmp_path / "mine.yaml").write_text(f"name: mine\n{text}\n")
    chosen = "[mine.yaml]" if group in ("metric", "observation") else "mine.yaml"
    word = f"{group}={chosen}".replace("mine.yaml", str(tmp_path / "mine.yaml"))
    toy = ["--config-dir", str(CONF), "generator=toy", "scorer=toy", "budget=toy", "method=along"]
    out = [f"out='{tmp_path}'", f"cache='{tmp_path}/cache'"]
    assert main(["run", *toy, "attribute=a", *out, word]) == 1
    assert told in (said := capsys.readouterr()).err + said.out
    assert "a subclass of editbench." in said.err + said.out


@pytest.mark.parametrize(
    "name",
    [
        "gan.safetensors",
        "my gän (2).safetensors",
        "it's.safetensors",
        "null",
        "true",
        "1e3",
        " gän",
        "a,b",
        "~/gan.safetensors",
    ],
)
def test_an_override_that_a_command_prints_can_be_pasted(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    words = shlex.split(shell_override("generator.weights", Path(name)))
    config = compose_config(["generator=stylegan2", *words])
    assert config.generator.weights == name
