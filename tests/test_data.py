"""Text in: files as they come, and the download, from a server on this machine."""

from __future__ import annotations

import hashlib
import os
import re
import sys
import threading
import tracemalloc
from collections.abc import Iterator
from contextlib import suppress
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


TEXTS: list[tuple[bytes, list[str]]] = [
    (b"ab\ncd\n", ["ab", "cd"]),
    (b"ab\r\ncd", ["ab", "cd"]),
    (b"ab\rcd\r", ["ab", "cd"]),
    (b"ab\r\rcd\n\ref\r\n", ["ab", "cd", "ef"]),
    (b"\xef\xbb\xbfab\ncd\n", ["ab", "cd"]),
    (b"ab\n\xef\xbb\xbfcd\n", ["ab", "\ufeffcd"]),
    (b"\n  ab \n\n\t\ncd\te\t\n", ["ab", "cd\te"]),
    ("naïve\n🙂é\u2028x\x85y\x0bz\n".encode(), ["naïve", "🙂é\u2028x\x85y\x0bz"]),
    ("e\u0301\né\n👩\u200d🔬\n".encode(), ["e\u0301", "é", "👩\u200d🔬"]),
    (b"\x01\x1b[31m\n\x7f\n", ["\x01\x1b[31m", "\x7f"]),
]


@pytest.mark.parametrize("chunk", [3, 4, 5, 8, 1 << 20])
@pytest.mark.parametrize(("content", "documents"), TEXTS)
def test_file(tmp_path: Path, content: bytes, documents: list[str], chunk: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(data, "CHUNK", chunk)
    path = tmp_path / "text.txt"
    path.write_bytes(content)
    assert data.load_file(path) == documents


@pytest.mark.parametrize("chunk", [3, 4, 5, 8, 1 << 20])
@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "at least 2 documents, one per line, it has 0"),
        (b"\xef\xbb\xbf", "it has 0"),
        (b"\n \n\t\r\n", "it has 0"),
        (b"one document\n", "it has 1"),
        (b"aaa\na\n", "at least 2 different characters, it has only 'a'"),
        (b"ab\n\xff\xfe\n", "not UTF-8 text: byte 0xff at offset 3"),
        (b"\xef\xbb\xbfab\n\xff\n", "not UTF-8 text: byte 0xff at offset 6"),
        ("é🙂\n".encode() + b"\xf0\x9f\x99", "not UTF-8 text: byte 0xf0 at offset 7"),
        (b"abcdefgh\nab\xf0\x9fcd\n", "not UTF-8 text: byte 0xf0 at offset 11"),
        ("ab\ncd\n".encode("utf-16"), "not UTF-8 text but UTF-16: convert it first, by iconv -f UTF-16 -t UTF-8 or an editor"),
        (b"\xfe\xff" + "é\n".encode("utf-16-be"), "not UTF-8 text but UTF-16: .*"),
        ("ab\ncd\n".encode("utf-16-le"), "not UTF-8 text but UTF-16: .*"),
        ("ab\ncd\n".encode("utf-16-be"), "not UTF-8 text but UTF-16: .*"),
        (b"ab\ncd\nefgh\n\0", "not UTF-8 text: NUL byte at offset 11"),
        (b"ab\ncd\n\0", "not UTF-8 text: NUL byte at offset 6"),
    ],
)
def test_file_refused(tmp_path: Path, content: bytes, words: str, chunk: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(data, "CHUNK", chunk)
    path = tmp_path / "text.txt"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=rf"\A{re.escape(str(path))} .*{words}\Z"):
        data.load_file(path)


def test_reading_takes_little_more_memory_than_the_documents(tmp_path: Path) -> None:
    path = tmp_path / "text.txt"
    for end in ("\n", "\r", "\r\n"):
        path.write_bytes("".join(f"{i} {'x' * 90}{end}" for i in range(200_000)).encode())
        tracemalloc.start()
        try:
            documents = data.load_file(path)
            _, peak = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
        own = sys.getsizeof(documents) + sum(map(sys.getsizeof, documents))
        assert len(documents) == 200_000
        assert peak < own + 10e6 < own + path.stat().st_size


def test_one_line_of_ten_megabytes(tmp_path: Path) -> None:
    path = tmp_path / "text.txt"
    path.write_bytes(b"x" * 10_000_000 + b"\ny")
    assert [len(document) for document in data.load_file(path)] == [10_000_000, 1]


def test_a_folder_without_files_and_a_missing_file_are_refused_by_name(tmp_path: Path) -> None:
    (tmp_path / "inside" / ".git").mkdir(parents=True)
    (tmp_path / "inside" / ".git" / "hidden").write_text("ab\ncd\n")
    with pytest.raises(ValueError, match=re.escape(f"{tmp_path} is a folder without files")):
        data.load_file(tmp_path)
    with pytest.raises(OSError, match=re.escape(str(tmp_path / "missing"))):
        data.load_file(tmp_path / "missing")


@pytest.mark.skipif(sys.platform == "win32", reason="pipes and devices as on Unix")
def test_a_pipe_is_read_and_a_device_without_end_refused(tmp_path: Path) -> None:
    path = tmp_path / "pipe"
    os.mkfifo(path)
    writer = threading.Thread(target=path.write_bytes, args=(b"ab\ncd\n" * 100_000,))
    writer.start()
    assert data.load_file(path) == ["ab", "cd"] * 100_000
    writer.join()
    with pytest.raises(ValueError, match="/dev/zero is not UTF-8 text: NUL byte at offset 0"):
        data.load_file("/dev/zero")


class Server(ThreadingHTTPServer):
    """Sends `content` with `status`, announcing `length` bytes, and counts the requests.

    Where `endless`, zeros follow, `sent` of them. Where `drip` is given, it comes first, then a letter at a time until `stopped`.
    """

    content = NAMES
    status = 200
    length: int | None = len(NAMES)
    requests = 0
    endless = False
    sent = 0
    drip: bytes | None = None
    stopped: threading.Event

    def handle_error(self, request: object, client_address: object) -> None:
        pass  # clients that hang up are wanted here


class Handler(BaseHTTPRequestHandler):
    server: Server

    def do_GET(self) -> None:
        self.server.requests += 1
        if self.server.drip is not None:
            self.wfile.write(self.server.drip)
            while not self.server.stopped.wait(0.02):
                self.wfile.write(b"a")
            return
        self.send_response(self.server.status)
        if self.server.length is not None:
            self.send_header("Content-Length", str(self.server.length))
        self.end_headers()
        self.wfile.write(self.server.content)
        with suppress(OSError):
            while self.server.endless:
                self.server.sent += self.wfile.write(bytes(1 << 16))

    def log_message(self, format: str, *args: object) -> None:
        pass


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Server]:
    with Server(("127.0.0.1", 0), Handler) as server:
        monkeypatch.setattr(data, "MAKEMORE_URL", f"http://127.0.0.1:{server.server_port}/names.txt")
        monkeypatch.setattr(data, "MAKEMORE_SHA256", hashlib.sha256(NAMES).hexdigest())
        monkeypatch.setattr(data, "cache_folder", lambda: tmp_path / "cache" / "microgpt")
        monkeypatch.setattr(data, "MAKEMORE_SIZE", len(NAMES))
        server.stopped = threading.Event()
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield server
        server.stopped.set()
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


@pytest.mark.parametrize("content", [NAMES + b"a", NAMES])
def test_no_more_is_read_than_the_known_size_and_a_byte(content: bytes, server: Server) -> None:
    server.content, server.length, server.endless = content, None, content == NAMES
    with pytest.raises(ValueError, match=rf"sent more than {len(NAMES)} bytes that are not the expected file"):
        data.load_makemore()
    assert server.sent < 1 << 25  # what the sockets took before the client hung up
    assert cached() == []


def test_a_cached_file_that_grew_is_not_read_whole(server: Server) -> None:
    data.load_makemore()
    os.truncate(cached()[0], 1 << 36)
    assert data.load_makemore() == ["emma", "olivia", "ava"]
    assert [path.read_bytes() for path in cached()] == [NAMES]


@pytest.mark.parametrize(
    "drip", [b"", b"HTTP/1.0 200 OK\r\nX: ", b"HTTP/1.0 200 OK\r\n\r\n"], ids=["status", "header", "content"]
)
def test_a_server_that_sends_a_letter_at_a_time_is_not_waited_for(
    drip: bytes, server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(data, "TIMEOUT", 0.5)
    monkeypatch.setattr(data, "MAKEMORE_SIZE", 60_000)
    server.drip = drip
    with pytest.raises(OSError, match=r"cannot download .*: not done within 0\.5 s"):
        data.load_makemore()
    assert not server.stopped.is_set()
    assert cached() == []


def test_a_number_is_no_path() -> None:
    with pytest.raises(TypeError, match="int"):
        data.load_file(0)  # type: ignore[arg-type]


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
