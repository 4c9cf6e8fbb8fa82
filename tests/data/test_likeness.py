import io
import itertools

import numpy as np
import pytest
from PIL import Image, ImageDraw

from jfusion.data import likeness


def scene(seed=0, size=96):
    """A picture of some coloured shapes on white."""
    rng = np.random.default_rng(seed)
    canvas = Image.new("RGB", (size, size), "white")
    pen = ImageDraw.Draw(canvas)
    for _ in range(6):
        left, top = rng.integers(0, size * 3 // 4, 2).tolist()
        width, height = rng.integers(size // 8, size // 2, 2).tolist()
        draw = pen.ellipse if rng.random() < 0.5 else pen.rectangle
        colour = tuple(rng.integers(0, 230, 3).tolist())
        draw((left, top, left + width, top + height), fill=colour)
    return canvas


def jpeg(image, quality):
    file = io.BytesIO()
    image.save(file, "JPEG", quality=quality)
    return Image.open(file).convert("RGB")


def distance(one, other):
    return (likeness.perceptual_hash(one) ^ likeness.perceptual_hash(other)).bit_count()


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("Étui en cuir, NOIR!", "etui  en cuir noir"),
        ("L'été_indien", "l ete indien"),
        ("STRASSE", "straße"),
        ("ﬁgurine №5", "figurine no5"),
        ("日本語", " 日本語。"),
    ],
)
def test_texts_are_the_same_but_for_case_accents_and_punctuation(one, other):
    assert likeness.normalised(one) == likeness.normalised(other) != ""


def test_other_texts_stay_others():
    texts = ["lot de 2", "lot de 3", "lot de2", "été", "ét", "a b", "ab"]
    assert len({likeness.normalised(text) for text in texts}) == len(texts)
    assert likeness.normalised("?! …") == ""


def test_digests_are_those_of_pixels_and_shape():
    image = scene()
    file = io.BytesIO()
    image.save(file, "PNG", compress_level=1)
    assert likeness.digest(Image.open(file)) == likeness.digest(image)
    other = image.copy()
    other.putpixel((3, 3), (1, 2, 3))
    assert likeness.digest(other) != likeness.digest(image)
    wide, high = Image.new("RGB", (8, 2)), Image.new("RGB", (2, 8))
    assert likeness.digest(wide) != likeness.digest(high)


@pytest.mark.parametrize("seed", range(8))
def test_scaled_compressed_and_lightened_pictures_are_near(seed):
    image = scene(seed)
    for other in (
        *(jpeg(image, quality) for quality in (30, 60, 95)),
        image.resize((50, 50), Image.Resampling.BICUBIC),
        image.resize((192, 192), Image.Resampling.BICUBIC),
        image.point(lambda value: min(255, value + 12)),
    ):
        assert distance(image, other) <= 4


def test_other_pictures_are_far():
    hashes = [likeness.perceptual_hash(scene(seed)) for seed in range(60)]
    distances = [(a ^ b).bit_count() for a, b in itertools.combinations(hashes, 2)]
    assert min(distances) > 8
    assert distance(scene(), scene().rotate(90)) > 8
    assert distance(scene(), scene().transpose(Image.Transpose.FLIP_LEFT_RIGHT)) > 8


def test_plain_pictures_have_no_hash():
    for colour in ("white", "black", (250, 250, 249)):
        assert likeness.perceptual_hash(Image.new("RGB", (40, 40), colour)) is None
    assert likeness.perceptual_hash(scene()) is not None


def test_the_hash_is_the_sign_of_low_frequencies():
    # A single cosine of the lowest frequency along both sides: the bit of it stands out.
    wave = np.cos(np.pi * (np.arange(32) + 0.5) / 32)
    image = Image.fromarray((128 + 100 * wave[:, None] * wave[None]).astype(np.uint8))
    assert likeness.perceptual_hash(image) >> 63 == 1
    assert likeness.perceptual_hash(Image.fromarray(255 - np.asarray(image))) >> 63 == 0


@pytest.mark.parametrize("most", [0, 1, 4, 6])
def test_near_pairs_are_those_of_a_search_through_all(most):
    rng = np.random.default_rng(most)
    seeds = rng.integers(0, 2**64, 40, np.uint64)
    hashes = [seeds]
    for flips in range(8):  # each seed with some bits turned over
        bits = np.array([rng.permutation(64)[:flips] for _ in seeds], np.uint64)
        hashes.append(seeds ^ np.bitwise_or.reduce(np.uint64(1) << bits, axis=1))
    hashes = np.unique(np.concatenate(hashes))
    differing = np.bitwise_count(hashes[:, None] ^ hashes[None])
    expected = np.argwhere(np.triu(differing <= most, k=1))
    np.testing.assert_array_equal(likeness.near_pairs(hashes, most), expected)
    assert bool(len(expected)) == (most > 0)


def test_few_pairs_are_looked_at(monkeypatch):
    compared = []
    count = np.bitwise_count
    monkeypatch.setattr(np, "bitwise_count", lambda x: compared.append(len(x)) or count(x))
    hashes = np.unique(np.random.default_rng(0).integers(0, 2**64, 20_000, np.uint64))
    assert len(likeness.near_pairs(hashes, 4)) == 0
    assert sum(compared) < 20_000


@pytest.mark.parametrize("hashes", [[], [7]])
def test_too_few_hashes_have_no_pairs(hashes):
    assert likeness.near_pairs(np.array(hashes, np.uint64), 4).shape == (0, 2)
