"""LeNet-5 (LeCun et al. 1998).

In the form with rectifiers and max-pooling whose MNIST weights are in circulation.
"""

from __future__ import annotations

from collections import OrderedDict

import torch.nn.functional as F
from torch import Tensor, nn


class LeNet(nn.Module):
    """Images (N, 1, 32, 32) in [0, 1] -> log-probabilities (N, classes).

    Tensor names: convnet.c1, convnet.c3, convnet.c5, fc.f6, fc.f7, each .weight and .bias.
    """

    def __init__(self, classes: int = 10) -> None:
        super().__init__()
        # C5 sees the whole 5 x 5 map, so it acts as a linear layer.
        self.convnet = nn.Sequential(
            OrderedDict(
                [
                    ("c1", nn.Conv2d(1, 6, 5)),
                    ("relu1", nn.ReLU()),
                    ("s2", nn.MaxPool2d(2)),
                    ("c3", nn.Conv2d(6, 16, 5)),
                    ("relu3", nn.ReLU()),
                    ("s4", nn.MaxPool2d(2)),
                    ("c5", nn.Conv2d(16, 120, 5)),
                    ("relu5", nn.ReLU()),
                ]
            )
        )
        self.fc = nn.Sequential(
            OrderedDict(
                [
                    ("f6", nn.Linear(120, 84)),
                    ("relu6", nn.ReLU()),
                    ("f7", nn.Linear(84, classes)),
                ]
            )
        )

    def forward(self, images: Tensor) -> Tensor:
        return F.log_softmax(self.fc(self.convnet(images).flatten(1)), -1)
