"""Colour patches: pictures of one colour, and scorers that read it."""

import torch

from editbench.base.attributes import Attribute, Attributes
from editbench.base.spaces import Codes, Space
from editbench.networks.generator import Generator
from editbench.networks.scorer import Scorer


class ColourPatches(Generator):
    # The whole contract is editbench.networks.generator. A network that is an nn.Module with
    # weights needs no class: see docs/bring_your_data.md.
    spaces = (Space.Z, Space.W)  # of the codes that it decodes
    z_dim = 8
    w_dim = 8

    def __init__(self, size=16):
        super().__init__()
        self.size = size  # height and width, in pixels
        # All that decides a picture, for the names of banks and runs.
        self.digest = f"colour_patches {size}"

    # z ~ N(0, I), (N, 8) -> w (N, 8). Attributes are straight in W here, as they are in no real one.
    def map(self, z):
        return 1.5 * z

    # Codes -> pictures (N, 3, H, W) in [-1, 1]. Each picture depends on its own code alone, and
    # gradients pass, for the methods that need them.
    def _decode(self, codes: Codes):
        w = self.map(codes.values) if codes.space == Space.Z else codes.values
        colour = torch.tanh(w[:, :3])
        return colour[:, :, None, None].expand(-1, 3, self.size, self.size)


class ColourPatchesScorer(Scorer):
    # The whole contract is editbench.networks.scorer. Of two classes the negative one stands first.
    attributes = Attributes(
        [
            Attribute("bright", ("dark", "bright")),
            Attribute("warm", ("cold", "warm")),
        ]
    )

    # Teacher and judge: methods learn from the one, and are measured by the other. They should be
    # trained apart; here the judge draws its boundaries a little elsewhere.
    def __init__(self, role="teacher"):
        super().__init__()
        self.shift = 0.1 if role == "judge" else 0.0
        self.digest = f"colour_patches scorer {self.shift}"

    # Pictures -> logits (N, 2), one column for an attribute of two classes, K for one of K > 2.
    def forward(self, decoded):
        red, green, blue = decoded.mean((2, 3)).unbind(1)
        bright = red + green + blue
        warm = red - blue
        return 4 * torch.stack([bright, warm], 1) - self.shift
