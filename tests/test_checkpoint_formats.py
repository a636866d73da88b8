"""Checkpoints of every format against a slow network that is made from the same numbers, and what is refused."""

from __future__ import annotations

import copy
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from editbench.base.errors import BadFile, EditbenchError, UnknownName, Unsupported
from editbench.networks.checkpoints import assemble
from editbench.networks.stylegan2.network import StyleGAN2
from tests.checkpoint_files import (
    nvlabs_pickle,
    nvlabs_state,
    read_source,
    rosinality_state,
    tensorflow_pickle,
    tensorflow_variables,
)
from tests.slow_stylegan2 import nvlabs_part, slow_images, slow_w, tensorflow_part

FIR = torch.tensor([1.0, 3.0, 3.0, 1.0])
BOUND = 1e-6  # of the pictures' standard deviation; both in float64, of parameters in float32


def read(path: Path, name: str | None = None, **options: float | None) -> StyleGAN2:
    return assemble(read_source(path, name, **options))  # type: ignore[arg-type]


def agree(
    network: StyleGAN2,
    part,
    how: str,
    taps: Tensor = FIR,
    clamp: float | None = None,
    noise: bool = True,
    lr: float = 0.01,
) -> None:
    """W and pictures, with and without noise, equal the slow network's."""
    config = network.config
    assert config.architecture == how
    torch.manual_seed(5)
    network = copy.deepcopy(network).double()
    z = torch.randn(3, config.z_dim).double()
    label = torch.eye(config.c_dim).double()[[2, 0, 2]] if config.c_dim else None
    with torch.no_grad():
        w = network.mapping(z, label)
        styles = network.synthesis.styles(w.unsqueeze(1).expand(-1, config.num_ws, -1))
        slow = slow_w(part, z, label, config.mapping_layers, lr)
        assert (w - slow).abs().max() <= BOUND * slow.std()
        for noisy in (True, False):
            options = {"how": how, "taps": taps, "noise": noisy and noise, "clamp": clamp}
            expected = slow_images(part, slow, config.resolution, **options)
            got = network.synthesis(styles, noise=noisy)
            assert got.shape == (3, config.img_channels, config.resolution, config.resolution)
            assert (got - expected).abs().max() <= BOUND * expected.std()


# -- NVlabs, PyTorch -------------------------------------------------------------------------------
CASES = [
    ("skip", {}),
    ("resnet", {}),
    ("orig", {}),
    ("skip", {"c_dim": 4}),
    ("resnet", {"c_dim": 4, "channels": 1}),
    ("skip", {"channels": 4, "depth": 8, "resolution": 4}),
    ("skip", {"taps": (1.0, 2.0, 4.0, 3.0)}),
    ("resnet", {"taps": (1.0, 2.0, 1.0)}),
    ("orig", {"taps": (1.0, 5.0, 10.0, 10.0, 5.0, 2.0), "lr": 0.1}),
]


@pytest.mark.parametrize("how, options", CASES, ids=lambda case: str(case))
@pytest.mark.parametrize("clamp", [None, 0.7])
def test_a_pickle_of_nvlabs(how: str, options: dict, clamp: float | None, tmp_path: Path) -> None:
    state, lr = nvlabs_state(how=how, **options), options.get("lr", 0.01)
    network = read(nvlabs_pickle(tmp_path / "net.pkl", state, lr, clamp))
    if network.config.resolution == 4:  # nothing tells the architectures apart there
        how = network.config.architecture
    taps = torch.tensor(options.get("taps", FIR.tolist()))
    assert network.config.c_dim == options.get("c_dim", 0) and network.config.conv_clamp == clamp
    assert network.config.fir == pytest.approx(
        (taps / taps.sum() * sum(network.config.fir)).tolist()
    )
    assert torch.equal(network.mapping.w_avg, state["mapping.w_avg"])
    agree(network, nvlabs_part(state), how, taps, clamp, lr=lr)


@pytest.mark.parametrize("how, number", [("skip", 8), ("resnet", 6), ("orig", 6)])
def test_s_has_the_layers_of_the_architecture(how: str, number: int, tmp_path: Path) -> None:
    synthesis = read(nvlabs_pickle(tmp_path / "net.pkl", nvlabs_state(how=how))).synthesis
    assert len(synthesis.layers) == number and synthesis.rows[-1] == 5
    assert [name for name in synthesis.layers if name.startswith("rgb")] == (
        ["rgb4", "rgb8", "rgb16"] if how == "skip" else ["rgb16"]
    )


def test_a_state_dict_in_any_wrapping(tmp_path: Path) -> None:
    state = nvlabs_state()
    save_file(
        {name: value.contiguous() for name, value in state.items()}, tmp_path / "a.safetensors"
    )
    torch.save(
        {"g_ema": {f"module.{name}": value for name, value in state.items()}, "step": 3},
        tmp_path / "b.pt",
    )
    torch.save(
        {
            "state_dict": {f"decoder.{name}": value for name, value in state.items()}
            | {"encoder.weight": torch.zeros(2)}
        },
        tmp_path / "c.pt",
    )
    torch.save(
        {name: value.double() for name, value in state.items()},
        tmp_path / "d.pt",
        _use_new_zipfile_serialization=False,
    )
    for file, name in (
        ("a.safetensors", None),
        ("b.pt", None),
        ("c.pt", "state_dict.decoder"),
        ("d.pt", None),
    ):
        agree(read(tmp_path / file, name), nvlabs_part(state), "skip")
    clamped = read(tmp_path / "a.safetensors", None, conv_clamp=0.5, mapping_lr=0.02)
    agree(clamped, nvlabs_part(state), "skip", clamp=0.5, lr=0.02)


def test_a_network_without_noise(tmp_path: Path) -> None:
    state = {name: value for name, value in nvlabs_state().items() if ".noise_" not in name}
    agree(read(nvlabs_pickle(tmp_path / "net.pkl", state)), nvlabs_part(state), "skip", noise=False)


# -- NVlabs, TensorFlow ----------------------------------------------------------------------------
@pytest.mark.parametrize(
    "how, options",
    [
        ("skip", {}),
        ("resnet", {"c_dim": 4}),
        ("orig", {"channels": 1, "depth": 8}),
        ("skip", {"taps": (1.0, 2.0, 4.0, 3.0)}),
        ("resnet", {"taps": (1, 1)}),
    ],
    ids=lambda case: str(case),
)
def test_a_pickle_of_tensorflow(how: str, options: dict, tmp_path: Path) -> None:
    variables, taps = tensorflow_variables(how=how, **options), options.get("taps", (1, 3, 3, 1))
    kwargs = {
        "resample_kernel": None if taps == (1, 1) else list(taps),
        "mapping_lrmul": 0.01,
        "conv_clamp": 3.0,
    }
    network = read(tensorflow_pickle(tmp_path / "net.pkl", variables, kwargs))
    assert np.array_equal(network.mapping.w_avg, variables["dlatent_avg"])
    agree(
        network,
        tensorflow_part(variables),
        how,
        torch.tensor([float(tap) for tap in taps]),
        clamp=3.0,
    )


def test_the_other_networks_of_a_tensorflow_pickle(tmp_path: Path) -> None:
    variables = tensorflow_variables()
    path = tensorflow_pickle(tmp_path / "net.pkl", variables)
    doubled = {name: 2 * value for name, value in variables.items()}
    agree(read(path, "G"), tensorflow_part(doubled), "skip")
    with pytest.raises(BadFile, match="discriminator"):
        read(path, "D")


@pytest.mark.parametrize(
    "change, error, message",
    [
        ({"synthesis/4x4/Const/StyleMod/weight": 0}, BadFile, "StyleGAN1"),
        ({"mapping/LabelConcat/weight": 0}, Unsupported, "before ADA"),
        ({"synthesis/ToRGB_lod0/weight": 0}, Unsupported, "grows progressively"),
        ({"synthesis/8x8/Conv2/weight": 0}, BadFile, r"unexpected: synthesis/8x8/Conv2/weight"),
    ],
)
def test_another_tensorflow_network_is_refused(change, error, message: str, tmp_path: Path) -> None:
    with pytest.raises(error, match=message):
        read(
            tensorflow_pickle(
                tmp_path / "net.pkl",
                tensorflow_variables() | {name: np.zeros(3) for name in change},
            )
        )


def test_options_of_tensorflow_that_change_the_result_are_refused(tmp_path: Path) -> None:
    path = tensorflow_pickle(
        tmp_path / "net.pkl", tensorflow_variables(), {"normalize_latents": False}
    )
    with pytest.raises(Unsupported, match="normalize_latents=False"):
        read(path)


# -- rosinality ------------------------------------------------------------------------------------
@pytest.mark.parametrize("resolution", [4, 16])
def test_a_checkpoint_of_rosinality(resolution: int, tmp_path: Path) -> None:
    state = nvlabs_state(resolution)
    mean = state["mapping.w_avg"]
    rows = (
        mean.repeat(6, 1) if resolution == 16 else mean
    )  # pSp and e4e keep one for each row of W+
    torch.save({"g_ema": rosinality_state(state), "d": {}, "latent_avg": rows}, tmp_path / "net.pt")
    network = read(tmp_path / "net.pt")
    agree(network, nvlabs_part(state), "skip")
    assert torch.equal(network.mapping.w_avg, mean)


def test_what_a_checkpoint_of_rosinality_may_lack(tmp_path: Path) -> None:
    state = nvlabs_state()
    torch.save({"g_ema": rosinality_state(state, noises=False)}, tmp_path / "net.pt")
    source = read_source(tmp_path / "net.pt")
    network = assemble(source)
    agree(network, nvlabs_part(state), "skip", noise=False)
    assert "no maps" in dict(source.notes)["noise"]
    assert "no latent_avg" in dict(source.notes)["w_avg"]
    z = torch.randn(20_000, network.config.z_dim)
    w = network.mapping(z)
    torch.testing.assert_close(
        network.mapping.w_avg, w.mean(0), atol=5 * (w.std(0) / 80).max().item(), rtol=0
    )


# -- refusals --------------------------------------------------------------------------------------
def altered(**changes: Tensor | None) -> dict[str, Tensor]:
    """`__` stands for a dot; None takes a tensor away."""
    state = nvlabs_state() | {name.replace("__", "."): value for name, value in changes.items()}  # type: ignore
    return {name: value for name, value in state.items() if value is not None}


@pytest.mark.parametrize(
    "state, message",
    [
        (altered(synthesis__b8__conv1__bias=None), r"missing: synthesis\.b8\.conv1\.bias"),
        (altered(synthesis__b8__torgb__weight=None), r"missing: synthesis\.b8\.torgb\.weight"),
        (altered(mapping__w_avg=None), r"missing: mapping\.w_avg"),
        (altered(mapping__fc7__weight=torch.zeros(8, 8)), r"missing: mapping\.fc3"),
        (altered(synthesis__b8__extra=torch.zeros(2)), r"unexpected: synthesis\.b8\.extra"),
        (
            altered(mapping__fc1__weight=torch.zeros(8, 9)),
            r"another shape: mapping\.fc1\.weight \(8, 9\)",
        ),
        (altered(synthesis__b8__conv1__weight=None), "blocks of 4, 16 pixels"),
        (altered(synthesis__b4__conv1__weight=torch.zeros(6, 6, 3)), "expected 4 axes"),
        (
            altered(synthesis__b8__conv0__bias=torch.tensor([1, 2, torch.nan, 3, 4])),
            r"conv0\.bias' holds NaN",
        ),
        (altered(synthesis__b8__resample_filter=torch.eye(4)), "not one row of taps"),
        (altered(synthesis__b8__resample_filter=torch.ones(4, 4)), "different low-pass filters"),
        ({"synthesis.L0_36_512.weight": torch.zeros(2)}, "StyleGAN3"),
        ({"b4.out.weight": torch.zeros(2), "b8.fromrgb.weight": torch.zeros(2)}, "a discriminator"),
        ({"g_synthesis.blocks.4x4.const": torch.zeros(2)}, "StyleGAN1"),
        (
            {"layer.weight": torch.zeros(2), "bias": torch.zeros(2)},
            "bias, layer.weight, not a StyleGAN2",
        ),
    ],
)
def test_a_wrong_state_dict_is_refused_with_the_difference(
    state: dict, message: str, tmp_path: Path
) -> None:
    torch.save({"g_ema": state}, tmp_path / "net.pt")
    with pytest.raises(BadFile, match=message) as caught:
        read(tmp_path / "net.pt")
    assert str(tmp_path / "net.pt") in str(caught.value)


def test_a_wrong_checkpoint_of_rosinality_is_refused(tmp_path: Path) -> None:
    state = rosinality_state(nvlabs_state())
    torch.save(
        {"g_ema": state, "latent_avg": torch.arange(16.0).reshape(2, 8)}, tmp_path / "net.pt"
    )
    with pytest.raises(BadFile, match=r"another shape: latent_avg \(2, 8\)"):
        read(tmp_path / "net.pt")
    for name, message in (
        ("convs.1.conv.weight", "convolutions"),
        ("noises.noise_2", r"missing: noises\.noise_2"),
        ("to_rgbs.0.bias", r"missing: to_rgbs\.0\.bias"),
    ):
        torch.save(
            {"g_ema": {key: value for key, value in state.items() if key != name}},
            tmp_path / "net.pt",
        )
        with pytest.raises(BadFile, match=message):
            read(tmp_path / "net.pt")


def test_a_pickle_of_another_network_is_refused(tmp_path: Path) -> None:
    stylegan3 = {"synthesis.input.freqs": torch.zeros(2), "mapping.w_avg": torch.zeros(2)}
    with pytest.raises(BadFile, match="StyleGAN3"):
        read(nvlabs_pickle(tmp_path / "a.pkl", stylegan3))
    with pytest.raises(Unsupported, match=r"b4\.conv1' has the activation 'relu'"):
        read(nvlabs_pickle(tmp_path / "b.pkl", nvlabs_state(), **{"activation": "relu"}))
    # A damaged file has arrays there, which have no truth value.
    with pytest.raises(Unsupported, match=r"b4\.conv1' has the activation array"):
        read(nvlabs_pickle(tmp_path / "b.pkl", nvlabs_state(), activation=np.ones(2)))
    read(nvlabs_pickle(tmp_path / "b.pkl", nvlabs_state(), use_fp16=np.ones(2)))
    torch.save({"epoch": 3}, tmp_path / "c.pt")
    with pytest.raises(BadFile, match="holds epoch"):
        read(tmp_path / "c.pt")


def test_a_part_is_chosen_by_name(tmp_path: Path) -> None:
    state = nvlabs_state(seed=1)
    torch.save({"g_ema": nvlabs_state(), "g": state}, tmp_path / "net.pt")
    agree(read(tmp_path / "net.pt", "g"), nvlabs_part(state), "skip")
    with pytest.raises(UnknownName, match="Available: g, g_ema"):
        read(tmp_path / "net.pt", "g_emma")


@pytest.mark.parametrize(
    "make",
    [
        lambda path: nvlabs_pickle(path, nvlabs_state()),
        lambda path: tensorflow_pickle(path, tensorflow_variables()),
        lambda path: torch.save({"g_ema": rosinality_state(nvlabs_state())}, path),
    ],
    ids=["nvlabs", "tensorflow", "torch"],
)
def test_cut_and_altered_files_are_refused_or_the_same(make, tmp_path: Path) -> None:
    """Bytes are flipped all over: an error that names the file, or finite numbers."""
    make(path := tmp_path / "net.pkl")
    whole = path.read_bytes()
    for length in (0, 3, 100, len(whole) // 2, len(whole) - 1):
        path.write_bytes(whole[:length])
        with pytest.raises(BadFile, match=r"net\.pkl"):
            read(path)
    rng = np.random.default_rng(0)
    for at in rng.integers(0, len(whole), 24):
        broken = bytearray(whole)
        broken[at] ^= 1 << rng.integers(8)
        path.write_bytes(bytes(broken))
        try:
            network = read(path)
        except EditbenchError as error:
            assert "net.pkl" in str(error)
        else:
            assert all(torch.isfinite(value).all() for value in network.state_dict().values())
