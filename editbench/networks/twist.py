"""A generator with a W that is curved by a known amount, but with the same images for every z.

How well a straight walk in W follows an attribute depends on the curvature of W, which is unknown
for a trained network. Here curvature is added: w' = T(w), with a smooth invertible map T. The
generator maps z to w' and decodes T^-1(w'). Images, S and weights are unchanged, and so are labels,
starts and distances between distributions. Only W differs.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import torch
from torch import Tensor, nn

from editbench.base.errors import EditbenchError
from editbench.base.files import digest
from editbench.base.precision import exact
from editbench.base.seeding import normals
from editbench.base.spaces import Codes, Space
from editbench.networks.stylegan2.generator import StyleGAN2Generator
from editbench.networks.stylegan2.network import StyleGAN2

SAMPLES = 8192  # number of random w for the principal components
SEED = 9_016  # of their z, of the rotation and of the directions


class Twist(nn.Module):
    """A map of W that rotates planes by angles that depend on other directions.

    The first principal components of W are scaled to unit variance, rotated at random and split
    into two halves, a and b. Pairs of coordinates of b are rotated by curvature * (d . a) radians,
    with a random unit vector d for each pair; then those of a by curvature * (d' . b). Both are
    coupling layers (Dinh, Krueger & Bengio, NICE, 2014), so the inverse is exact and volumes are
    preserved. Rotations preserve unit variance, so the spread of W is preserved too.

    Args:
        w: (n, w_dim) random w of the network.
        curvature: angle in radians per standard deviation.
        components: number of principal components to rotate, a multiple of 4.

    Raises:
        EditbenchError: the number of components cannot be split into pairs.
    """

    into: Tensor  # (w_dim, components): codes minus the mean -> scaled and rotated coordinates
    back: Tensor  # (components, w_dim): the inverse
    mean: Tensor  # (w_dim,)
    along: Tensor  # (2, pairs, components / 2): d of each pair of b, then of a

    def __init__(self, w: Tensor, curvature: float, components: int) -> None:
        super().__init__()
        if components % 4 or not 0 < components <= w.shape[1]:
            raise EditbenchError(
                f"components={components} must be a multiple of 4 and at most {w.shape[1]}"
            )
        self.curvature = float(curvature)
        # In double precision on the host, so that the map is the same on all devices.
        sample = w.detach().double().cpu().numpy()
        variances, vectors = np.linalg.eigh(np.cov(sample.T))
        # eigh sorts in ascending order.
        scales = np.sqrt(variances[::-1][:components])
        axes = vectors[:, ::-1][:, :components]
        # The sign of an axis is arbitrary; its largest entry is made positive.
        largest = np.abs(axes).argmax(0)
        axes = axes * np.sign(axes[largest, np.arange(components)])
        rotation, _ = np.linalg.qr(normals(SEED, "twist/rotation", 0, components, components))
        half = components // 2
        along = normals(SEED, "twist/along", 0, half, half).reshape(2, half // 2, half)
        along = along / np.linalg.norm(along, axis=-1, keepdims=True)
        parts = {
            "into": axes / scales @ rotation.T,
            "back": rotation * scales @ axes.T,
            "mean": sample.mean(0),
            "along": along,
        }
        # Not saved, since they are determined by the network and the seed.
        for name, values in parts.items():
            self.register_buffer(name, torch.from_numpy(values).float(), persistent=False)

    def forward(self, w: Tensor) -> Tensor:
        """w (..., w_dim) -> w', of the same shape."""
        with exact(w.device):
            x = (w - self.mean) @ self.into
            a, b = x.chunk(2, -1)
            b = turned(b, self.curvature * a @ self.along[0].T)
            a = turned(a, self.curvature * b @ self.along[1].T)
            # The rest of w, outside the components, is unchanged.
            return w + (torch.cat([a, b], -1) - x) @ self.back

    def inverse(self, twisted: Tensor) -> Tensor:
        """w' (..., w_dim) -> w, of the same shape."""
        with exact(twisted.device):
            x = (twisted - self.mean) @ self.into
            a, b = x.chunk(2, -1)
            a = turned(a, -self.curvature * b @ self.along[1].T)
            b = turned(b, -self.curvature * a @ self.along[0].T)
            return twisted + (torch.cat([a, b], -1) - x) @ self.back


def turned(x: Tensor, angle: Tensor) -> Tensor:
    """Rotate pairs of coordinates.

    Args:
        x: (..., 2 n), the first coordinates of all pairs, then the second ones.
        angle: (..., n), radians.
    """
    first, second = x.chunk(2, -1)
    cos = angle.cos()
    sin = angle.sin()
    return torch.cat([first * cos - second * sin, first * sin + second * cos], -1)


class TwistedGenerator(StyleGAN2Generator):
    """A StyleGAN2 with a twisted W; see `Twist`.

    W and W+ codes are twisted, each row separately. Truncation is applied before the twist.

    Args:
        network: the trained network.
        curvature: angle in radians per standard deviation of W; 0 changes no bit.
        components: number of principal components of W to rotate.
        truncation_psi: as in `StyleGenerator`.
    """

    def __init__(
        self,
        network: StyleGAN2,
        curvature: float,
        components: int,
        truncation_psi: float = 1.0,
    ) -> None:
        super().__init__(network, truncation_psi)
        z = torch.from_numpy(normals(SEED, "twist/z", 0, SAMPLES, self.z_dim)).float()
        with torch.no_grad():
            # Without truncation, so that the axes do not depend on it.
            w = network.mapping(z, None)
        self.twist = Twist(w, curvature, components)
        # Not a hash of the map's numbers, since their last digits may differ between machines.
        twist = digest([self.twist.curvature, components, SAMPLES, SEED])
        self._mark = f"-twisted-{twist}"
        self.digest = f"{self.digest}{self._mark}"

    @property
    def samples_digest(self) -> str:
        """The digest of the network without the twist, with a run's additions such as precision."""
        return self.digest.replace(self._mark, "")

    def map(self, z: Tensor) -> Tensor:
        """z (N, z_dim) -> twisted w (N, w_dim)."""
        return self.twist(super().map(z))

    def styles(self, w_plus: Tensor) -> Tensor:
        """Twisted w_plus (N, num_ws, w_dim) -> S codes (N, sum of style_sizes)."""
        return super().styles(self.twist.inverse(w_plus))

    def _decode(self, codes: Codes) -> Tensor:
        self._check(codes)
        if codes.space is Space.Z:
            # Decoded through the original W, since the twist would be undone again.
            straight = replace(codes, space=Space.W, values=super().map(codes.values))
        elif codes.space is Space.S:
            straight = codes
        else:
            straight = replace(codes, values=self.twist.inverse(codes.values))
        return super()._decode(straight)
