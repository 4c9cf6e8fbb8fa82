import io
import os
import re

import numpy as np
import pytest
from PIL import Image, ImageDraw

from jfusion.data import image as image_module
from jfusion.data.image import ImageInput
from tests.standins.tables import bomb


def picture(width=96, height=64, mode="RGB"):
    """A smooth picture whose corners differ."""
    canvas = Image.new("RGB", (width, height), (40, 90, 160))
    draw = ImageDraw.Draw(canvas)
    draw.rectangle((0, 0, width // 2, height // 2), fill=(230, 60, 40))
    draw.ellipse((width // 3, height // 3, width - 2, height - 2), fill=(250, 240, 90))
    return canvas.convert(mode)


def encoded(image, kind="PNG", **options):
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def decode(cell, root=None, **options):
    made = ImageInput("poster", **{"size": 32, **options}).encode([cell], root)
    assert not made.bad, made.bad
    return made.arrays["pixels"][0].astype(int)


def reason(cell, root=None, **options):
    made = ImageInput("poster", size=32, **options).encode([encoded(picture()), cell], root)
    assert not made.arrays["pixels"][1].any()
    assert made.arrays["pixels"][0].any()
    assert set(made.bad) == {1}
    return made.bad[1]


@pytest.mark.parametrize("shape", [(96, 64), (64, 97), (57, 57), (33, 200), (20, 10)])
@pytest.mark.parametrize("crop", [0.875, 1.0, 0.5])
def test_resize_and_crop_are_those_of_timm_and_torchvision(shape, crop):
    whole = picture(*shape)
    short, long = int(32 / crop), int(int(32 / crop) * max(shape) / min(shape))
    scaled = (short, long) if shape[0] < shape[1] else (long, short)
    resized = whole.resize(scaled, Image.Resampling.BICUBIC)
    left, top = round((scaled[0] - 32) / 2), round((scaled[1] - 32) / 2)
    expected = np.asarray(resized.crop((left, top, left + 32, top + 32)), int)
    difference = np.abs(decode(encoded(whole), crop=crop) - expected)
    # Pillow may resize along the other side first, which clips overshoot at sharp edges elsewhere.
    assert difference.mean() < 0.2 and difference.max() <= 6


def test_without_a_crop_the_whole_picture_is_squeezed():
    whole = picture(96, 48)
    expected = np.asarray(whole.resize((32, 32), Image.Resampling.BICUBIC), int)
    np.testing.assert_array_equal(decode(encoded(whole), crop=0), expected)


@pytest.mark.parametrize(
    ("mode", "kind", "tolerance"),
    [
        ("RGBA", "PNG", 0),
        ("P", "PNG", 30),
        ("P", "GIF", 30),
        ("RGB", "WEBP", 30),
        ("RGB", "BMP", 0),
        ("RGB", "TIFF", 0),
        ("RGB", "PPM", 0),
        ("RGB", "JPEG", 25),
        ("CMYK", "JPEG", 25),
        ("CMYK", "TIFF", 2),
        ("YCbCr", "TIFF", 10),
    ],
)
def test_colour_modes_and_formats_agree(mode, kind, tolerance):
    expected = decode(encoded(picture()))
    options = {"quality": 95} if kind in ("JPEG", "WEBP") else {}
    made = decode(encoded(picture(mode=mode), kind, **options))
    assert np.abs(made - expected).mean() <= tolerance / 5
    assert np.percentile(np.abs(made - expected), 95) <= tolerance


@pytest.mark.parametrize(("mode", "kind"), [("L", "PNG"), ("L", "JPEG"), ("LA", "PNG")])
def test_grey_pictures_become_three_equal_channels(mode, kind):
    made = decode(encoded(picture(mode=mode), kind))
    assert (made[..., 0] == made[..., 1]).all() and (made[..., 0] == made[..., 2]).all()
    assert made.std() > 10


def test_sixteen_bit_grey_keeps_its_range():
    ramp = np.linspace(0, 65535, 64).astype(np.uint16)
    deep = Image.fromarray(np.tile(ramp, (64, 1)))
    made = decode(encoded(deep), crop=1.0)[16, :, 0]
    assert made[0] < 10 and made[-1] > 245
    np.testing.assert_allclose(made, np.linspace(2, 253, 32), atol=3)


def test_one_bit_pictures_are_black_and_white():
    dithered = picture(mode="1")
    np.testing.assert_array_equal(decode(encoded(dithered)), decode(encoded(dithered.convert("L"))))


def test_transparency_becomes_white():
    clear = Image.new("RGBA", (40, 40), (255, 0, 0, 0))
    assert (decode(encoded(clear)) == 255).all()
    half = Image.new("RGBA", (40, 40), (255, 0, 0, 128))
    np.testing.assert_allclose(decode(encoded(half))[0, 0], [255, 127, 127], atol=1)
    palette = Image.new("P", (40, 40), 3)
    palette.putpalette([0] * 9 + [10, 20, 30] + [0] * 756)
    assert (decode(encoded(palette, transparency=3)) == 255).all()
    assert (decode(encoded(palette))[0, 0] == [10, 20, 30]).all()
    table = bytes([255, 255, 255, 0] + [255] * 252)  # an alpha for each colour
    assert (decode(encoded(palette, transparency=table)) == 255).all()
    assert (decode(encoded(palette, "GIF", transparency=3)) == 255).all()
    keyed = Image.new("RGB", (40, 40), (1, 2, 3))
    assert (decode(encoded(keyed, transparency=(1, 2, 3))) == 255).all()


@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation_is_undone(orientation):
    upright = picture(96, 64)
    undo = image_module._UPRIGHT.get(orientation)
    redo = {
        Image.Transpose.ROTATE_90: Image.Transpose.ROTATE_270,
        Image.Transpose.ROTATE_270: Image.Transpose.ROTATE_90,
    }.get(undo, undo)
    stored = upright if redo is None else upright.transpose(redo)
    exif = Image.Exif()
    exif[0x0112] = orientation
    np.testing.assert_array_equal(decode(encoded(stored, exif=exif)), decode(encoded(upright)))


@pytest.mark.filterwarnings("ignore:Corrupt EXIF data")
def test_damaged_exif_is_no_reason_to_refuse_a_picture():
    content = encoded(picture(), "JPEG", exif=b"Exif\x00\x00II*\x00\xff\xff\xff\xff")
    assert decode(content).any()


def framed(image, left, top, right, bottom, colour="white"):
    canvas = Image.new("RGB", (image.width + left + right, image.height + top + bottom), colour)
    canvas.paste(image, (left, top))
    return canvas


@pytest.mark.parametrize("borders", [(0, 0, 0, 0), (40, 10, 3, 0), (0, 200, 0, 1)])
@pytest.mark.parametrize("crop", [0, 0.875])
def test_white_borders_are_cut_off_if_asked_for(borders, crop):
    inner = encoded(picture())
    outer = encoded(framed(picture(), *borders))
    np.testing.assert_array_equal(decode(outer, trim=True, crop=crop), decode(inner, crop=crop))
    if any(borders):
        assert np.abs(decode(outer, crop=crop) - decode(inner, crop=crop)).mean() > 5


def test_borders_are_white_even_where_a_jpeg_has_blurred_them_and_only_there():
    jpeg = encoded(framed(picture(), 48, 48, 48, 48), "JPEG", quality=75)
    size = image_module.decode(
        jpeg, None, lambda im: image_module.trimmed(image_module.upright(im)).size
    )
    assert size == pytest.approx((96, 64), abs=2)
    grey = encoded(framed(picture(), 40, 40, 40, 40, (240, 240, 240)))
    yellow = encoded(framed(picture(), 40, 40, 40, 40, (255, 255, 200)))
    for kept in (grey, yellow):
        np.testing.assert_array_equal(decode(kept, trim=True), decode(kept))
    hole = picture()
    hole.paste((255, 255, 255), (30, 20, 60, 50))  # white, but no border
    np.testing.assert_array_equal(decode(encoded(hole), trim=True), decode(encoded(hole)))


def test_what_is_left_of_a_trimmed_picture_may_be_all_or_a_dot():
    white = encoded(Image.new("RGB", (50, 30), "white"))
    assert (decode(white, trim=True) == 255).all()
    dot = framed(Image.new("RGB", (1, 1), (10, 20, 30)), 20, 30, 5, 7)
    assert (decode(encoded(dot), trim=True) == [10, 20, 30]).all()


def test_a_picture_is_turned_before_it_is_trimmed():
    exif = Image.Exif()
    exif[0x0112] = 6
    turned = framed(picture(), 0, 40, 0, 0).transpose(Image.Transpose.ROTATE_90)
    np.testing.assert_array_equal(
        decode(encoded(turned, exif=exif), trim=True), decode(encoded(picture()))
    )


def test_large_jpegs_are_decoded_small_and_look_the_same(monkeypatch):
    whole = picture(800, 600)
    content = encoded(whole, "JPEG", quality=95)
    sizes = []
    rgb = image_module._rgb
    monkeypatch.setattr(image_module, "_rgb", lambda im: sizes.append(im.size) or rgb(im))
    made = decode(content)
    # To 36 x 48 before the crop: an eighth is 100 x 75, still larger.
    assert sizes == [(100, 75)]
    assert np.abs(made - decode(encoded(whole))).mean() < 2
    decode(content, size=512)
    assert sizes[-1] == (800, 600)
    decode(encoded(whole.convert("CMYK"), "JPEG"))
    assert sizes[-1] == (100, 75)
    decode(content, trim=True)  # which part is wanted is not known before
    assert sizes[-1] == (800, 600)


@pytest.mark.parametrize("shape", [(1, 60_000), (60_000, 1), (1, 1)])
def test_extreme_shapes_are_cheap(shape):
    made = decode(encoded(Image.new("RGB", shape, (7, 8, 9))), size=224)
    assert (made == [7, 8, 9]).all()


def test_huge_but_legal_pictures_work():
    huge = encoded(Image.new("L", (5000, 8000), 77), compress_level=1)
    assert (decode(huge) == 77).all()


@pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")
def test_decompression_bombs_are_refused_by_their_header():
    assert "10001 x 10000 pixels, more than 100 million: a decompression bomb?" in reason(
        bomb(10_001, 10_000)
    )
    assert "bomb" in reason(bomb(60_000, 60_000))


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "GIF", "TIFF", "BMP"])
def test_truncated_pictures_are_refused(kind):
    content = encoded(picture(), kind)
    for size in (20, len(content) // 3, len(content) * 2 // 3):
        assert re.search("truncated or damaged|not a picture", reason(content[:size]))


@pytest.mark.parametrize(
    "content", [b"hello, no picture", b"%!PS-Adobe-3.0 EPSF-3.0\n", b"\xff\xd8"]
)
def test_other_files_are_refused(content):
    assert "not a picture" in reason(content)


def test_zero_bytes_are_refused(tmp_path):
    assert reason(b"") == "zero bytes"
    (tmp_path / "a.png").touch()
    assert reason("a.png", tmp_path) == "'a.png' has zero bytes"


@pytest.mark.parametrize("cell", [7, 1.5, ["a.png"], {"path": None, "bytes": None}])
def test_cells_of_other_types_are_refused(cell):
    assert "neither a path nor an encoded picture" in reason(cell)


def test_paths_are_relative_to_the_root(tmp_path):
    (tmp_path / "posters").mkdir()
    content = encoded(picture())
    (tmp_path / "posters" / "a b.png").write_bytes(content)
    expected = decode(content)
    for cell in (
        "posters/a b.png",
        " posters/../posters/a b.png",
        str(tmp_path / "posters" / "a b.png"),
        {"path": "posters/a b.png", "bytes": None},
        {"path": "elsewhere.png", "bytes": content},
    ):
        np.testing.assert_array_equal(decode(cell, tmp_path), expected)
    assert "is a path, but the data set has no picture folder" in reason("posters/a b.png")


def test_a_linked_root_is_a_root(tmp_path):
    (tmp_path / "real").mkdir()
    (tmp_path / "real" / "a.png").write_bytes(encoded(picture()))
    (tmp_path / "link").symlink_to(tmp_path / "real")
    assert decode("a.png", tmp_path / "link").any()
    assert decode(str(tmp_path / "link" / "a.png"), tmp_path / "real").any()


def test_nothing_outside_the_root_is_read(tmp_path):
    root = tmp_path / "data"
    root.mkdir()
    outside = tmp_path / "secret.png"
    outside.write_bytes(encoded(picture()))
    (tmp_path / "database").mkdir()
    (tmp_path / "database" / "a.png").write_bytes(encoded(picture()))
    (root / "link.png").symlink_to(outside)
    for cell in ("../secret.png", str(outside), "link.png", "../database/a.png", "/etc/passwd"):
        assert "is outside the data folder" in reason(cell, root)


def test_absent_and_impossible_paths_are_told(tmp_path):
    os.mkfifo(tmp_path / "pipe.png")
    (tmp_path / "loop.png").symlink_to("loop.png")
    assert reason("no.png", tmp_path) == f"no file 'no.png' in {tmp_path}"
    assert reason("https://example.org/a.png", tmp_path).startswith("no file")
    assert reason(".", tmp_path).startswith("no file")
    assert reason("pipe.png", tmp_path).startswith("no file")
    assert "loop.png" in reason("loop.png", tmp_path)
    assert "no usable path" in reason("a\x00.png", tmp_path)
    assert "long" in reason("a" * 5000, tmp_path)


def test_spec_and_saved_form_make_the_same_input(tmp_path):
    made = ImageInput("poster", size=40, crop=0.9, resample="bilinear", trim=True)
    made.save(tmp_path, "poster")
    again = ImageInput.from_spec(made.spec(), tmp_path, "poster")
    assert again.spec() == made.spec() != ImageInput("poster", size=40).spec()
    cells = [encoded(picture())]
    np.testing.assert_array_equal(
        again.encode(cells).arrays["pixels"], made.encode(cells).arrays["pixels"]
    )
    assert made.arrays == {"pixels": ((40, 40, 3), np.uint8)}
