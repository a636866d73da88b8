"""Can a shift of a latent do what a shift of the weights does? One shift for all samples, found by gradients.

Cherepkov et al. 2021, eq. 5: min_h E_z |G(z + h) - G_{theta + t xi}(z)|^2 over h in Z, W, W+ (a vector a row) and the
activation before the modified convolution. The paper shows pictures of the failure; that a failure is the generator's
and not the optimiser's is shown here by a planted latent shift of the same image effect, found by the same optimiser.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace

import numpy as np
import torch
from editbench.metrics.latent_reproduction.latent_shift import (
    SPACES,
    ShiftSpace,
    optimise,
    plant,
    shift_space,
)
from editbench.metrics.latent_reproduction.weight_edit import WeightEdit
from editbench.metrics.locality.observation import LEAST
from torch import Tensor

from editbench.base.errors import EditbenchError, Unsupported
from editbench.base.progress import progress
from editbench.base.spaces import Space
from editbench.base.validation import check_kind
from editbench.networks.perceptual import FeatureDistance, Perceptual, PixelDistance
from editbench.walk.editor import Editor, FitData
from editbench.walk.observation import AfterWalk, Observed, Scene
from editbench.walk.strength import calibrate


class LatentReproductionObservation(AfterWalk):
    """Arrays, N held-out samples, float64, squared distances of pictures sample by sample: pixels and perceptual (N,)
    between the samples and their weight-shifted pictures. For each space K, planted_pixels_K and planted_perceptual_K
    (N,) between the samples and the planted shift's; pixels_K and perceptual_K (2, N) between the pictures of the best
    shift that was found and its target, the weight shift (0) and the planted shift (1); restarts_K (2, R), mean of
    pixels_K of every restart; training_K (2, R), their training loss, by which the best is chosen. editor_pixels and
    editor_perceptual (N,) of the comparator. pictures (2 + spaces, k, C, h, w) uint8, lines `panels` of the facts.

    Only of editors that walk in THETA, towards the class of t > 0 at the strength of the common effect.

    Args:
        spaces: of h, among z, w, w_plus, activation; those that a generator lacks are left out.
        steps, batch, restarts: of Adam, its rate falling to 0 on a cosine. Restart 0 begins at h = 0.
        lr: rate by space; of the activation in units of its root mean square.
        held_out: samples of the test split behind the numbers.
        effect, samples, tolerance, cap: of the calibration.
        comparator: a latent editor, fitted here and walked to the same effect; None: none.
        pictures: samples whose pictures are kept.
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
        self.lr = {"z": 0.05, "w": 0.01, "w_plus": 0.01, "activation": 0.01} | dict(lr or {})
        unknown = (set(spaces) | set(self.lr)) - set(SPACES)
        if (
            unknown
            or not spaces
            or min(whole.values()) < 0
            or min(steps, batch, restarts, held_out, samples, cap) < 1
            or not (min(self.lr.values()) > 0 and effect > 0 and 0 < tolerance < 1)
        ):
            raise EditbenchError(
                f"observation.latent_reproduction: spaces and lr are of {', '.join(SPACES)}, rates and effect "
                "positive, tolerance between 0 and 1, counts at least 1: got spaces="
                f"{list(spaces)}, {whole | {'lr': self.lr, 'effect': effect, 'tolerance': tolerance}}"
            )
        self.spaces, self.steps, self.batch, self.restarts = tuple(spaces), steps, batch, restarts
        self.held_out, self.effect, self.samples, self.pictures = (
            held_out,
            float(effect),
            samples,
            pictures,
        )
        self.tolerance, self.cap, self.comparator = float(tolerance), cap, comparator

    def look(self, scene: Scene) -> Observed:
        if scene.editor.space is not Space.THETA:
            raise Unsupported(
                f"walks in {scene.editor.space.name}: only a shift of the weights asks for a latent one"
            )
        reach = calibrate(scene, 1, self.effect, self.samples, self.tolerance, self.cap)
        if not reach.reached and reach.effect < LEAST:
            raise Unsupported("the weight shift changes nothing that the judge sees")
        edit = WeightEdit(scene, reach.strength)
        measures = {
            "pixels": PixelDistance(),
            "perceptual": FeatureDistance(scene.teacher).to(scene.device),
        }
        other, meta = self._comparator(scene)
        arrays, panels = self._unshifted(edit, other, measures)
        left_out: dict[str, str] = {}
        for name in self.spaces:
            try:
                space = shift_space(name, edit, self.lr[name])
            except Unsupported as error:
                left_out[name] = str(error)
                continue
            found, shown = self._search(edit, space, float(arrays["pixels"].mean()), measures)
            arrays |= {f"{key}_{name}": value for key, value in found.items()}
            panels.append(shown)
        classes, names = (
            scene.judge.attributes[scene.attribute].classes,
            [n for n in self.spaces if n not in left_out],
        )
        if self.pictures and scene.generator.output == "image":
            arrays["pictures"] = (
                ((torch.stack(panels).clamp(-1, 1) + 1) * 127.5).round().byte().cpu().numpy()
            )
        return Observed(
            arrays,
            meta
            | {
                "spaces": names,
                "left_out": left_out,
                "layer": edit.layer,
                "reach": asdict(reach),
                "steps": self.steps,
                "batch": self.batch,
                "restarts": self.restarts,
                "effect": self.effect,
                "n": self.held_out,
                "class": classes[edit.towards],
                "perceptual": measures["perceptual"].about,
                "panels": ["start", "weight shift", *names],
            },
        )

    def _unshifted(
        self, edit: WeightEdit, other: WeightEdit | None, measures: Mapping[str, Perceptual]
    ) -> tuple[dict[str, np.ndarray], list[Tensor]]:
        """Distances of the samples, and of the comparator's pictures, from the weight-shifted ones; a few pictures."""
        names = [*measures, *(f"editor_{name}" for name in measures if other)]
        arrays, shown = {name: np.zeros(self.held_out) for name in names}, []
        latent = iter(other.batches(self.held_out)) if other else None
        for rows, before, after in edit.batches(self.held_out):
            moved = next(latent)[2] if latent else None
            for name, measure in measures.items():
                arrays[name][rows] = host(measure(before, after))
                if moved is not None:
                    arrays[f"editor_{name}"][rows] = host(measure(moved, after))
            if rows.start < self.pictures:
                shown.append(torch.stack([before, after])[:, : self.pictures - rows.start])
        return arrays, list(torch.cat(shown, 1)) if shown else []

    def _search(
        self, edit: WeightEdit, space: ShiftSpace, energy: float, measures: Mapping[str, Perceptual]
    ) -> tuple[dict[str, np.ndarray], Tensor]:
        """The distances that a space's best shifts leave, and pictures of the one that stands for the weight shift."""
        planted = plant(edit, space, energy)
        with torch.enable_grad(), progress(f"shifts in {space.name}", self.steps) as advance:
            shifts, training = optimise(
                edit, space, planted, self.steps, self.batch, self.restarts, advance
            )
        best = training.nan_to_num(nan=float("inf")).argmin(1).tolist()
        out: dict[str, np.ndarray] = {name: np.zeros((2, self.held_out)) for name in measures}
        out |= {f"planted_{name}": np.zeros(self.held_out) for name in measures}
        restarts, shown = np.zeros((2, self.restarts)), []
        for rows, before, after in edit.batches(self.held_out):
            latent = edit.latents(rows, space.field)
            goals = after, space.decode(latent, planted[None])
            for name, measure in measures.items():
                out[f"planted_{name}"][rows] = host(measure(before, goals[1]))
            for target, goal in enumerate(goals):
                for restart in range(self.restarts):
                    made = space.decode(latent, shifts[target, restart][None])
                    restarts[target, restart] += (
                        host(PixelDistance()(made, goal)).sum() / self.held_out
                    )
                    if restart != best[target]:
                        continue
                    for name, measure in measures.items():
                        out[name][target, rows] = host(measure(made, goal))
                    if target == 0 and rows.start < self.pictures:
                        shown.append(made[: self.pictures - rows.start])
        kept = {"restarts": restarts, "training": training.double().cpu().numpy()}
        return out | kept, torch.cat(shown) if shown else planted.new_zeros(0)

    def _comparator(self, scene: Scene) -> tuple[WeightEdit | None, dict]:
        """The latent editor's edit at the same effect, and facts of it."""
        if self.comparator is None:
            return None, {"editor": ""}
        editor, bank = self.comparator, scene.bank
        about: dict[str, object] = {"editor": type(editor).__name__}
        editor.num_ws = scene.generator.num_ws
        sigma = torch.from_numpy(bank.sigma["teacher"]).float().to(scene.device)
        data = FitData(
            scene.generator,
            scene.teacher,
            bank.split("fit", scene.device),
            bank.split("tune", scene.device),
            sigma,
            scene.seed,
        )
        try:
            editor.check(scene.generator, scene.judge.attributes, scene.attribute)
            with torch.enable_grad():
                editor.fit(data)
                editor.tune(data, scene.attribute)
            editor.check(scene.generator, scene.judge.attributes, scene.attribute)
        except Unsupported as error:
            return None, about | {"editor_reason": str(error)}
        other = replace(scene, editor=editor)
        reach = calibrate(other, 1, self.effect, self.samples, self.tolerance, self.cap)
        return WeightEdit(other, reach.strength), about | {"editor_reach": asdict(reach)}


def host(values: Tensor) -> np.ndarray:
    return values.double().cpu().numpy()
