"""Local copies of files in buckets, which lie in the cache under the bucket's own paths.

Nothing here reads over the network piece by piece: what is read more than once, memory-mapped or
by a library that knows files only is copied once. A copy's time of modification stands for the
version that it is of, so that the next reader knows it again, and files are replaced whole.
"""

import hashlib
import os
import posixpath
from collections.abc import Iterable, Mapping
from pathlib import Path

from jfusion import bucket
from jfusion.bucket import Version
from jfusion.data.cache import build_folder, cache_root, require_bytes
from jfusion.data.progress import say

_PLACE = "buckets"


def local(path: str | Path, cache_dir: str | Path = "") -> Path:
    """A folder, of which there is a copy here if it is in a bucket.

    Args:
        path: The folder or its address.
        cache_dir: See `cache.cache_root`.

    Raises:
        BucketError, ConnectionError: The bucket cannot be used, or not be reached.
        DataError: The cache cannot be written.
    """
    if not bucket.is_url(path):
        return Path(path)
    folder = bucket.Folder(str(path))
    return _copy(folder, folder.list(), cache_dir)


def some(
    url: str, names: Iterable[str], cache_dir: str | Path = ""
) -> tuple[Path, dict[str, Version]]:
    """Copies some files of a folder in a bucket.

    Args:
        url: The folder's address.
        names: The files, by their paths in it; what is not there is left out, and so is what would
            lead out of it.
        cache_dir: See `cache.cache_root`.

    Returns:
        The local folder, and the version of each file that is there, by its `plain` name.

    Raises:
        BucketError, ConnectionError, DataError: See `local`.
    """
    folder = bucket.Folder(url)
    wanted = {name for name in map(plain, names) if name}
    found = folder.look_up(sorted(wanted))
    root = _copy(folder, found, cache_dir)
    for name in wanted - found.keys():
        (root / name).unlink(missing_ok=True)  # an earlier copy of what is there no more
    return root, found


def plain(name: str) -> str:
    """A path as the bucket has it; empty if it leads out of the folder."""
    name = posixpath.normpath(name.strip())
    usable = name != "." and "\0" not in name and len(name) < 1024
    return name if usable and not name.startswith(("/", "../")) and name != ".." else ""


def shown(path: Path) -> str:
    """What messages call a file or folder: its address, if it is a copy."""
    parts = path.parts
    for i in range(len(parts) - 3, -1, -1):
        if parts[i] == _PLACE and parts[i + 1] in ("gs", "s3"):
            return f"{parts[i + 1]}://{'/'.join(parts[i + 2 :])}"
    return str(path)


def _copy(folder: bucket.Folder, versions: Mapping[str, Version], cache_dir: str | Path) -> Path:
    """Brings the copies of some files up to date; returns the folder they lie in."""
    scheme, place = bucket.split(folder.url)
    root = cache_root(cache_dir) / _PLACE / scheme / place
    old = [name for name, version in versions.items() if not _is_copy(root / name, version)]
    if not old:
        return root
    size = sum(versions[name].size for name in old)
    with build_folder(root) as build:
        require_bytes(root.parent, size, folder.url)
        say(f"copying {len(old):,} files ({size / 1e6:,.1f} MB) of {folder.url} to {root}")
        folder.get(old, build)
        for name in old:
            (root / name).parent.mkdir(parents=True, exist_ok=True)
            os.utime(build / name, ns=(_time(versions[name]),) * 2)
            os.replace(build / name, root / name)
    return root


def _is_copy(path: Path, version: Version) -> bool:
    try:
        stat = path.stat()
    except OSError:
        return False
    return (stat.st_size, stat.st_mtime_ns) == (version.size, _time(version))


def _time(version: Version) -> int:
    """A time for a version, in nanoseconds: whole seconds, as all file systems keep them."""
    digest = hashlib.sha256(f"{version.size} {version.tag}".encode()).digest()
    return int.from_bytes(digest[:4], "big") // 2 * 10**9
