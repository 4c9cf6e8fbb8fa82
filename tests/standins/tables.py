"""A made-up table of movies with every kind of bad cell, and the pictures it names."""

import csv
import io
import zlib
from collections.abc import Callable, Iterable
from pathlib import Path

from PIL import Image

COLUMNS = ["id", "plot", "poster", "genres", "split"]


def poster(colour: tuple[int, int, int] = (200, 30, 60), kind: str = "PNG") -> bytes:
    """An encoded picture of one colour."""
    file = io.BytesIO()
    Image.new("RGB", (24, 36), colour).save(file, kind)
    return file.getvalue()


def bomb(width: int = 60_000, height: int = 60_000) -> bytes:
    """A PNG whose header promises more than its few bytes hold."""
    header = width.to_bytes(4) + height.to_bytes(4) + bytes([8, 2, 0, 0, 0])
    chunks = b""
    for kind, body in ((b"IHDR", header), (b"IDAT", zlib.compress(bytes(9))), (b"IEND", b"")):
        chunks += len(body).to_bytes(4) + kind + body + zlib.crc32(kind + body).to_bytes(4)
    return b"\x89PNG\r\n\x1a\n" + chunks


# Name, which is the id -> (plot, poster, genres, how the reason of the bad cell begins).
ROWS = {
    "fine": ("a heist", "good.png", "Comedy|Drama", None),
    "no plot": ("", "good.png", "Drama", None),
    "no labels": ("a heist", "good.jpg", "[]", None),
    "no poster": ("a heist", "", '["Comedy"]', None),
    "zero bytes": ("a heist", "empty.png", "Drama", "'empty.png' has zero bytes"),
    "truncated": ("a heist", "cut.jpg", "Drama", "cannot be decoded, truncated"),
    "bomb": ("a heist", "bomb.png", "Drama", "a decompression bomb?"),
    "outside": ("a heist", "../secret.png", "Drama", "'../secret.png' is outside"),
    "link": ("a heist", "link.png", "Drama", "'link.png' is outside"),
    "absent": ("a heist", "no.png", "Drama", "no file 'no.png'"),
    "no picture": ("a heist", "text.png", "Drama", "not a picture"),
    "unknown label": ("a heist", "good.png", "Drama|Comdy", "unknown label 'Comdy'; near it: 'Com"),
    "empty label": ("a heist", "good.png", "", "label is empty; write []"),
    "repeated id": ("a heist", "good.png", "Drama", "id 'fine' is already that of"),
    "nothing": ("", "", "Drama", "every input of the row is empty"),
    "bad alone": ("", "empty.png", "Drama", "'empty.png' has zero bytes"),
}
BAD = [name for name, (*_, reason) in ROWS.items() if reason]
BAD_POSTERS = BAD[: BAD.index("unknown label")]
NEVER_USED = ["unknown label", "empty label", "repeated id", "nothing", "bad alone"]


def write_pictures(folder: Path) -> None:
    """Writes the pictures into a folder, and one beside it."""
    files = {
        "good.png": poster(),
        "good.jpg": poster(kind="JPEG"),
        "empty.png": b"",
        "cut.jpg": poster(kind="JPEG")[:-60],
        "bomb.png": bomb(),
        "text.png": b"hello",
        "../secret.png": poster(),
    }
    for name, content in files.items():
        (folder / name).write_bytes(content)
    (folder / "link.png").symlink_to(folder.parent / "secret.png")


def write(
    path: Path, names: Iterable[str], split: Callable[[int], str] = lambda index: "train"
) -> Path:
    """Writes a table of the rows with these names."""
    with open(path, "w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(COLUMNS)
        for index, name in enumerate(names):
            key = "fine" if name == "repeated id" else name
            writer.writerow([key, *ROWS[name][:3], split(index)])
    return path
