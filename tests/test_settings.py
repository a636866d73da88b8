"""Settings: a wrong value is one line with key, value and remedy, before any network or bank."""

import dataclasses
import pickle
import time
from pathlib import Path

import pytest
from omegaconf import OmegaConf

import editbench as eb
from editbench.base.errors import EditbenchError, UnknownName, Unsupported
from editbench.base.validation import check_options
from editbench.cli import main
from editbench.commands.demo import demo_settings
from editbench.run import loading
from editbench.run.compose import compose_config, compose_settings, sweep_settings
from editbench.run.overrides import check_single, check_words_have_effect
from editbench.run.record import upgrade
from editbench.run.settings import Settings
from tests.toy_world import AlongColumn, toy_config

COMMANDS = (["run"], ["run", "-m"], ["plan"], ["demo"], ["bank"])
WRONG = [
    ("starts.n=abc", "starts.n=abc must be a whole number"),
    ("starts.n=-5", "starts.n=-5 must be at least 1"),
    ("starts.pool=abc", "starts.pool=abc must be a number"),
    ("starts.pool=2", "starts.pool=2 must lie in (0, 1]"),
    ("starts.near=far", "starts.near=far must be one of joint, target, any"),
    ("starts.attributes=[smile,age]", "is no longer an option: set evaluated=[smile,age]"),
    ("evaluated=smile", "evaluated=smile must be null or a list of names"),
    ("evaluated=[3,4]", "must be null or a list of names, as in evaluated=[smile,age]"),
    ("evaluated=[smile]", "evaluated=[smile] leaves no attribute that an edit could disturb"),
    ("evaluated=[age,smile,age]", "evaluated=[age,smile,age] lists age twice: list it once"),
    ("engine.max_steps=0", "engine.max_steps=0 must be at least 1"),
    ("engine.max_steps=1.5", "engine.max_steps=1.5 must be a whole number"),
    ("bank.n=abc", "bank.n=abc must be a whole number"),
    ("bank.workers=0", "bank.workers=0 must be at least 1"),
    ("bank.shard=65", "bank.shard=65 must be a multiple of bank.block=64"),
    ("method.delta=-1", "method.delta=-1 must be positive"),
    ("method.delta=abc", "method.delta=abc must be a number"),
    ("method.n_per_class=0", "method.n_per_class=0 must be at least 1"),
    ("+method.dleta=1", "unknown option of 'method' 'dleta'. Did you mean 'delta'?"),
    ("+starts.m=1", "unknown option of 'starts' 'm'"),
    ("generator.weights=1", "generator.weights=1 must be a path or null"),
    (
        "observation.locality.parser=null",
        "since observation=locality is not chosen: add observation=[locality]",
    ),
    (
        "metric.locality.figure=null",
        "add metric=[crossing_accuracy,attribute_dependency,locality]",
    ),
    ("+generator.truncation=1", "Did you mean 'truncation_psi'?"),
    ("+metric.crossing_accuracy.at=1", "unknown option of 'metric.crossing_accuracy' 'at'"),
    ("metric.attribute_dependency.draws=x", "metric.attribute_dependency.draws=x must be"),
    ("+key=1", "unknown option 'key'"),
    ("+atribute=smile", "unknown option 'atribute'. Did you mean 'attribute'?"),
    ("attribute=[smile,age]", "a job takes one attribute; sweep with -m attribute=smile,age"),
    ("attribute=3", "attribute=3 must be text"),
    ("target=[a,b]", "target=[a,b]: a job takes one class; sweep with -m target=a,b"),
    ("target=1.5", "target=1.5 must be the name of a class or its index"),
    ("target=true", "target=true must be the name of a class or its index"),
    ("seed=[1,2]", "seed=[1,2]: a job takes one seed; sweep with -m seed=1,2"),
    ("seed=abc", "seed=abc must be a whole number, as in seed=0"),
    ("seed='0'", "seed='0' must be a whole number, as in seed=0"),
    ("seed=null", "seed=null must be a whole number"),
    ("seed=9223372036854775808", "seed=9223372036854775808 must lie between -2^63 and 2^63 - 1"),
    ("starts.n=true", "starts.n=true must be a whole number"),
    ("method.delta='1e-3'", "method.delta='1e-3' must be a number"),
    ("engine.batch='64'", "engine.batch='64' must be a whole number, or auto"),
    ("save_codes='false'", "save_codes='false' must be true or false"),
    ("device=[cpu,cuda]", "device=[cpu,cuda]: a job takes one device"),
    ("device=gpu", "device=gpu is not a device: use cpu, cuda or cuda:0"),
    ("device=meta", "device=meta is not a device: use cpu, cuda or cuda:0"),
    ("device=mps", "device=mps is not a device: use cpu, cuda or cuda:0"),
    ("precision=tf32", "precision=tf32 with device=cpu: TF32 needs an NVIDIA GPU"),
    ("precision=fp8", "precision=fp8 must be one of fp32, tf32, bf16, fp16"),
    ("out=''", "out=null must be text, as in out=runs"),
    ("offline=perhaps", "offline=perhaps must be true or false, as in offline=false"),
    ("metric=[]", "leaves nothing to measure"),
    ("+metric.locality.at=1", "metric.locality has options but no class: choose it in metric=["),
    ("method=[gradctrl,random]", "a job takes one method; sweep with -m method=gradctrl,random"),
    ("inversion.lr=-1", "inversion.lr=-1 must be positive"),
    ("inversion.lr=inf", "inversion.lr=inf must be finite"),
    ("inversion.jitter=inf", "inversion.jitter=inf must be finite"),
    ("inversion=folder", "inversion.images is not set: give a folder of images or faces:N"),
    ("inversion.block=0", "inversion.block=0 must be at least 1"),
    ("method._target_=no.such.Class", "method._target_=no.such.Class cannot be imported"),
    ("generator=null", "unknown generator 'null'"),
    ("method.name=mine/first", "method.name=mine/first is used in the names of files"),
    ("method.name=.mine", "or begin with a dot: change `name` in its YAML"),
    ("method.name=''", "method.name is missing: add `name: NAME` to the method's YAML"),
    ("~method.name", "method.name is missing: add `name: NAME` to the method's YAML"),
    ("~generator", "generator=null is not an option of 'generator'"),
]


@pytest.mark.parametrize(("word", "message"), WRONG)
def test_a_wrong_value_is_one_line_with_key_value_and_remedy(word, message):
    with pytest.raises(EditbenchError) as caught:
        compose_settings([word])
    assert message in str(caught.value) and "\n" not in str(caught.value)


def test_what_hydras_grammar_refuses_is_told_once():
    with pytest.raises(EditbenchError) as caught:
        check_single(["method.delta=tag(a,0.6,0.3)"])
    assert str(caught.value).count("float is incompatible with") == 1


@pytest.fixture(scope="module")
def warm():
    """What the commands import is imported: its time is not theirs."""
    compose_settings([])
    for name in ("run.sweep", "run.plan", "commands.plan", "commands.demo", "commands.bank"):
        __import__(f"editbench.{name}")


@pytest.mark.parametrize("word", ["starts.n=abc", "+key=1", "seed=[1,2]"])
@pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
def test_every_command_refuses_it_at_once_where_nothing_is_cached(
    command, word, warm, tmp_path, capsys, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(loading, "_build_networks", None)  # no network may be loaded for it
    began = time.process_time()
    code = main([*command, word, f"cache={tmp_path}/cache"])
    seconds = time.process_time() - began
    captured = capsys.readouterr()
    (line,) = captured.err.strip().splitlines()
    assert code in (1, 2) and line.startswith("error: ") and not captured.out
    assert seconds < 2 and list(tmp_path.iterdir()) == []


def test_a_sweep_is_refused_before_its_first_job_wherever_the_wrong_value_stands(tmp_path, capsys):
    words = [f"out={tmp_path}/runs", f"cache={tmp_path}/cache"]
    for sweep, message in (
        (["method=random,gradctrl", "method.delta=0.5,-1"], "method.delta=-1 must be positive"),
        (["seed=0,1,abc"], "seed=abc must be a whole number"),
        (["attribute=[smile,age]"], "a job takes one attribute; sweep with -m attribute=smile,age"),
    ):
        assert main(["run", "-m", *words, *sweep]) == 1
        assert message in capsys.readouterr().err and list(tmp_path.iterdir()) == []


def test_a_sweep_over_methods_has_the_options_of_its_own_methods():
    """Which of them lacks an option is named; what the default method has does not matter."""
    words = ["method=random_channel,stylespace", "method.exemplars=30"]
    with pytest.raises(UnknownName, match="unknown option of method=random_channel 'exemplars'"):
        list(sweep_settings(words))
    assert "exemplars" not in compose_settings([]).method.options
    words[0] = "method=stylespace,stylespace_multi"
    found = [settings.method.options["exemplars"] for _, settings in sweep_settings(words)]
    assert found == [30, 30]


@pytest.mark.parametrize(
    ("word", "message"),
    [
        ("method.spectrum.latents=0", "method.spectrum.latents=0 must be at least 1"),
        ("method.spectrum.unit=1", "method.spectrum.unit=1 must be true or false"),
        ("method.spectrum.method=x", "method.spectrum.method=x must be one of block, power"),
        ("+method.spectrum.lat=5", "unknown option of 'method.spectrum' 'lat'. Did you mean 'lat"),
        ("inversion.rampup=2", "inversion.rampup=2 must be in (0, 1]"),
    ],
)
def test_of_options_within_options_the_wrong_one_alone_is_named(word, message):
    with pytest.raises(EditbenchError) as caught:
        compose_settings(["method=navigan_spectrum", word])
    assert str(caught.value).startswith(message) and "gauss_newton" not in str(caught.value)


def test_several_values_without_m_say_what_is_missing(capsys):
    assert main(["run", "attribute=smile,age"]) == 1
    err = capsys.readouterr().err
    assert "attribute=smile,age: several values make a sweep, which needs -m" in err
    assert len(err.splitlines()) == 1


@pytest.mark.parametrize("word", ["evaluated=smile,age", "metric=locality,identity"])
def test_several_values_of_a_list_say_that_it_has_brackets(word, capsys):
    key, _, values = word.partition("=")
    assert main(["run", "attribute=smile", word]) == 1
    assert f"or a list in brackets if it takes one: '{key}=[{values}]'" in capsys.readouterr().err
    # The remedy is no error of its own.
    assert compose_settings(["attribute=smile", f"{key}=[{values}]"])


def test_several_values_for_a_command_without_sweeps_name_the_one_that_has_them(capsys):
    assert main(["atlas", "method=sefa,ganspace"]) == 1
    err = capsys.readouterr().err
    assert "method=sefa,ganspace: this command takes one job" in err
    assert "`editbench run -m`" in err and "needs -m" not in err


def test_settings_are_typed_frozen_and_survive_a_process(tmp_path):
    words = ["evaluated=[smile,age]", f"out={tmp_path}", "bank.path=some/bank", "seed=3"]
    settings = compose_settings(words)
    assert settings.evaluated == ("smile", "age") and settings.seed == 3
    assert settings.out == tmp_path and settings.bank.path == Path("some/bank")
    assert settings.method.name == "gradctrl" and settings.inversion.is_none
    with pytest.raises(dataclasses.FrozenInstanceError):
        settings.seed = 4
    assert pickle.loads(pickle.dumps(settings)) == settings


def test_the_plain_configuration_is_the_resolved_one_and_reads_back(tmp_path):
    words = ["experiment=real_images", f"data={tmp_path}"]
    config = compose_config(words)
    settings = Settings.from_config(config)
    assert settings.plain == OmegaConf.to_container(config, resolve=True)
    text = OmegaConf.to_yaml(OmegaConf.create(settings.plain))
    assert "${" not in text
    # A record keeps it as YAML, and redrawing reads it from there.
    again = Settings.from_config(OmegaConf.create(text))
    assert again == settings


def test_another_attribute_or_device_changes_the_plain_configuration_too():
    settings = compose_settings([])
    other = settings.with_values(attribute="age", device="cuda:1")
    assert (other.attribute, other.device) == ("age", "cuda:1")
    assert (other.plain["attribute"], other.plain["device"]) == ("age", "cuda:1")
    assert (settings.plain["attribute"], settings.attribute) == ("smile", "smile")


class Picky(AlongColumn):
    """A user's editor with a constructor of its own."""

    def __init__(self, rank: int, share: float | None = None, mode: str = "a", **others) -> None:
        super().__init__(**others)
        if mode == "unsupported":
            raise Unsupported("needs another generator")
        if rank > 5:
            raise EditbenchError(f"at most 5 directions: lower rank, it is {rank}")
        if mode == "broken":
            raise ValueError("mode broken")


def picky(tmp_path, **options):
    config = toy_config(tmp_path)
    config.method = {"name": "picky", "_target_": f"{__name__}.Picky", **options}
    return Settings.from_config(config)


def test_the_constructor_of_a_users_editor_decides(tmp_path):
    assert picky(tmp_path, rank=2, share=None, delta=0.1).method.options["delta"] == 0.1
    picky(tmp_path, rank=2, mode="unsupported")  # the job is skipped, with its reason
    for options, message in (
        ({"rank": 9}, "method.rank=9: at most 5 directions: lower rank, it is 9"),
        ({"rank": 2.5}, "method.rank=2.5 must be a whole number"),
        ({"rank": 1, "share": "x"}, "method.share=x must be a number or null"),
        ({"rank": 1, "mode": "broken"}, "method.mode=broken: "),
        ({"rank": 1, "dleta": 1}, "unknown option of 'method' 'dleta'. Did you mean 'delta'?"),
        ({}, "method: tests.test_settings.Picky needs the option rank: set method.rank=..."),
    ):
        with pytest.raises(EditbenchError) as caught:
            picky(tmp_path, **options)
        assert message in str(caught.value)


@pytest.mark.parametrize(
    ("word", "message"),
    [
        ("metric.attribute_dependency.at=-1", "at=-1 must be positive"),
        ("metric.attribute_dependency.stop=0.1", "stop=0.1 must be at least 0.25"),
        (
            "metric.attribute_dependency.stop=3.1",
            "stop=3.1 must be a multiple of width=0.25, such as 3",
        ),
        ("metric.singular_entropy.kept=0", "kept=0 must be at least 1"),
        ("metric.singular_entropy.sweep=[32,0]", "sweep=[32, 0]: sweep=0 must be at least 1"),
        ("metric.control_disentanglement.limit=2", "limit=2 must lie in [0, 1]"),
        ("metric.attribute_dependency.draws=0", "draws=0 must be at least 1"),
        (
            "metric.identity.width=1e-9",
            "stop=3.0 and width=1e-09 make more than 10000 bins: raise the width",
        ),
        (
            "metric.matched_effect.effects=[1,1]",
            "effects=[1, 1] must be one number or more, all different",
        ),
        ("metric.locality.regions.smile=1", "regions.smile=1 must be a list of text or text"),
    ],
)
def test_the_option_of_a_metric_that_is_wrong_is_the_one_that_is_named(word, message):
    group, name, _ = word.split(".", 2)
    config = compose_config([f"metric=[{name}]", word])
    with pytest.raises(EditbenchError) as caught:
        Settings.from_config(config).metrics[name].build()
    assert str(caught.value) == f"{group}.{name}.{message}"


def test_options_of_a_function_are_its_arguments():
    check_options("generator", "editbench.worlds.faces.load_generator", {"weights": None})
    with pytest.raises(EditbenchError, match="Did you mean 'weights'"):
        check_options("generator", "editbench.worlds.faces.load_generator", {"weight": None})


def test_an_interpolation_that_leads_nowhere_is_one_line():
    config = compose_config([])
    config.data = "${nowhere}"
    with pytest.raises(EditbenchError, match="incomplete: Interpolation key 'nowhere' not found"):
        Settings.from_config(config)


def test_a_value_that_an_option_leaves_to_the_user_is_asked_for_by_its_key():
    config = compose_config([])
    config.data = "???"
    with pytest.raises(EditbenchError, match="incomplete: Missing mandatory value: data"):
        Settings.from_config(config)


def test_an_old_configuration_is_read_with_todays_keys():
    plain = compose_settings(["evaluated=[smile,age]"]).plain
    old = {key: value for key, value in plain.items() if key != "evaluated"}
    old["starts"] = {**plain["starts"], "attributes": ["smile", "age"]}
    # They were whole steps of the method's own.
    younger = ("refine", "step_effect")
    old["engine"] = {key: value for key, value in plain["engine"].items() if key not in younger}
    assert (plain["engine"]["refine"], plain["engine"]["step_effect"]) == (0, None)
    assert upgrade(old) == plain and upgrade(plain) == plain
    assert "attributes" in old["starts"]  # the caller's own is left as it was
    with pytest.raises(EditbenchError, match=r"set evaluated=\[smile,age\]"):
        Settings.from_config(old)
    old["starts"]["attributes"] = None
    assert upgrade(old)["evaluated"] is None


@pytest.mark.parametrize("word", ["inversion.images=photos", "+inversion.path=runs/photos"])
def test_images_that_no_job_would_start_from_are_refused(word, tmp_path, capfd):
    toy = ["generator=toy", "scorer=toy", "method=along", "budget=toy", "attribute=a"]
    conf = str(Path(__file__).parent / "conf")
    words = ["--config-dir", conf, *toy, f"out={tmp_path}", word]
    expected = f"error: {word} has no effect with inversion=none: add inversion=folder"
    for command in (["run"], ["run", "-m"]):
        assert main([*command, *words]) == 1
        assert expected in capfd.readouterr().err
    with pytest.raises(EditbenchError, match="add inversion=folder"):
        eb.run([*toy, f"out={tmp_path}", word], config_dirs=conf)
    with pytest.raises(EditbenchError, match="add inversion=folder"):
        demo_settings(["random"], tmp_path, "cpu", [word])
    # A sweep over both takes the images for its other jobs.
    jobs = [
        Settings.from_config(compose_config([f"inversion={name}"])) for name in ("none", "faces")
    ]
    check_words_have_effect(jobs, [word])
    check_words_have_effect(jobs[:1], ["inversion.images=null"])


def test_options_of_a_bank_that_is_there_are_refused():
    paths = [Settings.from_config(compose_config([f"bank.path={name}"])) for name in ("a", "b")]
    with pytest.raises(
        EditbenchError, match=r"bank\.n=5000 has no effect with bank\.path=a, a bank"
    ):
        check_words_have_effect(paths, ["budget=demo", "bank.n=5000"])
    # What says how it is read, and a bank that one of the jobs builds.
    check_words_have_effect(paths, ["bank.batch=7"])
    built = Settings.from_config(compose_config([]))
    check_words_have_effect([*paths, built], ["bank.n=5000"])
