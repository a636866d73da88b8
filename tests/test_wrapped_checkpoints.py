"""A generator is found in a checkpoint, whatever is wrapped around it, or the error has its name."""

from __future__ import annotations

from collections import OrderedDict
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from editbench.base.errors import BadFile
from editbench.networks.checkpoints import CheckpointContent, assemble
from editbench.networks.checkpoints.detect import source_of
from editbench.networks.external import load_network
from tests.checkpoint_files import nvlabs_state, read_source, rosinality_state
from tests.data_folder import REPORTS, needs_reports

REPORT = REPORTS / "01-wrapped-checkpoints"
STATE = nvlabs_state()
OTHER = nvlabs_state(seed=1)
ROSINALITY = rosinality_state(STATE)


def under(head: str, state: dict[str, Tensor]) -> dict[str, Tensor]:
    return {f"{head}{name}": value for name, value in state.items()}


def source_in(content: Any, name: str | None = None) -> CheckpointContent:
    """What is found in the content of a file."""
    return source_of(Path("net.pt"), content, name)


def is_state(source: CheckpointContent, state: dict[str, Tensor]) -> bool:
    return source.tensors.keys() == state.keys() and all(
        torch.equal(source.tensors[name], value) for name, value in state.items()
    )


@needs_reports
def test_the_files_of_the_report() -> None:
    plain = assemble(read_source(REPORT / "plain.pt")).state_dict()
    for file in ("ddp.pt", "compile.pt"):
        found = assemble(read_source(REPORT / file)).state_dict()
        assert all(torch.equal(found[name], value) for name, value in plain.items())
    source = read_source(REPORT / "e4e.pt")
    assert dict(source.notes)["part of the file"] == "state_dict.decoder"
    # The mean w of e4e stands beside the state dict, once a row of W+.
    beside = torch.load(REPORT / "e4e.pt", weights_only=True)["latent_avg"]
    assert torch.equal(assemble(source).mapping.w_avg, beside[0])


@pytest.mark.parametrize(
    ("content", "place"),
    [
        (under("module._orig_mod.", STATE), "module._orig_mod"),
        (under("_orig_mod.module.", STATE), "_orig_mod.module"),
        # AveragedModel counts its updates beside the network.
        (
            {"swa": under("module.", STATE) | {"n_averaged": torch.tensor(3)}, "G": OTHER},
            "swa.module",
        ),
        ({"g": OTHER, "g_ema": under("module.", STATE), "d": {}}, "g_ema.module"),
        # Lightning: one flat state dict of all networks, and the optimisers.
        (
            {
                "state_dict": under("generator._orig_mod.", OTHER)
                | under("generator_ema.module.", STATE)
                | {"discriminator.b4.out.weight": torch.zeros(1)},
                "optimizer_states": [{"state": {0: {"exp_avg": torch.zeros(2)}}}],
                "hyper_parameters": {"lr": 0.002},
            },
            "state_dict.generator_ema.module",
        ),
        # ema-pytorch: both networks side by side.
        (
            {"ema": under("online_model.", OTHER) | under("ema_model.", STATE)},
            "ema.ema_model",
        ),
        ({"params": OTHER, "params_ema": STATE}, "params_ema"),
    ],
)
def test_wrappers_in_any_nesting(content: Any, place: str) -> None:
    source = source_in(content)
    assert is_state(source, STATE)
    assert dict(source.notes)["part of the file"] == place
    # The name that is shown leads to the same network.
    assert is_state(source_in(content, place), STATE)


def test_averages_without_dots_in_their_names() -> None:
    parameters = {
        name: value
        for name, value in STATE.items()
        if not name.endswith(("w_avg", "noise_const", "resample_filter"))
    }
    shadow = {f"model_ema.{name.replace('.', '')}": value for name, value in parameters.items()}
    source = source_in({"state_dict": under("model.", OTHER) | shadow})
    buffers = {name: value for name, value in OTHER.items() if name not in parameters}
    assert is_state(source, parameters | buffers)
    assert dict(source.notes)["part of the file"] == "state_dict.model_ema"


@pytest.mark.parametrize("head", ["decoder.", "module.decoder.", "generator.module."])
def test_the_mean_of_rosinality_is_the_nearest_one(head: str) -> None:
    mean = torch.randn(6, 8)
    content = {"state_dict": under(head, ROSINALITY), "latent_avg": mean}
    assert torch.equal(source_in(content).tensors["latent_avg"], mean)
    nearer = torch.randn(8)
    content["state_dict"] |= {f"{head.split('.')[0]}.latent_avg": nearer}
    content["state_dict"] |= {"encoder.latent_avg": torch.zeros(3)}
    assert torch.equal(source_in(content).tensors["latent_avg"], nearer)


def test_several_generators_are_named() -> None:
    pair = {"state_dict": under("netG_A.module.", STATE) | under("netG_B.module.", OTHER)}
    with pytest.raises(BadFile, match="holds 2 generators") as error:
        source_in(pair)
    for name, state in (("netG_A", STATE), ("netG_B", OTHER)):
        assert f"--name state_dict.{name}.module" in str(error.value)
        assert is_state(source_in(pair, f"state_dict.{name}"), state)
    averages = {"ema": {"fast": STATE, "slow": OTHER}, "G": STATE}
    with pytest.raises(BadFile, match=r"--name ema\.fast or --name ema\.slow"):
        source_in(averages)
    with pytest.raises(BadFile, match=r"--name ema\.fast or --name ema\.slow"):
        source_in(averages, "ema")


def test_weights_of_a_module_may_be_wrapped(tmp_path: Path) -> None:
    network = nn.Sequential(nn.Linear(3, 2))
    weights = {name: torch.randn(value.shape) for name, value in network.state_dict().items()}
    save_file(under("module._orig_mod.", weights), tmp_path / "a.safetensors")
    loaded = load_network(network, tmp_path / "a.safetensors").state_dict()
    assert all(torch.equal(loaded[name], value) for name, value in weights.items())
    # A name of the network's own is no wrapper's.
    inner = nn.Sequential(OrderedDict(module=nn.Linear(3, 2)))
    own = {name: torch.randn(value.shape) for name, value in inner.state_dict().items()}
    save_file(own, tmp_path / "b.safetensors")
    loaded = load_network(inner, tmp_path / "b.safetensors").state_dict()
    assert all(torch.equal(loaded[name], value) for name, value in own.items())
