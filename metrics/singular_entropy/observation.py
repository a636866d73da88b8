"""Singular values of the matrix of a flow of depth one (Khrulkov et al. 2021, section 5.2.5)."""

from __future__ import annotations

import numpy as np
import torch

from editbench.base.errors import Unsupported
from editbench.walk.observation import AfterWalk, ObservationContext, Observed


class SingularEntropyObservation(AfterWalk):
    """Singular values of every flow of the attribute.

    An attribute has K flows: one per target class, or one for both ends. The layer of the published
    code is residual, F(w) = w + (A w + b), so the matrix that acts on w is I + A. Arrays, with the
    largest value first:

    - effective: (K, d) float64, of I + A.
    - layer: (K, d) float64, of A.

    The editor must store its flows like NeuralODE: `fields[attribute].weight`, (layers, K, d, d).
    """

    citation = (
        "Khrulkov, Mirvakhabova, Oseledets & Babenko: Latent Transformations via NeuralODEs, "
        "ICCV 2021, eq. 8"
    )

    def look(self, context: ObservationContext) -> Observed:
        """Compute the singular values.

        Raises:
            Unsupported: the editor has no flow of depth one, or its weights are not finite.
        """
        # By attribute, not by class, so that any editor with a flow of depth one can be measured.
        field = getattr(context.editor, "fields", {}).get(context.attribute)
        if field is None:
            raise Unsupported(
                f"{type(context.editor).__name__} has no flow; singular entropy is that of a flow of "
                "depth one"
            )
        weight = torch.as_tensor(field.weight).detach().double().cpu()
        if len(weight) == 0:
            raise Unsupported("the flow is constant: it has no matrix")
        if len(weight) > 1:
            raise Unsupported(
                f"the flow has {len(weight)} layers: the singular entropy is that of one"
            )
        layer = weight[0]
        # On some platforms LAPACK does not return for a matrix with NaN.
        if not bool(torch.isfinite(layer).all()):
            raise Unsupported("the flow has NaN or infinite weights")
        effective = layer + torch.eye(layer.shape[-1], dtype=layer.dtype)
        arrays = {
            "effective": np.asarray(torch.linalg.svdvals(effective)),
            "layer": np.asarray(torch.linalg.svdvals(layer)),
        }
        return Observed(arrays, {"dim": layer.shape[-1], "flows": len(layer)})
