"""A generator seen through a curved W: the same picture of every z, in coordinates that bend by a known
amount.

An editor walks W, and how far a straight line follows what it edits depends on how curved W is, which
nobody knows of a trained network. Here curvature is added: w' = T(w), with a smooth map T that can
be inverted. The generator maps z to w' and decodes T^-1(w'). Pictures, S and the weights stay what
they are, and with them labels, starts and distances of distributions; W alone differs.
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

SAMPLES = 8192  # random w, whose principal components are turned
SEED = 9_016  # of their z, and of the directions


class Twist(nn.Module):
    """A map of W that turns planes by an angle that grows along other directions.

    The first principal components of W are scaled to unit variance, rotated at random and cut into
    two halves, a and b. Pairs of coordinates of b turn by curvature * (d . a) radians, with a
    random unit vector d for each pair; then those of a turn by curvature * (d' . b). Both are
    coupling layers (Dinh, Krueger & Bengio, NICE, 2014): the inverse is exact, and no volume
    changes. A turn leaves unit variance what it is, so that the spread of W stays too.

    Args:
        w: (n, w_dim) random w of the network.
        curvature: radians of turn for a standard deviation.
        components: how many principal components are turned, a multiple of 4.
        seed: of the rotation and of the directions.

    Raises:
        EditbenchError: a number of components that cannot be cut into pairs.
    """

    into: Tensor  # (w_dim, components): codes less the mean -> scaled and rotated coordinates
    back: Tensor  # (components, w_dim): the other way
    mean: Tensor  # (w_dim,)
    along: Tensor  # (2, pairs, components / 2): d of each pair of b, then of a

    def __init__(self, w: Tensor, curvature: float, components: int, seed: int = SEED) -> None:
        super().__init__()
        if components % 4 or not 0 < components <= w.shape[1]:
            raise EditbenchError(
                f"components={components} must be a multiple of 4 and at most {w.shape[1]}"
            )
        self.curvature = float(curvature)
        # On the host in double precision, so that the map is the same on every device.
        sample = w.detach().double().cpu().numpy()
        variances, vectors = np.linalg.eigh(np.cov(sample.T))
        # The largest come last.
        scales = np.sqrt(variances[::-1][:components])
        axes = vectors[:, ::-1][:, :components]
        # An axis has no sign of its own: its largest entry is made positive.
        largest = np.abs(axes).argmax(0)
        axes = axes * np.sign(axes[largest, np.arange(components)])
        rotation, _ = np.linalg.qr(normals(seed, "twist/rotation", 0, components, components))
        half = components // 2
        along = normals(seed, "twist/along", 0, half, half).reshape(2, half // 2, half)
        along = along / np.linalg.norm(along, axis=-1, keepdims=True)
        parts = {
            "into": axes / scales @ rotation.T,
            "back": rotation * scales @ axes.T,
            "mean": sample.mean(0),
            "along": along,
        }
        # They follow from the network and the seed, so they are no part of its file.
        for name, values in parts.items():
            self.register_buffer(name, torch.from_numpy(values).float(), persistent=False)

    def forward(self, w: Tensor) -> Tensor:
        """w (..., w_dim) -> w', of the same shape."""
        with exact(w.device):
            x = (w - self.mean) @ self.into
            a, b = x.chunk(2, -1)
            b = turned(b, self.curvature * a @ self.along[0].T)
            a = turned(a, self.curvature * b @ self.along[1].T)
            # What is not among the components stays.
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
    """Pairs of coordinates, turned.

    Args:
        x: (..., 2 n), the first coordinates of all pairs before the second ones.
        angle: (..., n), radians.
    """
    first, second = x.chunk(2, -1)
    cos = angle.cos()
    sin = angle.sin()
    return torch.cat([first * cos - second * sin, first * sin + second * cos], -1)


class TwistedGenerator(StyleGAN2Generator):
    """A StyleGAN2 whose W is twisted; see `Twist`.

    Codes of W and W+ are those of the twisted W, each row by itself. Truncation is that of the
    network, before the twist.

    Args:
        network: the trained network.
        curvature: radians of turn for a standard deviation of W; 0 changes no bit.
        components: how many principal components of W are turned.
        truncation_psi: as of `StyleGenerator`.
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
            # Of the whole W: its axes do not depend on the truncation.
            w = network.mapping(z, None)
        self.twist = Twist(w, curvature, components)
        # Not of the map's numbers, whose last digits differ from one machine to another.
        twist = digest([self.twist.curvature, components, SAMPLES, SEED])
        self._mark = f"-twisted-{twist}"
        self.digest = f"{self.digest}{self._mark}"

    @property
    def samples_digest(self) -> str:
        """The plain network's, with what a run adds, such as its precision."""
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
            # Straight through W: nothing is twisted that would be untwisted again.
            straight = replace(codes, space=Space.W, values=super().map(codes.values))
        elif codes.space is Space.S:
            straight = codes
        else:
            straight = replace(codes, values=self.twist.inverse(codes.values))
        return super()._decode(straight)
