"""Programs: ns per operation and run, value and gradient, beside casadi and numba where these are installed.

    python benchmarks/program.py [--rounds 30] [--only rogozhnikov,ode]

Of Rogozhnikov's graph an operation is what its source asks for, a softmax of four one of them; of the others each node is one.
All that is compared is built by the same source and run in turns of ten runs, in one process; CPU time, medians. Rows differ.
Sources: Rogozhnikov, "Fastest Autograd in the West" (2023); the option is Black and Scholes's, by simulated paths, and American
by the binomial tree of Cox, Ross and Rubinstein; the equation is Lotka and Volterra's.
"""

from __future__ import annotations

import argparse
import math
import os
import random
import statistics
import sys
import time
from array import array
from collections.abc import Callable, Sequence
from types import SimpleNamespace
from typing import Any, NamedTuple

import microgpt
from microgpt import Vector, record


def softmax_by_hand(lib: Any, xs: Sequence[Any]) -> list[Any]:
    """For libraries without one, and without the maximum, which is a number for the others."""
    exps = [lib.exp(x) for x in xs]
    total = sum(exps[1:], exps[0])
    return [e / total for e in exps]


def rogozhnikov(lib: Any, x: Sequence[Any], operations: int = 10_000) -> Any:
    nodes = list(x)
    for i in range(operations):
        if i % 4 == 0:
            nodes.append(lib.log(lib.exp(nodes[-10]) + 1))
        elif i % 4 == 1:
            nodes.append(lib.total(nodes[-30:-10:5]))
        elif i % 4 == 2:
            nodes.append(nodes[-20] * nodes[-10])
        else:
            nodes.extend(lib.softmax(nodes[-4:]))
    return nodes[-1]


def arithmetic(lib: Any, x: Sequence[Any], operations: int = 20_000) -> Any:
    """Products and sums of the last 60 results, and one exponential in ten; all stay between 0 and 2."""
    rng = random.Random(1)
    nodes = list(x)
    weight = nodes[0]
    for i in range(len(x), operations):
        a, b = nodes[-rng.randrange(2, 60)], nodes[-rng.randrange(2, 60)]
        if i % 10 == 0:
            weight = lib.exp(nodes[-1] * -1.0)
            nodes.append(weight)
        else:
            nodes.append(nodes[-1] * weight if i % 2 else a + b * 0.5 if i % 3 else a * b)
            if i % 2 == 0:
                nodes.append(nodes[-1] * 0.6)
    return lib.total(nodes[-60:])


def ode(lib: Any, x: Sequence[Any], steps: int = 300) -> Any:
    """Two populations by Runge-Kutta's classical method; the inputs are the four rates and where they start."""
    a, b, c, d, u, v = x
    h = 0.02

    def slopes(u: Any, v: Any) -> tuple[Any, Any]:
        w = u * v
        return a * u - b * w, d * w - c * v

    for _ in range(steps):
        k1, m1 = slopes(u, v)
        k2, m2 = slopes(u + k1 * (h / 2), v + m1 * (h / 2))
        k3, m3 = slopes(u + k2 * (h / 2), v + m2 * (h / 2))
        k4, m4 = slopes(u + k3 * h, v + m3 * h)
        u = u + (k1 + k2 * 2 + k3 * 2 + k4) * (h / 6)
        v = v + (m1 + m2 * 2 + m3 * 2 + m4) * (h / 6)
    return u * u + v * v


def option(lib: Any, x: Sequence[Any], paths: int = 1000) -> Any:
    """A call by simulated paths, from the spot, the strike, the rate, the volatility and the time."""
    spot, strike, rate, volatility, years = x
    rng = random.Random(1)
    drift = (rate - volatility * volatility * 0.5) * years
    spread = volatility * lib.sqrt(years)
    payoffs = [lib.relu(spot * lib.exp(spread * rng.gauss(0, 1) + drift) - strike) for _ in range(paths)]
    return lib.total(payoffs) * lib.exp(rate * years * -1.0) * (1 / paths)


def binomial(lib: Any, x: Sequence[Any], steps: int = 100) -> Any:
    """An American put by a binomial tree."""
    spot, strike, rate, volatility, years = x
    dt = years * (1 / steps)
    up = lib.exp(volatility * lib.sqrt(dt))
    down = 1 / up
    growth = lib.exp(rate * dt)
    p = (growth - down) / (up - down)
    stay, fall = p / growth, (1 - p) / growth
    ratio = up * up
    price = spot
    for _ in range(steps):
        price = price * down
    lowest = [price]
    for _ in range(steps):
        price = price * ratio
        lowest.append(price)
    values = [lib.relu(strike - s) for s in lowest]
    for n in range(steps, 0, -1):
        lowest = [s * up for s in lowest[:n]]
        values = [lib.maximum(strike - s, v * fall + w * stay) for s, v, w in zip(lowest, values, values[1:], strict=False)]
    return values[0]


class Workload(NamedTuple):
    build: Callable[[Any, Sequence[Any]], Any]
    point: list[float]
    operations: int  # 0 for the nodes
    one: float  # ns that are the goal, for one input
    batch: float  # and for a row of a batch


MARKET = [100.0, 105.0, 0.03, 0.2, 1.0]
WORKLOADS = {
    "rogozhnikov": Workload(rogozhnikov, [i / 100 for i in range(100)], 10_000, 15.0, 6.5),
    "arithmetic": Workload(arithmetic, [0.1 + i / 100 for i in range(60)], 0, 2.0, 0.7),
    "ode": Workload(ode, [1.1, 0.4, 0.4, 0.1, 10.0, 5.0], 0, 1.6, 0.7),
    "option": Workload(option, MARKET, 0, 2.5, 0.7),
    "binomial": Workload(binomial, MARKET, 0, 2.2, 0.7),
}
ROWS = 256
RUNS = 10  # of one input in a turn: a graph is run many times

ENGINE = SimpleNamespace(
    exp=microgpt.exp,
    log=microgpt.log,
    sqrt=microgpt.sqrt,
    relu=microgpt.relu,
    maximum=microgpt.maximum,
    softmax=microgpt.softmax,
    total=lambda xs: Vector(xs).sum(),
)


class Runner(NamedTuple):
    name: str
    run: Callable[[], Any]
    rows: int


def engine_runners(work: Workload) -> tuple[list[Runner], int, dict[str, float]]:
    """The graph rebuilt, the Program for one input and for rows; how many nodes there are, and facts about recording."""
    inputs = Vector(work.point)
    output = work.build(ENGINE, list(inputs))
    start = time.process_time()
    p = record(output, inputs)
    facts = {"recording, ns a node": 1e9 * (time.process_time() - start) / len(p)}
    output.backward()
    value, gradient = p.value_and_grad(work.point)
    assert (value, gradient) == (output.data, inputs.grad), "the bits differ"
    del output, inputs
    rng = random.Random(2)
    rows = array("d", [x * (1 + 0.05 * rng.random()) for _ in range(ROWS) for x in work.point])
    table = memoryview(rows).cast("B").cast("d", [ROWS, len(work.point)])
    point, ones = array("d", work.point), array("d", [1.0] * len(work.point))

    def rebuilt() -> None:
        x = Vector(work.point)
        work.build(ENGINE, list(x)).backward()

    runners = [
        Runner("rebuilt in Python", rebuilt, 1),
        Runner("Program, one input", lambda: p.value_and_grad(point), 1),
        Runner("Program, value alone", lambda: p(point), 1),
        Runner("Program, Hessian times vector", lambda: p.hessian_vector_product(point, ones), 1),
        Runner("Program, rows, one thread", lambda: p.run_many(table, threads=1), ROWS),
    ]
    return runners, len(p), facts


def casadi_runner(work: Workload) -> Runner | None:
    try:
        import casadi  # type: ignore[import-not-found, unused-ignore]
    except ImportError:
        return None
    lib = SimpleNamespace(
        exp=casadi.exp,
        log=casadi.log,
        sqrt=casadi.sqrt,
        relu=lambda x: casadi.fmax(x, 0.0),
        maximum=casadi.fmax,
        softmax=lambda xs: softmax_by_hand(casadi, xs),
        total=lambda xs: sum(xs[1:], xs[0]),
    )
    x = casadi.SX.sym("x", len(work.point))
    y = work.build(lib, [x[i] for i in range(len(work.point))])
    function = casadi.Function("f", [x], [y, casadi.gradient(y, x)])
    buffer, run = function.buffer()
    given, value, gradient = (memoryview(bytearray(8 * n)).cast("d") for n in (len(work.point), 1, len(work.point)))
    given[:] = array("d", work.point)
    buffer.set_arg(0, given)
    buffer.set_res(0, value)
    buffer.set_res(1, gradient)
    alive = buffer, function, given, value, gradient

    def run_once() -> Any:
        assert alive
        return run()

    return Runner("casadi SX, one input", run_once, 1)


class Tape:
    """A list of operations on arrays, for numba."""

    def __init__(self) -> None:
        self.rows: list[tuple[int, int, int, float]] = []

    def put(self, op: int, a: int = 0, b: int = 0, k: float = 0.0) -> Symbol:
        self.rows.append((op, a, b, k))
        return Symbol(self, len(self.rows) - 1)


class Symbol:
    def __init__(self, tape: Tape, id: int) -> None:
        self.tape, self.id = tape, id

    def __add__(self, other: Any) -> Symbol:
        if isinstance(other, Symbol):
            return self.tape.put(1, self.id, other.id)
        return self.tape.put(2, self.id, 0, other)

    def __mul__(self, other: Any) -> Symbol:
        if isinstance(other, Symbol):
            return self.tape.put(3, self.id, other.id)
        return self.tape.put(4, self.id, 0, other)

    __radd__, __rmul__ = __add__, __mul__

    def __sub__(self, other: Any) -> Any:
        return self + other * -1.0

    def __rsub__(self, other: Any) -> Any:
        return self * -1.0 + other

    def __truediv__(self, other: Any) -> Symbol:
        return self * self.tape.put(5, other.id)

    def __rtruediv__(self, other: Any) -> Any:
        return self.tape.put(5, self.id) * other

    def one(self, op: int, other: Any = None) -> Symbol:
        return self.tape.put(op, self.id, 0 if other is None else other.id)


def numba_runner(work: Workload) -> Runner | None:
    try:
        import numba  # type: ignore[import-not-found, unused-ignore]
        import numpy
    except ImportError:
        return None
    lib = SimpleNamespace(
        exp=lambda x: x.one(6),
        log=lambda x: x.one(7),
        sqrt=lambda x: x.one(8),
        relu=lambda x: x.one(9),
        maximum=lambda x, y: x.one(10, y),
        total=lambda xs: sum(xs[1:], xs[0]),
    )
    lib.softmax = lambda xs: softmax_by_hand(lib, xs)
    tape = Tape()
    inputs = [tape.put(0) for _ in work.point]
    work.build(lib, inputs)
    op, a, b = (numpy.array(column) for column in list(zip(*tape.rows, strict=True))[:3])
    k = numpy.array([row[3] for row in tape.rows])
    data, grad = numpy.zeros(len(op)), numpy.zeros(len(op))
    data[: len(work.point)] = work.point

    @numba.njit
    def run(op, a, b, k, data, grad):  # type: ignore[no-untyped-def]
        n = len(op)
        for i in range(n):
            o = op[i]
            if o == 1:
                data[i] = data[a[i]] + data[b[i]]
            elif o == 2:
                data[i] = data[a[i]] + k[i]
            elif o == 3:
                data[i] = data[a[i]] * data[b[i]]
            elif o == 4:
                data[i] = data[a[i]] * k[i]
            elif o == 5:
                data[i] = 1.0 / data[a[i]]
            elif o == 6:
                data[i] = math.exp(data[a[i]])
            elif o == 7:
                data[i] = math.log(data[a[i]])
            elif o == 8:
                data[i] = math.sqrt(data[a[i]])
            elif o == 9:
                data[i] = max(data[a[i]], 0.0)
            elif o == 10:
                data[i] = max(data[a[i]], data[b[i]])
        grad[:] = 0.0
        grad[n - 1] = 1.0
        for i in range(n - 1, -1, -1):
            o = op[i]
            g = grad[i]
            x = a[i]
            if o == 1:
                grad[x] += g
                grad[b[i]] += g
            elif o == 2:
                grad[x] += g
            elif o == 3:
                grad[x] += g * data[b[i]]
                grad[b[i]] += g * data[x]
            elif o == 4:
                grad[x] += g * k[i]
            elif o == 5:
                grad[x] -= g * data[i] * data[i]
            elif o == 6:
                grad[x] += g * data[i]
            elif o == 7:
                grad[x] += g / data[x]
            elif o == 8:
                grad[x] += g * 0.5 / data[i]
            elif o == 9:
                if data[x] > 0.0:
                    grad[x] += g
            elif o == 10:
                if data[x] >= data[b[i]]:
                    grad[x] += g
                else:
                    grad[b[i]] += g

    run(op, a, b, k, data, grad)
    return Runner("numba on arrays, one input", lambda: run(op, a, b, k, data, grad), 1)


def medians(runners: Sequence[Runner], rounds: int) -> dict[str, tuple[float, float]]:
    """Median and least seconds of each, run in turns."""
    times: dict[str, list[float]] = {runner.name: [] for runner in runners}
    for _ in range(rounds):
        for runner in runners:
            runs = 1 if runner.rows > 1 or runner.name == "rebuilt in Python" else RUNS
            start = time.process_time_ns()
            for _ in range(runs):
                runner.run()
            times[runner.name].append(1e-9 * (time.process_time_ns() - start) / runs)
    return {name: (statistics.median(took), min(took)) for name, took in times.items()}


def report(name: str, work: Workload, rounds: int) -> None:
    runners, nodes, facts = engine_runners(work)
    runners += [runner for runner in (casadi_runner(work), numba_runner(work)) if runner is not None]
    operations = work.operations or nodes
    print(f"\n{name}: {operations:,} operations, {nodes:,} nodes, recording {facts['recording, ns a node']:.0f} ns a node")
    results = medians(runners, rounds)
    goals = {"Program, one input": work.one, "Program, rows, one thread": work.batch}
    for runner in runners:
        median, least = (1e9 * seconds / operations / runner.rows for seconds in results[runner.name])
        goal = goals.get(runner.name)
        words = "" if goal is None else f"   goal {goal:g}: {'met' if median <= goal else 'missed'}"
        print(f"    {runner.name:32}{median:9.2f} ns, least {least:8.2f}{words}")
    ratio = results["Program, Hessian times vector"][0] / results["Program, one input"][0]
    print(f"    a product with the Hessian takes {ratio:.2f} times a value and gradient   goal 2.5")


def report_threads() -> None:
    """Wall time of a batch with two threads beside one: of use on two idle cores only."""
    x = Vector(WORKLOADS["ode"].point)
    p = record(ode(ENGINE, list(x), 30), x)
    rows = array("d", WORKLOADS["ode"].point * 20_000)
    table = memoryview(rows).cast("B").cast("d", [20_000, 6])
    ratios = []
    for _ in range(9):
        took = []
        for threads in (1, 2):
            start = time.perf_counter()
            p.run_many(table, threads=threads)
            took.append(time.perf_counter() - start)
        ratios.append(took[0] / took[1])
    middle, load = statistics.median(ratios), os.getloadavg()[0]
    print(f"\ntwo threads: {middle:.2f} times one, best {max(ratios):.2f}, load {load:.1f}   goal 1.8")


def control() -> float:
    """Seconds of a fixed loop of Python, which show how busy the machine is."""
    start = time.process_time()
    total = 0
    for i in range(1_000_000):
        total += i
    return time.process_time() - start


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=30)
    parser.add_argument("--only", default=",".join(WORKLOADS))
    given = parser.parse_args(arguments)
    print(f"Python {sys.version.split()[0]}, {os.cpu_count()} cores, control loop {1e3 * control():.1f} ms")
    for name in given.only.split(","):
        report(name, WORKLOADS[name], given.rounds)
    report_threads()
    print(f"control loop {1e3 * control():.1f} ms")
    return 0


if __name__ == "__main__":
    sys.exit(main())
