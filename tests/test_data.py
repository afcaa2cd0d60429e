"""Text in: files as they come, and the download, from a server on this machine."""

from __future__ import annotations

import hashlib
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from microgpt import data

NAMES = b"emma\nolivia\nava\n"


def test_embedded_names() -> None:
    names = data.load_names()
    assert len(names) == 32868
    assert names[:3] == ["emma", "olivia", "ava"]
    content = (Path(data.__file__).parent / "names.txt").read_bytes()
    assert hashlib.sha256(content).hexdigest() in (Path(data.__file__).parent / "README.md").read_text()


@pytest.mark.parametrize(
    ("content", "documents"),
    [
        (b"ab\ncd\n", ["ab", "cd"]),
        (b"ab\r\ncd", ["ab", "cd"]),
        (b"ab\rcd\r", ["ab", "cd"]),
        (b"\xef\xbb\xbfab\ncd\n", ["ab", "cd"]),
        (b"\n  ab \n\n\t\ncd e\t\n", ["ab", "cd e"]),
        ("naïve\n🙂é\u2028x\n".encode(), ["naïve", "🙂é\u2028x"]),
    ],
)
def test_file(tmp_path: Path, content: bytes, documents: list[str]) -> None:
    path = tmp_path / "text.txt"
    path.write_bytes(content)
    assert data.load_file(path) == documents


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "at least 2 documents"),
        (b"\n \n", "it has 0"),
        (b"one document\n", "it has 1"),
        (b"aaa\na\n", "only 'a'"),
        (b"ab\n\xff\xfe\n", "not UTF-8 text: byte 0xff at offset 3"),
    ],
)
def test_file_refused(tmp_path: Path, content: bytes, words: str) -> None:
    path = tmp_path / "text.txt"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=words):
        data.load_file(path)


class Server(ThreadingHTTPServer):
    """Sends `content` with `status`, announcing `length` bytes, and counts the requests."""

    content = NAMES
    status = 200
    length = len(NAMES)
    requests = 0


class Handler(BaseHTTPRequestHandler):
    server: Server

    def do_GET(self) -> None:
        self.server.requests += 1
        self.send_response(self.server.status)
        self.send_header("Content-Length", str(self.server.length))
        self.end_headers()
        self.wfile.write(self.server.content)

    def log_message(self, format: str, *args: object) -> None:
        pass


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Server]:
    with Server(("127.0.0.1", 0), Handler) as server:
        monkeypatch.setattr(data, "MAKEMORE_URL", f"http://127.0.0.1:{server.server_port}/names.txt")
        monkeypatch.setattr(data, "MAKEMORE_SHA256", hashlib.sha256(NAMES).hexdigest())
        monkeypatch.setattr(data, "cache_folder", lambda: tmp_path / "cache" / "microgpt")
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield server
        server.shutdown()
        thread.join()


def cached() -> list[Path]:
    folder = data.cache_folder()
    return list(folder.iterdir()) if folder.exists() else []


def test_download_is_kept(server: Server, tmp_path: Path) -> None:
    for _ in range(3):
        assert data.load_makemore() == ["emma", "olivia", "ava"]
    assert server.requests == 1
    assert [path.read_bytes() for path in cached()] == [NAMES]


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere the platform has its own folder")
def test_cache_is_where_xdg_says(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert data.cache_folder() == tmp_path / "microgpt"


def test_damaged_cache_is_downloaded_again(server: Server) -> None:
    data.load_makemore()
    cached()[0].write_bytes(b"half")
    assert data.load_makemore() == ["emma", "olivia", "ava"]
    assert server.requests == 2
    assert [path.read_bytes() for path in cached()] == [NAMES]


def test_wrong_content_is_refused_and_not_kept(server: Server) -> None:
    server.content = NAMES.replace(b"ava", b"eva")
    with pytest.raises(ValueError, match="sha256"):
        data.load_makemore()
    assert cached() == []


def test_broken_download_leaves_no_half_file(server: Server) -> None:
    server.length = len(NAMES) + 100
    with pytest.raises(OSError, match="cannot download"):
        data.load_makemore()
    assert cached() == []


def test_missing_file_on_the_server(server: Server) -> None:
    server.status = 404
    with pytest.raises(OSError, match=r"cannot download .*Not Found"):
        data.load_makemore()
    assert cached() == []


def test_no_server(server: Server) -> None:
    server.shutdown()
    server.server_close()
    with pytest.raises(OSError, match=r"cannot download http://127.0.0.1.*refused"):
        data.load_makemore()


def test_unwritable_cache(server: Server, tmp_path: Path) -> None:
    (tmp_path / "cache").write_text("a file where the folder should be")
    with pytest.raises(OSError, match="cache"):
        data.load_makemore()
