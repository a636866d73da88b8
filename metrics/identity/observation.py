"""Distance of an edited image from its original: in features of a network, and in pixels."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import Tensor

from editbench.base.batches import Batches, fitting_batch
from editbench.base.errors import EditbenchError
from editbench.base.seeding import normals
from editbench.base.spaces import Codes, Space
from editbench.networks.external import freeze
from editbench.networks.features import ScorerFeatures
from editbench.walk.editor import Walk
from editbench.walk.observation import DuringWalk

if TYPE_CHECKING:
    from editbench.networks.roles import Networks

JUDGE = "judge_features"  # a separate label, since the judge's features do not measure identity
# Prefixes of columns; the name of a network follows.
SIMILARITY = "similarity:"
THRESHOLD = "similarity_threshold:"
PIXEL_DISTANCE = "pixel_distance"  # a column
BATCH = 64  # images decoded together to measure the threshold, if they fit into memory


class FeatureSimilarity(DuringWalk):
    """Cosine of the angle between the embeddings of the edited and of the original picture.

    Columns:

    - similarity:NAME: the cosine.
    - similarity_threshold:NAME: the same number in every row, the cosine at which two pictures
      count as one identity (a verification).
    """

    def __init__(
        self,
        network: Callable[[Tensor], Tensor] | None = None,
        label: str | None = None,
        threshold: float | None = None,
        far: float = 0.01,
        samples: int = 512,
    ) -> None:
        """Choose the network and the threshold.

        Args:
            network: images (n, C, H, W) in [-1, 1] -> (n, e), such as a FeatureNetwork of
                editbench.networks.features; for faces preferably face recognition. None for the
                features of the judge.
            label: NAME; None for 'judge_features', or the name of the network.
            threshold: a published verification threshold, used instead of `far`.
            far: false accept rate: the share of all pairs of different generated images whose
                cosine passes the threshold.
            samples: number of generated images from which the threshold is measured.

        Raises:
            EditbenchError: a value is out of its range.
        """
        if not 0 < far < 1 or samples < 2:
            raise EditbenchError(
                "observation.feature_similarity: far must be between 0 and 1 and samples 2 or "
                f"more, got far={far}, samples={samples}"
            )
        self.network = network
        if label:
            self.label = label
        elif network is None:
            self.label = JUDGE
        else:
            self.label = str(getattr(network, "name", type(network).__name__))
        self.threshold = threshold
        self.far = float(far)
        self.samples = int(samples)

    def prepare(self, networks: Networks, device: str) -> None:
        """Move the network to the device and measure the threshold.

        Raises:
            EditbenchError: the generator does not make images.
        """
        if networks.generator.output != "image":
            raise EditbenchError(
                "observation feature_similarity: the generator returns no images: leave the "
                "observation out"
            )
        network = ScorerFeatures(networks.judge) if self.network is None else self.network
        self.network = freeze(network, device)
        if self.threshold is None:
            self.threshold = self.measure_threshold(networks, device)

    @torch.inference_mode()
    def measure_threshold(self, networks: Networks, device: str) -> float:
        """The cosine that a share `far` of the pairs of different generated images exceeds.

        Verification at a false accept rate, as in Schroff, Kalenichenko & Philbin, CVPR 2015.

        Args:
            networks: the generator decodes `samples` images, the same ones in every job.
            device: where they are decoded.
        """
        # The name of the random stream decides the draws and must not change.
        drawn = normals(0, "gauge/impostors", 0, self.samples, networks.generator.z_dim)
        z = torch.from_numpy(drawn).float().to(device)

        def embed(rows: slice) -> Tensor:
            return self.reference(networks.generator.decode(Codes(Space.Z, z[rows])))

        generator = networks.generator
        size = fitting_batch(partial(embed, slice(1)), device, BATCH, counted=generator)
        batches = Batches(size, "verification threshold", generator)
        unit = torch.cat(batches.run(len(z), embed)).double()
        # Every pair once, and no image with itself.
        above = torch.triu_indices(len(unit), len(unit), offset=1, device=unit.device)
        cosines = (unit @ unit.T)[above[0], above[1]]
        # Not torch.quantile, which is limited to 16 million values.
        kept = max(round(self.far * len(cosines)), 1)
        if kept < len(cosines):
            return float(cosines.topk(kept + 1).values[-1])
        return float(cosines.min())

    def reference(self, decoded: Tensor) -> Tensor:
        """Embeddings (n, e) at unit length."""
        assert self.network is not None
        return F.normalize(self.network(decoded).flatten(1).float(), dim=1)

    def measure(
        self, walk: Walk, codes: Codes, decoded: Tensor, reference: Tensor
    ) -> dict[str, Tensor]:
        """Cosines of a batch, and the threshold."""
        # Rounding may give a cosine slightly above 1.
        cosine = (self.reference(decoded) * reference).sum(1).clamp(-1, 1)
        assert self.threshold is not None
        return {
            f"{SIMILARITY}{self.label}": cosine,
            f"{THRESHOLD}{self.label}": torch.full_like(cosine, self.threshold),
        }


class PixelDistance(DuringWalk):
    """Column `pixel_distance`: root mean square difference of the pictures in [-1, 1]."""

    def __init__(self, size: int = 64) -> None:
        """Choose the resolution.

        Args:
            size: height and width to which larger images are averaged down first; it bounds the
                memory for the starts.

        Raises:
            EditbenchError: the size is invalid.
        """
        if size < 1:
            raise EditbenchError(f"observation.pixel_distance.size must be at least 1, got {size}")
        self.size = int(size)

    def prepare(self, networks: Networks, device: str) -> None:
        """Check that there are pictures.

        Raises:
            EditbenchError: the generator gives none.
        """
        if networks.generator.output != "image":
            raise EditbenchError(
                "observation pixel_distance: the generator returns no images: leave the "
                "observation out"
            )

    def reference(self, decoded: Tensor) -> Tensor:
        """Pictures (n, e), clamped as they are shown, small and flat."""
        x = decoded.clamp(-1, 1)
        # Large images of all starts would not fit into memory.
        if max(x.shape[-2:]) > self.size:
            x = F.adaptive_avg_pool2d(x, self.size)
        return x.flatten(1).float()

    def measure(
        self, walk: Walk, codes: Codes, decoded: Tensor, reference: Tensor
    ) -> dict[str, Tensor]:
        """Distances of a batch."""
        return {PIXEL_DISTANCE: (self.reference(decoded) - reference).square().mean(1).sqrt()}
