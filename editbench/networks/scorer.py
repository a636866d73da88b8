"""The contract of a scorer: from decoded samples to logits of attributes.

Editors learn from the scorer in the role of teacher; metrics measure with the judge.
"""

from __future__ import annotations

import abc
from typing import Any, Self

from torch import Tensor, nn

from editbench.base.attributes import Attributes
from editbench.base.errors import WrongType
from editbench.base.precision import casting
from editbench.networks.external import explain_dtype, fix_modes


class Scorer(nn.Module, abc.ABC):
    """Base of all scorers.

    Attributes:
        attributes: the meaning of the columns of its logits; class 1 of a binary attribute is the
            positive side. If a LOW logit of a network means "present", its adapter negates it
            (`positive_is_low` in the configuration).
        input: "image" (N, C, H, W in [-1, 1]) or "w".
        digest: hash of everything that determines its output.
    """

    attributes: Attributes
    input: str = "image"
    digest: str = ""
    precision: str = "fp32"  # of calls, see editbench.base.precision
    # Whether the outputs are known to be logits; a third-party network may give probabilities.
    says_output: bool = True
    # Whether `assess` returns a quality.
    has_quality: bool = False

    def assess(self, decoded: Tensor) -> tuple[Tensor, Tensor | None]:
        """Logits, and how well each sample can be judged.

        Args:
            decoded: (N, ...), as for a call.

        Returns:
            Logits (N, attributes.width); quality (N, 1), higher is better, or None if the scorer
            has none. For faces, it may be the log-odds of "this is a face".
        """
        return self(decoded), None

    @property
    def whole(self) -> Scorer:
        """The scorer with all its attributes; see `editbench.networks.selected`."""
        return self

    def train(self, mode: bool = True) -> Self:
        fix_modes(self)
        return super().train(mode)

    def __call__(self, decoded: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        # Here and not in forward, so that it applies to all subclasses.
        if not isinstance(decoded, Tensor) or not decoded.is_floating_point():
            kind = type(decoded).__name__
            # For a NumPy array the type is wrong, for a tensor of bytes the dtype.
            if hasattr(decoded, "dtype"):
                kind = f"{kind} of {decoded.dtype}"
            values = "codes" if self.input == "w" else "images in [-1, 1]"
            raise WrongType(
                f"{type(self).__name__} scores a tensor of floats, {values} as a generator decodes "
                f"them, not {kind}"
            )
        try:
            with casting(self.precision, decoded.device):
                return super().__call__(decoded, *args, **kwargs)
        except RuntimeError:
            explain_dtype(self, decoded, f"{type(self).__name__} scores values")
            raise

    @abc.abstractmethod
    def forward(self, decoded: Tensor) -> Tensor:
        """decoded (N, ...) -> logits (N, attributes.width) float32."""
