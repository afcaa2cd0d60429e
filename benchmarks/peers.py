"""One small expression of scalars, differentiated by every scalar autograd that is installed."""

from __future__ import annotations

import gc
import importlib
import importlib.util
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import measure
from measure import clock, spread

import microgpt
from microgpt import reference

POINT = (0.7, 0.4, -0.3)
TURNS = 100
OPERATIONS = 5 * TURNS
REPEATS = 3  # values a round
TOLERANCE = 1e-9

# One evaluation: nanoseconds of forward and backward, the value, the gradient.
Evaluation = tuple[float, float, float, list[float]]


def expression(a: Any, b: Any, c: Any) -> Any:
    """The same lines on every type of scalar: TURNS times five operations, as deep as micrograd's recursion can take."""
    y = a
    for _ in range(TURNS):
        y = (y * b + c) / (y**2 + a)
    return y


def on_values(new: Callable[[float], Any]) -> Evaluation:
    """Evaluate on Values, `y.backward()` and `x.grad`: microgpt, micrograd."""
    start = clock()
    x = [new(number) for number in POINT]
    y = expression(*x)
    made = clock()
    y.backward()
    return made - start, clock() - made, y.data, [v.grad for v in x]


# Each peer, loaded only where it is measured.
def load_micrograd() -> Callable[[], Evaluation]:
    return partial(on_values, importlib.import_module("micrograd.engine").Value)


def load_torch() -> Callable[[], Evaluation]:
    torch = importlib.import_module("torch")
    torch.set_num_threads(1)

    def evaluate() -> Evaluation:
        start = clock()
        x = [torch.tensor(number, dtype=torch.float64, requires_grad=True) for number in POINT]
        y = expression(*x)
        made = clock()
        y.backward()
        return made - start, clock() - made, y.item(), [v.grad.item() for v in x]

    return evaluate


def load_xad() -> Callable[[], Evaluation]:
    adj_1st = importlib.import_module("xad.adj_1st")

    def evaluate() -> Evaluation:
        start = clock()
        with adj_1st.Tape() as tape:
            x = [adj_1st.Real(number) for number in POINT]
            for v in x:
                tape.registerInput(v)
            tape.newRecording()
            y = expression(*x)
            tape.registerOutput(y)
            made = clock()
            y.derivative = 1.0
            tape.computeAdjoints()
            return made - start, clock() - made, float(y.value), [v.derivative for v in x]

    return evaluate


def load_casadi() -> Callable[[], Evaluation]:
    """The expression is a program, made once; it is run here, value and gradient in one call."""
    casadi = importlib.import_module("casadi")
    x = [casadi.SX.sym(name) for name in "abc"]
    y = expression(*x)
    program = casadi.Function("program", x, [y, casadi.gradient(y, casadi.vertcat(*x))])

    def evaluate() -> Evaluation:
        start = clock()
        value, gradient = program(*POINT)
        return clock() - start, 0, float(value), [float(number) for number in gradient.nz]

    return evaluate


PEERS = {"torch": load_torch, "micrograd": load_micrograd, "xad": load_xad, "casadi": load_casadi}  # by distribution


def run(rounds: int) -> dict[str, Any]:
    """Measure, all peers in turns. Those that cannot be loaded are left out."""
    missing: dict[str, str] = {}  # why each is left out
    evaluations: dict[str, Callable[[], Evaluation]] = {
        "engine": partial(on_values, microgpt.Value),
        "twin": partial(on_values, reference.Value),
    }
    for name, load in PEERS.items():
        if importlib.util.find_spec(name) is None:
            missing[name] = "not installed"
            continue
        try:
            evaluations[f"{name} {measure.version(name)}"] = load()
        except (ImportError, OSError) as error:  # of a shared library, say
            missing[name] = f"installed, but cannot be loaded: {' '.join(str(error).splitlines())}"
    times: dict[str, list[tuple[float, float]]] = {name: [] for name in evaluations}
    _, _, value, gradient = on_values(reference.Value)

    def evaluate(name: str) -> None:
        for repeat in range(REPEATS + 1):  # the first one warms the caches
            forward, backward, *result = evaluations[name]()
            if repeat > 0:
                times[name].append((forward / OPERATIONS, backward / OPERATIONS))
        assert agree(result, [value, gradient]), f"{name} gives {result}, the twin {[value, gradient]}"

    # What was imported is none of the workload: without this the cyclic collector would walk it for every peer.
    gc.collect()
    gc.freeze()
    controls = measure.take_turns(rounds, [partial(evaluate, name) for name in evaluations])
    gc.unfreeze()
    by_peer = {
        name: {
            "total": spread([sum(pair) for pair in pairs]),
            "forward": spread([forward for forward, _ in pairs]),
            "backward": spread([backward for _, backward in pairs]),
        }
        for name, pairs in times.items()
    }
    return {"control": controls, "peers": by_peer, "missing": missing}


def agree(result: list[Any], expected: list[Any]) -> bool:
    """Return whether value and gradient are within TOLERANCE."""
    pairs = zip([result[0], *result[1]], [expected[0], *expected[1]], strict=True)
    return all(abs(a - b) <= TOLERANCE for a, b in pairs)


def report(results: dict[str, Any]) -> Iterator[str]:
    """Return the table of the results."""
    engine = results["peers"]["engine"]["total"]["median"]
    for name, parts in results["peers"].items():
        total, forward, backward = (parts[part] for part in ("total", "forward", "backward"))
        split = "in one call" if backward["median"] == 0 else f"{forward['median']:,.0f} + {backward['median']:,.0f}"
        yield f"{measure.line(name, total, ' ns', 0)}   {split}, {total['median'] / engine:.1f} x engine"
    for name, reason in results["missing"].items():
        yield f"    left out, {name}: {reason}"
    yield f"    ns per operation, forward + backward, {OPERATIONS} operations on 3 inputs; the same value and gradient (checked)"
    yield "    casadi runs a program traced before, the others build their graph anew each time"
