"""Can a shift of a latent reproduce a shift of the weights? The best shift is found by gradients.

Cherepkov et al. 2021, eq. 5: min_h E_z |G(z + h) - G_{theta + t xi}(z)|^2 over h in Z, W, W+ (one
vector per row) and the activation before the modified convolution. The paper shows images of the
failure. To show that a failure is due to the generator and not to the optimiser, the same optimiser
must find a planted latent shift with the same effect on the images.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from editbench.base.errors import EditbenchError, Unsupported
from editbench.base.progress import progress
from editbench.base.spaces import Space
from editbench.base.validation import check_kind
from editbench.metrics.latent_reproduction.latent_shift import (
    SPACES,
    ShiftSpace,
    optimise,
    plant,
    shift_space,
)
from editbench.metrics.latent_reproduction.weight_edit import WeightEdit
from editbench.networks.perceptual import FeatureDistance, Perceptual, PixelDistance
from editbench.walk.editor import Editor, FitData
from editbench.walk.observation import AfterWalk, ObservationContext, Observed
from editbench.walk.strength import calibrate, require_samples

# A weight shift with a smaller mean effect, in sigmas, does nothing; the rest is rounding.
LEAST = 1e-3

# Adam's learning rate by space; for the activation in units of its root mean square.
RATES = {"z": 0.05, "w": 0.01, "w_plus": 0.01, "activation": 0.01}


class LatentReproductionObservation(AfterWalk):
    """Distances that remain after the best latent shifts, on held-out samples.

    Only for editors that walk in THETA, towards the class of t > 0 at the strength of the common
    effect. The arrays are float64 squared distances of images, with N held-out samples and R
    restarts. The targets on axis 0 are the weight shift (0) and the planted shift (1). For each
    space K:

    - pixels, perceptual: (N,) between the samples and their weight-shifted images.
    - planted_pixels_K, planted_perceptual_K: (N,) between the samples and their images with the
      planted shift.
    - pixels_K, perceptual_K: (2, N) between the images with the best shift and their target.
    - restarts_K: (2, R) mean of pixels_K of every restart.
    - training_K: (2, R) their training loss, by which the best is chosen.
    - editor_pixels, editor_perceptual: (N,) of the comparator.
    - pictures: (2 + spaces, k, C, h, w) uint8; lines as `panels` of the facts.
    """

    citation = "Cherepkov, Voynov & Babenko: Navigating the GAN Parameter Space, CVPR 2021, eq. 5"

    def __init__(
        self,
        spaces: Sequence[str] = SPACES,
        steps: int = 5000,
        batch: int = 16,
        restarts: int = 3,
        lr: Mapping[str, float] | None = None,
        held_out: int = 512,
        effect: float = 1.0,
        samples: int = 512,
        tolerance: float = 0.02,
        cap: int = 40,
        comparator: Editor | None = None,
        pictures: int = 4,
    ) -> None:
        """Check the options.

        Args:
            spaces: of h, among z, w, w_plus, activation; those that a generator lacks are left out.
            steps: number of Adam steps; the learning rate decays to 0 on a cosine.
            batch: samples per step.
            restarts: number of searches; restart 0 begins at h = 0.
            lr: space -> learning rate that replaces the one in RATES.
            held_out: number of test samples that the numbers are computed from.
            effect: mean change of the judge's log-odds by the weight shift, in sigmas.
            samples: number of samples for the calibration of its strength.
            tolerance: relative tolerance of this effect.
            cap: largest number of steps.
            comparator: a latent editor, fitted here and walked to the same effect; None for none.
            pictures: number of samples whose images are kept.

        Raises:
            EditbenchError: a value is out of its range.
        """
        whole = {
            "steps": steps,
            "batch": batch,
            "restarts": restarts,
            "held_out": held_out,
            "samples": samples,
            "cap": cap,
            "pictures": pictures,
        }
        for name, value in whole.items():
            check_kind(f"observation.latent_reproduction.{name}", value, "int")
        self.lr = RATES | dict(lr or {})
        unknown = (set(spaces) | set(self.lr)) - set(SPACES)
        counts_fit = min(steps, batch, restarts, held_out, samples, cap) >= 1 and pictures >= 0
        rates_fit = min(self.lr.values()) > 0 and effect > 0 and 0 < tolerance < 1
        if unknown or not spaces or not counts_fit or not rates_fit:
            raise EditbenchError(
                f"observation.latent_reproduction: spaces and lr must be of {', '.join(SPACES)}, "
                "rates and effect positive, tolerance between 0 and 1, counts at least 1: got "
                f"spaces={list(spaces)}, "
                f"{whole | {'lr': self.lr, 'effect': effect, 'tolerance': tolerance}}"
            )
        self.spaces = tuple(spaces)
        self.steps = steps
        self.batch = batch
        self.restarts = restarts
        self.held_out = held_out
        self.effect = float(effect)
        self.samples = samples
        self.tolerance = float(tolerance)
        self.cap = cap
        self.comparator = comparator
        self.pictures = pictures

    def check(self, context: ObservationContext) -> None:
        """Check that the editor edits weights and that there are enough samples.

        Raises:
            Unsupported: the editor does not edit weights.
            EditbenchError: the test split has too few samples.
        """
        if context.editor.space is not Space.THETA:
            raise Unsupported(
                f"walks in {context.editor.space.name}: latent reproduction is of editors that shift "
                "weights"
            )
        for name in ("held_out", "samples"):
            require_samples(context, f"observation.latent_reproduction.{name}", getattr(self, name))

    def look(self, context: ObservationContext) -> Observed:
        """Calibrate the weight shift, and search for a latent shift in every space.

        Raises:
            Unsupported: the edit changes nothing.
        """
        reach = calibrate(context, 1, self.effect, self.samples, self.tolerance, self.cap)
        # An edit weaker than wanted can still be reproduced by a shift.
        if not reach.reached and reach.effect < LEAST:
            raise Unsupported("the weight shift changes nothing that the judge sees")
        edit = WeightEdit(context, reach.strength)
        measures: dict[str, Any] = {
            "pixels": PixelDistance(),
            "perceptual": FeatureDistance(context.teacher).to(context.device),
        }
        # The comparator shows how large the distances between two edits are.
        other, meta = self._comparator(context)
        arrays, panels = self._unshifted(edit, other, measures)
        names: list[str] = []
        left_out: dict[str, str] = {}
        for name in self.spaces:
            # A missing space is left out of the report, with its reason.
            try:
                space = shift_space(name, edit, self.lr[name])
            except Unsupported as error:
                left_out[name] = str(error)
                continue
            found, shown = self._search(edit, space, float(arrays["pixels"].mean()), measures)
            for key, value in found.items():
                arrays[f"{key}_{name}"] = value
            panels.append(shown)
            names.append(name)
        if self.pictures and context.generator.output == "image":
            unit = (torch.stack(panels).clamp(-1, 1) + 1) * 127.5
            # Rounded as a picture file would be.
            arrays["pictures"] = unit.round().byte().cpu().numpy()
        meta |= {
            "spaces": names,
            "left_out": left_out,
            "layer": edit.layer,
            "reach": asdict(reach),
            "steps": self.steps,
            "batch": self.batch,
            "restarts": self.restarts,
            "effect": self.effect,
            "n": self.held_out,
            "class": context.judge.attributes[context.attribute].classes[edit.towards],
            "perceptual": measures["perceptual"].about,
            "panels": ["start", "weight shift", *names],
        }
        return Observed(arrays, meta)

    def _unshifted(
        self, edit: WeightEdit, other: WeightEdit | None, measures: Mapping[str, Perceptual]
    ) -> tuple[dict[str, np.ndarray], list[Tensor]]:
        """Distances of the samples, and of the comparator's pictures, from the weight-shifted ones.

        Args:
            edit: the weight shift.
            other: the comparator's edit, or None.
            measures: distances by name.

        Returns:
            arrays: (N,) each.
            panels: a few samples, and their weight-shifted pictures.
        """
        arrays = {}
        for name in measures:
            arrays[name] = np.zeros(self.held_out)
            if other is not None:
                arrays[f"editor_{name}"] = np.zeros(self.held_out)
        shown = []
        # Both edits are applied to the same samples in the same batches.
        latent = None if other is None else iter(other.batches(self.held_out))
        for rows, before, after in edit.batches(self.held_out):
            moved = None if latent is None else next(latent)[2]
            for name, measure in measures.items():
                arrays[name][rows] = host(measure(before, after))
                if moved is not None:
                    arrays[f"editor_{name}"][rows] = host(measure(moved, after))
            if rows.start < self.pictures:
                shown.append(torch.stack([before, after])[:, : self.pictures - rows.start])
        if not shown:
            return arrays, []
        return arrays, list(torch.cat(shown, 1))

    def _search(
        self, edit: WeightEdit, space: ShiftSpace, energy: float, measures: Mapping[str, Perceptual]
    ) -> tuple[dict[str, np.ndarray], Tensor]:
        """Search a space for both targets.

        Args:
            edit: the weight shift.
            space: of the latent shifts.
            energy: mean squared image effect of the weight shift, also used for the planted shift.
            measures: distances by name.

        Returns:
            arrays: the distances that remain after the best shifts.
            pictures: (k, C, h, w) with the shift that reproduces the weight shift best.
        """
        # The control: a shift that exists in this space, with the same effect on the images.
        planted = plant(edit, space, energy)
        with torch.enable_grad(), progress(f"shifts in {space.name}", self.steps) as advance:
            shifts, training = optimise(
                edit, space, planted, self.steps, self.batch, self.restarts, advance
            )
        # A diverged restart is never the best one. The choice uses the training loss, not the
        # held-out samples.
        best = training.nan_to_num(nan=float("inf")).argmin(1).tolist()
        out: dict[str, np.ndarray] = {}
        for name in measures:
            out[name] = np.zeros((2, self.held_out))
            out[f"planted_{name}"] = np.zeros(self.held_out)
        restarts = np.zeros((2, self.restarts))
        shown = []
        for rows, before, after in edit.batches(self.held_out):
            # From the bank, since the batches are in its order.
            latent = edit.latents(rows, space.field)
            goals = (after, space.decode(latent, planted[None]))
            for name, measure in measures.items():
                out[f"planted_{name}"][rows] = host(measure(before, goals[1]))
            for target, goal in enumerate(goals):
                for restart in range(self.restarts):
                    made = space.decode(latent, shifts[target, restart][None])
                    left = host(PixelDistance()(made, goal)).sum()
                    restarts[target, restart] += left / self.held_out
                    if restart != best[target]:
                        continue
                    for name, measure in measures.items():
                        out[name][target, rows] = host(measure(made, goal))
                    if target == 0 and rows.start < self.pictures:
                        shown.append(made[: self.pictures - rows.start])
        out["restarts"] = restarts
        out["training"] = training.double().cpu().numpy()
        if not shown:
            return out, planted.new_zeros(0)
        return out, torch.cat(shown)

    def _comparator(self, context: ObservationContext) -> tuple[WeightEdit | None, dict[str, Any]]:
        """Fit the latent editor and find its edit of the same effect.

        Returns:
            edit: None if there is no comparator, or if it does not support the job.
            meta: facts of it.
        """
        if self.comparator is None:
            return None, {"editor": ""}
        editor = self.comparator
        about: dict[str, Any] = {"editor": type(editor).__name__}
        # Fitted here without the cache of fits, since it is not part of the job's configuration.
        editor.bind(context.generator, context.teacher)
        sigma = torch.from_numpy(context.bank.sigma["teacher"]).float().to(context.device)
        data = FitData(
            context.generator,
            context.teacher,
            context.bank.split("fit", context.device),
            context.bank.split("tune", context.device),
            sigma,
            context.seed,
        )
        # As in a job: before the fit, to save its time, and after it, since it may find nothing.
        try:
            editor.check(context.generator, context.judge.attributes, context.attribute)
            with torch.enable_grad():
                editor.fit(data)
                editor.tune(data, context.attribute)
            editor.check(context.generator, context.judge.attributes, context.attribute)
        except Unsupported as error:
            return None, about | {"editor_reason": str(error)}
        other = replace(context, editor=editor)
        reach = calibrate(other, 1, self.effect, self.samples, self.tolerance, self.cap)
        return WeightEdit(other, reach.strength), about | {"editor_reach": asdict(reach)}


def host(values: Tensor) -> np.ndarray:
    """A tensor as float64 on the CPU."""
    return values.double().cpu().numpy()
