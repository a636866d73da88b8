"""Latent reproduction of a weight shift: what the best shift of a latent leaves of it (Cherepkov et al. 2021, eq. 5).

rho = E_z |G(z + h*) - G_xi(z)|^2 / E_z |G(z) - G_xi(z)|^2 over held-out z, h* one shift for all z: 0 where a latent
shift does the same, 1 where the best one is no better than none. The paper shows pictures and says that the
optimisation failed. A failure means something only if the optimiser can succeed: a shift planted in the same space, of
the same image effect, has to be found with rho below 0.05. Where it is not, the rows of that space say so, and nothing
is unreachable on their account.

Rows, for each space K of z, w, w_plus, activation: `reproduction_K`; `reproduction_perceptual_K`, of the same shift
under a perceptual distance; `reproduction_control_K`, rho of the planted shift. `reproduction_editor` and
`reproduction_perceptual_editor`: of a latent editor at the same effect, whose edit was not made to look like this one
and may leave more than 1. Intervals: bootstrap over held-out z, h* fixed. Samples: the numerator's terms over the mean
denominator; all methods have the same z.
"""

from __future__ import annotations

import numpy as np
import pandas as pd

from editbench.base.errors import EditbenchError
from editbench.stats.intervals import bootstrap_ratios
from editbench.walk.metric import ROW_COLUMNS, MetricResult, ObservationMetric, no_samples, row
from editbench.walk.observation import Observed

NAN = float("nan")
RECOVERED = 0.05
SPACES = ("w", "z", "w_plus", "activation")
EDITOR = ("reproduction_editor", "reproduction_perceptual_editor")


class LatentReproduction(ObservationMetric):
    """The rows above.

    Args:
        recovered: rho below which the planted shift counts as found. draws: bootstrap draws.
    """

    name = "latent_reproduction"
    version = 1
    citation = "Cherepkov, Voynov & Babenko: Navigating the GAN Parameter Space, CVPR 2021, eq. 5 and Fig. 8"
    observation = "latent_reproduction"
    produces = {
        f"reproduction_{kind}{space}": False if kind == "control_" else None
        for space in SPACES
        for kind in ("", "perceptual_", "control_")
    } | dict.fromkeys(EDITOR)

    def __init__(self, recovered: float = RECOVERED, draws: int = 2000) -> None:
        if not 0 < recovered < 1 or draws < 1:
            raise EditbenchError(
                f"metric.latent_reproduction: recovered={recovered} lies between 0 and 1, "
                f"draws={draws} is at least 1"
            )
        self.recovered, self.draws = float(recovered), int(draws)

    def compute(self, stats: Observed) -> MetricResult:
        arrays, meta = stats.arrays, stats.meta
        short = weak(meta["reach"], meta["effect"], f"'{meta['class']}'")
        rows, samples = [], [no_samples()]

        def put(name: str, left: np.ndarray, whole: np.ndarray, *notes: str) -> float:
            left, whole = np.asarray(left, np.float64), np.asarray(whole, np.float64)
            mean = whole.mean()
            value = float(left.mean() / mean) if mean > 0 else NAN
            low, high = bootstrap_ratios(left[:, None], whole[:, None], draws=self.draws)
            rows.append(
                row(
                    name,
                    value,
                    len(left),
                    float(low[0]),
                    float(high[0]),
                    note="; ".join(filter(None, notes)),
                )
            )
            if np.isfinite(value):
                samples.append(
                    pd.DataFrame(
                        {"metric": name, "start": np.arange(len(left)), "value": left / mean}
                    )
                )
            return value

        for space in SPACES:
            if space in meta["left_out"]:
                rows.append(row(f"reproduction_{space}", NAN, 0, note=meta["left_out"][space]))
            if space not in meta["spaces"]:
                continue
            control = float(
                arrays[f"pixels_{space}"][1].mean() / arrays[f"planted_pixels_{space}"].mean()
            )
            failed = (
                ""
                if control < self.recovered
                else (
                    f"the optimiser failed: of a planted shift it left rho {control:.2g}, not below {self.recovered:g}; "
                    "that the edit cannot be reached must not be concluded"
                )
            )
            for kind, of in (("", "pixels"), ("perceptual_", "perceptual")):
                put(
                    f"reproduction_{kind}{space}",
                    arrays[f"{of}_{space}"][0],
                    arrays[of],
                    failed,
                    short,
                )
            put(
                f"reproduction_control_{space}",
                arrays[f"pixels_{space}"][1],
                arrays[f"planted_pixels_{space}"],
                failed,
            )
        if "editor_pixels" in arrays:
            other = weak(
                meta["editor_reach"], meta["effect"], f"'{meta['class']}' by {meta['editor']}"
            )
            for name, of in zip(EDITOR, ("pixels", "perceptual")):
                put(name, arrays[f"editor_{of}"], arrays[of], short, other)
        elif "editor_reason" in meta:
            rows.append(row(EDITOR[0], NAN, 0, note=f"{meta['editor']}: {meta['editor_reason']}"))
        return MetricResult(
            pd.DataFrame(rows, columns=list(ROW_COLUMNS)), pd.concat(samples, ignore_index=True)
        )


def weak(reach: dict, effect: float, towards: str) -> str:
    """Why an edit is weaker than was asked for, '' where it is not."""
    return (
        ""
        if reach["reached"]
        else (
            f"an effect of {effect:g} sigma towards {towards} was not reached: {reach['effect']:.2g}, at "
            f"{abs(reach['strength']):.3g} steps"
        )
    )
