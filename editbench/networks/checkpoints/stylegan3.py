"""NVlabs' StyleGAN3 generators, configurations t and r: pickles and state dicts.

Names of tensors: mapping.embed, mapping.fcN, mapping.w_avg; synthesis.input with freqs, phases,
transform and weight; synthesis.Lk_SIZE_CHANNELS with weight, bias, magnitude_ema, up_filter and
down_filter; each layer with affine.weight and affine.bias. All tensors are used unchanged. Options
that do not follow from shapes are read from the attributes of a pickle. For a state dict, they are
assumed to be those of the published networks.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor

from editbench.base.errors import BadFile, Unsupported
from editbench.networks.checkpoints.assemble import (
    Assumed,
    CheckpointContent,
    Rule,
    explain_architecture,
    shape_of,
)
from editbench.networks.checkpoints.nvlabs import (
    as_number,
    half_precision_notes,
    mapping_rules,
    mapping_sizes,
    pickled_facts,
)
from editbench.networks.pickles import Opaque
from editbench.networks.pickles.modules import walk_modules
from editbench.networks.stylegan3.config import LayerDesign, StyleGAN3Config
from editbench.networks.stylegan3.network import INPUT, StyleGAN3
from editbench.networks.weights import listed

# Number, side in pixels, channels.
LAYER = re.compile(r"synthesis\.(L(\d+)_(\d+)_(\d+))\.weight")
STYLED = ("affine.weight", "affine.bias", "weight", "magnitude_ema", "bias")
FILTERED = (*STYLED, "up_filter", "down_filter")
# Arguments of their constructor -> fields of our configuration.
BANDS = {"first_stopband": "first_stopband", "last_stopband_rel": "last_stopband_ratio"}
FEATURES = ("affine.weight", "affine.bias", "weight", "freqs", "phases", "transform")
# Their attribute of a layer -> its value in our design. A different value would change the image.
DESIGNED = {
    "in_size": lambda design: design.in_size,
    "out_size": lambda design: design.out_size,
    "up_factor": lambda design: design.up,
    "down_factor": lambda design: design.down,
    "up_taps": lambda design: design.up_taps,
    "down_taps": lambda design: design.down_taps,
    "padding": lambda design: [*design.padding, *design.padding],
}


def is_stylegan3(tensors: dict[str, Tensor]) -> bool:
    """Whether the names are those of this network."""
    return any(LAYER.fullmatch(name) or name.startswith("synthesis.input.") for name in tensors)


def read_stylegan3(
    path: Path,
    tensors: dict[str, Tensor],
    module: Opaque | None,
    assumed: Assumed,
) -> CheckpointContent:
    """The source of a StyleGAN3 generator.

    Args:
        path: of the file.
        tensors: of the generator, by their names.
        module: the pickled generator; None for a state dict.
        assumed: gain of the mapping and clamp of the activations, for a state dict; None for that of
            the published networks.

    Raises:
        BadFile: tensors are missing or inconsistent.
        Unsupported: a layer differs from the paper's design.
    """
    by_number: dict[int, str] = {}
    for name in tensors:
        match = LAYER.fullmatch(name)
        if match is not None:
            by_number[int(match[2])] = match[1]
    names = [by_number[number] for number in sorted(by_number)]
    # At least one layer and ToRGB, numbered without a gap.
    if len(names) < 2 or sorted(by_number) != list(range(len(names))):
        raise BadFile(
            f"{path}: its layers are {listed(names)}, expected L0, L1, ... without a gap, so it is "
            "not a whole StyleGAN3 generator: the file is truncated or of another architecture"
        )
    facts = _shape_facts(path, tensors, names)
    if module is None:
        kind = "state dict in NVlabs' names, StyleGAN3"
        facts |= {key: value for key, value in assumed.items() if value is not None}
    else:
        kind = "NVlabs StyleGAN3 pickle"
        facts |= pickled_facts(path, module, tuple(f".{name}." for name in names))
        facts |= _design_facts(path, module, names[0])
    with explain_architecture(path, "StyleGAN3"):
        config = StyleGAN3Config(**facts)
        designs = config.layers()
    _check_names(path, names, designs)
    if module is not None:
        _check_designs(path, module, dict(zip(names, designs)))
    notes = [("noise", "none: StyleGAN3 has no noise"), *half_precision_notes(module)]
    return CheckpointContent(
        path,
        kind,
        config,
        tensors,
        _stylegan3_rules(config, names),
        notes=notes,
        assumed=(*assumed, "bands") if module is None else (),
        network=StyleGAN3,
    )


def _shape_facts(path: Path, tensors: dict[str, Tensor], names: list[str]) -> dict[str, Any]:
    """The part of the configuration that follows from names and shapes of the layers, in order."""
    first = f"synthesis.{names[0]}"
    up_taps = shape_of(tensors, f"{first}.up_filter", path, 1)[0]
    kernel = shape_of(tensors, f"{first}.weight", path, 4)[2]
    radial = tensors.get(f"{first}.down_filter")
    w_dim = shape_of(tensors, f"{first}.affine.weight", path, 2)[1]
    # The side of 'L5_32_8' is 32 pixels.
    sizes = [int(name.split("_")[1]) for name in names]
    resolution = sizes[-1]
    # The largest layer contains the image and its margin; the last two have no margin.
    margin = (max(sizes) - resolution) // 2
    return {
        "resolution": resolution,
        "channels": tuple(
            shape_of(tensors, f"synthesis.{name}.weight", path, 4)[0] for name in names[:-1]
        ),
        "img_channels": shape_of(tensors, f"synthesis.{names[-1]}.weight", path, 4)[0],
        **mapping_sizes(path, tensors, w_dim),
        "margin": margin,
        "kernel": kernel,
        # The first layer up-samples by 2 for the activation.
        "filter_size": up_taps // 2,
        "radial": radial is not None and radial.dim() == 2,
    }


def _design_facts(path: Path, module: Opaque, first_layer: str) -> dict[str, Any]:
    """The part of the configuration that follows from the attributes of a pickled generator.

    The rates and the filter of its first layer show the oversampling. Raises BadFile if an
    attribute is missing or not a number.
    """
    states = dict(walk_modules(module))

    def number(prefix: str, name: str) -> float:
        return as_number(states.get(prefix, {}).get(name), path, f"{prefix}{name}")

    first = f"synthesis.{first_layer}."
    facts: dict[str, Any] = {
        "num_critical": round(number("synthesis.", "num_critical")),
        "margin": round(number("synthesis.", "margin_size")),
        "output_scale": number("synthesis.", "output_scale"),
        "first_cutoff": number("synthesis.input.", "bandwidth"),
    }
    up = number(first, "up_factor")
    rate = number(first, "in_sampling_rate")
    if up < 1 or rate < 1:
        raise BadFile(f"{path}: '{first}' has no rates; the file is damaged")
    facts["filter_size"] = round(number(first, "up_taps") / up)
    facts["oversampling"] = round(number(first, "tmp_sampling_rate") / rate)
    # Not an attribute, but an argument of the constructor unless it has its default.
    called = states.get("synthesis.", {}).get("_init_kwargs")
    for theirs, ours in BANDS.items():
        if isinstance(called, dict) and theirs in called:
            facts[ours] = as_number(called[theirs], path, f"synthesis.{theirs}")
    return facts


def _check_names(path: Path, names: list[str], designs: list[LayerDesign]) -> None:
    """Raise Unsupported if layers have other sizes or channels than those of the configuration."""
    expected = [design.published for design in designs]
    if names != expected:
        wrong = next((a, b) for a, b in zip(names, expected) if a != b)
        raise Unsupported(
            f"{path}: its layer {wrong[0]} would be {wrong[1]} by the design of the paper, as far "
            "as the file shows its frequencies; only that design is read (a pickle shows them, a "
            "state dict does not)"
        )


def _check_designs(path: Path, module: Opaque, designs: dict[str, LayerDesign]) -> None:
    """Raise Unsupported if a layer of a pickle has another design than ours."""
    for prefix, state in walk_modules(module):
        design = designs.get(prefix.removeprefix("synthesis.").rstrip("."))
        if design is None:
            continue
        for name, expected in DESIGNED.items():
            if name not in state:
                continue
            given = state[name]
            if not _same(given, expected(design)):
                raise Unsupported(
                    f"{path}: its layer '{prefix[:-1]}' has {name}={given}, where the design of "
                    f"the paper gives {expected(design)}; only that design is read"
                )


def _same(given: Any, expected: Any) -> bool:
    """Whether a number or list in a file is as expected; a pair of equal sizes counts as one.

    Args:
        given: a number, list, tuple or array of a pickle.
        expected: a number or list of our design.
    """
    try:
        values = np.asarray(given, np.float64)
    except (TypeError, ValueError):  # no numbers
        return False
    if isinstance(expected, list):
        return np.array_equal(values, expected)
    return bool((values == expected).all())


def _stylegan3_rules(config: StyleGAN3Config, names: list[str]) -> dict[str, Rule | None]:
    """Our names -> Rules with NVlabs' names of the layers, in order."""
    rules = mapping_rules(config.mapping_layers)
    for part in FEATURES:
        rules[f"synthesis.layers.{INPUT}.{part}"] = Rule(f"synthesis.input.{part}")
    for name, design in zip(names, config.layers()):
        for part in FILTERED if name != names[-1] else STYLED:
            rules[f"synthesis.layers.{design.name}.{part}"] = Rule(f"synthesis.{name}.{part}")
    return rules
