"""A generator or scorer of one's own that breaks the contract is refused when it is loaded."""

import pytest
import torch

from editbench.base.attributes import Attribute, Attributes
from editbench.base.errors import EditbenchError
from editbench.base.spaces import Space
from editbench.cli import main
from editbench.networks.generator import Generator
from editbench.networks.own_networks import check_own_generator, check_own_scorer, probe_samples
from editbench.networks.scorer import Scorer


class Patches(Generator):
    """One colour per image, from a w that is a multiple of z."""

    spaces = (Space.Z, Space.W, Space.W_PLUS)
    z_dim = 5
    w_dim = 5
    num_ws = 2

    def map(self, z):
        return 2 * z

    def _decode(self, codes):
        w = codes.values
        if codes.space == Space.Z:
            w = self.map(w)
        if codes.space == Space.W_PLUS:
            w = w.mean(1)
        return torch.tanh(w[:, :3])[:, :, None, None].expand(-1, 3, 4, 4)


class Levels(Scorer):
    """Logits of three attributes, the last of which has three classes."""

    attributes = Attributes(
        [Attribute("red", ("no", "yes")), Attribute("green", ("no", "yes")), Attribute("k", "abc")]
    )

    def forward(self, decoded):
        return decoded.mean((2, 3))[:, [0, 1, 0, 1, 2]]


def broken(kind, **members):
    """An object of a subclass with other members."""
    return type("Broken", (kind,), members)()


def decoding(change):
    """A generator whose images are changed."""
    return broken(Patches, _decode=lambda self, codes: change(Patches._decode(self, codes)))


def scoring(change):
    """A scorer whose logits are changed."""
    return broken(Levels, forward=lambda self, decoded: change(Levels.forward(self, decoded)))


def in_place(self, codes):
    codes.values.mul_(0.5)
    return Patches._decode(self, codes)


def without_mapping(self, codes):
    images = torch.tanh(codes.values[..., :3].reshape(len(codes), -1, 3).mean(1))
    return images[:, :, None, None].expand(-1, 3, 4, 4)


GENERATORS = {
    r"spaces=\('Z', 'W'\) must be a tuple of .*Space": broken(Patches, spaces=("Z", "W")),
    r"spaces=\(\) must be": broken(Patches, spaces=()),
    r"output='pixels' must be 'image' or 'w'": broken(Patches, output="pixels"),
    r"z_dim=None must be a positive whole number for the space Z": broken(Patches, z_dim=None),
    r"num_ws=0 must be a positive whole number for the space W_PLUS": broken(Patches, num_ws=0),
    r"W_PLUS but not W": broken(Patches, spaces=(Space.Z, Space.W_PLUS)),
    r"must have one entry for each layer of S": broken(Patches, spaces=(Space.W, Space.S)),
    r"THETA, but `kernels`": broken(Patches, spaces=(Space.W, Space.THETA)),
    r"map gives \(4, 5\) for 4 samples, but w_dim is 6": broken(Patches, w_dim=6),
    r"map returns NoneType": broken(Patches, map=lambda self, z: None),
    r"map of z \(4, 5\) fails: ZeroDivisionError.*test_own_networks.py:\d+": broken(
        Patches, map=lambda self, z: 1 // 0
    ),
    r"_decode of Z codes \(4, 5\) gives \(1, 3, 4, 4\), which are not 4": decoding(lambda x: x[:1]),
    r"its channels are last": decoding(lambda x: x.permute(0, 2, 3, 1)),
    r"returns tuple, but a tensor": decoding(lambda x: (x, None)),
    r"images of torch.float16.*\.float\(\)": decoding(lambda x: x.half()),
    r"gives NaN or infinity": decoding(lambda x: x / x.abs().min() / 0),
    r"leave that range.*127\.5": decoding(lambda x: 127.5 * (x + 1)),
    r"use only its upper half.*2 \* x - 1": decoding(lambda x: (x + 1) / 2),
    r"different image for the same code.* alone": decoding(lambda x: x - x.mean(0)),
    r"noise must be constant": decoding(lambda x: x + torch.randn_like(x)),
    r"changes the codes in place": broken(Patches, _decode=in_place),
    r"the same samples give different images in Z and in W": broken(
        Patches, _decode=without_mapping
    ),
}


@pytest.mark.parametrize("message", GENERATORS)
def test_a_generator_that_breaks_the_contract_is_refused_by_name(message):
    with pytest.raises(EditbenchError, match=f"^MINE: .*{message}"):
        check_own_generator(GENERATORS[message], "MINE")


SCORERS = {
    r"attributes must be Attributes.*not list": broken(Levels, attributes=["red", "green", "k"]),
    r"logits \(4, 4\) for 4 samples.*red, green, k.*\(4, 5\)": scoring(lambda x: x[:, 1:]),
    r"logits \(4, 5, 1\)": scoring(lambda x: x[:, :, None]),
    r"returns list, but a tensor": scoring(lambda x: x.tolist()),
    r"logits of torch.int64": scoring(lambda x: x.long()),
    r"gives NaN or infinity": scoring(lambda x: x / 0),
    r"change with the other samples of its batch": scoring(lambda x: x - x.mean(0)),
    r"forward must not draw random numbers": scoring(lambda x: x + torch.randn_like(x)),
    r"fails: IndexError: .*test_own_networks.py:\d+": scoring(lambda x: x[:, 5]),
}


@pytest.mark.parametrize("message", SCORERS)
def test_a_scorer_that_breaks_the_contract_is_refused_by_name(message):
    with pytest.raises(EditbenchError, match=f"^MINE: .*{message}"):
        check_own_scorer(SCORERS[message], "MINE", probe_samples(Patches()))


def test_sound_networks_pass_and_nothing_is_counted():
    generator = Patches()
    before = torch.random.get_rng_state()
    check_own_generator(generator, "MINE")
    check_own_scorer(Levels(), "MINE", probe_samples(generator))
    assert generator.decoded == 0
    assert torch.equal(torch.random.get_rng_state(), before)
    # Without W, and without Z.
    for spaces in ((Space.Z,), (Space.W,)):
        check_own_generator(broken(Patches, spaces=spaces), "MINE")


@pytest.mark.parametrize("command", ["plan", "layers", "check"])
def test_the_commands_name_the_class_and_the_fault(tmp_path, monkeypatch, capfd, command):
    monkeypatch.chdir(tmp_path)
    name = f"patches_{command}"  # Python keeps what it has imported
    assert main(["new", "world", name]) == 0
    capfd.readouterr()
    file = tmp_path / f"{name}.py"
    text = file.read_text()
    # The mistake: w has eight numbers.
    assert text.count("w_dim = 8") == 1
    file.write_text(text.replace("w_dim = 8", "w_dim = 7"))
    words = {
        "plan": f"plan --config-dir my_conf generator={name} scorer={name} attribute=bright "
        "method=random",
        "check": f"scorer check {name} --config-dir my_conf --generator {name} -n 8",
        "layers": f"list layers --generator {name} --config-dir my_conf",
    }
    assert main(words[command].split()) != 0
    told = "".join(capfd.readouterr())
    assert f"generator._target_={name}.Patches{command.title()}: map gives (4, 8)" in told
    assert "w_dim is 7" in told


def test_the_check_of_scorers_names_the_role_and_the_fault(tmp_path, monkeypatch, capfd):
    monkeypatch.chdir(tmp_path)
    assert main(["new", "world", "patches_judge"]) == 0
    file = tmp_path / "patches_judge.py"
    text = file.read_text()
    stacked = "torch.stack([bright, warm], 1)"
    assert text.count(stacked) == 1
    file.write_text(text.replace(stacked, "torch.stack([bright, warm, warm], 1)"))
    capfd.readouterr()
    words = "scorer check patches_judge --config-dir my_conf --generator patches_judge -n 8"
    assert main(words.split()) == 1
    told = capfd.readouterr().err
    assert "patches_judge.yaml: teacher: forward gives logits (4, 3)" in told
    assert "(bright, warm) need (4, 2)" in told
    assert "Traceback" not in told
