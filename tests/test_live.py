"""The live page's run and server: bits, looking back, verbs, and every refusal."""

from __future__ import annotations

import http.client
import json
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from array import array
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from test_inspect import bits

from microgpt import GPT
from microgpt.explore import has_screen
from microgpt.live import MAX_BODY, SNAPSHOTS, History, RefusedError, Server, Session, serve
from microgpt.model import GPTConfig
from microgpt.resume import Source, save
from microgpt.settings import Settings
from microgpt.trainer import Trainer

DOCUMENTS = ["anna", "hannah", "nan", "an", "ha", "nana", "hahn", "aha"] * 3
SETTINGS = Settings(steps=300, n_embd=8, n_head=2, n_layer=2, block_size=8, batch_size=2, validation=0.2, validation_every=10)


def new_trainer(**changes: Any) -> Trainer:
    return Trainer(Settings(**{**vars(SETTINGS), **changes}), DOCUMENTS[:])


def weights_of(trainer: Trainer) -> list[float]:
    return trainer.optimizer.parameters.data


def read_frame(raw: bytes) -> tuple[dict[str, Any], array[float], array[float]]:
    length = int.from_bytes(raw[:4], sys.byteorder)
    head = json.loads(raw[4 : 4 + length])
    numbers = array("f")
    numbers.frombytes(raw[4 + length :])
    return head, numbers[: head["losses"]], numbers[head["losses"] :]


def test_watching_changes_no_bit() -> None:
    plain, session = new_trainer(), Session(new_trainer())
    for step in range(60):
        plain.train_step()
        session.step()
        session.next_health = session.next_samples = 0.0
        session.frame(step)
        if step % 20 == 7:
            session.graph_at(step // 2)
            session.weights_at(step)
    watched = session.trainer
    assert bits(watched.losses) == bits(plain.losses)
    assert bits(weights_of(watched)) == bits(weights_of(plain))
    assert bits(watched.optimizer.m) == bits(plain.optimizer.m)
    assert watched.validations == plain.validations
    assert watched.rng.getstate() == plain.rng.getstate()
    assert not any(watched.optimizer.parameters.grad)


@pytest.mark.parametrize("room", [2, 3, 7])
def test_any_step_is_computed_again_to_the_last_bit(room: int) -> None:
    trainer = new_trainer(clip_grad=0.5, weight_decay=0.01)
    history = History(trainer)
    history.room, history.every, history.due = room, 1, 1
    weights = [weights_of(trainer)]
    for step in range(40):
        if step == 25:
            trainer.set_learning_rate(0.2)
        trainer.train_step()
        history.note()
        weights.append(weights_of(trainer))
    assert len(history.snapshots) <= room
    for step in (0, 1, 13, 24, 25, 26, 39, 40):
        again = history.at(step)
        assert bits(weights_of(again)) == bits(weights[step])
        assert bits(again.losses) == bits(trainer.losses[:step])
    assert bits(weights_of(trainer)) == bits(weights[40])
    for step in (-1, 41):
        with pytest.raises(ValueError, match=f"can be looked at from step 0 to 40, not at {step}"):
            history.at(step)


def test_snapshots_are_few_and_evenly_spaced() -> None:
    trainer = new_trainer(steps=1000, n_layer=1, batch_size=1, validation=0.0)
    history = History(trainer)
    history.every = history.due = 2
    for made in range(1, 501):
        trainer.train_step()
        history.note()
        steps = sorted(history.snapshots)
        assert len(steps) <= SNAPSHOTS
        assert steps == list(range(0, made + 1, history.every))
    assert len(steps) >= SNAPSHOTS // 2
    large = Trainer(Settings(n_layer=1, n_embd=64, block_size=8), ["abcdefgh"] * 2)
    assert 24 * len(large.optimizer.parameters) * History(large).room <= 256_000_000


def test_a_frame_is_what_is_new() -> None:
    session = Session(new_trainer())
    for _ in range(12):
        session.step()
    head, losses, weights = read_frame(session.frame(7))
    trainer = session.trainer
    assert list(losses) == list(array("f", trainer.losses[7:]))
    assert list(weights) == list(array("f", weights_of(trainer)))
    assert (head["step"], head["steps"], head["running"], head["finished"], head["changed"]) == (12, 300, False, False, 0)
    assert head["validations"] == [[10, trainer.validations[10]]]
    assert sum(rows * columns for _, (rows, columns) in head["tensors"]) == len(weights)
    assert [sample["prompt"] for sample in head["samples"]] == session.prompts
    assert all(sample["text"].startswith(sample["prompt"]) for sample in head["samples"])
    assert read_frame(session.frame(12))[1] == array("f")


def test_health_is_what_the_next_step_does() -> None:
    session = Session(new_trainer())
    for _ in range(5):
        session.step()
    rows = {row["name"]: row for row in session.look_at_health()}
    trainer, name = session.trainer, "layer1.mlp_fc1"
    before = [x for row in trainer.model.state_dict()[name].data for x in row]
    grads: list[float] = []
    trainer.before_update = lambda trainer: grads.extend(g for row in trainer.model.state_dict()[name].grad for g in row)
    trainer.train_step()
    after = [x for row in trainer.model.state_dict()[name].data for x in row]

    def size(numbers: list[float]) -> float:
        return (sum(x * x for x in numbers) / len(numbers)) ** 0.5

    assert rows[name]["gradient"] == pytest.approx(size(grads))
    assert rows[name]["weight"] == pytest.approx(size(before))
    assert rows[name]["update"] == pytest.approx(size([a - b for a, b in zip(after, before, strict=True)]) / size(before))


def test_dead_units_are_counted() -> None:
    trainer = new_trainer()
    fc1 = trainer.model.layers[0].mlp_fc1
    fc1.data = [[0.0] * 8 if unit < 5 else row for unit, row in enumerate(fc1.data)]
    units = {row["name"]: row for row in Session(trainer).look_at_units()}
    assert (units["layer0.relu"]["dead"], units["layer0.relu"]["units"]) == (5, 32)
    assert units["layer1.relu"]["dead"] == 0
    assert units["layer0.relu"]["zeros"] > 5 / 32


def test_verbs_do_what_they_say_and_numbers_have_bounds() -> None:
    session = Session(new_trainer())
    session.do("step", 3)
    assert len(session.trainer.losses) == 3
    session.do("pace", 50)
    session.do("run", 0)
    assert (session.pace, session.running) == (50, True)
    session.do("pause", 0)
    assert not session.running
    session.do("step", 1000)
    assert session.trainer.finished
    assert len(session.trainer.losses) == 300
    for verb, number in (
        ("step", 0),
        ("step", 1001),
        ("pace", 0),
        ("pace", float("nan")),
        ("rate", -1),
        ("rate", float("inf")),
        ("run", 1),
    ):
        with pytest.raises(ValueError, match=f"{verb} needs a number from"):
            session.do(verb, number)
    with pytest.raises(ValueError, match="there is no '__class__', use run, pause, step, pace, rate"):
        session.do("__class__", 0)


def test_a_changed_learning_rate_marks_the_run(tmp_path: Path) -> None:
    session = Session(new_trainer())
    session.do("step", 30)
    session.do("rate", 0.05)
    trainer = session.trainer
    assert trainer.rate_at(29) == pytest.approx(0.01 * (1 - 29 / 300))
    assert trainer.rate_at(30) == pytest.approx(0.05 * (1 - 30 / 300))
    assert read_frame(session.frame(30))[0]["changed"] == 1
    with pytest.raises(ValueError, match="the learning rate was changed after step 30: no settings describe such a run"):
        save(str(tmp_path / "run.safetensors"), trainer, Source(None, "names", 24, ""))
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(ValueError, match="learning_rate must be"):
        trainer.set_learning_rate(0.0)


def test_a_run_that_diverges_says_so_and_stops() -> None:
    session = Session(new_trainer(learning_rate=1e300))
    session.do("step", 20)
    assert session.trouble.startswith("training diverged in step ")
    session.do("run", 0)
    assert not session.can_train()
    head, *_ = read_frame(session.frame(0))
    assert head["trouble"] == session.trouble


class Watched:
    """A server whose run is in a thread of its own."""

    def __init__(self) -> None:
        self.over = False
        self.session = Session(new_trainer())
        self.server = serve(self.session)
        self.thread = threading.Thread(target=self.session.loop, args=(lambda: self.over,))
        self.thread.start()

    def request(
        self, path: str, *, method: str = "GET", body: bytes | None = None, **headers: str | None
    ) -> tuple[int, bytes, Any]:
        connection = http.client.HTTPConnection("127.0.0.1", self.server.server_port, timeout=30)
        given = {"Host": f"127.0.0.1:{self.server.server_port}", "X-Token": self.server.token}
        given.update({name.replace("_", "-"): value for name, value in headers.items() if value is not None})
        connection.putrequest(method, path, skip_host=True, skip_accept_encoding=True)
        for name, value in given.items():
            if headers.get(name.replace("-", "_"), "") is not None:
                connection.putheader(name, value)
        if body is not None and "Content_Length" not in headers:
            connection.putheader("Content-Length", str(len(body)))
        connection.endheaders(body)
        answer = connection.getresponse()
        content = answer.read()
        connection.close()
        return answer.status, content, answer.headers

    def order(self, verb: str, number: float = 0) -> int:
        return self.request("/do", method="POST", body=json.dumps({"verb": verb, "number": number}).encode())[0]


@pytest.fixture(scope="module")
def watched() -> Iterator[Watched]:
    one = Watched()
    yield one
    one.over = True
    one.thread.join()
    one.server.shutdown()
    one.server.server_close()


def test_the_server_runs_steps_and_shows_the_run(watched: Watched) -> None:
    assert watched.order("pace", 100) == watched.order("run") == 200
    end = time.monotonic() + 20
    while len(watched.session.trainer.losses) < 20:
        assert time.monotonic() < end
        time.sleep(0.01)
    assert watched.order("pause") == 200
    status, raw, headers = watched.request("/frame?step=0")
    head, losses, _ = read_frame(raw)
    assert (status, headers["Content-Type"]) == (200, "application/octet-stream")
    assert list(losses) == list(array("f", watched.session.trainer.losses))
    assert head["running"] is False
    assert watched.order("step", 2) == 200
    assert len(watched.session.trainer.losses) == head["step"] + 2
    status, raw, _ = watched.request("/weights?step=3")
    assert raw == array("f", weights_of(watched.session.history.at(3))).tobytes()
    status, raw, _ = watched.request("/graph?step=3")
    document = watched.session.trainer.text[3 * 2]
    assert json.loads(raw)["title"] == f"{document}: one training step"
    assert watched.request("/graph?step=999")[:2] == (
        400,
        b"this run can be looked at from step 0 to %d, not at 999\n" % (head["step"] + 2),
    )


@pytest.mark.parametrize("path", ["/", "/live.js", "/page.js", "/page.css", "/live.css"])
def test_the_page_itself_needs_no_token_and_tells_nothing(path: str, watched: Watched) -> None:
    status, content, headers = watched.request(path, X_Token=None)
    assert status == 200
    assert watched.server.token.encode() not in content
    assert headers["Content-Security-Policy"].startswith(
        "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self';"
    )
    assert "frame-ancestors 'none'" in headers["Content-Security-Policy"]
    kept = [headers[name] for name in ("X-Content-Type-Options", "Referrer-Policy", "Cache-Control")]
    assert kept == ["nosniff", "no-referrer", "no-store"]
    assert not re.search(rb"\b(innerHTML|outerHTML|insertAdjacentHTML|eval|document\.write)\b", content)


@pytest.mark.parametrize("host", ["example.com", "127.0.0.1", "127.0.0.1:1", "localhost", "[::1]:80", "", None])
@pytest.mark.parametrize("path", ["/", "/frame?step=0"])
def test_a_foreign_host_is_refused(host: str | None, path: str, watched: Watched) -> None:
    assert watched.request(path, Host=host)[0] == 403


def test_localhost_is_this_machine_too(watched: Watched) -> None:
    assert watched.request("/frame?step=0", Host=f"localhost:{watched.server.server_port}")[0] == 200


@pytest.mark.parametrize(
    "origin", ["http://example.com", "null", "https://127.0.0.1", "http://127.0.0.1", "http://127.0.0.1:1", ""]
)
def test_a_foreign_origin_is_refused(origin: str, watched: Watched) -> None:
    assert watched.request("/frame?step=0", Origin=origin)[0] == 403
    assert watched.request("/do", method="POST", body=b'{"verb":"step","number":1}', Origin=origin)[0] == 403
    own = f"http://127.0.0.1:{watched.server.server_port}"
    assert watched.request("/frame?step=0", Origin=own)[0] == 200


@pytest.mark.parametrize("token", [None, "", "wrong", "\u00e9"])
@pytest.mark.parametrize("path", ["/frame?step=0", "/weights?step=0", "/graph?step=0", "/nothing"])
def test_without_the_token_there_is_nothing(token: str | None, path: str, watched: Watched) -> None:
    steps = len(watched.session.trainer.losses)
    status, content, _ = watched.request(path, X_Token=token)
    assert (status, content) == (403, b"open the address that the command has printed\n")
    assert watched.request("/do", method="POST", body=b'{"verb":"step","number":1}', X_Token=token)[0] == 403
    assert len(watched.session.trainer.losses) == steps


@pytest.mark.parametrize(
    "path",
    [
        "/../live.py", "/live.py", "/page.js/../live.html", "/page.js?x", "/%2e%2e/live.py", "/frame", "/frame?step=-1",
        "/frame?step=", "/frame?step=1e3", "/frame?step=0&step=1", "/graph?step=../0", "/weights?step=1234567890",
        "http://127.0.0.1/frame?step=0", "/do", "*",
    ],
)  # fmt: skip
def test_other_paths_lead_nowhere(path: str, watched: Watched) -> None:
    assert watched.request(path)[0] == 404


@pytest.mark.parametrize(
    ("body", "length", "status"),
    [
        (b" " * (MAX_BODY + 1), None, 413),
        (b"{}", "999999999", 413),
        (b"{}", "-1", 411),
        (b"{}", "1e3", 411),
        (b"{}", "", 411),
        (b"", None, 400),
        (b"[]", None, 400),
        (b"[" * 4000, None, 400),
        (b'{"verb":"step"}', None, 400),
        (b'{"verb":"step","number":"1"}', None, 400),
        (b'{"verb":"step","number":true}', None, 400),
        (b'{"verb":"step","number":1,"more":1}', None, 400),
        (b'{"verb":["step"],"number":1}', None, 400),
        (b'{"verb":"step","number":1e999}', None, 400),
        (b'{"verb":"step","number":NaN}', None, 400),
        (b'{"verb":"__init__","number":1}', None, 400),
        (b"\xff\xfe", None, 400),
    ],
)
def test_bodies_that_are_no_order_change_nothing(body: bytes, length: str | None, status: int, watched: Watched) -> None:
    steps = len(watched.session.trainer.losses)
    headers = {} if length is None else {"Content_Length": length}
    assert watched.request("/do", method="POST", body=body, **headers)[0] == status
    assert len(watched.session.trainer.losses) == steps
    assert not watched.session.running


@pytest.mark.parametrize("method", ["PUT", "DELETE", "OPTIONS", "HEAD", "TRACE"])
def test_other_methods_are_not_there(method: str, watched: Watched) -> None:
    status, _, headers = watched.request("/frame?step=0", method=method)
    assert status == 501
    assert headers["Content-Security-Policy"]


def test_what_is_no_http_is_answered_as_text(watched: Watched) -> None:
    for raw in (
        b"\x16\x03\x01\x02\x00\x01\r\n\r\n",
        b"GET /" + b"x" * 70_000 + b" HTTP/1.1\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n",
    ):
        with socket.create_connection(("127.0.0.1", watched.server.server_port), timeout=10) as connection:
            connection.sendall(raw)
            answer = b"".join(iter(lambda c=connection: c.recv(65536), b""))  # type: ignore[misc]
        assert re.match(rb"HTTP/1.1 (400|403|414) ", answer), answer[:100]
        assert b"<" not in answer


def test_a_second_listener_is_refused(watched: Watched) -> None:
    with pytest.raises(OSError, match=r"in use|[Oo]nly one usage"):
        Server(watched.session, watched.server.server_port)
    assert watched.server.server_address[0] == "127.0.0.1"


def test_tokens_are_long_and_never_the_same() -> None:
    tokens = set()
    for _ in range(20):
        server = Server(Session.__new__(Session))
        tokens.add(server.token)
        server.server_close()
    assert len(tokens) == 20
    assert all(len(token) == 22 for token in tokens)  # 128 bits, 6 a letter


def test_an_answer_that_does_not_come_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("microgpt.live.MAX_WAIT", 0.01)
    with pytest.raises(RefusedError, match="the run does not answer"):
        Session(new_trainer()).ask(lambda: None)


Start = Callable[..., tuple["subprocess.Popen[str]", int, str]]


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    """A function that starts the command in tmp_path and returns the process, its port and its token."""
    processes = []

    def call(*arguments: str) -> tuple[subprocess.Popen[str], int, str]:
        process = subprocess.Popen(
            [sys.executable, "-m", "microgpt.explore", "--no-browser", *arguments],
            stderr=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            cwd=tmp_path,
            # A shell lets what it starts in the background ignore Ctrl-C, and so would the tests.
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
        )
        processes.append(process)
        assert process.stderr is not None
        line = process.stderr.readline()
        while line and not line.startswith("open "):
            line = process.stderr.readline()
        found = re.fullmatch(r"open http://127\.0\.0\.1:(\d+)/#(\S+) to watch; Ctrl-C ends the run\n", line)
        assert found is not None, line
        return process, int(found[1]), found[2]

    yield call
    for process in processes:
        process.kill()
        process.communicate()


def say(port: int, token: str, path: str, body: dict[str, Any] | None = None) -> bytes:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
    method = "GET" if body is None else "POST"
    connection.request(method, path, None if body is None else json.dumps(body), {"X-Token": token})
    content = connection.getresponse().read()
    connection.close()
    return content


TINY = ["--data", "words.txt", "--steps", "40", "--n-embd", "8", "--n-head", "2", "--batch-size", "2", "--validation", "0.2"]


@pytest.mark.skipif(sys.platform == "win32", reason="signals")
def test_the_command_trains_saves_and_resumes_as_the_training_command_does(start: Start, tmp_path: Path) -> None:
    (tmp_path / "words.txt").write_text("\n".join(DOCUMENTS))
    train = [sys.executable, "-m", "microgpt.train", "--quiet", "--samples", "0"]
    subprocess.run([*train, *TINY, "--save", "a.safetensors"], cwd=tmp_path, check=True, capture_output=True, timeout=120)
    process, port, token = start(*TINY, "--save", "b.safetensors")
    say(port, token, "/do", {"verb": "step", "number": 25})
    process.send_signal(signal.SIGINT)
    out, errors = process.communicate(timeout=60)
    assert (process.returncode, out) == (130, "")
    assert "ended after step 25 of 40; wrote b.safetensors; to go on: python -m microgpt.train --resume b.safetensors" in errors
    process, port, token = start("--resume", "b.safetensors")
    head, losses, _ = read_frame(say(port, token, "/frame?step=0"))
    assert (head["step"], head["first"], len(losses)) == (25, 25, 25)
    assert b"from step 25 to 25, not at 3" in say(port, token, "/weights?step=3")
    say(port, token, "/do", {"verb": "step", "number": 100})
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 0
    a, b = (GPT.load(tmp_path / f"{name}.safetensors") for name in "ab")
    assert [matrix.data for matrix in a.own_matrices().values()] == [matrix.data for matrix in b.own_matrices().values()]


@pytest.mark.parametrize(
    ("platform", "variables", "screen"),
    [
        ("linux", {}, False),
        ("linux", {"DISPLAY": ":0"}, True),
        ("linux", {"WAYLAND_DISPLAY": "wayland-0"}, True),
        ("darwin", {}, True),
        ("win32", {}, True),
    ],
)
def test_a_browser_is_opened_where_it_has_a_window(
    platform: str, variables: dict[str, str], screen: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("DISPLAY", "WAYLAND_DISPLAY"):
        monkeypatch.delenv(name, raising=False)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr("microgpt.explore.sys.platform", platform)
    assert has_screen() is screen


@pytest.mark.skipif(sys.platform == "win32", reason="signals")
def test_a_run_whose_rate_was_changed_is_saved_as_a_model(start: Start, tmp_path: Path) -> None:
    (tmp_path / "words.txt").write_text("\n".join(DOCUMENTS))
    process, port, token = start(*TINY, "--save", "b.safetensors")
    say(port, token, "/do", {"verb": "rate", "number": 0.1})
    say(port, token, "/do", {"verb": "step", "number": 3})
    process.send_signal(signal.SIGTERM)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 128 + signal.SIGTERM
    assert "wrote b.safetensors, the model alone: the learning rate was changed on the way" in errors
    assert GPT.load(tmp_path / "b.safetensors").config == GPTConfig(4, 1, 8, 2, 16)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--text", "anna"], "--text needs a MODEL"),
        (
            ["model", "--steps", "3", "--text", "anna", "--save", "x.html"],
            "--steps is for a run to watch, not for the page of a MODEL",
        ),
        (["model", "--resume", "x", "--text", "anna", "--save", "x.html"], "--resume is for a run to watch"),
        (["model", "--text", "anna"], "the page of a MODEL needs --text TEXT and --save FILE"),
        (["--data", "none.txt"], "none.txt: No such file or directory"),
        (["--patience", "3"], "--patience needs --validation"),
    ],
)
def test_flags_that_do_not_go_together_are_refused(arguments: list[str], words: str, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "microgpt.explore", "--no-browser", *arguments]
    result = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, timeout=60)
    assert (result.returncode, result.stdout) == (2, "")
    assert words in result.stderr
    assert result.stderr.count("\n") == 1
