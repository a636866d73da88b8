"""A world in closed form for the tests of the harness: a linear generator and linear scorers.

w = 2 z; the image is w reshaped to (N, 1, 2, 4); the logits are image . V. Everything a job computes can be worked out
by hand from V.
"""

from __future__ import annotations

import copy
import functools
from pathlib import Path

import torch
from omegaconf import DictConfig, OmegaConf
from torch import Tensor
from torch.nn import functional as F

from editbench.base.attributes import Attribute, Attributes
from editbench.base.errors import NoControl
from editbench.base.spaces import Codes, Space
from editbench.networks.generator import Generator
from editbench.networks.scorer import Scorer
from editbench.run.compose import compose_config
from editbench.walk.editor import Editor, FitData, FitReport, Walk

DIM = 8
ATTRIBUTES = Attributes(
    [
        Attribute("a", ("no", "yes")),
        Attribute("b", ("no", "yes")),
        Attribute("c", ("x", "y", "z"), ordered=True),
    ]
)
V = torch.randn(DIM, ATTRIBUTES.width, generator=torch.Generator().manual_seed(7))


class ToyGenerator(Generator):
    """`poison`: the sample index-free condition z[0] > poison decodes to NaN."""

    spaces = (Space.Z, Space.W, Space.W_PLUS)
    z_dim = w_dim = DIM
    num_ws = 2

    def __init__(self, poison: float = float("inf"), digest: str = "toy") -> None:
        super().__init__()
        self.poison, self.digest = poison, digest

    def map(self, z: Tensor) -> Tensor:
        return 2 * z

    def _decode(self, codes: Codes) -> Tensor:
        w = self.map(codes.values) if codes.space == Space.Z else codes.values
        w = w[:, 0] if codes.space == Space.W_PLUS else w
        return w.masked_fill(w[:, :1] > self.poison, float("nan")).reshape(-1, 1, 2, 4)


class ToyScorer(Scorer):
    attributes = ATTRIBUTES

    def __init__(self, digest: str = "scorer", scale: float = 1.0) -> None:
        super().__init__()
        self.digest, self.scale = digest, scale

    def forward(self, decoded: Tensor) -> Tensor:
        # one row after the other, so that a batch changes no bit
        return (decoded.flatten(1).unsqueeze(2) * V).sum(1) * self.scale


class AlongColumn(Editor):
    """Walks along the unit normal of the target's logit: the exact answer on this world."""

    def __init__(
        self, delta: float = 0.5, fail: str = "", layers: tuple[int, int] | None = None
    ) -> None:
        super().__init__(layers)
        self.delta, self.fail = delta, fail
        self.fits = torch.zeros(1)

    def fit(self, data: FitData) -> FitReport:
        if self.fail == "crash":
            raise RuntimeError("a defect of the method")
        if self.fail == "skip":
            raise NoControl("no control found")
        if self.fail == "interrupt":
            raise KeyboardInterrupt
        self.fits += 1
        return FitReport(labels=len(data.fit))

    def state(self) -> dict[str, Tensor]:
        return {"fits": self.fits}

    def load_state(self, state) -> None:  # type: ignore[no-untyped-def]
        self.fits = state["fits"]

    def step(self, walk: Walk) -> Tensor:
        column, sign = ATTRIBUTES.column(walk.attribute, walk.target)
        direction = F.normalize(V.T, dim=-1)[column]
        moved = walk.codes + self.delta * torch.as_tensor(sign)[:, None] * direction
        if self.fail == "nan":
            moved = torch.where((walk.start % 2 == 0)[:, None], moved, torch.nan)
        if self.fail == "shape":
            return moved[:, 1:]
        if self.fail == "frozen":
            return walk.codes
        return moved


def toy_config(out: Path, *overrides: str, **method: object) -> DictConfig:
    """A job of AlongColumn on the toy world, writing below `out`."""
    cfg = copy.deepcopy(_composed(*overrides))
    cfg.out = str(out)
    cfg.cache = str(out / "cache")
    cfg.method.update(method)
    return cfg


@functools.cache
def _composed(*overrides: str) -> DictConfig:
    names = ["generator=toy", "scorer=toy", "method=along", "budget=toy", "attribute=a"]
    cfg = compose_config([*names, *overrides], [Path(__file__).parent / "conf"])
    OmegaConf.set_struct(cfg, False)
    return cfg
