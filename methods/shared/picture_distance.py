"""How far edited pictures lie from the generator's own, so that a broken picture is told from an
edit.

A scorer may be moved by a picture that shows nothing at all. In the paper on NaviGAN a person looks
at each direction and would not name such a one (Cherepkov et al. 2021, Table 1); here a distance
stands for the look. An editor never sees the real pictures of the benchmark: the generator's
unedited ones stand for them.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from editbench.base.spaces import Codes
from editbench.walk.editor import FitData

SAMPLES = 1024  # unedited pictures behind the model
SIDE = 32  # pixels: larger pictures are averaged down to it
KEPT = 0.9  # share of the variance that the components take


class PictureDistance:
    """Squared Mahalanobis distance to the generator's unedited pictures, by pixels, in units of
    their own mean.

    The model is probabilistic PCA (Tipping & Bishop 1999): a Gaussian with the principal components
    that take KEPT of the variance, and one variance for all that they leave. It is about 1 for
    unedited pictures and for what could be one of them; it is many times that where pictures show
    what no picture of the generator does. The teacher's features do not serve here: white noise is
    no further from faces in them than one face from another, for a classifier is trained to
    overlook what it need not tell apart.

    It is one picture's, so that few samples are enough, unlike for the Fréchet distance of metrics,
    and it knows no label.

    Args:
        data: the splits and the generator; pictures are of the fit split.
        samples: unedited pictures, at most the whole split.
    """

    def __init__(self, data: FitData, samples: int = SAMPLES) -> None:
        space = data.generator.latent_space
        codes = data.latents(data.fit)[: max(samples, 4)]
        with torch.inference_mode():
            found = data.batches.run(
                len(codes), lambda rows: _pixels(data.generator.decode(Codes(space, codes[rows])))
            )
        x = torch.cat(found)
        # The model is of other pictures than its unit: its own ones are nearer to it.
        half = len(x) // 2
        self.mean = x[half:].mean(0)
        centred = x[half:] - self.mean
        # Rows of `right` are the components.
        _, singular, right = torch.linalg.svd(centred, full_matrices=False)
        variance = singular.square() / max(len(centred) - 1, 1)
        explained = variance.cumsum(0) / variance.sum().clamp_min(1e-12)
        kept = int((explained < KEPT).sum()) + 1
        self.components = right[:kept]
        self.variance = variance[:kept].clamp_min(1e-12)
        # Of all numbers but the components, as far as other pictures have it.
        others = max(x.shape[1] - kept, 1)
        rest = self._rest(x[:half]).mean() / others
        self.noise = max(rest.item(), 1e-6 * self.variance[0].item())
        self.unit = 1.0
        self.unit = self._squared(x[:half]).mean().item()

    def _rest(self, x: Tensor) -> Tensor:
        """Squared length of what the components leave of (n, D): (n,)."""
        centred = x - self.mean
        inside = centred @ self.components.T
        return (centred.square().sum(1) - inside.square().sum(1)).clamp_min(0)

    def _squared(self, x: Tensor) -> Tensor:
        inside = ((x - self.mean) @ self.components.T).square() / self.variance
        return inside.sum(1) + self._rest(x) / self.noise

    def __call__(self, decoded: Tensor) -> Tensor:
        """Decoded samples (n, ...) -> (n,); infinite where they are not finite."""
        found = self._squared(_pixels(decoded)) / self.unit
        return found.nan_to_num(torch.inf, torch.inf).float()


def _pixels(decoded: Tensor) -> Tensor:
    """Decoded samples (n, ...) -> (n, D) float64, pictures at SIDE x SIDE at most."""
    if decoded.dim() == 4 and max(decoded.shape[2:]) > SIDE:
        decoded = F.interpolate(decoded, size=(SIDE, SIDE), mode="area")
    return decoded.flatten(1).double()
