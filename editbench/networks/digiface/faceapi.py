"""The networks of face-api: expression and 68 landmarks.

Both are four dense blocks of separable convolutions (Howard et al. 2017; Huang et al. 2017, with
sums in place of concatenation), an average over 7 x 7 pixels, and one linear layer.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from editbench.networks.digiface.padding import convolve_same

SIDE = 112  # pixels of the input
# Of red, green and blue, out of 255; taken from the picture, which is then divided by 255.
MEAN = (122.782, 117.001, 104.298)
CHANNELS = (32, 64, 128, 256)  # of the four blocks
EXPRESSIONS = ("neutral", "happy", "sad", "angry", "fearful", "disgusted", "surprised")
LANDMARKS = 68


class Separable(nn.Module):
    """A 3 x 3 kernel for each channel, then a 1 x 1 convolution with bias."""

    def __init__(self, n_in: int, n_out: int, stride: int) -> None:
        super().__init__()
        self.stride = (stride, stride)
        self.depthwise = nn.Conv2d(n_in, n_in, 3, stride, groups=n_in, bias=False)
        self.pointwise = nn.Conv2d(n_in, n_out, 1)

    def forward(self, x: Tensor) -> Tensor:
        kernel = self.depthwise.weight
        return self.pointwise(convolve_same(x, kernel, None, self.stride, kernel.shape[0]))


class Full(nn.Module):
    """A 3 x 3 convolution with bias and TensorFlow's padding; the first layer of all."""

    def __init__(self, n_in: int, n_out: int, stride: int) -> None:
        super().__init__()
        self.stride = (stride, stride)
        self.conv = nn.Conv2d(n_in, n_out, 3, stride)

    def forward(self, x: Tensor) -> Tensor:
        return convolve_same(x, self.conv.weight, self.conv.bias, self.stride)


class DenseBlock(nn.Module):
    """Four layers; each but the first sees the rectified sum of all before it.

    Args:
        n_in: channels of the input.
        n_out: channels of each layer.
        first: whether it is the network's first block, which begins with a full convolution.
    """

    def __init__(self, n_in: int, n_out: int, first: bool) -> None:
        super().__init__()
        self.conv0 = Full(n_in, n_out, 2) if first else Separable(n_in, n_out, 2)
        self.conv1 = Separable(n_out, n_out, 1)
        self.conv2 = Separable(n_out, n_out, 1)
        self.conv3 = Separable(n_out, n_out, 1)

    def forward(self, x: Tensor) -> Tensor:
        total = self.conv0(x).relu()
        # The sum itself is kept before ReLU: what one layer took away, a later one may give back.
        for layer in (self.conv1, self.conv2, self.conv3):
            total = total + layer(total.relu())
        return total.relu()


class FaceApiNetwork(nn.Module):
    """Pictures (N, 3, 112, 112) in [0, 255] -> (N, outputs).

    Args:
        outputs: 7 scores of expressions before a softmax, in the order of EXPRESSIONS; or 136: x
            and y of each landmark by turns, as shares of the picture's side.
        channels: of the blocks.
    """

    mean: Tensor

    def __init__(self, outputs: int, channels: tuple[int, ...] = CHANNELS) -> None:
        super().__init__()
        self.register_buffer("mean", torch.tensor(MEAN).view(1, 3, 1, 1), persistent=False)
        widths = (3, *channels)
        for k, width in enumerate(channels):
            self.add_module(f"dense{k}", DenseBlock(widths[k], width, first=k == 0))
        self.blocks = len(channels)
        self.fc = nn.Linear(channels[-1], outputs)

    def forward(self, pictures: Tensor) -> Tensor:
        x = (pictures - self.mean) / 255
        for k in range(self.blocks):
            x = self.get_submodule(f"dense{k}")(x)
        return self.fc(F.avg_pool2d(x, x.shape[2:]).flatten(1))
