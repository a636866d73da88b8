"""Distance of edited images from the generator's own, which tells a broken image from an edit.

A scorer may react to an image that shows nothing recognisable. In the NaviGAN paper a person looks
at each direction and would discard such a direction (Cherepkov et al. 2021, Table 1); here a
distance replaces the person. An editor never sees the benchmark's real images, so the generator's
unedited images are used in their place.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from editbench.base.spaces import Codes
from editbench.walk.editor import FitData

SAMPLES = 1024  # unedited images that the model is fitted on
SIDE = 32  # pixels; larger images are averaged down to this size
KEPT = 0.9  # share of the variance that the components explain


class PictureDistance:
    """Squared Mahalanobis distance of an image's pixels from the generator's unedited images, in
    units of these images' own mean distance.

    The model is probabilistic PCA (Tipping & Bishop 1999): a Gaussian with the principal components
    that explain the share KEPT of the variance, and one common variance for the rest. The distance
    is about 1 for unedited images and for images like them, and many times larger for images unlike
    any that the generator makes. The teacher's features are not suitable: in them, white noise is
    no further from a face than another face is, because a classifier learns to ignore what it need
    not distinguish.

    The distance is defined for a single image, so few samples are enough, unlike for the metrics'
    Fréchet distance. It uses no labels.

    Args:
        data: the splits and the generator; images are from the fit split.
        samples: number of unedited images, at most the whole split.
    """

    def __init__(self, data: FitData, samples: int = SAMPLES) -> None:
        space = data.generator.latent_space
        codes = data.latents(data.fit)[: max(samples, 4)]
        with torch.inference_mode():
            found = data.batches.run(
                len(codes), lambda rows: _pixels(data.generator.decode(Codes(space, codes[rows])))
            )
        x = torch.cat(found)
        # The unit is measured on other images than the model, which is closer to its own images.
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
        # Variance of the dimensions outside the components, measured on the other images.
        others = max(x.shape[1] - kept, 1)
        rest = self._rest(x[:half]).mean() / others
        self.noise = max(rest.item(), 1e-6 * self.variance[0].item())
        self.unit = 1.0
        self.unit = self._squared(x[:half]).mean().item()

    def _rest(self, x: Tensor) -> Tensor:
        """Squared length of the residual of (n, D) outside the components: (n,)."""
        centred = x - self.mean
        inside = centred @ self.components.T
        return (centred.square().sum(1) - inside.square().sum(1)).clamp_min(0)

    def _squared(self, x: Tensor) -> Tensor:
        inside = ((x - self.mean) @ self.components.T).square() / self.variance
        return inside.sum(1) + self._rest(x) / self.noise

    def __call__(self, decoded: Tensor) -> Tensor:
        """Decoded samples (n, ...) -> distances (n,); infinite for samples that are not finite."""
        found = self._squared(_pixels(decoded)) / self.unit
        return found.nan_to_num(torch.inf, torch.inf).float()


def _pixels(decoded: Tensor) -> Tensor:
    """Decoded samples (n, ...) -> (n, D) float64, pictures at SIDE x SIDE at most."""
    if decoded.dim() == 4 and max(decoded.shape[2:]) > SIDE:
        decoded = F.interpolate(decoded, size=(SIDE, SIDE), mode="area")
    return decoded.flatten(1).double()
