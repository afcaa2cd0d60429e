"""A training run to watch and steer in a browser: the loop, what it shows, and the server, on this machine alone."""

from __future__ import annotations

import copy
import json
import math
import queue
import random
import re
import secrets
import sys
import threading
import time
from array import array
from collections.abc import Callable, Mapping
from dataclasses import replace
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, NamedTuple

from microgpt.explore import document_page
from microgpt.graphs import Named
from microgpt.sampler import generate
from microgpt.text import Text
from microgpt.trainer import Trainer

BURST, BURST_PACE = 8, 5000  # so many steps between two looks at the clock, from this pace on
CHUNK = 0.002  # seconds of training between two looks at waiting requests
FIRST_PACE = 10.0  # steps a second: at full speed a thousand are over before one has seen the first
MAX_PACE = 1e6
MAX_STEPS = 1000  # of one request
MAX_RATE = 10.0
MAX_BODY = 4096  # bytes of a request
MAX_WAIT = 60.0  # seconds until a request is answered; going back to a step may take some
SNAPSHOTS = 32
FIRST_EVERY = 64  # steps between two snapshots, at first
SNAPSHOT_BYTES = 256_000_000  # of all of them together
WATCHED = 8  # documents that units must not open on to be called dead
HEALTH_SHARE = 0.02  # of the time goes into looking at the model's health, and as much into samples
PROMPTS = 4

PAGE = Path(__file__).with_name("page")
FILES = {
    "/": ("live.html", "text/html"),
    "/live.js": ("live.js", "text/javascript"),
    "/page.js": ("page.js", "text/javascript"),
    "/page.css": ("page.css", "text/css"),
    "/live.css": ("live.css", "text/css"),
}
HEADERS = {
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; base-uri 'none'; "
    "form-action 'none'; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-store",
    "Cross-Origin-Resource-Policy": "same-origin",
}


class RefusedError(Exception):
    """A request that is not obeyed, with the status that says so."""

    def __init__(self, status: int, reason: str) -> None:
        super().__init__(reason)
        self.status = status


class Snapshot(NamedTuple):
    """What a step begins with."""

    weights: array[float]
    m: array[float]
    v: array[float]
    random: Any  # state of the run's generator


class History:
    """The run at some of its steps, from which any step so far can be computed again, to the last bit.

    Where there are too many snapshots every other one goes: they are evenly spaced at any time.
    """

    def __init__(self, trainer: Trainer) -> None:
        self.trainer = trainer
        size = 3 * 8 * len(trainer.optimizer.parameters)
        self.room = max(2, min(SNAPSHOTS, SNAPSHOT_BYTES // size))
        self.every = FIRST_EVERY
        self.snapshots: dict[int, Snapshot] = {}
        self.losses = trainer.losses
        self.first = self.due = len(trainer.losses)
        self.note()

    def note(self) -> None:
        """Keep a snapshot where one is due."""
        step = len(self.losses)
        if step < self.due:  # as mostly: a run is to be no slower for it
            return
        self.due = step + self.every
        optimizer = self.trainer.optimizer
        weights = array("d", bytes(8 * len(optimizer.parameters)))
        optimizer.parameters.copy_data(weights)
        self.snapshots[step] = Snapshot(weights, optimizer.m[:], optimizer.v[:], self.trainer.rng.getstate())
        if len(self.snapshots) > self.room:
            self.every *= 2
            self.snapshots = {at: kept for at, kept in self.snapshots.items() if (at - self.first) % self.every == 0}
            self.due = max(self.snapshots) + self.every

    def at(self, step: int) -> Trainer:
        """Return a run of its own that has made `step` steps. ValueError for a step that was not made here."""
        run = self.trainer
        if not self.first <= step <= len(run.losses):
            raise ValueError(f"this run can be looked at from step {self.first} to {len(run.losses)}, not at {step}")
        begun = max(at for at in self.snapshots if at <= step)
        again = twin_of(run)
        again.losses = run.losses[:begun]
        weights, m, v, state = self.snapshots[begun]
        again.rng.setstate(state)
        again.optimizer.parameters.data = weights.tolist()
        again.optimizer.m, again.optimizer.v, again.optimizer.steps = m[:], v[:], begun
        while len(again.losses) < step:
            again.train_step()
        return again


def twin_of(trainer: Trainer) -> Trainer:
    """Return a run of its own that stands where this one does. It validates nothing, which changes no step."""
    twin = copy.copy(trainer)
    twin.settings = replace(trainer.settings, validation=0.0, patience=None)
    twin.before_update = None
    twin.rng = random.Random()
    twin.rng.setstate(trainer.rng.getstate())
    twin.losses = trainer.losses[:]
    copied: list[Any] = [trainer.model, trainer.optimizer]
    twin._model, twin.optimizer = copy.deepcopy(copied)
    return twin


def some_of(trainer: Trainer, count: int) -> list[str]:
    """Return the first documents of a run, or of a text pieces as long as the block."""
    if not isinstance(trainer.text, Text):
        return trainer.text[:count]
    size = trainer.model.config.block_size
    return [trainer.text[i * size : (i + 1) * size] for i in range(min(count, len(trainer.text) // size))]


class Session:
    """A run and who watches it. `loop` trains, in its thread alone; `ask` lets it do something in between, from any other."""

    def __init__(self, trainer: Trainer) -> None:
        self.trainer = trainer
        self.history = History(trainer)
        self.running = False
        self.pace = FIRST_PACE
        self.trouble = ""  # why the run cannot go on
        self.jobs: queue.SimpleQueue[tuple[Callable[[], Any], queue.SimpleQueue[Any]]] = queue.SimpleQueue()
        self.due = 0.0
        self.health: list[dict[str, Any]] = []
        self.samples: list[dict[str, str]] = []
        self.next_health = self.next_samples = 0.0
        prompts = dict.fromkeys(["", *(document[:2] for document in some_of(trainer, 20))])
        self.prompts = [prompt for prompt in prompts if len(prompt) < trainer.model.config.block_size][:PROMPTS]
        self.weights = array("f", bytes(4 * len(trainer.optimizer.parameters)))
        self.shapes = [(name, matrix.shape) for name, matrix in trainer.model.named_parameters()]

    def loop(self, stopped: Callable[[], object]) -> None:
        """Train and answer until `stopped` or the run is over and nobody asks any more."""
        while not stopped():
            if self.can_train() and (wait := self.due - time.perf_counter()) <= 0:
                self.train()
                wait = 0.0
            elif not self.can_train():
                wait = 0.1
            try:
                job, answer = self.jobs.get(timeout=min(wait, 0.1)) if wait > 0 else self.jobs.get_nowait()
            except queue.Empty:
                continue
            try:
                answer.put(job())
            except (ArithmeticError, ValueError) as error:
                answer.put(error)

    def can_train(self) -> bool:
        """Whether the next step is to be made."""
        return self.running and not self.trainer.finished and not self.trouble

    def train(self) -> None:
        """Make the steps that are due, for a moment at most."""
        now = time.perf_counter()
        end = now + CHUNK
        self.due = max(self.due, now - 0.1)  # what was missed for longer is not made up for
        trainer, pause, burst = self.trainer, 1 / self.pace, 1
        if self.pace >= BURST_PACE and trainer.settings.patience is None:
            burst = BURST
        while self.due <= now < end and not trainer.finished and not self.trouble:
            for _ in range(min(burst, trainer.settings.steps - len(trainer.losses))):
                self.step()
            self.due += burst * pause
            now = time.perf_counter()
        time.sleep(0)  # lets the threads of the server take their turn

    def step(self) -> None:
        """Make one step. One that fails ends the run."""
        if self.trouble:
            return
        try:
            self.trainer.train_step()
            self.history.note()
        except (ArithmeticError, ValueError) as error:
            self.trouble = f"training diverged in step {len(self.trainer.losses) + 1}: {error}"

    def ask(self, job: Callable[[], Any]) -> Any:
        """Let the loop do `job` and return what that returns. RefusedError where it fails or takes too long."""
        answer: queue.SimpleQueue[Any] = queue.SimpleQueue()
        self.jobs.put((job, answer))
        try:
            result = answer.get(timeout=MAX_WAIT)
        except queue.Empty:
            raise RefusedError(503, "the run does not answer") from None
        if isinstance(result, Exception):
            raise RefusedError(400, str(result))
        return result

    def do(self, verb: str, number: float) -> None:
        """Obey one of a fixed set of verbs. ValueError for another, or a number out of range."""
        allowed = {"run": (0, 0), "pause": (0, 0), "step": (1, MAX_STEPS), "pace": (0.1, MAX_PACE), "rate": (0, MAX_RATE)}
        if verb not in allowed:
            raise ValueError(f"there is no {verb[:20]!r}, use {', '.join(allowed)}")
        low, high = allowed[verb]
        if not low <= number <= high:
            raise ValueError(f"{verb} needs a number from {low} to {high}, got {number}")
        if verb in ("run", "pause"):
            self.running = verb == "run"
            self.due = time.perf_counter()
        elif verb == "step":
            self.running = False
            for _ in range(int(number)):
                if not self.trainer.finished:
                    self.step()
        elif verb == "pace":
            self.pace = number
        else:
            self.trainer.set_learning_rate(number)

    def frame(self, since: int) -> bytes:
        """Return what is new since that step: the length of a JSON text, the text, then losses and weights as 32-bit floats."""
        trainer, now = self.trainer, time.perf_counter()
        if now >= self.next_samples:
            self.samples = self.draw_samples()
            self.next_samples = now + max(0.5, (time.perf_counter() - now) / HEALTH_SHARE)
        now = time.perf_counter()
        if now >= self.next_health:
            self.health = self.look_at_health()
            self.next_health = now + max(0.5, (time.perf_counter() - now) / HEALTH_SHARE)
        made = len(trainer.losses)
        losses = array("f", trainer.losses[since:])
        head = {
            "step": made,
            "steps": trainer.settings.steps,
            "first": self.history.first,
            "running": self.can_train(),
            "finished": trainer.finished,
            "trouble": self.trouble,
            "pace": self.pace,
            "rate": trainer.rate_at(made),
            "changed": len(trainer.rates),
            "losses": len(losses),
            "validations": list(trainer.validations.items()),
            "tensors": self.shapes,
            "samples": self.samples,
            "health": self.health,
        }
        trainer.optimizer.parameters.copy_data(self.weights)
        text = json.dumps(head, allow_nan=False).encode()
        text += b" " * (-len(text) % 4)
        return array("I", [len(text)]).tobytes() + text + losses.tobytes() + self.weights.tobytes()

    def draw_samples(self) -> list[dict[str, str]]:
        """Return a document for each prompt, by the same draws at any step."""
        model, tokenizer = self.trainer.model, self.trainer.tokenizer
        samples = []
        for number, prompt in enumerate(self.prompts):
            try:
                text = generate(model, tokenizer, random.Random(number), temperature=0.5, prompt=prompt)
            except (ArithmeticError, ValueError) as error:
                text = f"({error})"
            samples.append({"prompt": prompt, "text": text})
        return samples

    def look_at_health(self) -> list[dict[str, Any]]:
        """Return what the next step would do to each tensor, and which units of the MLPs are open."""
        trainer = self.trainer
        twin = twin_of(trainer)
        seen: dict[str, dict[str, Any]] = {}

        def look(step: Trainer) -> None:
            for name, matrix in step.model.named_parameters():
                grads, weights = (array("d", bytes(8 * matrix.shape[0] * matrix.shape[1])) for _ in range(2))
                matrix.copy_grad(grads)
                matrix.copy_data(weights)
                seen[name] = {"name": name, "before": weights, "gradient": root_mean_square(grads)}

        twin.before_update = look
        try:
            twin.train_step()
        except (ArithmeticError, ValueError):
            return self.health
        rows = []
        for name, matrix in twin.model.named_parameters():
            before = seen[name].pop("before")
            after = array("d", before)
            matrix.copy_data(after)
            size = root_mean_square(before)
            change = root_mean_square(array("d", (a - b for a, b in zip(after, before, strict=True))))
            rows.append({**seen[name], "weight": size, "update": min(change / size, sys.float_info.max) if size else 0.0})
        return [*rows, *self.look_at_units()]

    def look_at_units(self) -> list[dict[str, Any]]:
        """Return of each MLP the share of units that are closed, and how many are so at every position of some documents."""
        trainer = self.trainer
        opened: dict[str, list[int]] = {}
        positions = 0
        for document in some_of(trainer, WATCHED):
            names: Mapping[str, Named] = trainer.model.trace(
                trainer.tokenizer.encode(document[: trainer.model.config.block_size])
            ).names
            for i in range(trainer.model.config.n_layer):
                rows: Any = names[f"layer{i}.relu"]
                counts = opened.setdefault(f"layer{i}.relu", [0] * rows.shape[1])
                for row in rows.data:
                    for unit, output in enumerate(row):
                        counts[unit] += output > 0
            positions += rows.shape[0]
        return [
            {"name": name, "zeros": 1 - sum(counts) / (positions * len(counts)), "dead": counts.count(0), "units": len(counts)}
            for name, counts in opened.items()
        ]

    def weights_at(self, step: int) -> bytes:
        """Return the weights of a step as 32-bit floats."""
        again = self.history.at(step)
        weights = array("f", bytes(4 * len(again.optimizer.parameters)))
        again.optimizer.parameters.copy_data(weights)
        return weights.tobytes()

    def graph_at(self, step: int) -> bytes:
        """Return the graph of the step that follows on `step` steps, of its first document, for the page."""
        again = self.history.at(step)
        tokens = again.batches.batch(step, again.rng)[0]
        document = again.tokenizer.decode(tokens)[: again.model.config.block_size]
        optimizer = again.optimizer
        optimizer.learning_rate = again.rate_at(step)
        rate = f"the learning rate {optimizer.learning_rate:g}"
        note = f"Step {step + 1} of the run, on its first document. The update is Adam's, at {rate}."
        return json.dumps(document_page(again.model, again.tokenizer, document, optimizer, note)._payload).encode()


def root_mean_square(numbers: array[float]) -> float:
    """Return the size of the numbers, at most the largest float: JSON has no infinity."""
    size = math.hypot(*numbers) / math.sqrt(len(numbers))
    return size if math.isfinite(size) else sys.float_info.max


class Server(ThreadingHTTPServer):
    """Listens on this machine alone, and answers who has the token."""

    daemon_threads = True
    allow_reuse_address = False  # on Windows another program could listen there, too

    def __init__(self, session: Session, port: int = 0) -> None:
        self.session = session
        self.token = secrets.token_urlsafe(16)
        self.files = {path: ((PAGE / name).read_bytes(), kind) for path, (name, kind) in FILES.items()}
        super().__init__(("127.0.0.1", port), Handler)
        self.hosts = {f"{name}:{self.server_port}" for name in ("127.0.0.1", "localhost")}

    @property
    def address(self) -> str:
        """Where to look. What is after # a browser keeps to itself."""
        return f"http://127.0.0.1:{self.server_port}/#{self.token}"

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Say nothing of readers that went away."""
        if not isinstance(sys.exc_info()[1], OSError):
            super().handle_error(request, client_address)


class Handler(BaseHTTPRequestHandler):
    """Answers one request after the other of one connection."""

    server: Server
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    timeout = 120

    def do_GET(self) -> None:
        """Answer a question."""
        self.respond(self.get)

    def do_POST(self) -> None:
        """Obey."""
        self.respond(self.post)

    def respond(self, method: Callable[[], tuple[bytes, str]]) -> None:
        """Send what `method` returns, or why it is refused."""
        status = 200
        try:
            self.check_place()
            content, kind = method()
        except RefusedError as error:
            status, content, kind = error.status, f"{error}\n".encode(), "text/plain"
            self.close_connection = True  # a body that was not read would be taken for the next request
        self.reply(status, content, kind)

    def reply(self, status: int, content: bytes, kind: str) -> None:
        """Send head and body in one write."""
        charset = "; charset=utf-8" if kind.startswith("text/") else ""
        headers = {**HEADERS, "Content-Type": kind + charset, "Content-Length": str(len(content))}
        if self.close_connection:
            headers["Connection"] = "close"
        lines = [f"HTTP/1.1 {status} {HTTPStatus(status).phrase}", *(f"{name}: {value}" for name, value in headers.items())]
        self.wfile.write("\r\n".join([*lines, "", ""]).encode("ascii") + content)

    def send_error(self, code: int, message: str | None = None, *_: Any) -> None:
        """As `reply`: what is wrong with a request that cannot be read is no page."""
        self.close_connection = True
        self.reply(code, f"{message or 'refused'}\n".encode("ascii", "replace"), "text/plain")

    def check_place(self) -> None:
        """Refuse what another page sends, or what came by another name: that of a server that points here."""
        if (
            self.headers.get_all("Host") is None
            or len(self.headers.get_all("Host", [])) != 1
            or self.headers["Host"] not in self.server.hosts
        ):
            raise RefusedError(403, "this server is 127.0.0.1, and nothing else")
        origin = self.headers.get("Origin")
        if origin is not None and origin.removeprefix("http://") not in self.server.hosts:
            raise RefusedError(403, "another page has no business here")

    def check_token(self) -> None:
        """Refuse who was not given the address."""
        given = self.headers.get("X-Token", "")
        if not secrets.compare_digest(given.encode("utf-8", "replace"), self.server.token.encode()):
            raise RefusedError(403, "open the address that the command has printed")

    def get(self) -> tuple[bytes, str]:
        """Return a file of the page, or numbers of the run."""
        if self.path in self.server.files:
            return self.server.files[self.path]
        self.check_token()
        session = self.server.session
        found = re.fullmatch(r"/(frame|weights|graph)\?step=(\d{1,9})", self.path)
        if found is None:
            raise RefusedError(404, "there is nothing here")
        step = int(found[2])
        job = {"frame": session.frame, "weights": session.weights_at, "graph": session.graph_at}[found[1]]
        kind = "application/json" if found[1] == "graph" else "application/octet-stream"
        return session.ask(lambda: job(step)), kind

    def post(self) -> tuple[bytes, str]:
        """Obey a verb with a number."""
        self.check_token()
        length = self.headers.get("Content-Length", "")
        if self.path != "/do":
            raise RefusedError(404, "there is nothing here")
        if not re.fullmatch(r"\d{1,9}", length):
            raise RefusedError(411, "a length is needed")
        if int(length) > MAX_BODY:
            raise RefusedError(413, f"a request has {MAX_BODY} bytes at most")
        try:
            given = json.loads(self.rfile.read(int(length)))
            verb, number = given["verb"], given["number"]
        except (ValueError, TypeError, KeyError, RecursionError):
            raise RefusedError(400, "a verb and a number are needed") from None
        if (
            not isinstance(verb, str)
            or isinstance(number, bool)
            or not isinstance(number, int | float)
            or set(given) != {"verb", "number"}
        ):
            raise RefusedError(400, "a verb and a number are needed")
        self.server.session.ask(lambda: self.server.session.do(verb, number))
        return b"", "text/plain"

    def log_message(self, *_: Any) -> None:
        """Say nothing."""


def serve(session: Session) -> Server:
    """Return a server that answers from now on, in threads of its own, while `session.loop` runs."""
    server = Server(session)
    threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.1}, daemon=True).start()
    return server
