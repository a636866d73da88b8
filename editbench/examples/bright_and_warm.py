"""Bright and warm: a teacher and a judge that read the colours of a picture."""

import torch

# Plain functions; an nn.Module with weights, or a TorchScript file, is declared in the YAML alone:
# see docs/scorers.md. Say another `version` in the YAML when what a function computes changes.


# Pictures (N, 3, H, W), in the range and size that the YAML asks for -> (N, columns), a logit each,
# in the order of `attributes` of the YAML. A row depends on its own picture alone. Made of torch
# operations gradients pass, for the methods that need them.
def teacher(images):
    return _logits(images.mean((2, 3)))


# The judge decides; methods never see it. It should be trained apart from the teacher. Here it
# looks at the middle of the picture alone.
def judge(images):
    height, width = images.shape[2:]
    middle = images[:, :, height // 4 : -(height // 4), width // 4 : -(width // 4)]
    return _logits(middle.mean((2, 3)))


def _logits(colour):
    red, green, blue = colour.unbind(1)
    bright = (red + green + blue) / 3 - 0.5
    warm = red - blue - 0.1
    return 20 * torch.stack([bright, warm], 1)
