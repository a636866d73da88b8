"""GANSpace: principal components of W, or of a layer's activations, as controls.

Härkönen, Hertzmann, Lehtinen & Paris, "GANSpace: Discovering Interpretable GAN Controls", NeurIPS
2020. The teacher chooses among the components.
"""

from __future__ import annotations

from collections.abc import Sequence

from editbench.base.attributes import Attributes
from editbench.base.errors import EditbenchError, UnknownName
from editbench.base.spaces import Space
from editbench.methods.ganspace.directions import (
    activation_directions,
    component_notes,
    latent_blocks,
)
from editbench.methods.ganspace.pca import RunningMoments
from editbench.methods.shared.control_search import MIN_EFFECT
from editbench.methods.shared.direction_search import Directions, DirectionSearch
from editbench.methods.shared.layer_choice import RANGES
from editbench.networks.generator import Generator
from editbench.walk.editor import FitData

BLOCK = 8192  # latents drawn together


class GANSpace(DirectionSearch):
    """w_l' = w_l + sigma * stdev_i * component_i in the rows l of a range.

    Each class has its own component i and range.

    Components are found without labels. Component, range and sign are then chosen for every class
    of every attribute by the labelled search of editbench.methods.shared.control_search.

    Args:
        samples: number of codes that the components are computed from: fresh draws, or the fit
            split if none can be drawn.
        components: number of components; those without variance are left out.
        layer: None for the exact components of W itself; or the layer of the generator whose
            activations are decomposed and regressed on the latents.
        space: 'w', or 'z' (with a layer): the space of the regression's latents and of the walk.
        ranges: see DirectionSearch.
        strength: see DirectionSearch, in standard deviations of the component.
        search_samples: see DirectionSearch.
        min_effect: see DirectionSearch.
        step: in the unit of strength.
        centre: as in the paper's comparison with supervised directions.

    Raises:
        EditbenchError: an option is out of its range; `space` 'z' without a layer.
    """

    citation = "Härkönen, Hertzmann, Lehtinen & Paris: GANSpace, NeurIPS 2020"
    what = "principal components"

    def __init__(
        self,
        samples: int = 1_000_000,
        components: int = 80,
        layer: str | None = None,
        space: str = "w",
        ranges: Sequence[Sequence[int]] = RANGES,
        strength: float = 3.0,
        search_samples: int = 64,
        min_effect: float = MIN_EFFECT,
        step: float = 0.5,
        centre: bool = False,
    ) -> None:
        super().__init__(space, ranges, strength, search_samples, min_effect, step, centre)
        if samples < 2 or components < 1:
            raise EditbenchError(
                f"method.samples={samples} must be at least 2, components={components} at least 1"
            )
        if self.space == Space.Z and layer is None:
            raise EditbenchError(
                "method.space=z needs method.layer: draws of z are isotropic and have no principal "
                "components of their own"
            )
        self.samples = int(samples)
        self.components = int(components)
        self.layer = layer

    def find_directions(self, data: FitData) -> Directions:
        """Components of a layer's activations, or exact components of W."""
        if self.layer is not None:
            return activation_directions(
                data, self.layer, self.space, self.samples, self.components
            )
        moments = RunningMoments(data.generator.w_dim)
        for block in latent_blocks(data, Space.W, self.samples, "components", BLOCK):
            moments.add(block.cpu().numpy())
        found = moments.components(self.components)
        notes = component_notes(data, Space.W, found, self.components)
        # stdev is the square root of the eigenvalue. The published code estimates the same from the
        # projections of 5,000 fresh w.
        return Directions(found.mean, found.rows, found.stdev, notes)

    def check(self, generator: Generator, attributes: Attributes, attribute: str) -> None:
        super().check(generator, attributes, attribute)
        if self.layer is not None and self.layer not in generator.layers():
            raise UnknownName("method.layer", self.layer, generator.layers())
