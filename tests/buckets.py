"""Stand-ins of what serves buckets, on this machine: moto for S3, an emulator for GCS."""

import contextlib
import email.parser
import http.server
import socket
import threading
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import fsspec
import pytest

_NO_KEYS = {
    "AWS_ACCESS_KEY_ID": "none",
    "AWS_SECRET_ACCESS_KEY": "none",
    "AWS_DEFAULT_REGION": "us-east-1",
    "AWS_EC2_METADATA_DISABLED": "true",
    "AWS_CONFIG_FILE": "/dev/null",
    "AWS_SHARED_CREDENTIALS_FILE": "/dev/null",
}


class _Server(http.server.ThreadingHTTPServer):
    request_queue_size = 256

    def handle_error(self, request, client_address):
        """Says nothing of clients that do not wait for the end of an answer."""


class _Parser(email.parser.BytesParser):
    """Reads an upload as it is: the emulator takes a last byte of 13 for half of a line's end."""

    def parsebytes(self, text, headersonly=False):
        message = super().parsebytes(text, headersonly)
        if message.get_content_type() == "multipart/related":
            end = text.rindex(f"\n--{message.get_boundary()}--".encode())
            *_, content = text[:end].split(b"\n\n", 2)  # a head, what it is about, a head
            message.get_payload()[1].set_payload(content)
        return message


@contextlib.contextmanager
def serving(kind: str) -> Iterator[str]:
    """Serves an empty bucket to this process and to those it starts; yields its address."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    address = f"http://127.0.0.1:{port}"
    with pytest.MonkeyPatch.context() as patch:
        if kind == "s3":
            from moto.server import ThreadedMotoServer

            server = ThreadedMotoServer("127.0.0.1", port, verbose=False)
            variables = {"AWS_ENDPOINT_URL": address, **_NO_KEYS}
        else:
            from gcp_storage_emulator import server as emulator

            # By itself it listens to one client after the other, and waits for who says nothing.
            patch.setattr(http.server, "HTTPServer", _Server)
            handle, lock = emulator.Router.handle, threading.Lock()

            def one_by_one(router, method):
                with lock:
                    return handle(router, method)

            patch.setattr(emulator.Router, "handle", one_by_one)
            patch.setattr(emulator, "BytesParser", _Parser)
            # Nor does it have to write down at each request all that it holds.
            patch.setattr(emulator.Storage, "_write_config_to_file", lambda storage: None)
            server = emulator.create_server("127.0.0.1", port, in_memory=True)
            variables = {"STORAGE_EMULATOR_HOST": address}
        for name, value in variables.items():
            patch.setenv(name, value)
        patch.setenv("GCSFS_EXPERIMENTAL_ZB_HNS_SUPPORT", "false")  # as `bucket` does it
        server.start()
        try:
            if kind == "s3":  # what one server of this process held, the next one would hold, too
                reset = urllib.request.Request(f"{address}/moto-api/reset", method="POST")
                urllib.request.urlopen(reset).close()
            files(kind).mkdir("bucket")
            yield f"{kind}://bucket"
        finally:
            fsspec.get_filesystem_class(kind).clear_instance_cache()
            server.stop()


def files(kind: str) -> fsspec.AbstractFileSystem:
    """The library's own view of all buckets."""
    return fsspec.filesystem(kind, use_listings_cache=False)


def fill(url: str, folder: Path) -> None:
    """Puts all files of a local folder into a bucket."""
    for path in folder.rglob("*"):
        if path.is_file():
            write(f"{url}/{path.relative_to(folder)}", path.read_bytes())


def write(url: str, content: bytes | str) -> None:
    """Puts a file into a bucket."""
    kind, _, place = url.partition("://")
    files(kind).pipe_file(place, content.encode() if isinstance(content, str) else content)


def read(url: str) -> bytes:
    """The content of a file in a bucket."""
    kind, _, place = url.partition("://")
    return files(kind).cat_file(place)


def names(url: str) -> list[str]:
    """All files of a folder in a bucket, by their paths in it."""
    kind, _, place = url.partition("://")
    return [name.removeprefix(f"{place}/") for name in files(kind).find(place)]
