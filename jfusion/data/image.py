"""Pictures to squares of bytes.

Every picture becomes uint8 RGB of one size; normalisation and random flips happen on the device.
Whatever a file holds, the answer is a picture or a reason, so that one bad file is one bad row.
"""

import io
import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import IO, Any, TypeVar

import numpy as np
from PIL import Image

from jfusion.data.columns import Cells
from jfusion.data.paths import inside
from jfusion.data.problems import BadCell

MAX_PIXELS = 100_000_000
"""More than this in a file's header is taken for a decompression bomb."""
WHITE = 245
"""From this value on in all three channels, a pixel of a border counts as white."""

_T = TypeVar("_T")

# Formats that Pillow decodes by itself: others start programs (EPS) or are seldom meant.
_FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF", "PPM")
_ORIENTATION = 0x0112  # the EXIF tag
_SIDEWAYS = 5  # from this orientation on, width and height are exchanged
_UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


class ImageInput:
    """A picture column, preprocessed to squares (S: `size`).

    The shorter side is resized to `size / crop` and the middle is cut out, as timm and torchvision
    do it; with `crop` 0 the whole picture is resized to the square without keeping its aspect.
    Large JPEG files are decoded at a half, a quarter or an eighth where that is still no smaller
    than the result, unless their white borders are to be cut off first (`trim`).

    Attributes:
        column: The column of the table.
        arrays: `{array: (shape of a row, dtype)}`: `pixels` uint8 [S, S, 3].
    """

    kind = "image"
    notes = ()

    def __init__(
        self,
        column: str,
        *,
        size: int = 224,
        crop: float = 0.875,
        resample: str = "bicubic",
        trim: bool = False,
    ):
        self.column = column
        self.arrays = {"pixels": ((size, size, 3), np.uint8)}
        self._size = size
        self._crop = crop
        self._resample = Image.Resampling[resample.upper()]
        self._trim = trim

    def spec(self) -> dict[str, Any]:
        """All that fixes the result, JSON-ready."""
        return {
            "kind": self.kind,
            "column": self.column,
            "size": self._size,
            "crop": self._crop,
            "resample": self._resample.name.lower(),
            "trim": self._trim,
        }

    def save(self, folder: Path, name: str) -> None:
        """Writes nothing: the spec says all."""

    @classmethod
    def from_spec(cls, spec: Mapping[str, Any], folder: Path, name: str) -> "ImageInput":
        """Makes the input that `spec` describes."""
        options = {key: spec[key] for key in ("size", "crop", "resample", "trim")}
        return cls(spec["column"], **options)

    def encode(self, cells: Sequence[Any], root: Path | None = None) -> Cells:
        """Decodes non-empty cells, one after the other in the calling thread.

        Args:
            cells: Encoded images or paths relative to `root` (n of them); also `{"bytes", "path"}`
                as Hugging Face's data sets have it.
            root: The folder that paths may not leave.

        Returns:
            `pixels` [n, S, S, 3].
        """
        pixels = np.zeros((len(cells), self._size, self._size, 3), np.uint8)
        bad = {}
        for i, cell in enumerate(cells):
            try:
                pixels[i] = np.asarray(decode(cell, root, self._fit))
            except BadCell as problem:
                bad[i] = str(problem)
        return Cells({"pixels": pixels}, bad)

    def _fit(self, image: Image.Image) -> Image.Image:
        """Resizes and crops an opened picture that is not loaded yet."""
        if self._trim:
            image = trimmed(upright(image))
            size = image.size
        else:
            size = image.size[::-1] if _orientation(image) >= _SIDEWAYS else image.size
            image.draft(None, self._plan(*image.size)[:2])
            image = upright(image)
        to_width, to_height, left, top = self._plan(*size)
        # Resizing only the region that the crop keeps amounts to cropping afterwards, but a picture
        # of 1 x 60000 stays cheap.
        x, y = image.width / to_width, image.height / to_height
        right, bottom = (left + self._size) * x, (top + self._size) * y
        box = (left * x, top * y, min(right, image.width), min(bottom, image.height))
        return image.resize((self._size, self._size), self._resample, box=box)

    def _plan(self, width: int, height: int) -> tuple[int, int, int, int]:
        """Size of the whole picture after resizing, and where the square begins in it."""
        if not self._crop:
            return self._size, self._size, 0, 0
        short = int(self._size / self._crop)
        to_width = short if width <= height else int(short * width / height)
        to_height = short if height <= width else int(short * height / width)
        left, top = round((to_width - self._size) / 2), round((to_height - self._size) / 2)
        return to_width, to_height, left, top


def decode(cell: Any, root: Path | None, use: Callable[[Image.Image], _T]) -> _T:
    """What `use` makes of the picture that a cell holds or names.

    Args:
        cell: As in `ImageInput.encode`.
        root: The folder that paths may not leave.
        use: Called with the picture, opened but not loaded yet, as its file has it: `upright` is
            the first thing to ask for.

    Raises:
        BadCell: There is no picture, or it cannot be decoded.
    """
    with _open(cell, root) as file:
        try:
            with Image.open(file, formats=_FORMATS) as image:
                _check_size(image.size)
                return use(image)
        except BadCell:
            raise
        except Image.DecompressionBombError as error:
            raise BadCell(f"a decompression bomb? {error}") from None
        except Image.UnidentifiedImageError:
            raise BadCell(f"not a picture ({', '.join(_FORMATS)})") from None
        except Exception as error:
            # Decoders answer a damaged file with almost any exception: OSError, SyntaxError,
            # struct.error, zlib.error, IndexError. All mean the same, and the reason is kept.
            raise BadCell(f"cannot be decoded, truncated or damaged? {error}") from None


def upright(image: Image.Image) -> Image.Image:
    """An opened picture of any mode as RGB, turned as its EXIF data say."""
    orientation = _orientation(image)  # converting may drop it
    image = _rgb(image)
    return image.transpose(_UPRIGHT[orientation]) if orientation in _UPRIGHT else image


def trimmed(image: Image.Image) -> Image.Image:
    """An RGB picture without its white borders; a picture that is all white stays as it is."""
    inside = np.asarray(image).min(axis=2) < WHITE
    rows, columns = (np.flatnonzero(inside.any(axis=axis)).tolist() for axis in (1, 0))
    if not rows:
        return image
    return image.crop((columns[0], rows[0], columns[-1] + 1, rows[-1] + 1))


def _open(cell: Any, root: Path | None) -> IO[bytes]:
    """The file that a cell holds or names."""
    if isinstance(cell, Mapping):
        cell = cell.get("bytes") or cell.get("path")
    if isinstance(cell, bytes | bytearray | memoryview):
        if not cell:
            raise BadCell("zero bytes")
        return io.BytesIO(cell)
    if not isinstance(cell, str):
        raise BadCell(f"neither a path nor an encoded picture but {type(cell).__name__}")
    path = inside(cell.strip(), root, "picture")
    try:
        file = open(path, "rb")
    except OSError as error:
        raise BadCell(f"{cell!r} cannot be read: {error.strerror}") from None
    if not os.fstat(file.fileno()).st_size:
        file.close()
        raise BadCell(f"{cell!r} has zero bytes")
    return file


def _check_size(size: tuple[int, int]) -> None:
    width, height = size
    if width * height > MAX_PIXELS:
        raise BadCell(
            f"{width} x {height} pixels, more than {MAX_PIXELS // 10**6} million: a decompression "
            "bomb?"
        )


def _orientation(image: Image.Image) -> int:
    try:
        orientation = image.getexif().get(_ORIENTATION)
    except Exception:  # damaged metadata of any kind does not make a picture bad
        orientation = None
    return orientation if orientation in _UPRIGHT else 1


def _rgb(image: Image.Image) -> Image.Image:
    """Any mode as RGB; what is transparent becomes white."""
    if image.mode.startswith("I"):  # 16 bits of grey, which Pillow would cut off at 255
        grey = np.clip(np.asarray(image, np.float32) / 257, 0, 255)
        image = Image.fromarray(grey.round().astype(np.uint8))
    if not image.has_transparency_data:
        return image.convert("RGB")
    image = image.convert("RGBA")
    white = Image.new("RGB", image.size, "white")
    white.paste(image, mask=image.getchannel("A"))
    return white
