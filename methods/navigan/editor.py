"""NaviGAN: straight walks in the weight of one layer, along directions found without labels.

Cherepkov, Voynov & Babenko, "Navigating the GAN Parameter Space for Semantic Image Editing", CVPR
2021. An edit is G_theta(w) -> G_{theta + t xi}(w), ||xi||_F = 1 in the stored weight, before
modulation; the latent stays.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from editbench.base import seeding
from editbench.base.attributes import Attributes
from editbench.base.devices import to_device, to_host
from editbench.base.errors import EditbenchError, NoControl, UnknownName, Unsupported
from editbench.base.spaces import Codes, Space, WeightShift
from editbench.base.validation import (
    arguments_of,
    check_choice,
    check_finite,
    check_kind,
    check_positive,
)
from editbench.methods.navigan.reconstructor import RECONSTRUCTORS
from editbench.methods.navigan.spectrum import SpectrumOptions, check_count, spectrum
from editbench.methods.navigan.training import Training, learn
from editbench.methods.navigan.weight_bases import (
    SVDBasis,
    VectorBasis,
    WeightBasis,
    layer_name,
    paper_scale,
    singular_values,
)
from editbench.methods.shared.control_search import (
    Bounds,
    Control,
    Effects,
    choose_controls,
    measure_effects,
)
from editbench.methods.shared.device_copies import DeviceCopies
from editbench.methods.shared.picture_distance import PictureDistance
from editbench.methods.shared.state import group, prefixed, tensor_to_text, text_to_tensor
from editbench.networks.generator import Generator
from editbench.walk.editor import DirectionSet, Editor, FitData, FitReport, Walk

Options = TypeVar("Options")
# Accuracy of the reconstructor on fresh pairs. Below it, the training has hardly worked.
LEARNT = 0.5


class NaviGAN(Editor):
    """The walk's codes are (n, 1): the shift t of each sample, in weight norm.

    t grows by T / steps_to_t per step, also beyond T.

    The paper gives T for 512 x 512 x 3 x 3 kernels; for other layers it is scaled by the ratio of
    the stored weights' Frobenius norms. A unit of t has a larger effect along a direction of high
    curvature than along a singular vector, so variants must not be compared at equal t.

    Directions are found without labels. Where the authors inspect them by eye, a labelled search on
    the tune split chooses (editbench.methods.shared.control_search, t = +-T/2 and +-T): each class
    of an attribute has its own direction and sign. There is no mechanism against side effects.

    Args:
        variant: 'svd', single singular values (the paper's baseline); 'optimisation', singular
            values by eq. (1); 'spectrum', top eigenvectors of the perceptual Hessian; 'hybrid',
            combinations of these by eq. (1).
        layer: a convolution by name, or by the published code's number (0 is the first
            up-convolution); 3 is the paper's fourth layer.
        count: K, number of directions that are found and searched.
        limit: T, in units of the paper's layers.
        steps_to_t: steps of a walk to T [ours].
        samples: number of tune samples of the search.
        min_effect: minimum effect of a control on its class, in sigmas.
        training: of eq. (1), see editbench.methods.navigan.training.Training; only for variants
            that use it.
        spectrum: see SpectrumOptions; only for variants that use it.
        max_off_target: largest mean absolute change of the other attributes by a control, in
            sigmas: the others must not change as much as a control has to change its own attribute
            [ours]. None means no bound.
        max_distance: largest mean distance of a control's images from unedited ones, whose distance
            is 1, see editbench.methods.shared.picture_distance [ours]. A direction that breaks the
            image may change the scores strongly, but a person would reject it. None means no bound.

    Raises:
        EditbenchError: an option is out of its range, unknown, or not of the variant.
    """

    space = Space.THETA
    unit = "weight norm"
    citation = "Cherepkov, Voynov & Babenko: Navigating the GAN Parameter Space, CVPR 2021"

    def __init__(
        self,
        variant: str = "svd",
        layer: str | int = 3,
        count: int = 64,
        limit: float = 3500.0,
        steps_to_t: int = 20,
        samples: int = 64,
        min_effect: float = 0.5,
        training: Mapping[str, Any] | None = None,
        spectrum: Mapping[str, Any] | None = None,
        max_off_target: float | None = 0.5,
        max_distance: float | None = 2.0,
    ) -> None:
        super().__init__()
        check_choice("variant", variant, ("svd", "optimisation", "spectrum", "hybrid"))
        self.variant = variant
        for key, value in (("count", count), ("steps_to_t", steps_to_t), ("samples", samples)):
            check_kind(key, value, "int")
            if value < 1:
                raise EditbenchError(f"{key}={value} must be at least 1")
        check_positive("limit", limit)
        check_finite("min_effect", min_effect)
        self.layer = layer
        self.count = count
        self.limit = float(limit)
        self.steps_to_t = steps_to_t
        self.samples = samples
        self.min_effect = float(min_effect)
        self.bounds = Bounds(max_off_target, max_distance)
        self.training = _options(
            "training", Training, training, variant, ("optimisation", "hybrid")
        )
        if self.training is not None and self.training.min_shift > self.limit:
            raise EditbenchError(
                f"training.min_shift={self.training.min_shift:g} exceeds limit={self.limit:g}: "
                "lower it"
            )
        self.spectrum = _options(
            "spectrum", SpectrumOptions, spectrum, variant, ("spectrum", "hybrid")
        )
        self.largest_shift = 0.0  # T in this layer
        self.layer_name = ""
        self.latent_space = Space.W
        self.kernels = torch.zeros(0)  # (U, *weight.shape), the directions in use
        # Name -> (K, 2) by target class: index into `kernels`, and the sign of the shift.
        self.controls: dict[str, Tensor] = {}
        self.effects: Effects | None = None
        self._copies = DeviceCopies()

    # -- fit ------------------------------------------------------------------
    def fit(self, data: FitData) -> FitReport:
        weight = self._find_layer(data.generator)
        self._check_count(data.generator, self.layer_name)
        direction, notes = self._find_directions(data)
        # The tune split's own latents, since the search must edit the split's images.
        latents = data.latents(data.tune)

        def apply(candidate: int, strengths: Tensor, at: Tensor) -> Codes:
            index = torch.zeros_like(at)
            amount = strengths[:, 0].to(latents)
            shift = WeightShift(self.layer_name, direction(candidate)[None], index, amount)
            return Codes(self.latent_space, latents[at], shift)

        # The authors inspect every direction over [-T, T]; the search uses four points.
        strengths = tuple(share * self.largest_shift for share in (-1.0, -0.5, 0.5, 1.0))
        self.effects = measure_effects(
            data,
            apply,
            self.count,
            strengths,
            self.samples,
            "directions",
            None if self.bounds.distance is None else PictureDistance(data),
        )
        found = self._find_controls(data.attributes)
        self._keep_controls(found, direction, weight)
        notes |= {
            "layer": self.layer_name,
            "T": self.largest_shift,
            "step": self.largest_shift / self.steps_to_t,
            "candidates": self.count,
            "search_decodes": self.effects.decoded,
        }
        for name, controls in found.items():
            labels = data.attributes[name].classes
            notes[f"control.{name}"] = dict(zip(labels, map(_note_control, controls)))
        return FitReport(labels=len(self.effects.start), notes=notes)

    def _find_controls(self, attributes: Attributes) -> dict[str, list[Control]]:
        """The controls of each class of the attributes that have any."""
        assert self.effects is not None
        found = {}
        for name in attributes.names:
            try:
                found[name] = choose_controls(
                    self.effects, attributes, name, self.min_effect, self.bounds
                )
            except NoControl:
                continue  # `check` reports it
        return found

    def _keep_controls(
        self,
        found: Mapping[str, Sequence[Control]],
        direction: Callable[[int], Tensor],
        weight: Tensor,
    ) -> None:
        """Keep what the walks need of the chosen controls: `kernels` and `controls`.

        Args:
            found: name -> the control towards each class.
            direction: builds the k-th direction, with the shape of the weight.
            weight: of the layer.
        """
        # A direction is as large as the weight, so only those in use are kept.
        used = sorted({control.candidate for chosen in found.values() for control in chosen})
        self.kernels = weight.new_zeros(0, *weight.shape)
        if used:
            self.kernels = torch.stack([direction(k) for k in used])
        self.controls = {}
        for name, chosen in found.items():
            rows = []
            for control in chosen:
                sign = 1 if control.strength > 0 else -1
                rows.append([used.index(control.candidate), sign])
            self.controls[name] = torch.tensor(rows)

    def _find_layer(self, generator: Generator) -> Tensor:
        """Find the layer, its T and the space of the samples, and return the layer's weight."""
        # Only now, since the layer's name depends on the generator.
        self.layer_name = layer_name(generator, self.layer)
        self.latent_space = generator.latent_space
        weight = generator.kernels()[self.layer_name]
        self.largest_shift = self.limit * paper_scale(weight)
        return weight

    # -- all directions -------------------------------------------------------
    def fixed_directions(self, data: FitData) -> DirectionSet:
        """The K directions; a strength of 1 is T, the end of the paper's range."""
        self._find_layer(data.generator)
        self._check_count(data.generator, self.layer_name)
        direction, _ = self._find_directions(data)
        kernels = torch.stack([direction(k) for k in range(self.count)])
        return DirectionSet(
            tuple(str(k) for k in range(self.count)),
            (0.5, 1.0),
            "T, the end of the range that the paper shows",
            self.latent_space,
            {"kernels": kernels * self.largest_shift},
            {"layer": self.layer_name},
        )

    def apply_direction(
        self, found: DirectionSet, place: int, strength: float, codes: Tensor
    ) -> Codes:
        kernel = found.tensors["kernels"][place : place + 1].to(codes)
        index = torch.zeros(len(codes), dtype=torch.int64, device=codes.device)
        amount = codes.new_full((len(codes),), strength)
        shift = WeightShift(found.details["layer"], kernel, index, amount)
        return Codes(found.space, codes, shift)

    def _find_directions(self, data: FitData) -> tuple[Callable[[int], Tensor], dict[str, object]]:
        """Find the directions: a function that builds the k-th direction, and notes."""
        basis: WeightBasis
        notes: dict[str, object] = {}
        if self.spectrum is None:
            layer = data.generator.inner(self.layer_name)
            basis = SVDBasis(
                data.generator.kernels()[self.layer_name], isinstance(layer, nn.ConvTranspose2d)
            )
        else:
            basis, notes = self._find_spectrum(data, self.spectrum)
        if self.training is None:
            return basis.direction, notes
        # The variants 'optimisation' and 'hybrid' differ only in the basis (sections 3.2 and 3.4).
        network = RECONSTRUCTORS[self.training.reconstructor]
        learned = learn(
            data.generator,
            self.layer_name,
            basis,
            self.count,
            self.limit,
            self.training,
            network,
            data.seed,
        )
        notes |= {
            "reconstructor": {
                "accuracy": round(learned.accuracy, 4),
                "chance": round(1 / self.count, 4),
                "learnt": learned.accuracy >= LEARNT,
                "shift_mae": round(learned.shift_mae, 3),
                "limit": self.limit,
                "first_loss": round(learned.first_loss, 4),
                "last_loss": round(learned.last_loss, 4),
            }
        }
        return lambda k: basis.unit(learned.coefficients[k : k + 1])[0], notes

    def _eigenvectors(self, options: SpectrumOptions) -> int:
        """Number of eigenvectors that the variant uses."""
        return options.size if self.variant == "hybrid" else self.count

    def _find_spectrum(
        self, data: FitData, options: SpectrumOptions
    ) -> tuple[WeightBasis, dict[str, object]]:
        """Top eigenvectors over fresh z."""
        size = self._eigenvectors(options)
        # The paper: 512 fixed z for the whole spectrum.
        rng = seeding.rng(data.seed, "navigan/spectrum")
        weight = data.generator.kernels()[self.layer_name]
        drawn = rng.standard_normal((options.latents, data.generator.z_dim))
        z = torch.from_numpy(drawn).to(weight)
        perceptual = options.distance(data.teacher.whole).to(weight.device)
        found = spectrum(
            data.generator,
            Codes(Space.Z, z),
            self.layer_name,
            perceptual,
            size,
            options,
            data.seed,
        )
        return VectorBasis(found.vectors), {
            "spectrum": {
                "perceptual": perceptual.about,
                # The teacher was trained with labels, so directions from its features use them.
                "supervision": "teacher's features" if options.perceptual == "teacher" else "none",
                "converged": found.converged,
                "products": found.products,
                "passes": found.passes,
                "largest": found.values[0].item(),
                "smallest": found.values[-1].item(),
                "worst_residual": found.residuals.max().item(),
            }
        }

    # -- walk -----------------------------------------------------------------
    def check(self, generator: Generator, attributes: Attributes, attribute: str) -> None:
        super().check(generator, attributes, attribute)
        self._check_count(generator, layer_name(generator, self.layer))
        if self.effects is not None:
            # Raises NoControl if no class of the attribute has a control.
            choose_controls(self.effects, attributes, attribute, self.min_effect, self.bounds)

    def _check_count(self, generator: Generator, layer: str) -> None:
        """Raise EditbenchError if the layer has fewer directions than `count`."""
        weight = generator.kernels()[layer]
        if self.spectrum is not None:
            count = self._eigenvectors(self.spectrum)
            check_count(count, weight.numel(), layer, self.spectrum)
        elif self.training is None:
            transposed = isinstance(generator.inner(layer), nn.ConvTranspose2d)
            there = singular_values(weight, transposed)
            if self.count > there:
                raise EditbenchError(
                    f"method.count={self.count}: the weight of '{layer}' has only {there} singular "
                    "values; lower method.count"
                )

    def step(self, walk: Walk) -> Tensor:
        if walk.attribute not in self.controls:
            raise Unsupported(f"no control found for '{walk.attribute}'")
        # t is a path length here; the sign depends on the class and is applied with the shift.
        return walk.codes + self.largest_shift / self.steps_to_t

    def codes(self, walk: Walk) -> Codes:
        """The sample's own latent with the weight shift towards its target class."""
        if walk.latent is None:
            raise Unsupported("a walk in THETA needs the samples' own latents")
        if walk.attribute not in self.controls:
            raise Unsupported(f"no control found for '{walk.attribute}'")
        rows, sign = self.controls[walk.attribute].cpu().T  # (K,) each, by target class
        # Only the directions of this attribute are copied to the device, each once.
        used, index = rows.unique(return_inverse=True)

        def copy_used(kernels: Tensor, like: Tensor) -> Tensor:
            return kernels[used.to(kernels.device)].to(like)

        # The host selects each sample's direction, and sorts the samples by it.
        (target,) = to_host(walk.target)
        device = walk.codes.device
        shift = WeightShift(
            self.layer_name,
            self._copies.get(f"kernels {walk.attribute}", self.kernels, walk.codes, copy_used),
            to_device(index[target], device),
            walk.codes[:, 0] * to_device(sign[target], device),
            index[target],
        )
        # Inverted images may have latents (n, num_ws, w_dim), which the shift allows.
        space = Space.W_PLUS if walk.latent.dim() == 3 else self.latent_space
        return Codes(space, walk.latent, shift)

    # -- state ----------------------------------------------------------------
    def state(self) -> dict[str, Tensor]:
        assert self.effects is not None
        out = {
            "layer": text_to_tensor(self.layer_name),
            "latent_space": text_to_tensor(self.latent_space),
            "reach": torch.tensor(self.largest_shift, dtype=torch.float64),
            "kernels": self.kernels,
            "change": self.effects.change,
            "start": self.effects.start,
            "strengths": torch.tensor(self.effects.strengths, dtype=torch.float64),
            "decoded": torch.tensor(self.effects.decoded),
        }
        if self.effects.distance is not None:
            out["distance"] = self.effects.distance
        return out | prefixed("table", self.controls)

    def load_state(self, state: Mapping[str, Tensor]) -> None:
        self.layer_name = tensor_to_text(state["layer"])
        self.latent_space = Space(tensor_to_text(state["latent_space"]))
        self.largest_shift = float(state["reach"])
        self.kernels = state["kernels"]
        self.effects = Effects(
            state["change"],
            tuple(state["strengths"].tolist()),
            state["start"],
            int(state["decoded"]),
            state.get("distance"),
        )
        self.controls = group(state, "table")


def _options(
    key: str,
    kind: type[Options],
    given: Mapping[str, Any] | None,
    variant: str,
    variants: tuple[str, ...],
) -> Options | None:
    """Options of a part that only some variants have; defaults if none are given."""
    # Options without effect are rejected, since they would give equal runs different names.
    if variant not in variants:
        if given is not None:
            raise EditbenchError(f"{key}: variant '{variant}' has no such part; leave it null")
        return None
    if given is None:
        return kind()
    if not isinstance(given, Mapping):
        raise EditbenchError(f"{key}={given} must be null or a mapping of options")
    known, _ = arguments_of(kind)
    for name in given:
        if name not in known:
            raise UnknownName(f"option of 'method.{key}'", str(name), known)
    return kind(**given)


def _note_control(control: Control) -> dict[str, object]:
    return {
        "candidate": control.candidate,
        "t": round(control.strength, 3),
        "effect": round(control.effect, 3),
        "off_target": round(control.off_target, 3),
        # JSON has no NaN; null means not measured.
        "distance": round(control.distance, 3) if math.isfinite(control.distance) else None,
        "found": control.found,
    }
