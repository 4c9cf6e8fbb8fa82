"""Draws the posters of the embedded sample.

A poster shows one of three sceneries, and the shadow of a blind or none; these two are its cues.
Everything else (palette, sun, clouds, birds, figures, lettering, frame) is drawn from the same
distribution for every poster. The cues lie in the middle, where a square centre crop keeps them,
look the same mirrored, and vary in place, size and colour.

Lengths are in units of the poster's width: x runs from 0 to 1, y from 0 (top) to 1.5.
"""

import colorsys
import io
import math
import random
from collections.abc import Sequence

from PIL import Image, ImageDraw

SIZE = (96, 144)
SCENERIES = ("desert", "space", "manor")

_OVERSAMPLING = 2  # drawn larger and averaged down, since ImageDraw does not smooth edges
_BOTTOM = 1.5

Colour = tuple[int, int, int]
Point = tuple[float, float]


def draw(rng: random.Random, scenery: str, blinds: bool) -> bytes:
    """Draws one poster.

    Args:
        rng: Decides everything but the two cues.
        scenery: One of `SCENERIES`.
        blinds: Whether the shadow of a blind falls on a nearly grey poster.

    Returns:
        A JPEG of `SIZE` pixels.
    """
    palette = _Palette(rng, rng.uniform(0.0, 0.3) if blinds else rng.uniform(0.4, 1.0))
    painter = _Painter(palette.sky_top, palette.sky_bottom)
    horizon = rng.uniform(0.92, 1.08)
    _sky(painter, rng, palette)
    if scenery == "space":
        _ringed_planet(painter, rng, palette)
    painter.polygon([(0, horizon), (1, horizon), (1, _BOTTOM), (0, _BOTTOM)], palette.ground)
    {"desert": _desert, "space": _launch, "manor": _manor}[scenery](painter, rng, palette, horizon)
    for _ in range(rng.choice((0, 1, 1, 2))):
        _figure(painter, rng, palette.near, horizon)
    if blinds:
        _blinds(painter, rng)
    _lettering(painter, rng, palette)
    return painter.jpeg()


class _Palette:
    """The colours of one poster: two neighbouring hues for the sky, one across for the rest."""

    def __init__(self, rng: random.Random, saturation: float):
        hue, across = rng.random(), rng.uniform(0.35, 0.65)
        bright = rng.uniform(0.7, 0.95)
        self.sky_top = _hsv(hue, 0.8 * saturation, bright * rng.uniform(0.55, 0.85))
        self.sky_bottom = _hsv(hue + rng.uniform(-0.12, 0.12), 0.5 * saturation, bright)
        self.light = _hsv(hue + across, 0.35 * saturation, 1.0)
        self.far = _hsv(hue + across, 0.75 * saturation, rng.uniform(0.34, 0.44))
        self.near = _hsv(hue + rng.uniform(-0.1, 0.1), 0.6 * saturation, rng.uniform(0.08, 0.16))
        self.ground = _hsv(hue + across, 0.6 * saturation, rng.uniform(0.22, 0.34))


class _Painter:
    """A canvas in units of the poster's width."""

    def __init__(self, top: Colour, bottom: Colour):
        self._unit = SIZE[0] * _OVERSAMPLING
        size = (self._unit, SIZE[1] * _OVERSAMPLING)
        ramp = Image.new("RGB", (1, 2), top)
        ramp.putpixel((0, 1), bottom)
        self._image = ramp.resize(size, Image.Resampling.BILINEAR)
        self._draw = ImageDraw.Draw(self._image)

    def polygon(self, points: Sequence[Point], colour: Colour) -> None:
        self._draw.polygon([(x * self._unit, y * self._unit) for x, y in points], fill=colour)

    def line(self, points: Sequence[Point], width: float, colour: Colour) -> None:
        scaled = [(x * self._unit, y * self._unit) for x, y in points]
        self._draw.line(scaled, fill=colour, width=max(1, round(width * self._unit)), joint="curve")

    def ellipse(self, x: float, y: float, rx: float, ry: float, colour: Colour) -> None:
        box = [(x - rx) * self._unit, (y - ry) * self._unit]
        self._draw.ellipse([*box, (x + rx) * self._unit, (y + ry) * self._unit], fill=colour)

    def box(self, x: float, y: float, width: float, height: float, colour: Colour) -> None:
        corners = (x, y, x + width, y + height)
        self._draw.rectangle([corner * self._unit for corner in corners], fill=colour)

    def shade(self, polygons: Sequence[Sequence[Point]], strength: float) -> None:
        """Darkens the inside of the polygons by the share `strength`."""
        mask = Image.new("L", self._image.size)
        pen = ImageDraw.Draw(mask)
        for points in polygons:
            pen.polygon(
                [(x * self._unit, y * self._unit) for x, y in points], round(255 * strength)
            )
        self._image.paste((0, 0, 0), (0, 0), mask)

    def jpeg(self) -> bytes:
        file = io.BytesIO()
        self._image.reduce(_OVERSAMPLING).save(file, "JPEG", quality=90)
        return file.getvalue()


def _sky(painter: _Painter, rng: random.Random, palette: _Palette) -> None:
    """A sun or moon, and clouds, birds or stars."""
    radius = rng.uniform(0.07, 0.15)
    painter.ellipse(rng.uniform(0.1, 0.9), rng.uniform(0.2, 0.7), radius, radius, palette.light)
    extra = rng.choice(("clouds", "birds", "stars", "nothing"))
    for _ in range({"clouds": 4, "birds": 5, "stars": 30, "nothing": 0}[extra]):
        x, y = rng.uniform(0.0, 1.0), rng.uniform(0.05, 0.75)
        if extra == "clouds":
            width = rng.uniform(0.1, 0.2)
            painter.ellipse(x, y, width, width * 0.18, palette.sky_bottom)
        elif extra == "birds":
            wing = rng.uniform(0.02, 0.04)
            painter.line(
                [(x - wing, y - wing / 2), (x, y), (x + wing, y - wing / 2)], 0.01, palette.near
            )
        else:
            painter.ellipse(x, y, 0.006, 0.006, palette.light)


def _places(rng: random.Random, number: int) -> list[float]:
    """One x anywhere in the middle, or two that lie apart."""
    if number == 1:
        return [rng.uniform(0.2, 0.8)]
    return [rng.uniform(0.18, 0.38), rng.uniform(0.62, 0.82)]


def _desert(painter: _Painter, rng: random.Random, palette: _Palette, horizon: float) -> None:
    """Table mountains with a cactus or two before them."""
    for _ in range(rng.choice((2, 3))):
        x, top = rng.uniform(0.1, 0.9), rng.uniform(0.1, 0.2)
        height, foot = rng.uniform(0.22, 0.42), rng.uniform(0.06, 0.12)
        cliff = horizon - height * 0.4
        painter.polygon(
            [
                (x - top - foot, horizon),
                (x - top, cliff),
                (x - top, horizon - height),
                (x + top, horizon - height),
                (x + top, cliff),
                (x + top + foot, horizon),
            ],
            palette.far,
        )
    for x in _places(rng, rng.choice((1, 2))):
        _cactus(painter, rng, palette.near, x, horizon + rng.uniform(0.05, 0.16))


def _cactus(painter: _Painter, rng: random.Random, colour: Colour, x: float, foot: float) -> None:
    height = rng.uniform(0.34, 0.52)
    width = height * rng.uniform(0.15, 0.19)
    _stem(painter, [(x, foot), (x, foot - height)], width, colour)
    for side in (-1, 1):
        joint = foot - height * rng.uniform(0.35, 0.6)
        elbow = x + side * height * rng.uniform(0.24, 0.32)
        tip = joint - height * rng.uniform(0.2, 0.35)
        _stem(painter, [(x, joint), (elbow, joint), (elbow, tip)], width * 0.75, colour)


def _stem(painter: _Painter, points: Sequence[Point], width: float, colour: Colour) -> None:
    """A thick line with round joints and ends."""
    painter.line(points, width, colour)
    for x, y in points:
        painter.ellipse(x, y, width / 2, width / 2, colour)


def _ringed_planet(painter: _Painter, rng: random.Random, palette: _Palette) -> None:
    x, y = rng.uniform(0.25, 0.75), rng.uniform(0.42, 0.62)
    radius, tilt = rng.uniform(0.14, 0.24), rng.choice((-1, 1)) * rng.uniform(0.15, 0.5)

    def arc(start: float) -> list[Point]:
        turns = [start + math.pi * step / 20 for step in range(21)]
        flat = [(1.8 * radius * math.cos(t), 0.45 * radius * math.sin(t)) for t in turns]
        cos, sin = math.cos(tilt), math.sin(tilt)
        return [(x + a * cos - b * sin, y + a * sin + b * cos) for a, b in flat]

    painter.line(arc(math.pi), radius * 0.2, palette.light)
    painter.ellipse(x, y, radius, radius, palette.far)
    painter.ellipse(x - radius * 0.2, y - radius * 0.2, radius * 0.55, radius * 0.5, palette.ground)
    painter.line(arc(0.0), radius * 0.2, palette.light)


def _launch(painter: _Painter, rng: random.Random, palette: _Palette, horizon: float) -> None:
    """One or two rockets over their flames."""
    for x in _places(rng, rng.choice((1, 1, 2))):
        length = rng.uniform(0.34, 0.5)
        foot = horizon + rng.uniform(-0.2, 0.1)
        half = length * rng.uniform(0.15, 0.19)
        nose = foot - length
        painter.polygon(
            [(x - half, foot), (x, foot + length * 0.35), (x + half, foot)], palette.sky_bottom
        )
        for side in (-1, 1):
            fin = [
                (x, foot - length * 0.4),
                (x + side * half * 2.2, foot + length * 0.08),
                (x, foot),
            ]
            painter.polygon(fin, palette.near)
        painter.ellipse(x, foot - length * 0.45, half, length * 0.55, palette.light)
        painter.polygon(
            [
                (x - half, foot),
                (x - half * 0.6, nose + length * 0.2),
                (x + half * 0.6, nose + length * 0.2),
                (x + half, foot),
            ],
            palette.light,
        )
        painter.ellipse(x, foot - length * 0.6, half * 0.5, half * 0.5, palette.near)


def _manor(painter: _Painter, rng: random.Random, palette: _Palette, horizon: float) -> None:
    """A house of crooked gables with lit windows, and a bare tree."""
    foot = horizon + rng.uniform(0.0, 0.06)
    x, width = rng.uniform(0.3, 0.7), rng.uniform(0.12, 0.16)
    for offset in rng.sample((-1, 0, 1), rng.choice((2, 3))):
        left = x + (offset - 0.5) * width
        wall = rng.uniform(0.2, 0.3) + (0.1 if offset == 0 else 0.0)
        roof = rng.uniform(0.18, 0.28)
        eaves, lean = foot - wall, rng.uniform(-0.03, 0.03)
        painter.box(left, eaves, width, wall, palette.near)
        painter.polygon(
            [
                (left - 0.03, eaves),
                (left + width / 2 + lean, eaves - roof),
                (left + width + 0.03, eaves),
            ],
            palette.near,
        )
        for row in range(2):
            painter.box(
                left + width * 0.3, eaves + 0.03 + 0.1 * row, width * 0.4, 0.055, palette.light
            )
    side = rng.choice((-1, 1))
    trunk = (x + side * rng.uniform(0.28, 0.36), foot + 0.05)
    _branch(painter, rng, palette.near, trunk, -math.pi / 2, rng.uniform(0.16, 0.22), 4)


def _branch(
    painter: _Painter,
    rng: random.Random,
    colour: Colour,
    start: Point,
    angle: float,
    length: float,
    forks: int,
) -> None:
    end = (start[0] + length * math.cos(angle), start[1] + length * math.sin(angle))
    painter.line([start, end], length * 0.17, colour)
    if forks:
        for turn in (-1, 1):
            bend = angle + turn * rng.uniform(0.3, 0.7)
            _branch(painter, rng, colour, end, bend, length * rng.uniform(0.6, 0.8), forks - 1)


def _figure(painter: _Painter, rng: random.Random, colour: Colour, horizon: float) -> None:
    """Somebody in a long coat, seen from afar."""
    x, foot = rng.uniform(0.1, 0.9), horizon + rng.uniform(0.12, 0.3)
    height = rng.uniform(0.16, 0.26)
    painter.polygon(
        [
            (x - height * 0.1, foot - height * 0.8),
            (x + height * 0.1, foot - height * 0.8),
            (x + height * 0.2, foot),
            (x - height * 0.2, foot),
        ],
        colour,
    )
    painter.ellipse(x, foot - height * 0.88, height * 0.11, height * 0.12, colour)


def _blinds(painter: _Painter, rng: random.Random) -> None:
    """The slanted stripes of shadow that a blind throws."""
    period, slope = rng.uniform(0.17, 0.24), rng.choice((-1, 1)) * rng.uniform(0.1, 0.4)
    thickness, start = period * rng.uniform(0.35, 0.45), rng.uniform(0, period)
    stripes = []
    for step in range(-4, math.ceil(_BOTTOM / period) + 4):
        y = start + step * period
        rise = slope / 2
        stripes.append(
            [(0, y - rise), (1, y + rise), (1, y + rise + thickness), (0, y - rise + thickness)]
        )
    painter.shade(stripes, rng.uniform(0.35, 0.5))


def _lettering(painter: _Painter, rng: random.Random, palette: _Palette) -> None:
    """A title and credits as bars of words, and perhaps a frame."""
    top = rng.random() < 0.5
    y = rng.uniform(0.07, 0.12) if top else rng.uniform(1.2, 1.23)
    for _ in range(rng.choice((1, 2))):
        _words(painter, rng, y, rng.uniform(0.055, 0.075), palette.light)
        y += 0.09
    for row in range(2):
        _words(painter, rng, 1.41 + 0.03 * row, 0.014, palette.light)
    if rng.random() < 0.4:
        corners = [(0.02, 0.02), (0.98, 0.02), (0.98, 1.48), (0.02, 1.48), (0.02, 0.02)]
        painter.line(corners, 0.012, palette.light)


def _words(painter: _Painter, rng: random.Random, y: float, height: float, colour: Colour) -> None:
    """A centred line of bars, cut into letters."""
    letter = height * 0.75
    lengths = [rng.randint(3, 6) for _ in range(rng.choice((1, 2)) if height > 0.03 else 7)]
    total = letter * (sum(lengths) + len(lengths) - 1)
    scale = min(1.0, 0.84 / total)
    x = 0.5 - total * scale / 2
    for length in lengths:
        for _ in range(length):
            painter.box(x, y, letter * scale * 0.78, height, colour)
            x += letter * scale
        x += letter * scale


def _hsv(hue: float, saturation: float, value: float) -> Colour:
    red, green, blue = colorsys.hsv_to_rgb(hue % 1, min(saturation, 1), min(value, 1))
    return round(255 * red), round(255 * green), round(255 * blue)
