"""Checks of a user's own classes of generators and scorers, on a few samples, when they are loaded.

Without them, a mistake would appear as an error of torch in the middle of a job, or as a wrong
number. The project's own classes are checked by its tests.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any, TypeVar

import torch
from torch import Tensor

from editbench.base.attributes import Attributes
from editbench.base.devices import device_of
from editbench.base.errors import EditbenchError, NonFinite, at_line, frames_of, one_line
from editbench.base.seeding import normals
from editbench.base.spaces import Codes, Space
from editbench.base.user_code import is_users_file
from editbench.networks.generator import Generator
from editbench.networks.scorer import Scorer

Found = TypeVar("Found")

PROBES = 4  # number of samples
SAME = 1e-2  # accepted difference of equal samples, relative to the standard deviation of all
LARGEST = 32.0  # accepted size of a pixel: images are about [-1, 1], but need not be squashed
OUTPUTS = ("image", "w")
# Attributes of a generator that are needed to have a space.
SIZES = {
    Space.Z: ("z_dim",),
    Space.W: ("z_dim", "w_dim"),
    Space.W_PLUS: ("w_dim", "num_ws"),
}


@torch.no_grad()
def check_own_generator(generator: Generator, name: str) -> None:
    """Decode a few samples in every space, and compare them with the contract.

    A generator without images (`output` is "w") may be unable to sample, so only its declaration is
    checked.

    Args:
        generator: on its device. Its count of decoded samples is kept.
        name: of its class, for messages.

    Raises:
        EditbenchError: a declaration or the result of `map`, `styles` or `_decode` is wrong; an
            image is random, depends on the others in its batch, or differs between the spaces.
        NonFinite: an image has NaN or infinity.
    """
    _check_declaration(generator, name)
    if generator.output != "image":
        return
    with _uncounted(generator):
        _check_images(generator, name)


@torch.no_grad()
def check_own_scorer(scorer: Scorer, name: str, samples: Tensor) -> None:
    """Score a few samples, and compare the logits with the contract.

    Args:
        scorer: in evaluation mode.
        name: of its class, for messages.
        samples: (n, ...) as it takes them, on its device, such as those of `probe_samples`.

    Raises:
        EditbenchError: its attributes or its logits are wrong, or they are random or depend on the
            other samples of the batch.
        NonFinite: a logit is NaN or infinite.
    """
    attributes = getattr(scorer, "attributes", None)
    if not isinstance(attributes, Attributes):
        raise EditbenchError(
            f"{name}: attributes must be Attributes([Attribute(NAME, CLASSES), ...]) of "
            f"editbench.base.attributes, not {type(attributes).__name__}"
        )
    call = f"a call with samples {tuple(samples.shape)}"
    logits = _tried(name, call, lambda: scorer(samples))
    _check_tensor(name, "forward", "logits", logits)
    wanted = (len(samples), attributes.width)
    if tuple(logits.shape) != wanted:
        raise EditbenchError(
            f"{name}: forward gives logits {tuple(logits.shape)} for {len(samples)} samples, but its "
            f"attributes ({', '.join(attributes.names)}) need {wanted}: one column for an attribute "
            "of two classes, K for one of K"
        )
    alone = _tried(name, "a call with one sample", lambda: scorer(samples[:1]))
    if not _same(alone, logits[:1], logits):
        raise EditbenchError(
            f"{name}: the logits of a sample change with the other samples of its batch, or from "
            "call to call: no layer may mix the samples, and forward must not draw random numbers"
        )


@torch.no_grad()
def probe_samples(generator: Generator) -> Tensor:
    """A few samples as scorers take them, (PROBES, ...). The count of decoded samples is kept.

    Args:
        generator: of the samples.
    """
    # A generator without images may be unable to sample.
    if generator.output != "image":
        codes = torch.from_numpy(normals(0, "probe", 0, PROBES, generator.w_dim)).float()
        return codes.to(device_of(generator))
    with _uncounted(generator):
        return generator.decode(generator.latent(_probes(generator)))


@contextmanager
def _uncounted(generator: Generator) -> Iterator[None]:
    """Keep the generator's count of decoded samples, which is a cost of methods."""
    counted = generator.decoded
    try:
        yield
    finally:
        generator.decoded = counted


def _probes(generator: Generator) -> Tensor:
    """Fixed z (PROBES, z_dim), so that the outcome is always the same."""
    z = torch.from_numpy(normals(0, "probe", 0, PROBES, generator.z_dim)).float()
    return z.to(device_of(generator))


def _check_declaration(generator: Generator, name: str) -> None:
    """Check the attributes that a subclass sets."""
    spaces: Any = getattr(generator, "spaces", None)
    is_tuple = isinstance(spaces, tuple) and len(spaces) > 0
    if not is_tuple or not all(isinstance(space, Space) for space in spaces):
        raise EditbenchError(
            f"{name}: spaces={spaces!r} must be a tuple of editbench.base.spaces.Space, such as "
            "spaces = (Space.Z, Space.W)"
        )
    if generator.output not in OUTPUTS:
        raise EditbenchError(f"{name}: output={generator.output!r} must be 'image' or 'w'")
    if generator.output != "image":
        return
    needing_w = [space.name for space in (Space.W_PLUS, Space.S) if space in spaces]
    if needing_w and Space.W not in spaces:
        raise EditbenchError(
            f"{name}: spaces have {', '.join(needing_w)} but not W, from which their codes are made: "
            "add Space.W, and define `map`"
        )
    for space in spaces:
        for size in SIZES.get(space, ()):
            value = getattr(generator, size, None)
            if type(value) is not int or value < 1:
                raise EditbenchError(
                    f"{name}: {size}={value!r} must be a positive whole number for the space "
                    f"{space.name}: set self.{size} in its constructor"
                )
    if Space.S in spaces and not 0 < len(generator.layer_names) == len(generator.style_sizes):
        raise EditbenchError(
            f"{name}: layer_names {generator.layer_names} and style_sizes {generator.style_sizes} "
            "must have one entry for each layer of S"
        )
    if Space.THETA in spaces and not generator.kernels():
        raise EditbenchError(
            f"{name}: spaces have THETA, but `kernels` returns no weight that could be shifted"
        )


def _check_images(generator: Generator, name: str) -> None:
    """Check the images of every space of a generator."""
    images: Tensor | None = None  # of the first space, with which the others are compared
    first = ""
    for space, values in _codes(generator, name).items():
        given = values.clone()
        call = f"_decode of {space.name} codes {tuple(values.shape)}"
        found = _tried(name, call, partial(generator.decode, Codes(space, values)))
        _check_form(name, call, found)
        # Otherwise every decode would move the codes of the bank and of the walks.
        if not torch.equal(values, given):
            raise EditbenchError(
                f"{name}: {call} changes the codes in place: compute on a new tensor, `w = w / norm` "
                "instead of `w /= norm`"
            )
        alone = generator.decode(Codes(space, values[:1]))
        if not _same(alone, found[:1], found):
            raise EditbenchError(
                f"{name}: {call} gives a different image for the same code when it is decoded "
                "alone: noise must be constant, and no layer may mix the samples of a batch"
            )
        if images is None:
            images = found
            first = space.name
        elif not _same(found, images, images):
            raise EditbenchError(
                f"{name}: the same samples give different images in {first} and in {space.name}: "
                f"_decode must treat codes of {space.name} as `map`, `w_plus` and `styles` make them"
            )


def _codes(generator: Generator, name: str) -> dict[Space, Tensor]:
    """The codes of a few samples in every space that has codes, Z first."""
    z = _probes(generator)
    codes: dict[Space, Tensor] = {}
    if Space.Z in generator.spaces:
        codes[Space.Z] = z
    if Space.W not in generator.spaces:
        return codes
    w = _tried(name, f"map of z {tuple(z.shape)}", lambda: generator.map(z))
    _check_shape(name, "map", w, generator.w_dim, "w_dim")
    codes[Space.W] = w
    if Space.W_PLUS in generator.spaces:
        codes[Space.W_PLUS] = generator.w_plus(w).clone()
    if Space.S in generator.spaces:
        w_plus = generator.w_plus(w)
        call = f"styles of w_plus {tuple(w_plus.shape)}"
        styles = _tried(name, call, lambda: generator.styles(w_plus))
        _check_shape(name, "styles", styles, sum(generator.style_sizes), "the sum of style_sizes")
        codes[Space.S] = styles
    return codes


def _check_shape(name: str, method: str, codes: object, size: int, declared: str) -> None:
    """Check what `map` or `styles` returned: (PROBES, size)."""
    _check_tensor(name, method, "codes", codes)
    assert isinstance(codes, Tensor)
    if tuple(codes.shape) != (PROBES, size):
        raise EditbenchError(
            f"{name}: {method} gives {tuple(codes.shape)} for {PROBES} samples, but {declared} is "
            f"{size}: {(PROBES, size)} is needed"
        )


def _check_form(name: str, call: str, images: object) -> None:
    """Check the shape and the values of decoded images."""
    _check_tensor(name, call, "images", images)
    assert isinstance(images, Tensor)
    shape = tuple(images.shape)
    if images.dim() != 4 or len(images) != PROBES:
        raise EditbenchError(
            f"{name}: {call} gives {shape}, which are not {PROBES} images (N, channels, height, "
            "width)"
        )
    if shape[1] not in (1, 3) and shape[3] in (1, 3):
        raise EditbenchError(
            f"{name}: {call} gives {shape}: its channels are last; return images.permute(0, 3, 1, 2)"
        )
    low = images.min().item()
    high = images.max().item()
    problem = ""
    if max(-low, high) > LARGEST:
        problem = "leave that range"
    # For example, images in [0, 1].
    elif low >= 0 and high > low:
        problem = "use only its upper half"
    if problem:
        raise EditbenchError(
            f"{name}: {call} gives images in [{low:.3g}, {high:.3g}], but black is -1 and white is "
            f"1, and these {problem}: return 2 * x - 1 for images in [0, 1], x / 127.5 - 1 for images "
            "in [0, 255]"
        )


def _check_tensor(name: str, method: str, what: str, found: object) -> None:
    """Check that something is a finite tensor of float32."""
    if not isinstance(found, Tensor):
        raise EditbenchError(
            f"{name}: {method} returns {type(found).__name__}, but a tensor of {what} is needed"
        )
    if found.dtype != torch.float32:
        raise EditbenchError(
            f"{name}: {method} returns {what} of {found.dtype}, but torch.float32 is needed: "
            "convert them with .float()"
        )
    if not torch.isfinite(found).all():
        raise NonFinite(f"{name}: {method} gives NaN or infinity; check the weights")


def _same(one: Tensor, other: Tensor, every: Tensor) -> bool:
    """Whether two results agree, up to the rounding of another batch.

    Args:
        one: of some samples.
        other: of the same samples.
        every: of all samples, for the scale.
    """
    if one.shape != other.shape:
        return False
    return bool((one - other).abs().max() <= SAME * every.std())


def _tried(name: str, call: str, run: Callable[[], Found]) -> Found:
    """The result of a call of a user's class.

    Raises:
        EditbenchError: the call raised an error; with its line.
    """
    try:
        return run()
    except EditbenchError as error:
        raise EditbenchError(f"{name}: {call} fails: {error}") from error
    except Exception as error:
        # The last line of the user's own, which may have called torch.
        own = frames_of(error, is_users_file)
        place = at_line(own[-1]) if own else ""
        raise EditbenchError(f"{name}: {call} fails: {one_line(error)}{place}") from error
