"""Draws the pictures of the embedded sample of product listings.

A picture shows one of five objects, or only some packing (a carton, an envelope or a disc), which
does not tell what is sold. Everything else (colours, place, size, tilt, shadow, background, badge)
is drawn from the same distribution for every picture. The object lies in the middle, where a
square centre crop keeps it, and may be mirrored.

Lengths are in units of half the object's height: x and y run from -1 to 1, y downwards.
"""

import colorsys
import io
import math
import random
from collections.abc import Sequence

from PIL import Image, ImageDraw

SIZE = (80, 80)
OBJECTS = ("lamp", "chair", "mug", "bottle", "bag")

_PACKING = ("carton", "envelope", "disc")
_OVERSAMPLING = 2  # drawn larger and averaged down, since ImageDraw does not smooth edges
_ROUND = 24  # corners of what is drawn for a circle

Colour = tuple[int, int, int]
Point = tuple[float, float]


def draw(rng: random.Random, shown: str | None) -> bytes:
    """Draws one picture.

    Args:
        rng: Decides everything but the object.
        shown: One of `OBJECTS`, or None: only packing is to be seen.

    Returns:
        A JPEG of `SIZE` pixels.
    """
    packing = rng.choice(_PACKING)
    painter = _Painter(rng)
    _DRAW[shown or packing](painter, rng)
    painter.badge(rng)
    return painter.jpeg()


class _Painter:
    """A canvas with one tilted and scaled object on it."""

    def __init__(self, rng: random.Random):
        side = SIZE[0] * _OVERSAMPLING
        hue, bright = rng.random(), rng.uniform(0.9, 1.0)
        self._image = Image.new("RGB", (side, side), _hsv(hue, rng.uniform(0, 0.08), bright))
        self._draw = ImageDraw.Draw(self._image)
        self._side = side
        self._scale = side * rng.uniform(0.24, 0.32)
        self._x, self._y = (side * rng.uniform(0.44, 0.56) for _ in range(2))
        tilt = rng.uniform(-0.3, 0.3)
        self._cos, self._sin = math.cos(tilt), math.sin(tilt)
        self._mirror = rng.choice((-1, 1))
        hue, saturation = rng.random(), rng.uniform(0.2, 0.9)
        self.dark = _hsv(hue, saturation, rng.uniform(0.15, 0.35))
        self.main = _hsv(hue, saturation, rng.uniform(0.4, 0.75))
        self.light = _hsv(hue, saturation * 0.5, rng.uniform(0.78, 0.9))
        width, height = side * rng.uniform(0.18, 0.28), side * rng.uniform(0.02, 0.04)
        foot = self._y + self._scale * 1.1
        shadow = [self._x - width, foot - height, self._x + width, foot + height]
        self._draw.ellipse(shadow, fill=_hsv(0, 0, bright - rng.uniform(0.06, 0.2)))

    def polygon(self, points: Sequence[Point], colour: Colour) -> None:
        self._draw.polygon([self._place(x, y) for x, y in points], fill=colour)

    def box(self, left: float, top: float, right: float, bottom: float, colour: Colour) -> None:
        self.polygon([(left, top), (right, top), (right, bottom), (left, bottom)], colour)

    def line(self, points: Sequence[Point], width: float, colour: Colour) -> None:
        placed = [self._place(x, y) for x, y in points]
        thick = max(1, round(width * self._scale))
        self._draw.line(placed, fill=colour, width=thick, joint="curve")

    def ellipse(self, x: float, y: float, rx: float, ry: float, colour: Colour) -> None:
        self.polygon(_ring(x, y, rx, ry), colour)

    def ring(self, x: float, y: float, rx: float, ry: float, width: float, colour: Colour) -> None:
        points = _ring(x, y, rx, ry)
        self.line([*points, *points[:2]], width, colour)

    def badge(self, rng: random.Random) -> None:
        """A round sticker in a corner, on some pictures."""
        radius = self._side * rng.uniform(0.06, 0.1)
        x, y = (rng.choice((radius, self._side - radius)) for _ in range(2))
        colour = _hsv(rng.random(), 0.8, 0.9)
        if rng.random() < 0.3:
            self._draw.ellipse([x - radius, y - radius, x + radius, y + radius], fill=colour)

    def jpeg(self) -> bytes:
        file = io.BytesIO()
        self._image.reduce(_OVERSAMPLING).save(file, "JPEG", quality=90)
        return file.getvalue()

    def _place(self, x: float, y: float) -> Point:
        x *= self._mirror
        return (
            self._x + self._scale * (x * self._cos - y * self._sin),
            self._y + self._scale * (x * self._sin + y * self._cos),
        )


def _lamp(painter: _Painter, rng: random.Random) -> None:
    """A shade on a thin stem with a foot."""
    top, bottom = rng.uniform(0.2, 0.35), rng.uniform(0.6, 0.8)
    edge = rng.uniform(-0.2, 0.0)
    painter.line([(0, edge), (0, 0.95)], rng.uniform(0.08, 0.14), painter.dark)
    painter.polygon([(-top, -1), (top, -1), (bottom, edge), (-bottom, edge)], painter.main)
    painter.line([(-bottom, edge), (bottom, edge)], 0.06, painter.light)
    foot = rng.uniform(0.3, 0.45)
    painter.ellipse(0, 0.93, foot, 0.1, painter.dark)


def _chair(painter: _Painter, rng: random.Random) -> None:
    """Four legs, a seat, and a back on one side."""
    half, seat = rng.uniform(0.45, 0.6), rng.uniform(0.05, 0.2)
    leg = rng.uniform(0.09, 0.14)
    painter.line([(-half, -1), (-half, 1)], leg, painter.dark)
    painter.line([(half, seat), (half, 1)], leg, painter.dark)
    for x in (-0.4 * half, 0.5 * half):
        painter.line([(x, seat), (x, 0.85)], leg, painter.main)
    painter.box(-half, seat, half + 0.06, seat + rng.uniform(0.14, 0.2), painter.main)
    painter.box(-half - 0.05, -1, -half + rng.uniform(0.1, 0.2), seat, painter.main)


def _mug(painter: _Painter, rng: random.Random) -> None:
    """A wide cup with an ear."""
    half, top = rng.uniform(0.5, 0.62), rng.uniform(-0.75, -0.6)
    ear = rng.uniform(0.26, 0.36)
    painter.ring(half, 0.05, ear, ear * 1.3, 0.13, painter.dark)
    painter.box(-half, top, half, 0.8, painter.main)
    painter.ellipse(0, 0.8, half, 0.16, painter.main)
    painter.ellipse(0, top, half, 0.16, painter.light)
    painter.ellipse(0, top + 0.03, half * 0.82, 0.11, painter.dark)


def _bottle(painter: _Painter, rng: random.Random) -> None:
    """A belly, shoulders, and a neck with a cap."""
    belly, neck = rng.uniform(0.3, 0.42), rng.uniform(0.1, 0.15)
    shoulder = rng.uniform(-0.35, -0.15)
    painter.polygon(
        [
            *((-belly, 1), (-belly, shoulder), (-neck, shoulder - 0.3), (-neck, -0.9)),
            *((neck, -0.9), (neck, shoulder - 0.3), (belly, shoulder), (belly, 1)),
        ],
        painter.main,
    )
    painter.box(-neck - 0.04, -1, neck + 0.04, -0.82, painter.dark)
    label = rng.uniform(0.05, 0.2)
    painter.box(-belly, label, belly, label + rng.uniform(0.35, 0.5), painter.light)


def _bag(painter: _Painter, rng: random.Random) -> None:
    """A body, wider below, under a high handle."""
    top, bottom = rng.uniform(0.5, 0.6), rng.uniform(0.7, 0.85)
    rim = rng.uniform(-0.25, -0.1)
    handle = rng.uniform(0.28, 0.36)
    painter.ring(0, rim, handle, -1 - rim, 0.11, painter.dark)
    painter.polygon([(-top, rim), (top, rim), (bottom, 1), (-bottom, 1)], painter.main)
    painter.polygon(
        [(-top, rim), (top, rim), (top * 0.8, rim + 0.45), (-top * 0.8, rim + 0.45)], painter.light
    )
    painter.ellipse(0, rim + 0.45, 0.09, 0.09, painter.dark)


def _carton(painter: _Painter, rng: random.Random) -> None:
    """A box seen from a corner."""
    half, lid = rng.uniform(0.7, 0.85), rng.uniform(0.25, 0.4)
    painter.polygon([(-half, -lid), (0, 0), (0, 1), (-half, 1 - lid)], painter.main)
    painter.polygon([(half, -lid), (0, 0), (0, 1), (half, 1 - lid)], painter.dark)
    painter.polygon([(-half, -lid), (0, 0), (half, -lid), (0, -2 * lid)], painter.light)


def _envelope(painter: _Painter, rng: random.Random) -> None:
    """A rectangle with a flap."""
    height, flap = rng.uniform(0.55, 0.7), rng.uniform(-0.1, 0.15)
    painter.box(-1, -height, 1, height, painter.light)
    edge = [(-1, -height), (0, flap), (1, -height)]
    painter.line(edge, 0.08, painter.dark)
    painter.line([(-1, height), (-0.3, flap - 0.1)], 0.05, painter.main)
    painter.line([(1, height), (0.3, flap - 0.1)], 0.05, painter.main)


def _disc(painter: _Painter, rng: random.Random) -> None:
    """A disc with a hole."""
    radius = rng.uniform(0.8, 0.95)
    painter.ellipse(0, 0, radius, radius, painter.main)
    painter.ring(0, 0, radius * 0.8, radius * 0.8, 0.05, painter.light)
    painter.ellipse(0, 0, radius * 0.35, radius * 0.35, painter.light)
    painter.ellipse(0, 0, radius * 0.12, radius * 0.12, painter.dark)


_DRAW = {
    "lamp": _lamp,
    "chair": _chair,
    "mug": _mug,
    "bottle": _bottle,
    "bag": _bag,
    "carton": _carton,
    "envelope": _envelope,
    "disc": _disc,
}


def _ring(x: float, y: float, rx: float, ry: float) -> list[Point]:
    """The corners of a polygon that looks like an ellipse."""
    turns = [2 * math.pi * step / _ROUND for step in range(_ROUND)]
    return [(x + rx * math.cos(turn), y + ry * math.sin(turn)) for turn in turns]


def _hsv(hue: float, saturation: float, value: float) -> Colour:
    red, green, blue = colorsys.hsv_to_rgb(hue % 1, min(saturation, 1), min(value, 1))
    return round(255 * red), round(255 * green), round(255 * blue)
