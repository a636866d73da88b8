"""Small checkpoints in the formats of other projects, made from random numbers by the formats' public descriptions."""

from __future__ import annotations

import pickle
import sys
import types
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from editbench.networks.checkpoints import CheckpointContent, read_content, source_of
from editbench.networks.stylegan3.network import StyleGAN3

WIDTHS = {4: 6, 8: 5, 16: 4, 32: 3, 64: 2, 128: 2, 256: 2}


def read_source(path: Path, name: str | None = None, **assumed: Any) -> CheckpointContent:
    """The generator in a file; `assumed` is what such a file does not contain."""
    return source_of(path, read_content(path), name, **assumed)


def numbers(*shape: int, scale: float = 1.0, shift: float = 0.0) -> Tensor:
    return torch.randn(shape) * scale + shift


def nvlabs_state(
    resolution: int = 16,
    how: str = "skip",
    c_dim: int = 0,
    channels: int = 3,
    depth: int = 3,
    taps: tuple[float, ...] = (1, 3, 3, 1),
    z_dim: int = 7,
    w_dim: int = 8,
    seed: int = 0,
    lr: float = 0.01,
) -> dict[str, Tensor]:
    """A state dict in the names of NVlabs' PyTorch code."""
    torch.manual_seed(seed)
    state = {
        "mapping.w_avg": numbers(w_dim, scale=0.5),
        "synthesis.b4.const": numbers(WIDTHS[4], 4, 4),
    }
    if c_dim:
        state |= {
            "mapping.embed.weight": numbers(w_dim, c_dim),
            "mapping.embed.bias": numbers(w_dim),
        }
    for k in range(depth):
        n_in = w_dim if k else z_dim + (w_dim if c_dim else 0)
        state |= {
            f"mapping.fc{k}.weight": numbers(w_dim, n_in, scale=1 / lr),
            f"mapping.fc{k}.bias": numbers(w_dim, scale=0.2 / lr),
        }
    row = torch.tensor(taps) / sum(taps)
    for size in (size for size in WIDTHS if size <= resolution):
        block, width, before = f"synthesis.b{size}.", WIDTHS[size], WIDTHS.get(size // 2, 0)
        convs = [("conv0", before), ("conv1", width)] if before else [("conv1", width)]
        for name, n_in in convs:
            own = block + name
            state |= {
                f"{own}.affine.weight": numbers(n_in, w_dim),
                f"{own}.affine.bias": numbers(n_in, shift=1),
                f"{own}.weight": numbers(width, n_in, 3, 3),
                f"{own}.bias": numbers(width),
                f"{own}.noise_strength": numbers(scale=0.3),
                f"{own}.noise_const": numbers(size, size),
                f"{own}.resample_filter": torch.outer(row, row),
            }
        if how == "skip" or size == resolution:
            own = f"{block}torgb"
            state |= {
                f"{own}.affine.weight": numbers(width, w_dim),
                f"{own}.affine.bias": numbers(width, shift=1),
                f"{own}.weight": numbers(channels, width, 1, 1),
                f"{own}.bias": numbers(channels),
            }
        if how == "resnet" and before:
            state |= {
                f"{block}skip.weight": numbers(width, before, 1, 1),
                f"{block}skip.resample_filter": torch.outer(row, row),
            }
        state[f"{block}resample_filter"] = torch.outer(row, row)
    return state


@contextmanager
def modules(**names: Any):
    """Modules that exist while a pickle is written: 'a__b' is a.b, the value a dict of its attributes."""
    made = {}
    for name, attributes in names.items():
        name = name.replace("__", ".")
        module = made[name] = types.ModuleType(name)
        for key, value in attributes.items():
            value.__module__, value.__qualname__ = name, key
            setattr(module, key, value)
    kept = {name: sys.modules.get(name) for name in made}
    sys.modules.update(made)
    try:
        yield
    finally:
        for name, module in kept.items():
            if module is None:
                del sys.modules[name]
            else:
                sys.modules[name] = module


def _reconstruct_persistent_obj(meta):
    raise AssertionError("the code of a pickle was run")


class Persistent:
    """What torch_utils.persistence makes of a module: a call with its class name, source and attributes."""

    def __init__(self, name: str, **attributes: Any) -> None:
        self.name = name
        self.state = {
            "training": False,
            "_parameters": {},
            "_buffers": {},
            "_modules": {},
            **attributes,
        }

    def __reduce__(self):
        return _reconstruct_persistent_obj, (
            {
                "type": "class",
                "version": 6,
                "module_src": "raise SystemExit",
                "class_name": self.name,
                "state": self.state,
            },
        )


def nvlabs_pickle(
    path: Path,
    state: dict[str, Tensor],
    lr: float = 0.01,
    clamp: float | None = None,
    key: str = "G_ema",
    **changed: Any,
) -> Path:
    """A pickle as stylegan2-ada-pytorch writes it; `changed` are attributes of every layer."""

    def module(prefix: str, name: str) -> Persistent:
        made = Persistent("Generator" if not prefix else "SynthesisLayer")
        if ".fc" in f".{name}":
            made.state |= {"bias_gain": lr, "activation": "lrelu"}
        if name in ("conv0", "conv1", "torgb"):
            made.state |= {
                "conv_clamp": clamp,
                **({} if name == "torgb" else {"activation": "lrelu"}),
                **changed,
            }
        if name in ("affine", "embed", "skip"):
            made.state |= {"activation": "linear"}
        inner = {
            full[len(prefix) :]: value for full, value in state.items() if full.startswith(prefix)
        }
        for own, value in inner.items():
            if "." not in own:
                buffer = own in ("noise_const", "resample_filter", "w_avg")
                made.state["_buffers" if buffer else "_parameters"][own] = (
                    value if buffer else nn.Parameter(value)
                )
        for child in dict.fromkeys(own.partition(".")[0] for own in inner if "." in own):
            made.state["_modules"][child] = module(f"{prefix}{child}.", child)
        return made

    with modules(
        torch_utils={},
        torch_utils__persistence={"_reconstruct_persistent_obj": _reconstruct_persistent_obj},
    ):
        path.write_bytes(
            pickle.dumps({"G": None, "D": None, "training_set_kwargs": None, key: module("", "")})
        )
    return path


# -- StyleGAN3 -------------------------------------------------------------------------------------
def stylegan3_state(network: StyleGAN3) -> dict[str, Tensor]:
    """The tensors of a network in the official names."""
    theirs = {"input": "input"} | {d.name: d.published for d in network.config.layers()}
    state = {}
    for name, value in network.state_dict().items():
        parts = name.split(".")
        if parts[:2] == ["mapping", "layers"]:
            parts[1:3] = [f"fc{parts[2]}"]
        elif parts[0] == "synthesis":
            parts[1:3] = [theirs[parts[2]]]
        state[".".join(parts)] = value
    return state


def stylegan3_pickle(path: Path, network: StyleGAN3, **changed: Any) -> Path:
    """A pickle as the official code writes it; `changed` are attributes of every layer."""
    config = network.config
    designs = {design.published: design for design in config.layers()}
    state = stylegan3_state(network)

    def module(prefix: str, name: str) -> Persistent:
        made = Persistent(name or "Generator")
        inner = {
            full[len(prefix) :]: value for full, value in state.items() if full.startswith(prefix)
        }
        for own, value in inner.items():
            if "." not in own:
                kind = "_parameters" if own in ("weight", "bias") else "_buffers"
                made.state[kind][own] = nn.Parameter(value) if kind == "_parameters" else value
        for child in dict.fromkeys(own.partition(".")[0] for own in inner if "." in own):
            made.state["_modules"][child] = module(f"{prefix}{child}.", child)
        if name.startswith("fc"):
            made.state |= {"bias_gain": config.mapping_lr, "activation": "lrelu"}
        if name in ("affine", "embed"):
            made.state |= {"bias_gain": 1, "activation": "linear"}
        if name == "input":
            made.state |= {"bandwidth": np.float64(config.first_cutoff)}
        if name == "synthesis":
            made.state |= {
                "num_critical": config.num_critical,
                "margin_size": config.margin,
                "output_scale": config.output_scale,
                "_init_kwargs": {
                    "first_stopband": config.first_stopband,
                    "last_stopband_rel": config.last_stopband_ratio,
                },
            }
        if name in designs:
            design = designs[name]
            made.state |= {
                "conv_clamp": config.conv_clamp,
                "use_fp16": np.True_,
                "in_size": np.array([design.in_size] * 2),
                "out_size": np.array([design.out_size] * 2),
                "in_sampling_rate": design.rate // design.up,
                "tmp_sampling_rate": design.rate,
                "up_factor": design.up,
                "down_factor": design.down,
                "up_taps": design.up_taps,
                "down_taps": design.down_taps,
                "padding": [*design.padding, *design.padding],
                **changed,
            }
        return made

    with modules(
        torch_utils={},
        torch_utils__persistence={"_reconstruct_persistent_obj": _reconstruct_persistent_obj},
    ):
        path.write_bytes(pickle.dumps({"G": None, "D": None, "G_ema": module("", "")}))
    return path


# -- TensorFlow ------------------------------------------------------------------------------------
def tensorflow_variables(**options: Any) -> dict[str, np.ndarray]:
    """Variables of a TensorFlow generator, all random, by path; of the sizes of `nvlabs_state`."""
    state, found = nvlabs_state(**options), {}
    rng = np.random.default_rng(options.get("seed", 0))
    for name, value in state.items():
        parts = name.split(".")
        draw = (
            rng.standard_normal(tuple(value.shape)) * max(value.std(correction=0).item(), 0.5)
            if value.dim()
            else rng.standard_normal() * 0.3
        )
        draw = np.asarray(draw, np.float32)
        if name == "mapping.w_avg":
            found["dlatent_avg"] = draw
        elif parts[0] == "mapping":
            own = parts[1].replace("fc", "Dense").replace("embed", "LabelEmbed")
            found[f"mapping/{own}/{parts[2]}"] = np.ascontiguousarray(draw.T)
        elif name == "synthesis.b4.const":
            found["synthesis/4x4/Const/const"] = draw[None]
        elif parts[-1] != "resample_filter":
            size = int(parts[1][1:])
            own = {
                "conv0": "Conv0_up",
                "conv1": "Conv1" if size > 4 else "Conv",
                "torgb": "ToRGB",
                "skip": "Skip",
            }
            place = f"synthesis/{size}x{size}/{own[parts[2]]}"
            if parts[-1] == "noise_const":
                level = 2 * (size.bit_length() - 1) - (5 if parts[2] == "conv0" else 4)
                found[f"synthesis/noise{level}"] = draw[None, None]
            elif parts[3] == "affine":
                found[f"{place}/mod_{parts[4]}"] = np.ascontiguousarray(draw.T)
            else:
                found[f"{place}/{parts[3]}"] = (
                    draw.transpose(2, 3, 1, 0).copy() if draw.ndim == 4 else draw
                )
    return found


class Network:
    """dnnlib.tflib.Network, as far as its pickle goes."""

    def __init__(
        self,
        variables: dict[str, np.ndarray],
        components: dict[str, Network] | None = None,
        static_kwargs: dict[str, Any] | None = None,
    ) -> None:
        self.version, self.name, self.build_func_name = 4, "network", "G_main"
        self.build_module_src = "raise SystemExit"
        self.static_kwargs, self.components = static_kwargs or {}, components or {}
        self.variables = list(variables.items())


def tensorflow_pickle(
    path: Path, variables: dict[str, np.ndarray], static_kwargs: dict[str, Any] | None = None
) -> Path:
    """(G, D, Gs) with the generator as Gs, a discriminator, and a G of other numbers."""

    def generator(gain: float) -> Network:
        groups = {
            group: {
                name[len(group) + 1 :]: value * gain
                for name, value in variables.items()
                if name.startswith(f"{group}/")
            }
            for group in ("mapping", "synthesis")
        }
        own = {name: value * gain for name, value in variables.items() if "/" not in name} | {
            "lod": np.float32(0)
        }
        return Network(
            own, {group: Network(values) for group, values in groups.items()}, static_kwargs
        )

    critic = Network(
        {
            "4x4/Conv/weight": np.zeros((3, 3, 2, 2), np.float32),
            "16x16/FromRGB/weight": np.zeros((1, 1, 3, 2), np.float32),
        }
    )
    with modules(dnnlib={}, dnnlib__tflib={}, dnnlib__tflib__network={"Network": Network}):
        path.write_bytes(pickle.dumps((generator(2.0), critic, generator(1.0)), protocol=3))
    return path


# -- rosinality ------------------------------------------------------------------------------------
def rosinality_state(state: dict[str, Tensor], noises: bool = True) -> dict[str, Tensor]:
    """The same numbers, of the skip architecture without labels, in the names of rosinality's code."""
    found = {}
    for name, value in state.items():
        parts = name.split(".")
        if parts[0] == "mapping" and parts[1].startswith("fc"):
            found[f"style.{int(parts[1][2:]) + 1}.{parts[2]}"] = value
        elif name == "synthesis.b4.const":
            found["input.input"] = value[None]
        elif parts[0] == "synthesis" and len(parts) > 3:
            level = int(parts[1][1:]).bit_length() - 3
            number = 2 * level - (parts[2] == "conv0")
            rgb = parts[2] == "torgb"
            own = (
                ("to_rgbs." + str(level - 1) if level else "to_rgb1")
                if rgb
                else (f"convs.{number - 1}" if number else "conv1")
            )
            rest = ".".join(parts[3:])
            if rest == "resample_filter":
                if parts[2] == "conv0":
                    found[f"{own}.conv.blur.kernel"] = 4 * value
                    found[f"to_rgbs.{level - 1}.upsample.kernel"] = 4 * value
            elif rest == "noise_const":
                if noises:
                    found[f"noises.noise_{number}"] = value[None, None]
            else:
                theirs = {
                    "weight": "conv.weight",
                    "affine.weight": "conv.modulation.weight",
                    "affine.bias": "conv.modulation.bias",
                    "noise_strength": "noise.weight",
                    "bias": "bias" if rgb else "activate.bias",
                }[rest]
                shape = {
                    "weight": (1, *value.shape),
                    "noise_strength": (1,),
                    "bias": (1, -1, 1, 1) if rgb else (-1,),
                }.get(rest, tuple(value.shape))
                found[f"{own}.{theirs}"] = value.reshape(shape)
    return found
