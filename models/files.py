"""Model files by URI and digest: fetched once, checked, and kept in a cache named by SHA-256."""

from __future__ import annotations

import hashlib
import http.client
import os
import tempfile
import urllib.error
import urllib.parse
import urllib.request
from pathlib import Path

from models.errors import ModelRefused, ModelUnavailable, one_line

LARGEST_BYTES = 2 * 1024**3
"""What an ONNX file can be at most: the limit of its format."""
TIMEOUT_S = 30.0


def sha256_of(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def fetch(uri: str, sha256: str, cache_dir: Path) -> bytes:
    """The file at `uri` (a path, file:// or http(s)://), which must have this SHA-256 (64 hex digits).

    A cached copy is used if it still has its digest. Raises ModelRefused when the digest is another or the
    scheme is not one of these, ModelUnavailable when the file cannot be had now.
    """
    cached = cache_dir / f"{sha256}.onnx"
    try:
        data = cached.read_bytes()
    except FileNotFoundError:
        data = b""
    if sha256_of(data) == sha256:
        return data
    data = read_uri(uri)
    found = sha256_of(data)
    if found != sha256:
        raise ModelRefused(
            f"{uri} has the SHA-256 {found}, the deployment names {sha256}; deploy the file anew"
        )
    write_atomically(cached, data)
    return data


def write_atomically(path: Path, data: bytes) -> None:
    """Readers see the whole file or none."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.NamedTemporaryFile(dir=path.parent, prefix=".", delete=False) as file:
        try:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
            os.chmod(file.name, 0o644)
            os.replace(file.name, path)
        except BaseException:
            os.unlink(file.name)
            raise


def read_uri(uri: str) -> bytes:
    """What is at `uri`, unchecked. Raises as `fetch` does."""
    parts = urllib.parse.urlsplit(uri)
    if parts.scheme in ("http", "https"):
        return _download(uri)
    if parts.scheme not in ("", "file"):
        raise ModelRefused(
            f"{uri}: cannot fetch {parts.scheme}:; publish the file at a path, file:// or http(s)://"
        )
    path = Path(urllib.request.url2pathname(parts.path) if parts.scheme == "file" else uri)
    try:
        return path.read_bytes()
    except OSError as error:
        raise ModelUnavailable(f"{path} cannot be read: {error.strerror}") from None


def _download(uri: str) -> bytes:
    # only HTTP: no redirect may lead to a local file
    opener = urllib.request.OpenerDirector()
    for handler in (
        urllib.request.ProxyHandler(),
        urllib.request.HTTPHandler(),
        urllib.request.HTTPSHandler(),
        urllib.request.HTTPRedirectHandler(),
        urllib.request.HTTPDefaultErrorHandler(),
        urllib.request.HTTPErrorProcessor(),
    ):
        opener.add_handler(handler)
    try:
        with opener.open(uri, timeout=TIMEOUT_S) as answer:
            data: bytes = answer.read(LARGEST_BYTES + 1)
    except (OSError, http.client.HTTPException, ValueError) as error:
        raise ModelUnavailable(f"{uri} cannot be fetched: {one_line(error)}") from None
    if len(data) > LARGEST_BYTES:
        raise ModelRefused(f"{uri} is larger than an ONNX file can be (2 GiB)")
    return data
