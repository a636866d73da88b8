"""The floor of methods with a labelled search: the same search among random directions."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from editbench.base.errors import EditbenchError
from editbench.base.seeding import normals
from editbench.methods.shared.direction_search import Directions, DirectionSearch
from editbench.methods.shared.layer_choice import RANGES
from editbench.walk.editor import FitData


class RandomSearched(DirectionSearch):
    """GANSpace with random unit directions in place of principal components.

    A labelled search among enough random directions finds some that change an attribute. The value
    of a method's own directions is what they add to this baseline.

    A floor must have a result for every seed: if only the seeds with a large effect counted, the
    floor would be that of the lucky draws. By default it therefore takes the best direction,
    however small its effect is (`min_effect` 0).

    Args:
        components: number of directions; should equal that of the method it is compared with.
        space: 'w' or 'z'.
        ranges: as in GANSpace.
        strength: as in GANSpace, in standard deviations of the codes along the direction.
        search_samples: as in GANSpace.
        min_effect: as in GANSpace, where it is 0.5.
        step: step length, in units of strength.

    Raises:
        EditbenchError: an option is out of its range.
    """

    citation = "control without directions"
    what = "random directions"

    def __init__(
        self,
        components: int = 80,
        space: str = "w",
        ranges: Sequence[Sequence[int]] = RANGES,
        strength: float = 3.0,
        search_samples: int = 64,
        min_effect: float = 0.0,
        step: float = 0.5,
    ) -> None:
        super().__init__(space, ranges, strength, search_samples, min_effect, step)
        if components < 1:
            raise EditbenchError(f"method.components={components} must be at least 1")
        self.components = int(components)

    def find_directions(self, data: FitData) -> Directions:
        codes = data.fit.codes(self.space).double().cpu().numpy()
        drawn = normals(data.seed, "random_searched", 0, self.components, codes.shape[1])
        # A normal vector brought to unit length is uniform on the sphere.
        rows = drawn / np.linalg.norm(drawn, axis=1, keepdims=True)
        # Steps are in standard deviations, as GANSpace's are along its components.
        stdev = (codes @ rows.T).std(0)
        return Directions(codes.mean(0), rows, stdev, {"directions": self.components})
