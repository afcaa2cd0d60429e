"""A training step of the engine, split into its parts, beside the same step of the pure-Python twin."""

from __future__ import annotations

import gc
import itertools
import random
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any

import measure
from measure import STEPS, clock, spread

import microgpt
from microgpt import reference

ROUND = 2  # steps per round: the same documents for each runner
KEPT = 2  # times as many where the loss is kept, since the first of a turn has no loss before it
SELDOM = 5  # rounds between the turns of the twin as microgpt.py, for as many steps more: its garbage grows from step to step
WARM = 100  # steps before those of a round that are compared with the twin's: 1000 in a row find the caches warm, too
FULL_ROUNDS, FULL_ROUND = 40, 25  # with every step of the twin
PARTS = ("forward", "backward", "adam")
NOTES = {
    "forward": "loss(tokens), from Python",
    "backward": "loss.backward()",
    "adam": "Adam.step(), and dropping the graph",
    "order": "topological order: a backward() that is refused once the order is known, 0.002 ms of it the refusal",
    "propagation": "the rest of backward, document by document",
    "calls": "the same calls on a model of width 1 and two tokens: next to no arithmetic",
    "loss kept": "until that of the next step is there, as in microgpt.py's loop, for all but the first step of a turn",
    "as microgpt.py": "loss kept, and the search a function that calls itself: only the cyclic collector frees such a graph",
    "middle half": "of all steps, whose documents have 3 to 14 positions; of ratios: of all turns",
}


def backward(loss: Any) -> None:
    """Differentiate with the engine's own search."""
    loss.backward()


def backward_as_microgpt(root: reference.Value) -> None:
    """Differentiate as microgpt.py does, with a search that is a function within this one and calls itself.

    It is a part of a cycle, itself, and holds the whole graph.
    """
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


def rate_at(step: int) -> float:
    """Return the learning rate of a step, from 0."""
    return 0.01 * (1 - step / STEPS)


class Runner:
    """One engine in training, a step at a time."""

    def __init__(
        self,
        model: Any,
        optimizer: Any,
        documents: Sequence[Sequence[int]],
        *,
        collect: bool = True,
        keep: bool = False,
        backward: Callable[[Any], None] = backward,
    ) -> None:
        self.model, self.optimizer, self.documents = model, optimizer, documents
        self.collect = collect  # whether the cyclic garbage collector runs
        self.keep = keep  # whether a loss lives until the next one replaces it, as a script's `loss` does
        self.backward = backward
        self.kept: Any = None
        self.times: list[tuple[float, ...]] = []  # CPU milliseconds of each step: forward, backward, adam
        self.losses: list[float] = []

    def run(self, steps: int, warm: int = 0) -> None:
        """Make the next steps, but not more than STEPS in all, after `warm` steps on other documents, which are not measured."""
        for document in self.documents[-warm:] if warm else ():
            self.step(document)
        if not self.collect:
            gc.disable()
        for document in self.documents[len(self.times) : min(len(self.times) + steps, STEPS)]:
            loss, *times = self.step(document)
            self.losses.append(loss)
            self.times.append(tuple(times))
        gc.enable()
        if self.keep:  # else one more graph for the collector to go through in the turns of the others
            self.kept = None
            gc.collect()

    def pass_over(self, documents: Sequence[Sequence[int]]) -> None:
        """Go forward and backward through documents, and change nothing."""
        for document in documents:
            self.model.loss(document).backward()
        self.optimizer.zero_grad()

    def step(self, document: Sequence[int]) -> tuple[float, ...]:
        """Return the loss, and the CPU milliseconds of forward, backward and adam."""
        learning_rate = rate_at(len(self.losses))
        start = clock()
        loss = self.model.loss(document)
        made = clock()
        self.backward(loss)
        differentiated = clock()
        self.optimizer.step(learning_rate)
        data = loss.data
        if self.keep:
            self.kept = loss
        del loss  # the graph goes within the time of the step
        end = clock()
        return data, (made - start) / 1e6, (differentiated - made) / 1e6, (end - differentiated) / 1e6

    def parts(self) -> dict[str, measure.Spread]:
        """Return the milliseconds of a step and of its parts."""
        by_part = {part: [step[i] for step in self.times] for i, part in enumerate(PARTS)}
        return {"total": spread([sum(step) for step in self.times])} | {part: spread(x) for part, x in by_part.items()}


class Undivided(Runner):
    """A Runner that reads the clock only before and after the steps of a turn: reading it for each part takes 2 us, of 50."""

    def run(self, steps: int, warm: int = 0) -> None:
        """Make the next steps, as a Runner does. The time of each is that of all of them, divided by their number."""
        for document in self.documents[-warm:] if warm else ():
            self.step(document)
        documents = self.documents[len(self.times) : len(self.times) + steps]
        rates = [rate_at(len(self.times) + i) for i in range(len(documents))]
        start = clock()
        for document, learning_rate in zip(documents, rates, strict=True):
            loss = self.model.loss(document)
            loss.backward()
            self.optimizer.step(learning_rate)
            del loss
        end = clock()
        self.times += [((end - start) / 1e6 / len(documents),) for _ in documents]


class Orders:
    """The cost of the topological order, by public means.

    A leaf that is changed between its use and backward() makes backward() refuse. The graph is searched by then, nothing is
    propagated. Of the nodes that need a leaf the lowest needs this one, so the check for changed leaves ends there.
    """

    def __init__(self, model: microgpt.GPT, documents: Sequence[Sequence[int]]) -> None:
        self.model, self.documents = model, documents
        self.times: list[float] = []  # CPU milliseconds, document by document

    def run(self, documents: int) -> None:
        for _ in range(min(documents, STEPS - len(self.times))):
            loss = self.model.loss(self.documents[len(self.times)])
            leaf = self.model.layers[0].attn_wk[0][0]
            data = leaf.data
            leaf.data = data + 1.0
            start = clock()
            try:
                loss.backward()
            except RuntimeError:
                self.times.append((clock() - start) / 1e6)
            else:
                raise AssertionError("backward() took a leaf that was changed after its use")
            leaf.data = data


def new_engine(start: measure.Start, kind: type[Runner] = Runner, *, keep: bool = False) -> Runner:
    """Return the engine before its first step."""
    model = microgpt.GPT(microgpt.GPTConfig(start.vocab_size), start.rng())
    return kind(model, microgpt.Adam(model.parameters()), start.documents, keep=keep)


def new_twin(start: measure.Start, **options: Any) -> Runner:
    """Return the twin before its first step."""
    model = reference.GPT(start.vocab_size, start.rng())
    return Runner(model, reference.Adam(model.parameters()), start.documents, **options)


def run(rounds: int, *, full: bool = False) -> dict[str, Any]:
    """Measure, all runners in turns. The engine makes all 1000 steps, the twin the first ones of them unless `full`."""
    start = measure.start()
    rounds, per_round = (FULL_ROUNDS, FULL_ROUND) if full else (rounds, ROUND)
    per_engine_round = -(-STEPS // rounds)
    engine, kept, beside = new_engine(start), new_engine(start, keep=True), new_engine(start, Undivided)
    kept.pass_over(start.documents)  # both are compared with the twin's first steps: as if in the middle of a run,
    for document in start.documents:  # with shapes known and the first correction of Adam come to its end
        beside.step(document)
    orders = Orders(new_engine(start).model, start.documents)
    two_tokens = [[token % 2 for token in document] for document in start.documents]
    narrow = microgpt.GPT(microgpt.GPTConfig(2, n_embd=1, n_head=1), random.Random(42))
    seldom, turns = min(SELDOM, rounds), itertools.count(1)

    def run_as_microgpt() -> None:
        if next(turns) % seldom == 0:
            as_microgpt.run(KEPT * seldom * per_round)

    calls = Runner(narrow, microgpt.Adam(narrow.parameters()), two_tokens)
    twins = {"twin": new_twin(start), "twin, collector off": new_twin(start, collect=False)}
    as_microgpt = new_twin(start, keep=True, backward=backward_as_microgpt)
    tasks: list[Callable[[], None]] = [
        partial(kept.run, per_engine_round),
        partial(orders.run, per_engine_round),
        partial(calls.run, per_engine_round),
        partial(engine.run, per_engine_round),
        partial(beside.run, per_round, WARM),
        *(partial(twin.run, per_round) for twin in twins.values()),
        run_as_microgpt,
    ]
    controls = measure.take_turns(rounds, tasks)
    for runner in (kept, as_microgpt, *twins.values()):
        assert runner.losses == engine.losses[: len(runner.losses)], "the engines disagree"
    propagation = [step[1] - order for step, order in zip(engine.times, orders.times, strict=True)]
    return {
        "control": controls,
        "engine": engine.parts() | {"order": spread(orders.times), "propagation": spread(propagation)},
        "engine, loss kept": kept.parts(),
        "engine, calls alone": calls.parts(),
        **{name: twin.parts() for name, twin in twins.items()},
        "twin, as microgpt.py": as_microgpt.parts(),
        "ratios": {
            **{name: spread(ratios(twin, beside, per_round)) for name, twin in twins.items()},
            "twin, as microgpt.py": spread(ratios(as_microgpt, kept, per_round)),
        },
    }


def ratios(slow: Runner, fast: Runner, steps: int) -> list[float]:
    """Return how many times longer `slow` took than `fast` for the same steps, so many at a time."""
    turns = range(0, len(slow.times), steps)
    theirs, ours = ([sum(map(sum, runner.times[i : i + steps])) for i in turns] for runner in (slow, fast))
    return [long / short for long, short in zip(theirs, ours, strict=True)]


def report(results: dict[str, Any]) -> Iterator[str]:
    """Return the table of the results."""
    for name in ("engine", "engine, loss kept", "engine, calls alone", "twin", "twin, collector off", "twin, as microgpt.py"):
        parts = results[name]
        yield measure.line(f"{name}, {parts['total']['count']} steps", parts["total"])
        for part in PARTS if name != "engine" else ("forward", "backward", "order", "propagation", "adam"):
            indent = "    " if part in ("order", "propagation") else "  "
            yield measure.line(indent + part, parts[part])
    for name, ratio in results["ratios"].items():
        yield measure.line(f"{name} / engine, {ratio['count']} turns", ratio, " times", 0)
    for name, note in NOTES.items():
        yield f"    {name}: {note}"
