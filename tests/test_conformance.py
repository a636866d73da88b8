"""The conformance suite: it passes what is sound, and says of each broken method what is broken and how to mend it."""

import ast
import functools
import inspect
import json
import random
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from hydra.utils import get_class
from omegaconf import OmegaConf
from sklearn.svm import LinearSVC

from editbench.bank.bank import Bank
from editbench.bank.starts import Starts
from editbench.base import instantiate
from editbench.base.conf import group_options
from editbench.base.errors import UnknownName, Unsupported
from editbench.base.spaces import Codes, Space
from editbench.cli import main
from editbench.conformance import CHECKS, checks_walk, conform, subject
from editbench.conformance.load import WrongUsage, load_factory, parse_settings
from editbench.conformance.testbeds import (
    DIM,
    FAMILIES,
    KINDS,
    SPEC,
    axis_normals,
    make_testbed,
    other_bank,
    other_judge,
)
from editbench.methods.interfacegan import InterFaceGAN
from editbench.methods.shared import meta_validation
from editbench.run.compose import compose_config
from editbench.walk.editor import Editor
from tests.broken_methods.mean_shift import MeanShift
from tests.pretend_gpu import DEVICE, needs_pretend_gpu, pretend_gpu
from tests.sound_methods.teacher_ascent import TeacherAscent
from tests.tiny_pictures import save_random_heads, shrink

torch.set_num_threads(1)  # the testbeds are tiny: more threads only wait for one another

ROOT = Path(__file__).parents[1]
BROKEN_METHODS = Path(__file__).parent / "broken_methods"
SOUND_METHODS = (
    BROKEN_METHODS / "mean_shift.py",
    BROKEN_METHODS.parent / "sound_methods/teacher_ascent.py",
)
BROKEN = {  # file -> the one check that fails, and the remedy that its message names
    "no_default": ("constructs", "give every argument of __init__ a default, or --set key=value"),
    "no_step": ("constructs", "implement fit(self, data) and step(self, walk)"),
    "binary_only": ("fit", "serve what can be served and raise Unsupported"),
    "labels_for_free": (
        "fit",
        "give FitReport(labels=...) the number of samples whose teacher logits were read",
    ),
    "noise_at_start": (
        "identity",
        "where walk.codes equals walk.origin, return exactly the start's codes",
    ),
    "still": (
        "moves",
        'raise Unsupported("why") in `check` (and `step`) where there is no direction',
    ),
    "needs_gradient": ("moves", "with torch.enable_grad():"),
    "over_the_batch": (
        "batch",
        "reduce over the last dimension (dim=1), never over the samples (dim=0)",
    ),
    "global_random": (
        "determinism",
        'in `step` from editbench.base.seeding.normals(seed, "name", index, ...)',
    ),
    "random_fit": ("determinism", 'draw from editbench.base.seeding.rng(data.seed, "name")'),
    "in_place": ("pure", "`walk.codes + step`, not `walk.codes += step`"),
    "remembers": ("pure", "walk.codes - walk.origin is the way so far"),
    "spoils_the_data": ("pure", ".clone() before writing"),
    "single_precision": ("dtype_device", "end with .to(walk.codes)"),
    "forgets": ("state", "put everything that `step`, `codes` and `check` read into `state`"),
    "keeps_an_object": ("state", "wrap numbers with torch.tensor(x, dtype=torch.float64)"),
    "tunes_from_the_fit": ("state", "put everything that `tune` reads into `state`"),
    "peeks_at_the_judge": ("blind", "do not search the stack, gc or the disk"),
    "peeks_at_the_test_split": (
        "blind",
        "use FitData (data.fit, data.tune, data.teacher, data.score)",
    ),
    "looks_up_the_walk": ("blind", "and the Walk, `need_generator` and `need_teacher` in `step`"),
    "no_reason": ("skip", 'raise Unsupported("why")'),
    "zero_edit": (
        "multi_class",
        'raise Unsupported("why") in `check` for attributes with more than two classes',
    ),
    "one_way": ("multi_class", "use walk.target as the class index, not as a sign"),
    "adrift": ("directions", "with a change that is 0 at strength 0"),
    "one_score_a_sample": ("scores", "give one row per tune sample and one column per class"),
    "uncounted": (
        "costs",
        "decode with data.generator.decode(Codes(space, values)) or data.score(codes)",
    ),
}
SMALL = {
    "iterations": 4,
    "epochs": 40,
    "count": 8,
    "candidates": 8,
    "components": 8,
    "batch": 8,
    "samples": 2000,
    "search_samples": 8,
    "fresh": 32,
    "size": 8,
    "latents": 16,
    "resolution": 16,
    "images": 16,
}  # at most, wherever a method has such a key
SET = {
    "min_effect": 0.1,  # of eight candidates on random weights, none does much
    "semantics": 16,  # five axes of the testbed are too few for classes of their own
}


@pytest.fixture(scope="module", autouse=True)
def banks_made_once(tmp_path_factory):
    """Each suite has networks of its own, and finds the banks of its testbeds on disk."""
    folder = tmp_path_factory.mktemp("testbeds")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(
            subject, "make_testbed", lambda family, kind, _: make_testbed(family, kind, folder)
        )
        yield


def by_status(results, status):
    return [result.name for result in results if result.status == status]


# -- what the suite finds --------------------------------------------------------------------------
@pytest.mark.parametrize("file", SOUND_METHODS, ids=lambda file: file.stem)
def test_a_sound_method_passes_everything(file):
    results = conform(load_factory(str(file)))
    assert [r.name for r in results] == list(CHECKS)
    assert by_status(results, "passed") == list(CHECKS), [
        r.message for r in results if r.status != "passed"
    ]


@pytest.mark.parametrize("name", BROKEN)
def test_a_broken_method_fails_for_its_own_reason_alone(name):
    results = conform(load_factory(str(BROKEN_METHODS / f"{name}.py")))
    check, remedy = BROKEN[name]
    assert by_status(results, "failed") == [check], [
        r.message for r in results if r.status == "failed"
    ]
    message = next(r.message for r in results if r.name == check)
    assert remedy in message.split("Fix: ")[1]
    assert "Found: " in message
    assert "Required: " in message
    assert f"editbench.walk.editor.{CHECKS[check].member}" in message


class Views(InterFaceGAN):
    """Beside each tensor of its state is a view of it that is not contiguous."""

    def state(self):
        state = super().state()
        return state | {f"view.{name}": one.expand(2, *one.shape) for name, one in state.items()}

    def load_state(self, state):
        kept = {name: one for name, one in state.items() if not name.startswith("view.")}
        super().load_state(kept)


def test_a_state_that_the_cache_of_fits_can_store_passes():
    found = {result.name: result.status for result in conform(Views, ["state"])}
    assert found == {"state": "passed"}


class ShuffledDescent(MeanShift):
    """A solver that shuffles its samples and converges: no difference of two fits shows its draws."""

    random_state: int | None = None

    def fit(self, data):
        report = super().fit(data)
        labels = data.attributes.labels(data.fit.logits)[:, 0]
        solver = LinearSVC(dual=True, random_state=self.random_state, max_iter=20_000, tol=1e-10)
        solver.fit(data.fit.codes(Space.W).numpy(), labels.numpy())
        return report


class SeededDescent(ShuffledDescent):
    random_state = 0


def test_a_fit_that_draws_from_a_global_generator_is_warned_though_it_converges():
    (found,) = conform(ShuffledDescent, ["determinism"])
    assert found.status == "warned"
    assert "fit drew from the global generator of np.random" in found.message
    assert "give scikit-learn a random_state" in found.message
    (found,) = conform(SeededDescent, ["determinism"])
    assert found.status == "passed"


def test_every_file_of_a_broken_method_is_tried_and_every_duty_is_broken_by_one():
    assert {file.stem for file in BROKEN_METHODS.glob("*.py")} == {*BROKEN, "mean_shift"}
    assert {check for check, _ in BROKEN.values()} == set(CHECKS) - {"steers"}


def test_what_was_touched_is_named():
    judge, bank = (
        conform(load_factory(str(BROKEN_METHODS / f"peeks_at_the_{what}.py")), ["blind"])[0].message
        for what in ("judge", "test_split")
    )
    assert "the judge.forward" in judge and "Bank.split" in bank


def test_chosen_checks_stand_alone_and_a_wrong_name_gets_the_list():
    make = load_factory(str(BROKEN_METHODS / "forgets.py"))
    assert [(r.name, r.status) for r in conform(make, ["batch", "state"])] == [
        ("batch", "passed"),
        ("state", "failed"),
    ]
    with pytest.raises(UnknownName, match=r"unknown check 'bach'\. Did you mean 'batch'"):
        conform(make, ["bach"])


def test_the_suite_leaves_nothing_behind():
    torch.manual_seed(4)
    before = torch.get_rng_state(), np.random.get_state()[1].copy(), random.getstate()
    conform(load_factory(str(BROKEN_METHODS / "random_fit.py")))
    assert torch.equal(torch.get_rng_state(), before[0]) and random.getstate() == before[2]
    assert (np.random.get_state()[1] == before[1]).all()
    assert Bank.__getattribute__ is object.__getattribute__
    assert Starts.__getattribute__ is object.__getattribute__


# -- its testbeds ----------------------------------------------------------------------------------
@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("kind", KINDS)
def test_testbeds_hold_every_class_and_another_bank_differs_only_where_an_editor_may_not_look(
    family, kind, tmp_path
):
    testbed = make_testbed(family, kind, tmp_path)
    data = testbed.data()
    labels = data.attributes.labels(data.fit.logits)
    for k, item in enumerate(data.attributes):
        assert (torch.bincount(labels[:, k], minlength=len(item.classes)) >= 30).all()
    decoded = testbed.generator.decode(Codes(Space.W, data.fit.w[:9]))
    torch.testing.assert_close(testbed.teacher(decoded), data.fit.logits[:9])
    other = other_bank(testbed.bank, tmp_path / "other")
    for name in ("fit", "tune"):
        assert all(
            torch.equal(getattr(other.split(name), part), getattr(testbed.bank.split(name), part))
            for part in ("index", "z", "w", "logits")
        )
    first, last = SPEC.split("test")
    for name in ("z", "w", "teacher", "judge"):
        here, there = (bank.array(name).range(first, last) for bank in (testbed.bank, other))
        assert (here != there).all()
    assert not torch.equal(other_judge(testbed)(decoded), testbed.judge(decoded))
    assert not torch.equal(testbed.teacher(decoded), testbed.judge(decoded))


# -- the methods of the project --------------------------------------------------------------------
def files_for(config, folder):
    """Files for the methods that want some, made for the suite's testbed."""
    if "paths" in config:
        normals = axis_normals(KINDS["binary"].width).numpy()
        for k, name in enumerate(("a", "b")):
            np.save(folder / f"{name}.npy", normals[k])
        config["paths"] = {name: str(folder / f"{name}.npy") for name in ("a", "b")}
    if "regions" in config:
        config["regions"] = {"a": ["hair"], "kind": ["hair", "skin"]}
    if config.get("heads"):
        save_random_heads(folder / "heads.safetensors", 2, DIM)
        config.update(
            {
                "heads": str(folder / "heads.safetensors"),
                "head_attributes": ["a", "b"],
                "head_signs": [1, 1],
                "exclude": 0,
            }
        )


@functools.cache
def compose_method(method, *words):
    """A method's settings, which no test may change."""
    return compose_config([f"method={method}", *words]).method


def test_options_that_name_attributes_of_another_world_are_no_fault():
    results = conform(lambda: InterFaceGAN(layers={"smile": [1, 3]}), ("moves",))
    (moves,) = results
    assert moves.status == "skipped"
    assert "unknown attribute in method.layers 'smile'" in moves.message


@pytest.mark.parametrize("method", group_options("method"))
def test_every_method_of_the_project_conforms(method, tmp_path, monkeypatch):
    # These are no options.
    monkeypatch.setattr(meta_validation, "EXAMPLES", 6)
    monkeypatch.setattr(meta_validation, "MAX_STEPS", 5)
    config = instantiate.plain(compose_method(method, "budget=demo"))
    # Cheaper than any preset, with the paper's procedure.
    shrink(config, SMALL, SET)
    files_for(config, tmp_path)
    results = conform(lambda: instantiate.build(config))
    assert not by_status(results, "failed"), "\n".join(
        r.message for r in results if r.status == "failed"
    )
    assert by_status(results, "passed")
    if len(by_status(results, "skipped")) > len(CHECKS) / 2:
        pytest.skip(next(r.message for r in results if r.status == "skipped"))


def holds_an_oracle(source, module, name):
    """Does a test file import the class from its module and hold at least three tests?"""
    body = ast.parse(source).body
    tests = [
        node for node in body if isinstance(node, ast.FunctionDef) and node.name.startswith("test_")
    ]
    return len(tests) >= 3 and any(
        isinstance(node, ast.ImportFrom)
        and node.module == module
        and name in [alias.name for alias in node.names]
        for node in body
    )


def says_why(text):
    """Has the line `demo: false` of a configuration a reason of at least three words behind its #?"""
    return any(
        len(line.partition("#")[2].split()) >= 3
        for line in text.splitlines()
        if line.startswith("demo: false")
    )


TESTS = "".join(f"def test_{k}(): ...\n" for k in range(3))


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ("from methods.mine import Mine\n" + TESTS, True),
        ("from methods.mine import (\n  Other,\n  Mine,\n)\n" + TESTS, True),
        ("", False),
        (TESTS, False),
        ("from methods.mine import Other\n" + TESTS, False),
        ("from methods.others import Mine\n" + TESTS, False),
        ("# from methods.mine import Mine\n" + TESTS, False),
        ("from methods.mine import Mine\n" + TESTS.replace("test_2", "help_2"), False),
    ],
)
def test_a_file_that_is_there_is_no_oracle(source, expected):
    assert holds_an_oracle(source, "methods.mine", "Mine") is expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("demo: false # as dear as mine\n", True),
        ("name: x\ndemo: false    # needs files here\n", True),
        ("demo: false\n", False),
        ("demo: false # extraordinarily expensive\n", False),
        ("demo: false #\nspace: w # w or z or s\n", False),
    ],
)
def test_a_reason_has_three_words(text, expected):
    assert says_why(text) is expected


@pytest.mark.parametrize("method", group_options("method"))
def test_every_method_has_an_oracle_a_citation_its_arguments_written_down_and_a_demo(method):
    raw, config = group_options("method")[method], compose_method(method)
    assert config.name == method and config.about
    editor = get_class(config["_target_"])
    assert issubclass(editor, Editor)
    family = editor.__module__.removeprefix("editbench.methods.").removesuffix(".editor")
    oracle = family.replace(".", "_").removesuffix("_direction")
    tests = ROOT / "tests" / f"test_{oracle}.py"
    modules = (editor.__module__, editor.__module__.rpartition(".")[0])  # or from its package
    assert tests.exists() and any(
        holds_an_oracle(tests.read_text(), module, editor.__name__) for module in modules
    ), (
        f"write at least three tests of {editor.__name__} in tests/{tests.name}, imported from {editor.__module__}"
    )
    assert editor.citation, f"{editor.__name__} cites nothing"
    arguments = {name for name in inspect.signature(editor.__init__).parameters if name != "self"}
    assert arguments <= set(config), (
        f"conf/method/{method}.yaml lacks {', '.join(sorted(arguments - set(config)))}"
    )
    text = (ROOT / "conf" / "method" / f"{method}.yaml").read_text()
    preset = ROOT / "conf" / "preset" / f"{method}_demo.yaml"
    if raw.get("demo", True) is False:
        assert says_why(text), (
            f"conf/method/{method}.yaml: say why behind `demo: false  #`, in three words or more"
        )
    elif raw.get("demo") != "as_is":
        assert preset.exists(), (
            f"write conf/preset/{method}_demo.yaml, or `demo: as_is` if it is cheap as it is"
        )
    if preset.exists():
        assert preset.read_text().startswith("# @package method\n") and raw.get("demo") != "as_is"
        demo = compose_method(method, "budget=demo")
        assert demo != config and demo.about == f"{config.about} (demo preset: a smaller budget)"


# -- the command -----------------------------------------------------------------------------------
def test_the_command_tells_passed_from_failed_from_wrong_usage(tmp_path, capsys):
    sound, broken = (str(BROKEN_METHODS / f"{name}.py") for name in ("mean_shift", "in_place"))
    assert main(["conform", sound, "--only", "batch,pure"]) == 0
    text = capsys.readouterr().out
    assert "2 checks: 2 passed" in text and "identity" not in text
    assert main(["conform", broken, "--only", "pure", "--set", "delta=0.3"]) == 1
    assert "pure failed" in capsys.readouterr().out
    assert main(["conform", broken, "--only", "pure,batch", "--json"]) == 1
    found = json.loads(capsys.readouterr().out)
    assert [(r["name"], r["status"]) for r in found] == [("batch", "passed"), ("pure", "failed")]
    assert main(["conform", "--list"]) == 0
    text = capsys.readouterr().out
    assert all(name in text for name in CHECKS)


EDITOR = "from editbench.walk.editor import Editor\n"
CLASS = "class {}(Editor):\n    def fit(self, data): ...\n    def step(self, walk): ...\n"


@pytest.mark.parametrize(
    ("text", "words", "expected"),
    [
        (None, [], "no such file"),
        ("x = 1\n", [], "contains no editor or metric: write `class Mine(Editor)`"),
        (
            EDITOR + CLASS.format("One") + CLASS.format("Two"),
            [],
            "holds several editors or metrics (One, Two): say which",
        ),
        (
            EDITOR + CLASS.format("One"),
            [":Onne"],
            "unknown editor or metric of {file} 'Onne'. Did you mean 'One'?",
        ),
        (
            EDITOR + CLASS.format("One"),
            ["", "--set", "layer=3"],
            "unknown argument of One 'layer'. Did you mean 'layers'?",
        ),
        (EDITOR + CLASS.format("One"), ["", "--set", "layers"], "--set layers: write key=value"),
        (
            EDITOR + CLASS.format("One"),
            ["", "--only", "bach"],
            "unknown check 'bach'. Did you mean 'batch'?",
        ),
        (
            "import no_such_package\n",
            [],
            "{file}:1: ModuleNotFoundError: No module named 'no_such_package'",
        ),
        ("x = 1\ndef f(:\n", [], "{file}:2: SyntaxError"),
        ("x = 1\n\ny = x.upper()\n", [], "{file}:3: AttributeError"),
    ],
)
def test_what_cannot_be_checked_ends_with_2_and_says_why(tmp_path, capsys, text, words, expected):
    file = tmp_path / "my_method.py"
    if text is not None:
        file.write_text(text)
    assert main(["conform", f"{file}{''.join(words[:1])}", *words[1:]]) == 2
    err = capsys.readouterr().err
    assert expected.format(file=file) in err and "Traceback" not in err


class PictureAscent(TeacherAscent):
    """Of pictures alone, whose generator computes in float32 on its own device."""

    def check(self, generator, attributes, attribute):
        super().check(generator, attributes, attribute)
        if generator.output != "image":
            raise Unsupported("needs pictures")

    def fit(self, data):
        self.check(data.generator, data.attributes, data.attributes.names[0])
        return super().fit(data)

    def step(self, walk):
        return super().step(replace(walk, codes=walk.codes.float())).to(walk.codes)


class Stuck(PictureAscent):
    """Keeps what it walks with on the CPU."""

    def step(self, walk):
        return super().step(walk).cpu()


@needs_pretend_gpu
@pytest.mark.parametrize(("make", "status"), [(PictureAscent, "passed"), (Stuck, "failed")])
def test_on_a_gpu_the_networks_of_a_step_are_there_too(make, status, monkeypatch):
    monkeypatch.setattr(checks_walk, "CUDA", DEVICE)
    with pretend_gpu():
        (found,) = conform(make, ["dtype_device"])
    assert found.status == status, found.message
    assert "CUDA" in found.message


def test_values_of_the_command_line_are_those_of_a_yaml(tmp_path):
    """A number such as 1e-3 is one to Hydra, and text to PyYAML."""
    words = [
        "rate=1e-3",
        "layers=[0, 4]",
        "names=[a, b]",
        "limit=null",
        "text=a=b",
        "options={x: 1}",
    ]
    found = parse_settings(words)
    file = tmp_path / "mine.yaml"
    file.write_text("".join(f"{word.replace('=', ': ', 1)}\n" for word in words))
    assert found == OmegaConf.to_container(OmegaConf.load(file))
    assert found["rate"] == 0.001


@pytest.mark.parametrize(
    ("option", "expected"),
    [
        ("generator/mnist_mlp", "ModuleGenerator is neither an editor nor a metric"),
        ("scorer/faces", "faces.yaml is a scorer: this command checks editors and metrics"),
    ],
)
def test_an_option_of_another_group_is_told_where_it_is_checked(capsys, option, expected):
    file = Path(inspect.getfile(instantiate)).parents[2] / "conf" / f"{option}.yaml"
    assert main(["conform", str(file)]) == 2
    err = capsys.readouterr().err
    assert expected in err and "`editbench scorer check NAME`" in err


def test_no_editor_named_is_wrong_usage():
    with pytest.raises(SystemExit) as end:
        main(["conform"])
    assert end.value.code == 2


def test_one_of_several_a_dotted_name_and_a_configuration(tmp_path, monkeypatch):
    body = "from mean_shift import MeanShift\nclass One(MeanShift): pass\nclass Two(MeanShift):\n    unit = 'twos'\n"
    (tmp_path / "several.py").write_text(
        "import sys\n" + f"sys.path.insert(0, {str(BROKEN_METHODS)!r})\n" + body
    )
    assert type(load_factory(f"{tmp_path}/several.py:Two")()).__name__ == "Two"
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    assert load_factory("several.Two", ["delta=0.25"])().delta == 0.25
    conf = tmp_path / "my_conf" / "method"
    conf.mkdir(parents=True)
    (conf / "mine.yaml").write_text("name: mine\n_target_: several.One\ndelta: 0.5\n")
    assert load_factory(str(conf / "mine.yaml"))().delta == 0.5
    assert load_factory(str(conf / "mine.yaml"), ["delta=0.75"])().delta == 0.75
    with pytest.raises(UnknownName, match="Did you mean 'delta'"):
        load_factory(str(conf / "mine.yaml"), ["delt=1"])
    # An option that is based on another one has its class.
    (conf / "wide.yaml").write_text("defaults: [mine, _self_]\nname: wide\ndelta: 2.5\n")
    made = load_factory(str(conf / "wide.yaml"), more=[conf.parent])()
    assert type(made).__name__ == "One" and made.delta == 2.5
    assert load_factory("gradctrl_500")().n_per_class == 500
    # In a folder that names no group, it may be a method or a metric.
    (tmp_path / "own.yaml").write_text("defaults: [gradctrl, _self_]\nname: own\ndelta: 2.5\n")
    assert load_factory(str(tmp_path / "own.yaml"))().delta == 2.5
    (tmp_path / "half.yaml").write_text(
        "# @package metric.half\ndefaults: [attribute_dependency@_here_, _self_]\nat: 0.25\n"
    )
    assert load_factory(str(tmp_path / "half.yaml"))().x_star == 0.25
    (tmp_path / "lost.yaml").write_text("defaults: [no_such_option, _self_]\n")
    with pytest.raises(WrongUsage, match=r"lost\.yaml has no _target_"):
        load_factory(str(tmp_path / "lost.yaml"))
    (conf / "nothing.yaml").write_text("name: nothing\n")
    with pytest.raises(WrongUsage, match=r"nothing\.yaml has no _target_"):
        load_factory(str(conf / "nothing.yaml"))


def test_a_file_in_a_folder_outside_the_project(tmp_path, monkeypatch, capsys):
    """A relative path, and a module of the user's beside the file, under a name nothing else has."""
    (tmp_path / "own_shift.py").write_text((BROKEN_METHODS / "mean_shift.py").read_text())
    text = (BROKEN_METHODS / "forgets.py").read_text()
    (tmp_path / "forgets.py").write_text(text.replace("from mean_shift", "from own_shift"))
    monkeypatch.chdir(tmp_path)
    assert main(["conform", "forgets.py", "--only", "state"]) == 1
    out, err = capsys.readouterr()
    assert "state failed" in out and "Traceback" not in out + err
