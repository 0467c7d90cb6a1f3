from __future__ import annotations

import functools
import hashlib
import http.server
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from models.errors import ModelRefused, ModelUnavailable
from models.files import fetch

DATA = b"an ONNX file"
SHA256 = hashlib.sha256(DATA).hexdigest()


@pytest.fixture
def source(tmp_path: Path) -> Path:
    path = tmp_path / "source dir" / "model.onnx"
    path.parent.mkdir()
    path.write_bytes(DATA)
    return path


class Handler(http.server.SimpleHTTPRequestHandler):
    def log_message(self, format: str, *args: object) -> None:
        pass

    def do_GET(self) -> None:
        if self.path == "/to-a-file":
            self.send_response(302)
            self.send_header("Location", "file:///etc/hostname")
            self.end_headers()
        else:
            super().do_GET()


@pytest.fixture
def server(source: Path) -> Iterator[str]:
    handler = functools.partial(Handler, directory=str(source.parent))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as httpd:
        thread = threading.Thread(target=httpd.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{httpd.server_port}"
        httpd.shutdown()
        thread.join()


@pytest.mark.parametrize("form", ["path", "uri"])
def test_a_file_is_read_by_path_or_uri(source: Path, tmp_path: Path, form: str) -> None:
    uri = str(source) if form == "path" else source.as_uri()
    assert fetch(uri, SHA256, tmp_path / "cache") == DATA


def test_a_file_is_fetched_over_http(server: str, tmp_path: Path) -> None:
    assert fetch(f"{server}/model.onnx", SHA256, tmp_path / "cache") == DATA


def test_a_file_fetched_once_is_there_when_its_source_is_gone(source: Path, tmp_path: Path) -> None:
    fetch(str(source), SHA256, tmp_path / "cache")
    source.unlink()
    assert fetch(str(source), SHA256, tmp_path / "cache") == DATA
    assert [p.name for p in (tmp_path / "cache").iterdir()] == [f"{SHA256}.onnx"]


def test_a_damaged_copy_in_the_cache_is_fetched_anew(source: Path, tmp_path: Path) -> None:
    fetch(str(source), SHA256, tmp_path / "cache")
    (tmp_path / "cache" / f"{SHA256}.onnx").write_bytes(DATA[:5])
    assert fetch(str(source), SHA256, tmp_path / "cache") == DATA


def test_a_file_with_another_digest_is_refused_with_both_and_not_kept(source: Path, tmp_path: Path) -> None:
    source.write_bytes(b"another file")
    found = hashlib.sha256(b"another file").hexdigest()
    with pytest.raises(ModelRefused, match=f"{found}.*{SHA256}"):
        fetch(str(source), SHA256, tmp_path / "cache")
    assert not (tmp_path / "cache").exists()


def test_a_scheme_that_cannot_be_fetched_is_refused_with_the_mend(tmp_path: Path) -> None:
    with pytest.raises(ModelRefused, match=r"cannot fetch s3:; publish the file at a path"):
        fetch("s3://bucket/model.onnx", SHA256, tmp_path)


def test_a_file_that_is_not_there_may_come(tmp_path: Path) -> None:
    with pytest.raises(ModelUnavailable, match="No such file"):
        fetch(str(tmp_path / "no.onnx"), SHA256, tmp_path / "cache")


@pytest.mark.parametrize("path", ["/missing.onnx", "/to-a-file"])
def test_what_the_server_does_not_give_may_come(server: str, tmp_path: Path, path: str) -> None:
    with pytest.raises(ModelUnavailable, match="cannot be fetched"):
        fetch(server + path, SHA256, tmp_path / "cache")


def test_a_server_that_is_not_there_may_come(tmp_path: Path) -> None:
    with pytest.raises(ModelUnavailable, match="cannot be fetched"):
        fetch("http://127.0.0.1:9/model.onnx", SHA256, tmp_path / "cache")
