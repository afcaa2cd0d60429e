"""Batches of Programs in other threads and processes: interrupted, shared out, with workers that die."""

from __future__ import annotations

import importlib.util
import os
import signal
import subprocess
import sys
import time
from concurrent.futures import Executor, Future, ProcessPoolExecutor, ThreadPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from multiprocessing import get_context
from typing import Any

import pytest

import microgpt
from microgpt import Program, Value, Vector, programs, record

ROWS = [[0.01 * i, 1.0 - 0.003 * i] for i in range(700)]


def example() -> Program:
    x, k = Vector([0.5, 0.25]), Value(3.0)
    return record(microgpt.exp(x[0] * x[1]) * k + microgpt.softmax(x)[0], x, k)


def pool() -> ProcessPoolExecutor:
    return ProcessPoolExecutor(2, mp_context=get_context("spawn"))


@pytest.mark.parametrize("kind", ["processes", "threads"])
def test_an_executor_gives_the_same_bits(kind: str) -> None:
    p = example()
    p.parameters = [2.5]
    wanted = p.run_many(ROWS)
    seen: list[int] = []
    with pool() if kind == "processes" else ThreadPoolExecutor(3) as executor:
        assert p.run_many(ROWS, executor=executor, progress=lambda done, rows: seen.append(done)) == wanted
        assert p.run_many(ROWS, executor=executor, gradients=False) == wanted[0]
        assert p.run_many(ROWS, executor=executor, reduce="sum") == p.run_many(ROWS, reduce="sum")
        with pytest.raises(OverflowError, match=r"^row 5: exp of 2500"):
            p.run_many([*ROWS[:5], [50.0, 50.0], *ROWS[5:], [50.0, 60.0]], executor=executor)
        assert p.run_many([*ROWS[:5], [50.0, 50.0]], executor=executor, errors="nan")[0][:5] == wanted[0][:5]
    assert seen[-1] == len(ROWS)
    assert seen == sorted(seen)


class Dying(Executor):
    """Another pool's, in which one worker is killed when the third piece is given out."""

    def __init__(self, inner: ProcessPoolExecutor) -> None:
        self.inner, self.count = inner, 0

    def submit(self, function: Any, /, *arguments: Any, **options: Any) -> Future[Any]:
        self.count += 1
        return self.inner.submit(die_or_run, self.count == 3, function, *arguments)


def die_or_run(dies: bool, function: Any, *arguments: Any) -> Any:
    if dies:
        os._exit(1)
    return function(*arguments)


def test_a_worker_that_dies_is_reported() -> None:
    with pool() as executor, pytest.raises(BrokenProcessPool):
        example().run_many(ROWS, executor=Dying(executor))


def test_a_worker_keeps_few_programs() -> None:
    for i in range(20):
        x = Value(1.0)
        with ThreadPoolExecutor(1) as executor:
            record(x * float(i), x).run_many([[1.0]], executor=executor)
    assert len(programs.programs) <= 8


@pytest.mark.skipif(importlib.util.find_spec("distributed") is None, reason="needs dask.distributed")
@pytest.mark.filterwarnings("ignore")  # of a cluster that loses a worker
def test_dask_repeats_the_rows_of_a_worker_that_is_killed(tmp_path: Any) -> None:
    from distributed import Client, LocalCluster

    p = example()
    rows = [[0.001 * i, 0.5] for i in range(20_000)]
    wanted = p.run_many(rows), p.run_many(rows, reduce="sum")
    with (
        LocalCluster(
            n_workers=2, threads_per_worker=1, processes=True, dashboard_address=None, local_directory=str(tmp_path)
        ) as cluster,
        Client(cluster) as client,
    ):
        pids = client.run(os.getpid)
        killed: list[int] = []

        def kill_one(done: int, rows: int) -> None:
            if not killed and done > rows // 4:
                killed.append(next(iter(pids.values())))
                os.kill(killed[0], signal.SIGKILL)

        assert p.run_many(rows, executor=client.get_executor(), progress=kill_one) == wanted[0]
        assert killed
        assert p.run_many(rows, executor=client.get_executor(), reduce="sum") == wanted[1]


LONG = """
import random, signal
from array import array
from microgpt import Value, Vector, exp, record
rng = random.Random(1)
x = Vector([0.5, 0.25])
nodes = [x[0], x[1]]
for i in range({nodes}):
    nodes.append(exp(nodes[-1] * nodes[-2] * -0.5) if i % 5 == 0 else nodes[-1] * 0.5 + nodes[-2])
p = record(nodes[-1], x)
rows = memoryview(array("d", [0.5, 0.25]) * {rows}).cast("B").cast("d", [{rows}, 2])
p.value_and_grad([0.5, 0.25]); p.run_many(rows[:8])
signal.signal(signal.SIGINT, signal.default_int_handler)    # a shell starts its background jobs with it ignored
print("ready", flush=True)
try:
    while True:
        p.run_many(rows, threads={threads}, gradients=False)
except KeyboardInterrupt:
    print("stopped", flush=True)
"""


@pytest.mark.skipif(sys.platform == "win32", reason="signals")
@pytest.mark.parametrize("threads", [1, 3])
@pytest.mark.parametrize("nodes", [50, 200_000])
def test_ctrl_c_stops_a_batch_within_100_ms(nodes: int, threads: int) -> None:
    code = LONG.format(nodes=nodes, rows=300_000_000 // nodes, threads=threads)
    took: list[float] = []
    while not took or (took[-1] >= 0.1 and len(took) < 10):  # a busy machine may be late
        with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True) as process:
            assert process.stdout is not None
            assert process.stdout.readline() == "ready\n"
            time.sleep(0.2)
            start = time.monotonic()
            process.send_signal(signal.SIGINT)
            assert process.stdout.readline() == "stopped\n"
            took.append(time.monotonic() - start)
            process.wait(30)
    assert took[-1] < 0.1


def test_a_batch_lets_other_threads_run() -> None:
    """The lock is released: this thread counts while another is in one call."""
    x = Vector([0.5, 0.25])
    nodes = [x[0], x[1]]
    for _ in range(2000):
        nodes.append(microgpt.tanh(nodes[-1] * 0.5 + nodes[-2]))
    p = record(nodes[-1], x)
    rows = [[0.5, 0.25]] * 2000
    p.run_many(rows[:8])
    with ThreadPoolExecutor(1) as executor:
        future = executor.submit(p.run_many, rows, threads=1)
        ticks = 0
        while not future.done():
            time.sleep(0.001)
            ticks += 1
    assert ticks > 10
