"""The workloads: generators that set one up and yield what each round measures.

A number is a figure by itself, a list several ones; of a pair the first is compared with the second. Text after a number is a
result that every engine must give. `python workloads.py NAME` is a process for one of them, with a line of JSON for each line it
reads; under another Python it measures that one's microgpt, of which it takes what has long been there.
"""

from __future__ import annotations

import gc
import json
import os
import random
import subprocess
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import chain as chains
import measure
import peers
import script
from measure import STEPS, clock

import microgpt
from microgpt import reference
from microgpt._tape import get_tape

Pair = tuple[float, float]
Checked = tuple[float, str]
VOCAB = 30
OFTEN, SELDOM = 4, 20  # steps of the twin a round; as microgpt.py, its garbage grows from step to step until the collector comes
LINES = 600
Tokens = Sequence[int]


class Training:
    """A model of random weights and its Adam."""

    def __init__(self, n_layer: int = 1, n_embd: int = 16, block_size: int = 16, seed: int = 1) -> None:
        config = microgpt.GPTConfig(VOCAB, n_layer=n_layer, n_embd=n_embd, block_size=block_size)
        self.rng = random.Random(seed)
        self.model = microgpt.GPT(config, self.rng)
        self.optimizer = microgpt.Adam(self.model.parameters(), learning_rate=0.001)
        self.loss = 0.0

    def tokens(self, positions: int) -> list[int]:
        """Return a random document."""
        return [self.rng.randrange(VOCAB) for _ in range(positions + 1)]

    def step(self, tokens: Tokens) -> int:
        """Make one step and return its CPU nanoseconds."""
        start = clock()
        loss = self.model.loss(tokens)
        loss.backward()
        self.optimizer.step()
        self.loss = loss.data
        del loss
        return clock() - start

    def backward(self, tokens: Tokens) -> tuple[int, int]:
        """Return the nanoseconds of backward, and how many nodes the graph has."""
        nodes = get_tape().nodes
        loss = self.model.loss(tokens)
        nodes = get_tape().nodes - nodes
        start = clock()
        loss.backward()
        took = clock() - start
        del loss
        return took, nodes


def per_node(work: Iterable[tuple[Training, Tokens]]) -> float:
    """Return the nanoseconds a node of backward over documents, each with a model."""
    measured = [run.backward(tokens) for run, tokens in work]
    return sum(took for took, _ in measured) / sum(nodes for _, nodes in measured)


# Steps of the main job.


class Job:
    """The run that `python -m microgpt.train` makes, its first steps on the engine or on the pure-Python twin."""

    def __init__(self, start: measure.Start, engine: Any = microgpt, backward: Callable[[Any], None] | None = None) -> None:
        size = start.vocab_size if engine is reference else microgpt.GPTConfig(start.vocab_size)
        self.model = engine.GPT(size, start.rng())
        self.optimizer = engine.Adam(self.model.parameters())
        self.backward = backward or engine.Value.backward
        self.documents = start.documents
        self.losses: list[float] = []
        self.kept: Any = None

    def run(self, first: int, steps: int, *, keep: bool = False) -> float:
        """Make steps of the run and return their nanoseconds. `keep`: each loss until the next is there, as a script's `loss`."""
        documents = self.documents[first : first + steps]
        rates = [0.01 * (1 - (first + i) / STEPS) for i in range(steps)]
        start = clock()
        for document, rate in zip(documents, rates, strict=True):
            loss = self.model.loss(document)
            self.backward(loss)
            self.optimizer.step(rate)
            self.losses.append(loss.data)
            if keep:
                self.kept = loss
            del loss
        return clock() - start


def job_step() -> Iterator[list[float]]:
    """The engine's steps one by one, in milliseconds, round and round."""
    while True:
        job = Job(measure.start())
        for first in range(0, STEPS, 100):
            yield [job.run(i, 1) / 1e6 for i in range(first, first + 100)]


def job_by_hand() -> Iterator[Pair]:
    """Beside the same steps in C, without a graph."""
    from by_hand import InC

    in_c = InC(measure.start())
    while True:
        job = Job(measure.start())
        in_c.begin([p.data for p in job.model.parameters()])
        for first in range(0, STEPS, 100):
            ours = theirs = 0.0
            for i in range(first, first + 100, 10):
                ours += job.run(i, 10)
                start = clock()
                in_c.run(i, i + 10)
                theirs += clock() - start
            assert job.losses == in_c.losses[: first + 100], "the losses differ"
            yield ours, theirs


def search_of_microgpt(root: reference.Value) -> None:
    """Differentiate as microgpt.py does, with a search that calls itself: a cycle, which holds the whole graph."""
    order: list[reference.Value] = []
    reached = set()

    def visit(value: reference.Value) -> None:
        if value not in reached:
            reached.add(value)
            for child in value.children:
                visit(child)
            order.append(value)

    visit(root)
    root.grad = 1
    for value in reversed(order):
        for child, local_grad in zip(value.children, value.local_grads):  # noqa: B905
            child.grad += local_grad * value.grad


def job_of_twin(*, collector: bool = True, as_microgpt: bool = False) -> Iterator[Pair]:
    """Steps of the pure-Python twin beside the engine's, which finds the caches as in the middle of a run."""
    start = measure.start()
    checked, warm, twin = Job(start), Job(start), Job(start, reference, search_of_microgpt if as_microgpt else None)
    steps = SELDOM if as_microgpt else OFTEN
    for first in range(0, STEPS, steps):
        checked.run(first, steps)
        warm.run(STEPS - 100, 100, keep=as_microgpt)
        ours = warm.run(first, steps, keep=as_microgpt)
        if not collector:
            gc.disable()
        theirs = twin.run(first, steps, keep=as_microgpt)
        gc.enable()
        assert checked.losses == twin.losses, "the engines disagree"
        yield theirs, ours


# Larger models and other texts.


def sizes(ours: tuple[int, int], beside: tuple[int, int], positions: int = 8) -> Iterator[Pair]:
    """A step at one (n_embd, n_layer) beside another; where the widths differ, for each multiply-add of its forward pass."""
    runs = [Training(layers, width) for width, layers in (ours, beside)]
    costs = [1 if ours[0] == beside[0] else 12 * layers * width**2 + VOCAB * width for width, layers in (ours, beside)]
    while True:
        a, b = (sum(run.step(run.tokens(positions)) for _ in range(4)) / cost for run, cost in zip(runs, costs, strict=True))
        yield a, b


def lengths() -> Iterator[Pair]:
    """Backward a node over documents of random lengths, beside documents of one length."""
    run, rng = Training(4, 64, 64), random.Random(2)
    while True:
        mixture = per_node([(run, run.tokens(rng.randint(2, 64))) for _ in range(8)])
        yield mixture, per_node([(run, run.tokens(33)) for _ in range(8)])


def long_documents() -> Iterator[Pair]:
    """A step of 1000 positions beside one of 500."""
    runs = [Training(1, 16, positions) for positions in (1000, 500)]
    while True:
        a, b = (run.step(run.tokens(run.model.config.block_size)) for run in runs)
        yield a, b


def beside_numpy(block_size: int) -> Iterator[Pair]:
    """A step of a whole block beside the same step in numpy."""
    from by_hand import InNumpy

    run = Training(4, 64, block_size)
    in_numpy = InNumpy(run.model.state_dict(), 4, 4, 0.001)
    while True:
        ours = theirs = 0
        for _ in range(256 // block_size):
            tokens = run.tokens(block_size)
            ours += run.step(tokens)
            start = clock()
            loss = in_numpy.step(tokens)
            theirs += clock() - start
            assert abs(run.loss - loss) < 1e-9, f"the loss in numpy is {loss}, the engine's {run.loss}"
        yield ours, theirs


def batches() -> Iterator[Pair]:
    """A training step on 8 documents beside one on a single document."""
    from microgpt.settings import Settings
    from microgpt.trainer import Trainer

    rng = random.Random(1)
    texts = ["".join(rng.choices("abcdefghijklmnopqrstuvwxyz ,.", k=63)) + "." for _ in range(100)]
    eight, one = (Trainer(Settings(n_layer=4, n_embd=64, block_size=64, batch_size=size), texts[:]) for size in (8, 1))
    while True:
        start = clock()
        eight.train_step()
        made = clock()
        for _ in range(4):
            one.train_step()
        yield made - start, (clock() - made) / 4


def many_models() -> Iterator[Pair]:
    """Backward a node over 300 models in turn, beside one model as often."""
    runs = [Training(seed=seed) for seed in range(300)]
    one, rng = Training(seed=1000), random.Random(3)
    while True:
        documents = [one.tokens(rng.randint(3, 10)) for _ in runs]
        yield per_node(zip(runs, documents, strict=True)), per_node((one, tokens) for tokens in documents)


def new_shapes() -> Iterator[Pair]:
    """First backwards of documents of new lengths beside tenth ones, of the model where they take longest. Once in a process."""
    sides: list[Pair] = []
    for n_layer, n_embd, block_size in ((1, 16, 16), (2, 32, 32), (4, 64, 64)):
        run = Training(n_layer, n_embd, block_size)
        run.backward(run.tokens(block_size))  # takes the memory
        lengths = range(block_size // 4, block_size, block_size // 8)
        times = [[run.backward(run.tokens(positions))[0] for _ in range(10)] for positions in lengths]
        sides.append((sum(each[0] for each in times), sum(each[9] for each in times)))
    yield max(sides, key=lambda pair: pair[0] / pair[1])


def text() -> Iterator[Checked]:
    """Seconds of LINES steps on lines of 62 characters on average."""
    run = Training(4, 64, 80)
    yield sum(run.step(run.tokens(run.rng.randint(44, 80))) for _ in range(LINES)) / 1e9, run.loss.hex()


# Scalars from Python.


def differentiated(build: Callable[[list[microgpt.Value]], microgpt.Value], leaves: int) -> Iterator[Checked]:
    """Nanoseconds a node of backward over what `build` makes of leaves."""
    rng = random.Random(1)
    while True:
        took, nodes = 0, 0
        for _ in range(5):
            x = [microgpt.Value(rng.uniform(0.1, 0.9)) for _ in range(leaves)]
            before = get_tape().nodes
            root = build(x)
            nodes += get_tape().nodes - before
            start = clock()
            root.backward()
            took += clock() - start
            del root
        yield took / nodes, " ".join(leaf.grad.hex() for leaf in x)


def random_graph(x: list[microgpt.Value]) -> microgpt.Value:
    """10,000 operations, each on two of the last hundred results."""
    rng = random.Random(2)
    nodes = x[:]
    for _ in range(10_000):
        a, b = rng.choice(nodes[-100:]), rng.choice(nodes[-100:])
        kind = rng.randrange(4)
        nodes.append(a * b if kind == 0 else (a - b).tanh() if kind == 1 else (a + b) * 0.5 if kind == 2 else a.sin())
    return sum(nodes[-100:], microgpt.Value(0.0))


def equation(x: list[microgpt.Value]) -> microgpt.Value:
    """Predators and prey, 200 steps of Runge and Kutta."""
    a, b, c, d, u, v = x

    def slope(u: Any, v: Any) -> tuple[Any, Any]:
        return a * u - b * u * v, d * u * v - c * v

    for _ in range(200):
        u1, v1 = slope(u, v)
        u2, v2 = slope(u + 0.005 * u1, v + 0.005 * v1)
        u3, v3 = slope(u + 0.005 * u2, v + 0.005 * v2)
        u4, v4 = slope(u + 0.01 * u3, v + 0.01 * v3)
        u, v = u + (u1 + 2 * u2 + 2 * u3 + u4) * (0.01 / 6), v + (v1 + 2 * v2 + 2 * v3 + v4) * (0.01 / 6)
    return u + v


def mixed(x: list[microgpt.Value]) -> microgpt.Value:
    """20,000 products, sums and exponentials."""
    a, b, y = x
    for _ in range(4_000):
        y = y + (y * a * -1.0).exp() * b
    return y


def chain() -> Iterator[float]:
    """Seconds to build, differentiate and drop a chain."""
    while True:
        yield chains.run(chains.NODES)["total"]


# Memory, each in a process of its own, and commands.


def bytes_in_chain() -> Iterator[float]:
    """Bytes a node of a chain at the peak of backward."""
    yield round(chains.run(chains.NODES)["bytes_per_node"], 1)  # what Python took itself is further behind


def bytes_in_composites() -> Iterator[float]:
    """Bytes a node of a document's graph at the peak of backward."""
    from memory import peak_memory

    run = Training(4, 64, 256)
    before, nodes = peak_memory(), get_tape().nodes
    loss = run.model.loss(run.tokens(256))
    nodes = get_tape().nodes - nodes
    loss.backward()
    yield (peak_memory() - before) / nodes


PEAK = """
import sys
from microgpt.train import main
main(["--quiet"])
from memory import peak_memory
print(peak_memory(), file=sys.stderr)
"""


def job_memory() -> Iterator[float]:
    """Peak of the training command, in MB."""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(Path(__file__).parent), os.environ.get("PYTHONPATH", "")])}
    while True:
        result = subprocess.run([sys.executable, "-c", PEAK], capture_output=True, text=True, check=True, env=environment)
        yield int(result.stderr) / 1e6


def command(*arguments: str) -> Iterator[float]:
    """CPU seconds of a command, from its start to its end."""
    while True:
        process = subprocess.Popen([sys.executable, *arguments], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
        assert process.returncode == 0, f"{arguments} ended with {process.returncode}"
        yield usage.ru_utime + usage.ru_stime


class Workload(NamedTuple):
    """A row of the table: what is measured, and its goal."""

    title: str
    make: Callable[[], Iterator[Any]]
    bound: float | None
    unit: str = " times"
    at_least: bool = False  # else at most
    against: bool = False  # the figure is the one here / the one of the microgpt of another Python
    fresh: bool = False  # each round is a process of its own; else the first one is not counted, it warms the caches
    most: int = 30  # rounds, of what takes long


OTHER = ", beside the other microgpt"
TRAIN = ("-m", "microgpt.train")
TABLE = {
    "step": Workload("main job: a step, median of 1000", job_step, 0.1, " ms"),
    "c": Workload("main job beside C by hand", job_by_hand, 1.8),
    "lengths": Workload("64 x 4, random lengths beside one: backward a node", lengths, 1.3),
    "text": Workload("64 x 4, block 80, 600 lines of 62" + OTHER, text, 0.4, against=True, fresh=True, most=3),
    "long": Workload("16 x 1, 1000 positions beside 500: a step", long_documents, 4.5),
    "numpy-64": Workload("64 x 4, block 64, beside numpy by hand: a step", partial(beside_numpy, 64), 1.0),
    "numpy-256": Workload("64 x 4, block 256, beside numpy by hand: a step", partial(beside_numpy, 256), 1.5),
    "batch": Workload("64 x 4, batch 8 beside batch 1: a step", batches, 5),
    "models": Workload("300 models in turn beside one: backward a node", many_models, 1.3),
    "first": Workload("first backward of a new shape beside the tenth", new_shapes, 1.5, fresh=True),
    "width": Workload("width 256 beside 64: a step, a multiply-add", partial(sizes, (256, 1), (64, 1)), 1.3),
    "layers-16": Workload("16 x 4 beside 16 x 1: a step", partial(sizes, (16, 4), (16, 1)), 4.2),
    "layers-64": Workload("64 x 4 beside 64 x 1: a step", partial(sizes, (64, 4), (64, 1)), 4.2),
    "graph": Workload("random scalar graph: backward" + OTHER, partial(differentiated, random_graph, 10), 1.0, against=True),
    "equation": Workload("differential equation: backward" + OTHER, partial(differentiated, equation, 6), 1.0, against=True),
    "mixed": Workload("20,000 mul, add, exp: backward" + OTHER, partial(differentiated, mixed, 3), 1.0, against=True),
    "python": Workload("operators from Python" + OTHER, script.operators, 1.0, against=True),
    "script-step": Workload("script: a step" + OTHER, script.steps, 1.0, against=True),
    "chain": Workload("chain of ten million" + OTHER, chain, 1.0, against=True, fresh=True, most=5),
    "composite-bytes": Workload("64 x 4, 256 positions: memory a node", bytes_in_composites, 30, " bytes", fresh=True, most=2),
    "chain-bytes": Workload("chain of ten million: memory a node", bytes_in_chain, 49, " bytes", fresh=True, most=2),
    "memory": Workload("main job: peak of memory", job_memory, 30, " MB"),
    "command": Workload("main job, the whole command: CPU", partial(command, *TRAIN, "--quiet"), 0.6, " s"),
    "start": Workload("main job, one step: CPU", partial(command, *TRAIN, "--steps", "1"), 0.095, " s"),
    "pass": Workload("python -c pass: CPU", partial(command, "-c", "pass"), None, " s"),
    "twin": Workload("pure-Python twin beside the main job", job_of_twin, 2500, at_least=True),
    "twin-alone": Workload("the same, collector off", partial(job_of_twin, collector=False), 900, at_least=True),
    "twin-microgpt": Workload("the same, as microgpt.py", partial(job_of_twin, as_microgpt=True), 2500, at_least=True, most=3),
    **{
        f"script{'-whole' * whole}{'-alone' * (not collector)}": Workload(
            f"script on the twin beside the engine{', Adam too' * whole}{', collector off' * (not collector)}",
            partial(script.twin_beside, whole=whole, collector=collector),
            None,
            most=5,
        )
        for whole in (False, True)
        for collector in (True, False)
    },
    **{
        f"peer-{name}": Workload(f"an expression: {name} beside the engine", partial(peers.beside, name), None)
        for name in peers.LOADERS
    },
}
if sys.platform == "win32":
    for name in ("c", "chain-bytes", "composite-bytes", "memory", "command", "start", "pass"):
        del TABLE[name]  # need a compiler with the flags of gcc, or the peak of memory, or wait4


def serve(name: str) -> None:
    """Measure a round of a workload for each line of standard input."""
    rounds = TABLE[name].make()
    for _ in sys.stdin:
        answer: dict[str, Any]
        match next(rounds):
            case list(values):
                answer = {"values": values}
            case float(value), str(result):
                answer = {"values": [value], "result": result}
            case value, beside:
                answer = {"values": [value], "beside": beside}
            case value:
                answer = {"values": [value]}
        print(json.dumps(answer), flush=True)


if __name__ == "__main__":
    serve(sys.argv[1])
