"""Latent reproduction of a weight shift: what the best shift of a latent leaves of it.

Cherepkov et al. 2021 (eq. 5): rho = E_z |G(z + h*) - G_xi(z)|^2 / E_z |G(z) - G_xi(z)|^2 over
held-out z, h* one shift for all z: 0 where a latent shift does the same, 1 where the best one is no
better than none. The paper shows pictures and says that the optimisation failed. A failure means
something only if the optimiser can succeed: a shift planted in the same space, of the same image
effect, has to be found with rho below 0.05. Where it is not, the rows of that space say so, and
nothing is unreachable on their account.

Intervals: bootstrap over held-out z, h* fixed. Samples: the numerator's terms over the mean
denominator; all methods have the same z.
"""

from __future__ import annotations

import numpy as np

from editbench.base.errors import EditbenchError
from editbench.stats.intervals import bootstrap_ratios
from editbench.walk.metric import NAN, MetricResult, ObservationMetric, ResultBuilder, join_notes

RECOVERED = 0.05
SPACES = ("w", "z", "w_plus", "activation")
EDITOR = ("reproduction_editor", "reproduction_perceptual_editor")


class LatentReproduction(ObservationMetric):
    """What is left of a weight shift, by latent space.

    Rows, for each space K of z, w, w_plus, activation; count is of held-out samples:
        reproduction_K: rho. reproduction_perceptual_K: of the same shift under a perceptual
            distance. reproduction_control_K: rho of the planted shift.
        reproduction_editor, reproduction_perceptual_editor: of a latent editor at the same effect,
            whose edit is not fitted to this one and may leave more than 1.
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
    # Arrays of a space have two lines, the weight shift and the planted one; samples are last.
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
        if not 0 < recovered < 1 or draws < 1:
            raise EditbenchError(
                f"metric.latent_reproduction: recovered={recovered} must be between 0 and 1, "
                f"draws={draws} at least 1"
            )
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
            left: (n,) squared difference that is left.
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
    """Why an edit is weaker than the common effect, '' where it is not."""
    if reach["reached"]:
        return ""
    return (
        f"an effect of {effect:g} sigma towards {towards} was not reached: "
        f"{reach['effect']:.2g}, at {abs(reach['strength']):.3g} steps"
    )
