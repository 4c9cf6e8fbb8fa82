"""When two texts or two pictures are the same, and when two pictures are nearly so."""

import hashlib
import itertools
import re
import unicodedata

import numpy as np
from PIL import Image

_BITS = 64
_SIDE = 32  # of the grey picture that is transformed
_KEPT = 8  # frequencies along each side
_FLAT = 2.0  # grey levels; a picture that varies less has no likeness to tell

_APART = re.compile(r"[\W_]+")


def normalised(text: str) -> str:
    """A text without case, accents and punctuation, with single spaces."""
    if not text.isascii():
        parts = unicodedata.normalize("NFKD", text)
        text = "".join(c for c in parts if not unicodedata.combining(c))
    return _APART.sub(" ", text.casefold()).strip()


def digest(image: Image.Image) -> str:
    """What two RGB pictures share only if their pixels are the same: the SHA-256 of these."""
    size = f"{image.width} {image.height} ".encode()
    return hashlib.sha256(size + image.tobytes()).hexdigest()


def perceptual_hash(image: Image.Image) -> int | None:
    """64 bits that hardly change when a picture is scaled, compressed or lightened a little.

    The picture is made grey and 32 x 32; of its cosine transform the 8 x 8 lowest frequencies along
    both sides but the constants are compared with their median ("pHash": C. Zauner, Implementation
    and Benchmarking of Perceptual Image Hash Functions, 2010).

    Returns:
        The bits as a number; None for a picture of a single colour, whose bits would be noise.
    """
    grey = image.convert("L").resize((_SIDE, _SIDE), Image.Resampling.BILINEAR)
    pixels = np.asarray(grey, np.float64)
    if pixels.std() < _FLAT:
        return None
    frequencies = _COSINES @ pixels @ _COSINES.T
    bits = np.packbits(frequencies > np.median(frequencies))
    return int.from_bytes(bits.tobytes())


def near_pairs(hashes: np.ndarray, distance: int) -> np.ndarray:
    """All pairs of hashes that differ in `distance` bits or fewer: int64 [P, 2], the lower first.

    The bits are cut into `distance + 2` bands. So few differing bits leave two bands or more as
    they are, so only hashes that agree in two bands are compared (the pigeonhole search of G.S.
    Manku et al., Detecting near-duplicates for web crawling, WWW 2007): not all pairs.

    Args:
        hashes: uint64 [n], all different.
        distance: How many bits.
    """
    edges = np.linspace(0, _BITS, distance + 3).astype(np.uint64).tolist()
    bands = [
        (hashes >> np.uint64(low)) & np.uint64((1 << (high - low)) - 1)
        for low, high in itertools.pairwise(edges)
    ]
    found = [np.zeros((0, 2), np.int64)]
    for one, other in itertools.combinations(bands, 2):
        key = one << np.uint64(_BITS // 2) | other
        order = np.argsort(key, kind="stable")
        key, ordered = key[order], hashes[order]
        # Equal keys stand side by side: first neighbours are compared, then the next but one, ...
        first, step = np.arange(len(key)), 1
        while True:
            first = first[: np.searchsorted(first, len(key) - step)]
            first = first[key[first] == key[first + step]]
            if not len(first):
                break
            differing = np.bitwise_count(ordered[first] ^ ordered[first + step])
            close = first[differing <= distance]
            found.append(np.stack([order[close], order[close + step]], axis=1))
            step += 1
    return np.unique(np.sort(np.concatenate(found), axis=1), axis=0)


def _cosines() -> np.ndarray:
    """Rows 1 to 8 of the type II discrete cosine transform, but for their scale: [8, 32]."""
    frequency, place = np.arange(1, _KEPT + 1)[:, None], np.arange(_SIDE)[None]
    return np.cos(np.pi * frequency * (place + 0.5) / _SIDE)


_COSINES = _cosines()
