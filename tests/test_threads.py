"""Threads, and the signals and finalizers in which they run in the middle of an op: each computes as if it were alone.

    MICROGPT_THREADS=60 pytest tests/test_threads.py

goes on for 60 seconds instead of a few.
"""

from __future__ import annotations

import gc
import os
import random
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

import pytest
from process import printed_by
from test_memory import train_model

from microgpt import Adam, Value, Vector
from microgpt._tape import get_tape

SECONDS = float(os.environ.get("MICROGPT_THREADS", "4"))

pytestmark = pytest.mark.skipif(not hasattr(signal, "setitimer"), reason="needs an alarm clock")


@pytest.fixture
def ring() -> Iterator[Callable[[Callable[[], None], float], None]]:
    """A function that lets `action` run in a signal handler again and again, so many seconds after it began or ended."""
    before = signal.getsignal(signal.SIGALRM)
    over = False

    def start(action: Callable[[], None], seconds: float) -> None:
        def handler(number: int, frame: FrameType | None) -> None:
            if not over:
                action()
                signal.setitimer(signal.ITIMER_REAL, seconds)

        signal.signal(signal.SIGALRM, handler)
        signal.setitimer(signal.ITIMER_REAL, seconds)

    yield start
    over = True  # first: a signal that came just now would set the alarm again after it was stopped
    signal.setitimer(signal.ITIMER_REAL, 0)
    signal.signal(signal.SIGALRM, before)


Ring = Callable[[Callable[[], None], float], None]


def chain(n: int) -> tuple[Value, Value]:
    x = y = Value(1.0)
    for _ in range(n):
        y = y * 1.0000001
    return x, y


def is_searching() -> bool:
    """Whether the signal handler that asks came while a backward() was looking for its order."""
    try:
        Value(1.0).backward()
    except RuntimeError as error:
        return "still looking for its order" in str(error)
    return False


@pytest.mark.parametrize("call", [Value.backward, Value.zero_grad])
def test_a_node_that_moves_while_its_thread_waits_is_still_the_root(call: Callable[[Value], None], ring: Ring) -> None:
    """Only one thread looks for an order at a time. Once it is done a collection may come before the next one's turn."""
    junk = [Value(2.0) * 1.0 for _ in range(1000)]
    w = Value(3.0)
    root = w * w
    w.grad = root.grad = 7.0
    _, y = chain(1_000_000)
    waiting = threading.Event()
    thread = threading.Thread(target=lambda: (waiting.set(), call(root)))
    started: list[bool] = []

    def action() -> None:
        if not started and is_searching():
            started.append(True)
            thread.start()
            waiting.wait()
            time.sleep(0.01)

    interval = sys.getswitchinterval()
    sys.setswitchinterval(10)  # so that the other thread runs where this one sleeps, and nowhere else
    try:
        ring(action, 0.001)
        while not started:
            y.backward()
        nodes = get_tape().nodes
        junk.clear()
        get_tape().collect()
        assert get_tape().nodes <= nodes - 2000
    finally:
        sys.setswitchinterval(interval)
    thread.join()
    assert (root.grad, w.grad) == ((1.0, 13.0) if call is Value.backward else (0.0, 0.0))


def train_vector(seed: int) -> list[str]:
    """Train a few numbers; return the bits of all gradients on the way."""
    rng = random.Random(seed)
    parameters = Vector([rng.gauss(0, 1) for _ in range(20)])
    optimizer = Adam(list(parameters))
    bits = []
    for _ in range(5):
        loss = Vector(list(parameters)) @ parameters * parameters[0]
        for _ in range(20):
            loss = (loss + parameters[1]).tanh()
        loss.backward()
        bits += [g.hex() for g in parameters.grad]
        optimizer.step()
    return bits


def test_threads_train_while_signals_come_in_the_middle_of_a_long_backward(ring: Ring) -> None:
    """A signal handler, even an empty one, lets other threads run, which make nodes, drop them and change their own leaves."""
    tasks = [*[train_vector] * 6, *[train_model] * 2]
    alone = [task(seed) for seed, task in enumerate(tasks)]
    x, y = chain(1_000_000)
    y.backward()
    expected = x.grad
    wrong: list[str] = []
    rounds = [0] * len(tasks)
    stop = threading.Event()

    def run(seed: int) -> None:
        while not stop.is_set():
            try:
                if tasks[seed](seed) != alone[seed]:
                    wrong.append("other bits")
            except RuntimeError as error:
                wrong.append(str(error))
            rounds[seed] += 1

    threads = [threading.Thread(target=run, args=(seed,)) for seed in range(len(tasks))]
    ring(lambda: None, 0.002)
    end = time.monotonic() + SECONDS
    try:
        for thread in threads:
            thread.start()
        while (time.monotonic() < end or min(rounds) == 0) and not wrong:
            junk = [x * 1.0 for _ in range(1000)]
            y.zero_grad()
            y.backward()
            assert x.grad == expected
            del junk  # below nodes of other threads, which move
            get_tape().collect()
    finally:
        stop.set()
        for thread in threads:
            thread.join()
    assert wrong == []


@contextmanager
def finalizer(action: Callable[[], None], rest: int) -> Iterator[None]:
    """Let the cyclic collector come, and `action` run, after `rest` more objects."""

    class Ending:
        def __del__(self) -> None:
            action()

    threshold = gc.get_threshold()
    gc.collect()
    gc.disable()
    ending: Any = Ending()
    ending.me = ending
    del ending
    gc.set_threshold(gc.get_count()[0] + rest)
    gc.enable()
    try:
        yield
    finally:
        gc.set_threshold(*threshold)


def test_partials_are_refused_where_the_list_of_them_runs_code_that_changes_a_leaf() -> None:
    x, w = Value(2.0), Value(3.0)
    y = x * w
    outcomes = set()
    for rest in range(50):
        x.data = 2.0
        with finalizer(lambda: setattr(x, "data", 5.0), rest):
            try:
                outcomes.add(y.local_grads)
            except RuntimeError as error:
                outcomes.add(str(error).partition(":")[0])
    assert outcomes <= {(3.0, 2.0), "a leaf used by `mul` was changed after it was used"}


def test_a_division_by_zero_is_told_as_such_where_its_exception_runs_code_that_moves_nodes() -> None:
    outcomes = set()
    for rest in range(50):
        held = [Value(1.0) for _ in range(500)]
        x, y = Vector([1.0] * 4), Vector([1.0, 2.0, -0.0, 4.0])

        def move(held: list[Value] = held) -> None:
            held.clear()
            get_tape().collect()
            held += [Value(1.0) for _ in range(900)]

        with finalizer(move, rest):
            try:
                x / y
            except (ZeroDivisionError, SystemError) as error:
                outcomes.add(str(error))
    assert outcomes == {"division by a Value whose data is -0.0"}


def test_a_step_that_a_signal_handler_sets_in_the_middle_is_called() -> None:
    """Also the first one of the process."""
    code = """
import signal
from microgpt import Value
x = Value(1.0)
y = low = x * 1.0
for _ in range(3_000_000):
    y = y * 1.0
calls, passes = [], []
def handler(*_):
    try:
        (y * 1.0).backward()
    except RuntimeError as error:
        if "shares computed nodes" in str(error):       # the search is over
            passes.append(len(passes))
            low._backward = lambda: calls.append(low.grad)
            return
    signal.setitimer(signal.ITIMER_REAL, 0.001)
signal.signal(signal.SIGALRM, handler)
while not passes:
    x.grad = 0.0
    y.zero_grad()
    signal.setitimer(signal.ITIMER_REAL, 0.001)
    y.backward()
print(calls, x.grad)
"""
    assert printed_by(code) == "[1.0] 0.0\n"


def test_a_leaf_gets_or_loses_its_step_when_no_thread_looks_for_an_order(ring: Ring) -> None:
    """The mark that tells such a leaf would be taken for one of the search's own. A signal handler cannot wait: it is told."""
    _, y = chain(1_000_000)
    getting, losing = Value(1.0), Value(1.0)
    losing._backward = lambda: calls.append("lost")
    root = Vector([getting, losing, y]).sum()
    calls: list[str] = []
    told: list[str] = []

    def get() -> None:
        getting._backward = lambda: calls.append("got")

    def lose() -> None:
        del losing._backward

    threads = [threading.Thread(target=change) for change in (get, lose)]

    def action() -> None:
        if threads[0].ident or not is_searching():
            return
        for change in (get, lose):
            try:
                change()
            except RuntimeError as error:
                told.append(str(error))
        for thread in threads:
            thread.start()
        time.sleep(0.01)

    ring(action, 0.001)
    while not threads[0].ident:
        root.backward()
    for thread in threads:
        thread.join()
    assert len(told) == 2
    for message in told:
        assert "nor change the _backward of a leaf, while one is still looking for its order" in message
    for _ in range(2):
        calls.clear()
        root.backward()
        assert calls == ["got"]
