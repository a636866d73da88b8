"""How far a picture is from the one it was edited from: in the features of a network, and in pixels."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from editbench.base.errors import EditbenchError
from editbench.base.seeding import normals
from editbench.base.spaces import Codes, Space
from editbench.networks.features import ScorerFeatures
from editbench.walk.editor import Walk
from editbench.walk.gauge import Gauge

if TYPE_CHECKING:
    from editbench.networks.roles import Networks

JUDGE = "judge_features"
BATCH = 64


class FeatureSimilarity(Gauge):
    """Cosine of the angle between the embeddings of the edited and of the original picture.

    Columns `similarity:NAME`, and `similarity_threshold:NAME`, the same number in every row: the cosine that a share
    `far` of all pairs of `samples` different generated pictures exceed (the false accept rate of a verification).

    Args:
        network: images (n, C, H, W) in [-1, 1] -> (n, e), e.g. an editbench.networks.features.FeatureNetwork: face
            recognition where the pictures are faces and a network is at hand. None: the features of the judge; these
            are no identity, so they have their own name.
        label: NAME; None: 'judge_features', or the name of the network.
        threshold: a published verification threshold in place of `far`.
        far: false accept rate. samples: pictures behind it.
    """

    def __init__(
        self,
        network: Callable[[Tensor], Tensor] | None = None,
        label: str | None = None,
        threshold: float | None = None,
        far: float = 0.01,
        samples: int = 512,
    ) -> None:
        if not 0 < far < 1 or samples < 2:
            raise EditbenchError(
                f"gauge: far lies between 0 and 1 and samples is 2 or more, got far={far}, "
                f"samples={samples}"
            )
        self.network = network
        self.label = label or (
            JUDGE if network is None else str(getattr(network, "name", type(network).__name__))
        )
        self.threshold, self.far, self.samples = threshold, float(far), int(samples)

    def prepare(self, networks: Networks, device: str) -> None:
        if networks.generator.output != "image":
            raise EditbenchError(
                "gauge feature_similarity: the generator gives no pictures, leave it out"
            )
        self.network = ScorerFeatures(networks.judge) if self.network is None else self.network
        if isinstance(self.network, nn.Module):
            self.network.to(device).eval().requires_grad_(False)
        if self.threshold is None:
            self.threshold = self.impostors(networks, device)

    @torch.inference_mode()
    def impostors(self, networks: Networks, device: str) -> float:
        """The cosine that a share `far` of the pairs of different generated pictures exceed."""
        z = (
            torch.from_numpy(
                normals(0, "gauge/impostors", 0, self.samples, networks.generator.z_dim)
            )
            .float()
            .to(device)
        )
        parts = [
            self.reference(networks.generator.decode(Codes(Space.Z, z[i : i + BATCH])))
            for i in range(0, len(z), BATCH)
        ]
        unit = torch.cat(parts).double()
        above = torch.triu_indices(len(unit), len(unit), offset=1, device=unit.device)
        cosines = (unit @ unit.T)[above[0], above[1]]
        kept = max(
            round(self.far * len(cosines)), 1
        )  # torch.quantile takes no more than 16 million values
        return float(cosines.topk(kept + 1).values[-1] if kept < len(cosines) else cosines.min())

    def reference(self, decoded: Tensor) -> Tensor:
        """Embeddings at unit length."""
        assert self.network is not None
        return F.normalize(self.network(decoded).flatten(1).float(), dim=1)

    def measure(
        self, walk: Walk, codes: Codes, decoded: Tensor, reference: Tensor
    ) -> dict[str, Tensor]:
        cosine = (self.reference(decoded) * reference).sum(1).clamp(-1, 1)
        assert self.threshold is not None
        return {
            f"similarity:{self.label}": cosine,
            f"similarity_threshold:{self.label}": torch.full_like(cosine, self.threshold),
        }


class PixelDistance(Gauge):
    """Column `pixel_distance`: root mean square difference of the pictures in [-1, 1].

    Args:
        size: larger pictures are averaged down to this height and width first, which bounds what is kept of the starts.
    """

    def __init__(self, size: int = 64) -> None:
        if size < 1:
            raise EditbenchError(f"gauge.pixel_distance.size must be at least 1, got {size}")
        self.size = int(size)

    def prepare(self, networks: Networks, device: str) -> None:
        if networks.generator.output != "image":
            raise EditbenchError(
                "gauge pixel_distance: the generator gives no pictures, leave it out"
            )

    def reference(self, decoded: Tensor) -> Tensor:
        x = decoded.clamp(-1, 1)
        if max(x.shape[-2:]) > self.size:
            x = F.adaptive_avg_pool2d(x, self.size)
        return x.flatten(1).float()

    def measure(
        self, walk: Walk, codes: Codes, decoded: Tensor, reference: Tensor
    ) -> dict[str, Tensor]:
        return {"pixel_distance": (self.reference(decoded) - reference).square().mean(1).sqrt()}
