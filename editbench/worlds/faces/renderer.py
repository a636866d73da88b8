"""Anti-aliased cartoon faces from known factors, at any resolution, as one vectorised computation.

The head turns as geometry: inner features are drawn in coordinates wrapped round the head, u = R
asin(x / R) - R yaw, so they move, foreshorten and vanish behind the limb; nose, ears and hair
mass move by their own depth.

Age is drawn by what belongs to no other trait: lines of the forehead, the cheeks and the corners of
the eyes, bags under the eyes, jowls, a higher hairline. Hair greys by a share that leaves its hue,
so an edit of age alone keeps the colour that the hair is called by.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from editbench.base.devices import to_device
from editbench.worlds.faces.factors import Factors

# In the order of HAIR_COLORS, in [0, 1].
HAIR_RGB = (
    (0.08, 0.07, 0.09),
    (0.46, 0.25, 0.10),
    (0.97, 0.83, 0.36),
    (0.84, 0.22, 0.08),
    (0.16, 0.34, 0.88),
)
# Between these three a tone is interpolated.
SKIN_RGB = ((0.98, 0.83, 0.72), (0.85, 0.62, 0.46), (0.52, 0.34, 0.24))
GREY_RGB = (0.82, 0.82, 0.84)
GREY_SHARE = 0.22  # of the hair's colour at full age
TEMPLE_SHARE = 0.5  # the same at the temples, where hair greys first
# Lengths are in half pictures: the picture spans [-1, 1] both ways, y downwards.
HEAD_RX = 0.50
HEAD_RY = 0.62
HEAD_Y = 0.04
EYE_U = 0.21
EYE_Y = -0.06
REGIONS = (
    "background",
    "hair",
    "skin",
    "ear",
    "neck",
    "clothes",
    "eye",
    "eyebrow",
    "glasses",
    "nose",
    "mouth",
    "beard",
)


def render(factors: Factors, resolution: int, supersample: int = 2) -> Tensor:
    """Draw faces on the device of the factors.

    Args:
        factors: of N faces.
        resolution: height and width.
        supersample: each pixel is the mean of so many by so many.

    Returns (N, 3, resolution, resolution) float32 in [-1, 1].
    """
    size = resolution * supersample
    canvas = Canvas(factors, size)
    canvas.draw()
    image = canvas.image if supersample == 1 else F.avg_pool2d(canvas.image, supersample)
    return image.mul_(2).sub_(1).clamp_(-1, 1)


def _numbers(values: Sequence[Any], device: torch.device) -> Tensor:
    """A few constants on a device; nothing that is under way there is waited for."""
    return to_device(torch.tensor(values), device)


class Canvas:
    """One drawing of a batch of faces; every `paint` says which region of the face it draws."""

    def __init__(self, factors: Factors, size: int) -> None:
        self.f = factors
        device = factors.yaw.device
        axis = (torch.arange(size, device=device) + 0.5) * (2 / size) - 1
        scale = factors.size.view(-1, 1, 1)
        self.x = axis.view(1, 1, -1) / scale
        self.y = axis.view(1, -1, 1) / scale
        self.pixel = 2 / size / scale
        self.yaw = torch.deg2rad(factors.yaw).view(-1, 1, 1)
        self.turn = torch.sin(self.yaw)
        # Wrapped coordinate of the head surface, and how fast it runs a pixel (it diverges at the
        # limb).
        sine = (self.x / HEAD_RX).clamp(-0.995, 0.995)
        self.u = HEAD_RX * (torch.asin(sine) - self.yaw)
        self.u_pixel = self.pixel / torch.sqrt(1 - sine**2)
        self.image = torch.zeros(len(factors), 3, size, size, device=device)

    # -- primitives -----------------------------------------------------------
    def amount(self, column: int) -> Tensor:
        return self.f.amounts[:, column].view(-1, 1, 1)

    def cover(self, distance: Tensor, pixel: Tensor | None = None) -> Tensor:
        """Coverage of a pixel by the inside (distance < 0) of a shape."""
        return (0.5 - distance / (self.pixel if pixel is None else pixel)).clamp(0, 1)

    def ellipse(
        self, cx: Tensor | float, cy: Tensor | float, rx: Tensor | float, ry: Tensor | float
    ) -> Tensor:
        """First-order distance to an ellipse in picture coordinates."""
        px = (self.x - cx) / rx
        py = (self.y - cy) / ry
        norm = torch.sqrt(px**2 + py**2 + 1e-9)
        # |p| - 1 over the length of its gradient, |p / r| / |p|; 1e-9 keeps the centre finite.
        return norm * (norm - 1) / torch.sqrt((px / rx) ** 2 + (py / ry) ** 2 + 1e-9)

    def spot(self, cu: float, cy: Tensor | float, ru: float, ry: float) -> Tensor:
        """Coverage of an ellipse drawn on the head surface."""
        pu = (self.u - cu) / ru
        py = (self.y - cy) / ry
        norm = torch.sqrt(pu**2 + py**2 + 1e-9)
        distance = norm * (norm - 1) / torch.sqrt((pu / ru) ** 2 + (py / ry) ** 2 + 1e-9)
        return self.cover(distance, torch.sqrt(self.pixel * self.u_pixel))

    def stroke(self, distance: Tensor, width: float, inside: Tensor | None = None) -> Tensor:
        """Coverage of a line of the given half-width along distance = 0."""
        line = self.cover(distance.abs() - width)
        return line if inside is None else line * inside

    def paint(
        self, coverage: Tensor, color: Tensor | tuple[float, float, float], region: str
    ) -> None:
        """Blend a colour over the picture.

        Args:
            coverage: (N, H, W) in [0, 1].
            color: (N, 3) or one for all.
            region: what is painted, one of REGIONS; a picture does not need it, `regions` does.
        """
        if isinstance(color, tuple):
            color = _numbers(color, self.image.device).expand(len(self.f), 3)
        self.image += coverage.unsqueeze(1) * (color[:, :, None, None] - self.image)

    # -- the picture, back to front -------------------------------------------
    def draw(self) -> None:
        f = self.f
        device = self.image.device
        age = f.amounts[:, 4:5]
        grey = _numbers(GREY_RGB, device)
        pigment = f.hair @ _numbers(HAIR_RGB, device)
        hair = torch.lerp(pigment, grey, GREY_SHARE * age)
        temples = torch.lerp(pigment, grey, TEMPLE_SHARE * age)
        tones = _numbers(SKIN_RGB, device)
        low = torch.lerp(tones[0], tones[1], (2 * f.skin).clamp(max=1).unsqueeze(1))
        skin = torch.lerp(low, tones[2].expand_as(low), (2 * f.skin - 1).clamp(min=0).unsqueeze(1))
        pale = skin.mean(1, keepdim=True) + _numbers([0.05, 0.02, 0.0], device)
        skin = torch.lerp(skin, pale, 0.3 * age)

        self._background()
        head = self._head()
        self._behind(hair, skin)
        self.paint(head, skin, "skin")
        self._wrinkles(head, skin)
        self._beard(head, 0.6 * hair)
        self._features(head, skin, hair)
        self._front_hair(hair, temples)
        self._eyeglasses(head)

    def _background(self) -> None:
        # Pale, so that hair and clothes stand out; darker towards the bottom.
        base = 0.42 + 0.38 * self.f.background
        shade = (0.12 * self.y).expand(len(self.f), self.image.shape[2], self.image.shape[3])
        self.image.copy_(base[:, :, None, None] - shade.unsqueeze(1))

    def _head(self) -> Tensor:
        """Coverage of the head; jowls widen its lower half with age."""
        head = self.cover(self.ellipse(0.0, HEAD_Y, HEAD_RX, HEAD_RY))
        age = self.amount(4)
        for side in (-1.0, 1.0):
            centre = side * 0.27 + 0.05 * self.turn
            jowl = self.ellipse(centre, 0.40, 0.08 + 0.13 * age, 0.10 + 0.11 * age)
            head = torch.maximum(head, self.cover(jowl))
        return head

    def _behind(self, hair: Tensor, skin: Tensor) -> None:
        long = self.amount(3)
        shift = -0.14 * self.turn
        # Long hair: a curtain that widens and falls to the shoulders; its length grows with the
        # amount.
        bottom = 0.05 + 0.85 * long
        width = 0.60 + 0.06 * (self.y + 0.3) * long
        curtain = torch.maximum(
            (self.x - shift).abs() - width, torch.maximum(-0.35 - self.y, self.y - bottom)
        )
        self.paint(self.cover(curtain) * (long * 4).clamp(max=1), 0.85 * hair, "hair")
        self.paint(self.cover(self.ellipse(shift, -0.12, 0.60, 0.60)), 0.85 * hair, "hair")
        shirt = (0.30, 0.38, 0.46)
        self.paint(self.cover(self.ellipse(0.0, 1.18, 0.62, 0.40)), shirt, "clothes")
        neck = torch.maximum(self.x.abs() - 0.20, torch.maximum(0.4 - self.y, self.y - 0.86))
        self.paint(self.cover(neck), 0.88 * skin, "neck")
        # Ears sit on the limb and slide behind the head on the far side.
        for side in (-1.0, 1.0):
            angle = side * math.radians(83) + self.yaw
            visible = self.cover(-(torch.cos(angle) + 0.35))
            ear = self.cover(self.ellipse(HEAD_RX * torch.sin(angle), 0.02, 0.09, 0.14)) * visible
            self.paint(ear, 0.92 * skin, "ear")

    def _beard(self, head: Tensor, color: Tensor) -> None:
        beard = self.amount(2)
        # Upper edge: level at the chin, up to the ears
        line = 0.26 - 0.55 * (self.u.abs() - 0.18).clamp(min=0)
        jaw = self.cover(line - self.y, torch.maximum(self.pixel, self.u_pixel * 0.5))
        moustache = self.spot(0.0, 0.245, 0.20, 0.055)
        self.paint(head * torch.maximum(jaw, moustache) * beard, color, "beard")

    def _features(self, head: Tensor, skin: Tensor, hair: Tensor) -> None:
        smile = self.amount(0)
        # Inner features end a little before the limb, where the wrapped coordinate diverges.
        front = head * self.cover(self.u.abs() - 1.25 * HEAD_RX)
        for side in (-1.0, 1.0):
            self.paint(
                front * self.spot(side * EYE_U, EYE_Y, 0.095, 0.065), (0.97, 0.97, 0.97), "eye"
            )
            self.paint(
                front * self.spot(side * EYE_U, EYE_Y, 0.048, 0.055), (0.10, 0.08, 0.10), "eye"
            )
            brow = self.y + 0.215 - 0.3 * (self.u - side * EYE_U) ** 2
            reach = self.cover((self.u - side * EYE_U).abs() - 0.12)
            self.paint(front * self.stroke(brow, 0.022, reach), 0.7 * hair, "eyebrow")
        tip = 1.16 * HEAD_RX * self.turn  # the nose stands out of the head
        self.paint(self.cover(self.ellipse(tip, 0.115, 0.055, 0.085)), 0.80 * skin, "nose")
        # The mouth: a level line that bends and opens into a white crescent.
        v = self.y - 0.36
        reach = 0.13 + 0.10 * smile
        bend = self.u**2 * (4.0 * smile) - 0.09 * smile
        within = self.cover(self.u.abs() - reach, self.u_pixel)
        lip = front * within
        self.paint(
            lip * self.cover((v + bend).abs() - (0.030 + 0.022 * smile)),
            (0.62, 0.16, 0.18),
            "mouth",
        )
        upper = -0.075 * smile + 0 * v
        lower = 0.085 * smile - 2.2 * smile * self.u**2
        teeth = torch.maximum(upper - v, v - lower)
        self.paint(lip * self.cover(teeth) * (2 * smile).clamp(max=1), (1.0, 0.99, 0.97), "mouth")

    def _wrinkles(self, head: Tensor, skin: Tensor) -> None:
        age = self.amount(4)
        bags = torch.zeros_like(head)
        for side in (-1.0, 1.0):
            below = self.spot(side * EYE_U, EYE_Y + 0.115, 0.105, 0.055)
            bags = torch.maximum(bags, below * self.cover(EYE_Y + 0.07 - self.y))
        self.paint(
            head * bags * 0.8 * age,
            skin * _numbers((0.66, 0.58, 0.66), skin.device),
            "skin",
        )

        lines = torch.zeros_like(head)
        for level in (-0.30, -0.385):
            forehead = self.y - level + 0.25 * self.u**2
            lines = torch.maximum(
                lines, self.stroke(forehead, 0.016, self.cover(self.u.abs() - 0.27))
            )
        for side in (-1.0, 1.0):
            fold = self.u - side * (0.15 + 0.42 * (self.y - 0.14))  # from the nose past the mouth
            lines = torch.maximum(
                lines, self.stroke(fold, 0.022, self.cover((self.y - 0.26).abs() - 0.14))
            )
            corner = side * self.u - EYE_U - 0.12  # how far beyond the outer corner of the eye
            reach = self.cover((corner - 0.05).abs() - 0.05, self.u_pixel)
            for slope in (-0.7, 0.7):
                foot = self.y - EYE_Y - slope * corner
                lines = torch.maximum(lines, self.stroke(foot, 0.014, reach))
        self.paint(head * lines * 0.85 * age, 0.52 * skin, "skin")

    def _front_hair(self, hair: Tensor, temples: Tensor) -> None:
        age = self.amount(4)
        shift = -0.06 * self.turn
        dome = self.cover(self.ellipse(shift, HEAD_Y - 0.02, HEAD_RX + 0.055, HEAD_RY + 0.065))
        hairline = -0.33 - 0.08 * torch.cos(2.6 * self.u) + 0.9 * (self.u.abs() - 0.42).clamp(min=0)
        front = dome * self.cover(self.y - hairline + 0.09 * age)
        self.paint(front, hair, "hair")
        self.paint(
            front * self.cover(0.46 - self.u.abs()) * self.cover(-0.30 - self.y), temples, "hair"
        )
        # Locks in front of the ears, as long as the hair.
        long = self.amount(3)
        lock = torch.maximum((self.x - shift).abs() - 0.60, 0.435 - (self.x - shift).abs())
        lock = torch.maximum(lock, torch.maximum(-0.25 - self.y, self.y - (0.75 * long - 0.1)))
        self.paint(self.cover(lock) * (long * 3).clamp(max=1), hair, "hair")

    def _eyeglasses(self, head: Tensor) -> None:
        glasses = self.amount(1)
        front = head * self.cover(self.u.abs() - 1.3 * HEAD_RX)
        rim = torch.zeros_like(head)
        lens = torch.zeros_like(head)
        for side in (-1.0, 1.0):
            outer = self.spot(side * EYE_U, EYE_Y, 0.175, 0.150)
            inner = self.spot(side * EYE_U, EYE_Y, 0.120, 0.098)
            rim = torch.maximum(rim, outer - inner)
            lens = torch.maximum(lens, inner)
        # Arms run from the lenses to the ears, on the surface of the head.
        arms = self.stroke(self.y - EYE_Y, 0.026, self.cover(0.37 - self.u.abs()))
        bridge = self.stroke(self.y - EYE_Y, 0.026, self.cover(self.u.abs() - 0.05))
        # Lenses are tinted and transparent.
        self.paint(front * lens * 0.22 * glasses, (0.45, 0.60, 0.80), "glasses")
        frame = torch.maximum(rim, torch.maximum(arms, bridge))
        self.paint(front * frame * glasses, (0.06, 0.05, 0.10), "glasses")
