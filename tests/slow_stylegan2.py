"""StyleGAN2 written out slowly from its papers' equations, in double precision: one sample, one kernel at a time.

A network is a function `part(place, name)` of parameters: place is 'mapping', 'const' or (kind, pixels) with kind up,
conv, rgb or skip. Up-sampling inserts zeros and filters; nothing of editbench's layers is used.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

Part = Callable[[object, str], Tensor]


def moment(x: Tensor) -> Tensor:
    return x / (x.square().mean(-1, keepdim=True) + 1e-8).sqrt()


def slow_w(part: Part, z: Tensor, label: Tensor | None, depth: int, gain: float) -> Tensor:
    """z (N, z_dim), label (N, c) -> w (N, w_dim)."""
    x = moment(z.double())
    if label is not None:
        weight = part("mapping", "embed.weight")
        embedded = label.double() @ (weight / weight.shape[1] ** 0.5).T + part(
            "mapping", "embed.bias"
        )
        x = torch.cat([x, moment(embedded)], 1)
    for k in range(depth):
        weight = part("mapping", f"{k}.weight")
        x = x @ (weight * gain / weight.shape[1] ** 0.5).T + part("mapping", f"{k}.bias") * gain
        x = torch.where(x > 0, x, 0.2 * x) * 2**0.5
    return x


def filtered(x: Tensor, taps: Tensor, before: int, after: int) -> Tensor:
    """Convolve x (C, H, W) with the kernel taps taps^T, normalised, gain 4: what up-sampling by 2 takes."""
    taps = taps.double() / taps.sum()
    kernel = (4 * torch.outer(taps, taps)).flip((0, 1))[None, None]
    x = F.pad(x[:, None], (before, after, before, after))
    return F.conv2d(x, kernel)[:, 0]


def spread(x: Tensor) -> Tensor:
    out = x.new_zeros(x.shape[0], 2 * x.shape[1], 2 * x.shape[2])
    out[:, ::2, ::2] = x
    return out


def doubled(x: Tensor, taps: Tensor) -> Tensor:
    """Up-sample x (C, H, W): the filter is centred on the picture, half a pixel late for an even number of taps."""
    return filtered(spread(x), taps, (len(taps) + 1) // 2, (len(taps) - 2) // 2)


def slow_image(
    part: Part,
    rows: Tensor,
    resolution: int,
    how: str,
    taps: Tensor,
    noise: bool = True,
    clamp: float | None = None,
) -> Tensor:
    """One sample's rows of w_plus (num_ws, w_dim) -> image (C, R, R).

    The kernel of an up-convolution is given as the one that is correlated with the spread picture.
    """
    bound = (lambda x: x) if clamp is None else (lambda x: x.clamp(-clamp, clamp))

    def style(place: object, row: int) -> Tensor:
        weight = part(place, "affine.weight")
        return weight @ rows[row].double() / weight.shape[1] ** 0.5 + part(place, "affine.bias")

    def conv(x: Tensor, place: tuple[str, int], row: int) -> Tensor:
        kernel = part(place, "weight") * style(place, row)[None, :, None, None]
        kernel = kernel / (kernel.square().sum((1, 2, 3), keepdim=True) + 1e-8).sqrt()
        if (
            place[0] == "up"
        ):  # a full correlation of the spread picture, without its last, empty line
            x = F.conv2d(F.pad(spread(x)[:, :-1, :-1], (2, 2, 2, 2))[None], kernel)[0]
            x = filtered(x, taps, (len(taps) + 1) // 2 - 1, (len(taps) - 2) // 2)
        else:
            x = F.conv2d(x[None], kernel, padding=1)[0]
        if noise:
            x = x + part(place, "noise") * part(place, "noise_strength")
        x = x + part(place, "bias")[:, None, None]
        return bound(torch.where(x > 0, x, 0.2 * x) * 2**0.5)

    x, image, size, row = part("const", ""), None, 4, 0
    while size <= resolution:
        before = x
        if size > 4:
            x, row = conv(x, ("up", size), row), row + 1
        x, row = conv(x, ("conv", size), row), row + 1
        if how == "resnet" and size > 4:
            weight = part(("skip", size), "weight")[:, :, 0, 0]
            branch = torch.einsum("oi,ihw->ohw", weight / weight.shape[1] ** 0.5, before)
            x = (x + doubled(branch, taps)) / 2**0.5
        if how == "skip" or size == resolution:
            place = ("rgb", size)
            kernel = part(place, "weight")[:, :, 0, 0]
            kernel = kernel * style(place, row) / kernel.shape[1] ** 0.5
            rgb = bound(torch.einsum("oi,ihw->ohw", kernel, x) + part(place, "bias")[:, None, None])
            image = rgb if image is None else doubled(image, taps) + rgb
        size *= 2
    assert image is not None
    return image


def slow_images(part: Part, w: Tensor, resolution: int, **options: object) -> Tensor:
    """w (N, w_dim) -> images (N, C, R, R) float64."""
    num_ws = 2 * (resolution.bit_length() - 2)
    return torch.stack(
        [slow_image(part, row.expand(num_ws, -1), resolution, **options) for row in w]
    )  # type: ignore


# -- parameters in the names of two projects -------------------------------------------------------
def nvlabs_part(state: Mapping[str, Tensor]) -> Part:
    """Of a state dict in NVlabs' PyTorch names, whose up-convolution is a transposed one: a turned kernel."""

    def part(place: object, name: str) -> Tensor:
        if place in ("mapping", "const"):
            head = {"const": "synthesis.b4.const"}.get(
                str(place), "mapping." + ("" if "embed" in name else "fc")
            )
            return state[head + name].double()
        kind, size = place  # type: ignore[misc]
        layer = {"up": "conv0", "conv": "conv1", "rgb": "torgb", "skip": "skip"}[kind]
        value = state[
            f"synthesis.b{size}.{layer}.{'noise_const' if name == 'noise' else name}"
        ].double()
        return value.flip((2, 3)) if (kind, name) == ("up", "weight") else value

    return part


def tensorflow_part(variables: Mapping[str, np.ndarray]) -> Part:
    """Of the variables of a TensorFlow network: dense (in, out), kernels (h, w, in, out), modulation x W + b + 1."""

    def part(place: object, name: str) -> Tensor:
        if place == "mapping":
            name = (
                name.replace("embed.", "LabelEmbed/")
                if "embed" in name
                else "Dense" + name.replace(".", "/")
            )
            value = torch.from_numpy(variables[f"mapping/{name}"]).double()
            return value.T if value.dim() == 2 else value
        if place == "const":
            return torch.from_numpy(variables["synthesis/4x4/Const/const"][0]).double()
        kind, size = place  # type: ignore[misc]
        level = size.bit_length() - 1
        if name == "noise":
            number = 2 * level - (5 if kind == "up" else 4)
            return torch.from_numpy(variables[f"synthesis/noise{number}"][0, 0]).double()
        layer = {
            "up": "Conv0_up",
            "conv": "Conv" if size == 4 else "Conv1",
            "rgb": "ToRGB",
            "skip": "Skip",
        }[kind]
        theirs = {"affine.weight": "mod_weight", "affine.bias": "mod_bias"}.get(name, name)
        value = torch.from_numpy(
            np.asarray(variables[f"synthesis/{size}x{size}/{layer}/{theirs}"])
        ).double()
        if name == "affine.bias":
            return value + 1
        return (
            value.T
            if name == "affine.weight"
            else value.permute(3, 2, 0, 1)
            if name == "weight"
            else value
        )

    return part
