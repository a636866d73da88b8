"""Attributes of faces from the networks of face-api and of human.

Both give the same four numbers for a picture that is filled by a face. Neither network was trained
to answer these questions, so each number is a plain formula of what it gives:

- turned: where the tip of the nose lies between the cheeks, from -1 (the left one of the picture)
  to 1, times TURN. Its sign is the class.
- smile: log-odds of "happy" against all other expressions. Its sign is the class.
- mouth open: the gap between the inner lips as a share of the mouth's width, relative to a
  threshold of the network: the share that 30 % of the faces exceed. Marginal: the networks agree
  little on it.
- seen: how well a face can be judged. The lower of two numbers: the log-odds of "this is a face",
  and the brightness of the picture's middle in per cent of white. Human has both, face-api the
  latter.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from editbench.networks.digiface.faceapi import EXPRESSIONS, LANDMARKS, FaceApiNetwork
from editbench.networks.digiface.graph import GraphNetwork

OUTPUTS = ("turned", "smile", "mouth_open", "seen")
TURN = 5.0  # nats for a nose tip on a cheek; over faces the log-odds then vary by about 2
OPEN = 3.0  # nats for a gap of twice the threshold
# The median face of these pictures is 0.7 of the side wide; a width near 0 is a failed detection,
# which must not give a huge number.
NARROWEST = 0.3  # face, as a share of the picture's side
NARROWEST_MOUTH = 0.05
MIDDLE = 0.25  # of the side, on each side, is left out for the brightness
LUMA = (0.2989, 0.5870, 0.1140)  # of red, green and blue, as human computes grey
# The order of the emotion network of human (oarriaga/face_classification).
EMOTIONS = ("angry", "disgust", "fear", "happy", "sad", "surprise", "neutral")
EMOTION_SIDE = 64  # pixels of the inputs
MESH_SIDE = 192
MESH_POINTS = 468


class FaceApiFaces(nn.Module):
    """face-api: pictures (N, 3, 112, 112) in [0, 255] -> (N, 4), the OUTPUTS.

    Args:
        expression: gives 7 scores.
        landmarks: gives 68 points.
    """

    # Points of the 68: right and left cheek (three each), tip of the nose, corners of the mouth,
    # middle of the inner lips.
    CHEEKS = ((1, 2, 3), (13, 14, 15))
    NOSE = 30
    MOUTH = (48, 54)
    LIPS = (62, 66)
    OPEN_FROM = 0.15

    def __init__(self, expression: FaceApiNetwork, landmarks: FaceApiNetwork) -> None:
        super().__init__()
        self.expression = expression
        self.landmarks = landmarks

    def forward(self, pictures: Tensor) -> Tensor:
        points = self.landmarks(pictures).view(-1, LANDMARKS, 2)
        first, second = self.CHEEKS
        left = points[:, first, 0].mean(1)
        right = points[:, second, 0].mean(1)
        columns = (
            turned(points[:, self.NOSE, 0], left, right),
            against_rest(self.expression(pictures), EXPRESSIONS.index("happy")),
            mouth_open(points, self.LIPS, self.MOUTH, self.OPEN_FROM),
            brightness(pictures / 255),
        )
        return torch.stack(columns, 1)


class HumanFaces(nn.Module):
    """human: pictures (N, 3, H, W) in [0, 1] -> (N, 4), the OUTPUTS.

    Args:
        emotion: grey pictures (N, 1, 64, 64) in [-1, 1] -> 7 scores.
        mesh: pictures (N, 3, 192, 192) in [0, 1] -> 468 points in pixels, and the log-odds of a
            face.
    """

    CHEEKS = (234, 454)
    NOSE = 1
    MOUTH = (61, 291)
    LIPS = (13, 14)
    OPEN_FROM = 0.045

    def __init__(self, emotion: GraphNetwork, mesh: GraphNetwork) -> None:
        super().__init__()
        self.emotion = emotion
        self.mesh = mesh

    def forward(self, pictures: Tensor) -> Tensor:
        grey = luma(resized(pictures, EMOTION_SIDE))[:, None] * 2 - 1
        scores = self.emotion(grey)[0]
        mesh, face = self.mesh(resized(pictures, MESH_SIDE))
        points = mesh.view(-1, MESH_POINTS, 3)[:, :, :2] / MESH_SIDE
        left, right = self.CHEEKS
        columns = (
            turned(points[:, self.NOSE, 0], points[:, left, 0], points[:, right, 0]),
            against_rest(scores, EMOTIONS.index("happy")),
            mouth_open(points, self.LIPS, self.MOUTH, self.OPEN_FROM),
            face[:, 0].minimum(brightness(pictures)),
        )
        return torch.stack(columns, 1)


def turned(nose: Tensor, left: Tensor, right: Tensor) -> Tensor:
    """How far a face is turned to the right of the picture, in nats.

    Args:
        nose: (N,) place of the nose's tip across the picture, as a share of its side.
        left: (N,) place of the left cheek.
        right: (N,) place of the right cheek.
    """
    half = ((right - left) / 2).clamp(min=NARROWEST / 2)
    return TURN * (nose - (left + right) / 2) / half


def against_rest(scores: Tensor, chosen: int) -> Tensor:
    """Log-odds (N,) of one class against all others, from scores (N, K) before a softmax."""
    others = [k for k in range(scores.shape[1]) if k != chosen]
    return scores[:, chosen] - scores[:, others].logsumexp(1)


def mouth_open(
    points: Tensor, lips: tuple[int, int], corners: tuple[int, int], threshold: float
) -> Tensor:
    """How far a mouth is open beyond a threshold, in nats: (N,).

    Args:
        points: (N, points, 2), x and y as shares of the picture's side; y grows downwards.
        lips: the upper and the lower inner lip.
        corners: of the mouth.
        threshold: gap over width at which a mouth counts as open.
    """
    # The signed height, not a distance: lips that cross are closed.
    gap = points[:, lips[1], 1] - points[:, lips[0], 1]
    width = (points[:, corners[1]] - points[:, corners[0]]).norm(dim=1)
    return OPEN * (gap / width.clamp(min=NARROWEST_MOUTH) / threshold - 1)


def brightness(pictures: Tensor) -> Tensor:
    """Mean luma of the middle of pictures (N, 3, H, W) in [0, 1], in per cent of white: (N,)."""
    height, width = pictures.shape[2:]
    top = int(height * MIDDLE)
    left = int(width * MIDDLE)
    middle = pictures[:, :, top : height - top, left : width - left]
    return 100 * luma(middle).mean((1, 2))


def luma(pictures: Tensor) -> Tensor:
    """Pictures (N, 3, H, W) -> grey (N, H, W)."""
    weights = pictures.new_tensor(LUMA).view(1, 3, 1, 1)
    return (pictures * weights).sum(1)


def resized(pictures: Tensor, side: int) -> Tensor:
    """Pictures of side x side pixels; shrunk ones are low-passed first."""
    if tuple(pictures.shape[2:]) == (side, side):
        return pictures
    return F.interpolate(
        pictures,
        size=(side, side),
        mode="bilinear",
        align_corners=False,
        antialias=min(pictures.shape[2:]) > side,
    )
