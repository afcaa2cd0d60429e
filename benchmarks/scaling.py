"""How the cost of a training step grows with the width of the model and with its layers."""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from typing import Any

import measure
from measure import clock, spread

import microgpt

WIDTHS = (16, 32, 64, 128, 256)  # with one layer
LAYERS = (1, 2, 3, 4)  # at each of these widths:
LAYERED = (16, 64)
REPEATS = 3  # steps a round, after one that warms the caches
DOCUMENTS = 5  # the steps walk through these, whatever the size


def multiply_adds(config: microgpt.GPTConfig, positions: int) -> int:
    """Return the multiply-adds of a document's forward pass, in matrix products and attention.

    Neither norms, softmax and Adam are counted, nor the backward pass, which has twice as many again.
    """
    per_position = 12 * config.n_layer * config.n_embd**2 + config.vocab_size * config.n_embd
    pairs = positions * (positions + 1) // 2  # of a query with a key
    return positions * per_position + 2 * pairs * config.n_layer * config.n_embd


class Size:
    """A model of one size in training."""

    def __init__(self, start: measure.Start, n_embd: int, n_layer: int) -> None:
        self.model = microgpt.GPT(microgpt.GPTConfig(start.vocab_size, n_embd=n_embd, n_layer=n_layer), random.Random(1))
        self.optimizer = microgpt.Adam(self.model.parameters(), learning_rate=0.001)
        self.documents: Sequence[Sequence[int]] = start.documents[:DOCUMENTS]
        self.step_ms: list[float] = []
        self.ns_per_multiply_add: list[float] = []
        self.loss = 0.0

    def run(self) -> None:
        """Make one step that is not measured and REPEATS that are."""
        self.step(0)
        for _ in range(REPEATS):
            document = len(self.step_ms) % DOCUMENTS
            ns = self.step(document)
            positions = min(self.model.config.block_size, len(self.documents[document]) - 1)
            self.step_ms.append(ns / 1e6)
            self.ns_per_multiply_add.append(ns / multiply_adds(self.model.config, positions))

    def step(self, document: int) -> int:
        """Train on a document and return the CPU nanoseconds."""
        start = clock()
        loss = self.model.loss(self.documents[document])
        loss.backward()
        self.optimizer.step()
        self.loss = loss.data
        del loss
        return clock() - start


def run(rounds: int) -> dict[str, Any]:
    """Measure, all sizes in turns on the same documents."""
    start = measure.start()
    shapes = dict.fromkeys([*((n, 1) for n in WIDTHS), *((n, layers) for n in LAYERED for layers in LAYERS)])
    sizes = {(n_embd, n_layer): Size(start, n_embd, n_layer) for n_embd, n_layer in shapes}
    controls = measure.take_turns(rounds, [size.run for size in sizes.values()])
    wide, middle = (sizes[n, 1].ns_per_multiply_add for n in (256, 64))
    growth = {"width 256 to 64": spread([a / b for a, b in zip(wide, middle, strict=True)])}
    for n in LAYERED:
        deep, shallow = sizes[n, LAYERS[-1]].step_ms, sizes[n, 1].step_ms
        growth[f"layers 4 to 1 at {n}"] = spread([a / b for a, b in zip(deep, shallow, strict=True)])
    rows = [
        {
            "n_embd": n_embd,
            "n_layer": n_layer,
            "parameters": size.model.config.n_parameters,
            "step": spread(size.step_ms),
            "ns_per_multiply_add": spread(size.ns_per_multiply_add),
            "last_loss": size.loss,
        }
        for (n_embd, n_layer), size in sorted(sizes.items())
    ]
    return {"control": controls, "sizes": rows, "growth": growth}


def report(results: dict[str, Any]) -> Iterator[str]:
    """Return the table of the results."""
    yield f"    {'n_embd, n_layer: parameters':{measure.LABEL}}{'ms a step':>14}{'ns per multiply-add':>38}"
    for row in results["sizes"]:
        label = f"{row['n_embd']}, {row['n_layer']}: {row['parameters']:,}"
        yield measure.line(label, row["step"]) + measure.line("", row["ns_per_multiply_add"], digits=2)[measure.LABEL :]
    for name, values in results["growth"].items():
        yield measure.line(name, values, " times", 2)
    yield "    multiply-adds: those of matrix products and attention, forward; the time: the whole step"
