"""Latent reproduction of a weight shift: the part that the best shift of a latent cannot reproduce.

Cherepkov et al. 2021 (eq. 5): rho = E_z |G(z + h*) - G_xi(z)|^2 / E_z |G(z) - G_xi(z)|^2 over
held-out z, with one shift h* for all z. It is 0 if a latent shift has the same effect, and 1 if the
best shift is no better than none. The paper shows images and reports that the optimisation failed.
Such a failure is meaningful only if the optimiser could have succeeded. As a control, a shift with
the same effect on the images is planted in the same space and must be found with rho below 0.05. If
it is not, the rows of the space say so, and they are no evidence that the edit is unreachable. A
shift that is found is not yet such evidence: the best shift for a weight edit is longer than the
planted one and needs more steps, so rho must not change any more if the steps are doubled.

Intervals: bootstrap over held-out z, with h* fixed. Samples: the numerator's terms divided by the
mean denominator; all methods have the same z.
"""

from __future__ import annotations

import numpy as np

from editbench.base.errors import EditbenchError
from editbench.base.validation import check_at_least
from editbench.stats.intervals import bootstrap_ratios
from editbench.walk.metric import NAN, MetricResult, ObservationMetric, ResultBuilder, join_notes

RECOVERED = 0.05
SPACES = ("w", "z", "w_plus", "activation")
EDITOR = ("reproduction_editor", "reproduction_perceptual_editor")


class LatentReproduction(ObservationMetric):
    """The part of a weight shift that latent shifts cannot reproduce, by latent space.

    Rows, for each space K of z, w, w_plus, activation; count is the number of held-out samples:
        reproduction_K: rho. reproduction_perceptual_K: the same for the same shift with a
            perceptual distance. reproduction_control_K: rho of the planted shift.
        reproduction_editor, reproduction_perceptual_editor: the same for a latent editor at the
            same effect, whose edit is not fitted to this one, so the number may exceed 1.
    Samples: all of them.

    Args:
        recovered: rho below which the planted shift counts as found.
        draws: bootstrap draws.
    """

    name = "latent_reproduction"
    version = 1
    citation = (
        "Cherepkov, Voynov & Babenko: Navigating the GAN Parameter Space, CVPR 2021, eq. 5 and "
        "Fig. 8"
    )
    observation = "latent_reproduction"
    higher_is_better = None
    produces = {
        f"reproduction_{kind}{space}": False if kind == "control_" else None
        for space in SPACES
        for kind in ("", "perceptual_", "control_")
    } | dict.fromkeys(EDITOR)
    # The first axis of a space's arrays is (weight shift, planted shift), the last the samples.
    joined = {
        "pixels": 0,
        "perceptual": 0,
        "editor_pixels": 0,
        "editor_perceptual": 0,
        **{f"pixels_{space}": 1 for space in SPACES},
        **{f"perceptual_{space}": 1 for space in SPACES},
        **{f"planted_pixels_{space}": 0 for space in SPACES},
    }

    def __init__(self, recovered: float = RECOVERED, draws: int = 2000) -> None:
        if not 0 < recovered < 1:
            raise EditbenchError(f"recovered={recovered} must be between 0 and 1")
        check_at_least("draws", draws, 1)
        super().__init__()
        self.recovered = float(recovered)
        self.draws = int(draws)

    def measure(self, arrays: dict[str, np.ndarray], meta: dict) -> MetricResult:
        short = weak(meta["reach"], meta["effect"], f"'{meta['class']}'")
        out = ResultBuilder()
        for space in SPACES:
            if space in meta["left_out"]:
                out.add(f"reproduction_{space}", NAN, 0, note=meta["left_out"][space])
            if space in meta["spaces"]:
                self._add_space(out, space, arrays, short)
        if "editor_pixels" in arrays:
            towards = f"'{meta['class']}' by {meta['editor']}"
            notes = join_notes(short, weak(meta["editor_reach"], meta["effect"], towards))
            for name, of in zip(EDITOR, ("pixels", "perceptual")):
                self._add(out, name, arrays[f"editor_{of}"], arrays[of], notes)
        elif "editor_reason" in meta:
            out.add(EDITOR[0], NAN, 0, note=f"{meta['editor']}: {meta['editor_reason']}")
        return out.result()

    def _add_space(
        self, out: ResultBuilder, space: str, arrays: dict[str, np.ndarray], short: str
    ) -> None:
        """Add the three rows of one space."""
        shift, planted = arrays[f"pixels_{space}"]
        planted_before = arrays[f"planted_pixels_{space}"]
        control = float(planted.mean() / planted_before.mean())
        failed = ""
        if not control < self.recovered:  # NaN has failed too
            failed = (
                f"the optimiser failed: of a planted shift it left rho {control:.2g}, not below "
                f"{self.recovered:g}; that the edit cannot be reached must not be concluded"
            )
        notes = join_notes(failed, short)
        self._add(out, f"reproduction_{space}", shift, arrays["pixels"], notes)
        seen = arrays[f"perceptual_{space}"][0]
        self._add(out, f"reproduction_perceptual_{space}", seen, arrays["perceptual"], notes)
        self._add(out, f"reproduction_control_{space}", planted, planted_before, failed)

    def _add(
        self, out: ResultBuilder, name: str, left: np.ndarray, whole: np.ndarray, note: str
    ) -> None:
        """Add a ratio of means and its terms.

        Args:
            left: (n,) remaining squared difference.
            whole: (n,) squared difference without any shift.
        """
        left = np.asarray(left, np.float64)
        whole = np.asarray(whole, np.float64)
        mean = whole.mean()
        value = float(left.mean() / mean) if mean > 0 else NAN
        low, high = bootstrap_ratios(left[:, None], whole[:, None], draws=self.draws)
        out.add(name, value, len(left), (low[0], high[0]), note)
        if np.isfinite(value):
            out.add_samples(name, np.arange(len(left)), left / mean)


def weak(reach: dict, effect: float, towards: str) -> str:
    """Why an edit is weaker than the common effect, or ''.

    Args:
        reach: fields of the edit's Reach (editbench.walk.strength).
        effect: the common effect, in sigmas.
        towards: the class that the edit should lead to, for the message.
    """
    if reach["reached"]:
        return ""
    return (
        f"an effect of {effect:g} sigma towards {towards} was not reached: "
        f"{reach['effect']:.2g}, at {abs(reach['strength']):.3g} steps"
    )
