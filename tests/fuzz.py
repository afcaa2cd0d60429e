"""Random programs on the engine and on its twin: the bits of all that is alive, data and gradients, after each step that counts.

    python tests/fuzz.py --seconds 60 --seed 1 --kind tied

A program is a list of instructions: an operation and a number for each of its operands. What a number means is decided when the
program runs: the newest handle of the kind that fits, the one before, the oldest. So every list of instructions is a program,
and one that shows a difference is made small by leaving instructions out. What is left is printed as a script. Few nodes and
many coincidences find most: operands are taken again and again, and sizes are from 1 to 6.
"""

from __future__ import annotations

import argparse
import faulthandler
import itertools
import math
import os
import random
import re
import shutil
import subprocess
import sys
import tempfile
import time
from array import array
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import twin

import microgpt
from microgpt import _vectors
from microgpt._tape import get_tape

try:  # an engine that remembers shapes: programs begin without any, and the smallest ones are remembered
    from microgpt._recall import start_over
except ImportError:

    def start_over(smallest: int) -> None: ...


class Operation(NamedTuple):
    text: str
    operands: str  # of a, b, c, d: which handles or numbers fit


class Instruction(NamedTuple):
    text: str
    operands: str
    picks: tuple[int, ...]


Program = list[Instruction]

# Operands:
#     s v m r x   any Value, Vector, Matrix, Rows, any of these     V M Q   a Vector, a Matrix, Rows as wide as the first one
#     R           Rows of the shape of the first one                L A     a handle of leaves, an Adam
#     i j         an index into the first one, into its rows        n       a list of indices
#     k p h       a number, an exponent, a number of heads          t T     targets of Rows, of a Matrix times Rows
#     D G         numbers in the shape of the first one, as data or gradients


def operations(operands: str, *texts: str) -> list[Operation]:
    return [Operation(text, operands) for text in texts]


def of_one(kind: str) -> list[Operation]:
    """Operations on one operand of this kind."""
    functions = ("exp", "relu", "tanh", "tanh", "sigmoid", "sin", "cos", "log", "sqrt")
    return [
        *operations(kind, *(f"e.{name}(a)" for name in functions), "e.log(a * a + 0.1)", "abs(a)", "-a", "2.5 ** a"),
        *operations(kind + "k", "a * b", "a + b", "a - b", "b - a", "b * a", "a / b", "b / a"),
        *operations(kind + "p", "a ** b"),
    ]


VALUES = [
    *of_one("s"),
    *operations("ss", "a + b", "a - b", "a * b", "a / b", "abs(a) ** e.sigmoid(b)", "e.minimum(a, b)", "e.maximum(a, b)"),
    *operations("sk", "e.minimum(a, b)", "e.maximum(b, a)"),
    *operations("ss", "e.Value(a.data * 0.7, (a, b, a), (0.5, -0.25, 0.125))", "e.Value(b.data, (b,), (1.5,))"),
]
REDUCTIONS = [
    *operations("v", "a.sum()", "a.mean()", "a @ a", "a @ a[::-1]", "a[1:] @ a[:-1]", "(a * a).sum()", "a[0] + a.sum()"),
    *operations("vV", "a @ b", "a @ b", "a @ b", "a @ b[::-1]", "a[1:] @ b[:-1]", "a @ list(b)", "(a - b) @ (a + b)"),
    *operations("vi", "a[b]", "a[b]", "e.cross_entropy(a, b)", "a[b:].sum()", "a[b:] @ a[b:]"),
    *operations("vii", "a[b : c + 1].sum()", "a[b : b + c + 1] @ a[b : b + c + 1]", "a[b] * a[c]"),
    *operations("vVi", "a[c:] @ b[c:]", "a[: c + 1] @ b[: c + 1]", "e.Vector([*a[c:], *b]) @ e.Vector([*b, *a[c:]])"),
    *operations("vVi", "e.Vector([b[c], a[0]]) @ e.Vector([a[c], a[0]])", "e.Vector([*a, b[c]]).sum()"),
    *operations("mQM", "e.Vector([*(a @ b[0]), *(c @ b[-1])]).sum()", "e.Vector([*(a @ b[-1]), *(c @ b[0])]).sum()"),
    *operations("vV", "(a[1:] + a[:-1]) @ b[1:]", "(a[1:] * a[:-1]) @ b[1:]"),
    *operations("v", "e.Vector([e.Vector([a[0], e.tanh(v)]) @ e.Vector([a[1:][0], a[-1]]) for v in a]).sum()"),
    *operations("vV", "e.Vector([e.Vector([a[0], v]) @ e.Vector([a[-1], b[0]]) for v in e.tanh(a)]).sum()"),
    *operations("mVi", "a[c] @ b", "b @ a[c]", "a[c] @ b[::-1]", "(a @ b)[c]", "e.cross_entropy(a @ b, c)"),
    *operations("mV", "e.Vector([*(a @ b), *(a @ b)]).sum()", "e.Vector([*(a @ b), *(a @ b)]) @ e.Vector([*b, *b])"),
    *operations("v", "(a[1:] * a[:-1]).sum()", "(a[1:] + a[:-1]) @ a[1:]", "(a * a[0]).sum()", "(a * a[-1]) @ a"),
    *operations("r", "e.Vector([v for row in a for v in row]).sum()", "e.Vector([row @ row for row in a]).sum()"),
    *operations("rt", "e.cross_entropy(a, b).sum()"),
    *operations("mQT", "e.cross_entropy(a @ b, c).sum()", "e.cross_entropy(a @ b, c).mean()", "e.cross_entropy(a @ b, c)[0]"),
]
VECTORS = [
    *of_one("v"),
    *operations(
        "v",
        "e.softmax(a)",
        "e.rmsnorm(a)",
        "e.softmax(list(a))",
        "a[::-1]",
        "a * a",
        "a[1:] * a[:-1]",
        "a[1:] + a[:-1]",
        "a[1:]",
        "a[:-1]",
        "e.Vector(a)",
    ),
    *operations("v", "e.tanh(a * 0.9)", "e.Vector([a @ a for v in a])", "e.Vector([*a, *a])", "e.Vector([a.sum(), *a[1:]])"),
    *operations("vV", "a + b", "a - b", "a * b", "a / b", "a * b[::-1]", "a + list(b)", "list(a) * b", "e.tanh(a) * b"),
    *operations("vV", "e.Vector([*a[1:], b[0]])", "e.Vector([a @ b for v in a])", "e.Vector([a @ b, *a[1:]])", "a * b.sum()"),
    *operations("vVi", "e.Vector([*b[:c], *a[c:]])", "a * b[c]", "b[c] - a", "e.Vector([b[c]] * len(a))", "a[c:] * b[c:]"),
    *operations("vVi", "e.Vector([v * b[c] for v in a])", "e.Vector([b[c] + v for v in a])", "e.Vector([e.tanh(v) for v in b])"),
    *operations("vs", "a * b", "b - a", "b * a", "a / b", "b + a", "e.Vector([b, *a[1:]])", "e.Vector([v * b for v in a])"),
    *operations("vVh", "e.attention(a, [a, b], [b, a], c)", "e.attention(a, [b], [a], c)"),
    *operations("vVVh", "e.attention(a, [b, c], [c, b], d)", "e.attention(a, [b, c], [a, a], d)"),
    *operations(
        "vVV", "e.Vector([v @ w for v, w in ((a, b), (b, c), (a, c))])", "a * b + c", "e.Vector([v.sum() for v in (a, b, c)])"
    ),
    *operations("vQh", "e.attention(a, [b], [b], c)", "e.attention(a, list(b), [b], c)"),
]
MATRICES = [
    *operations("mV", "a @ b", "a @ b", "a @ b", "a @ b", "a @ list(b)", "a @ b[::-1]", "e.tanh(a @ b)", "a @ e.tanh(b)"),
    *operations("mV", "e.Vector([row @ b for row in a])", "e.Vector([b @ row for row in a])", "(a @ b) + (a @ b)"),
    *operations("mi", "a[b]", "a[b]", "a @ a[b]", "e.tanh(a[b])", "a[b][::-1]"),
    *operations("mj", "e.Vector([row[b] for row in a])", "a @ e.Vector([row[b] for row in a])"),
    *operations("mVi", "a[c] * b", "a[c] + b", "e.tanh(a @ b) * a[c]", "(a @ b) + a[c]", "e.Vector([a[c] @ b, *b[1:]])"),
    *operations("mMi", "b @ a[c]", "b[0] * a[c]", "e.tanh(a[c]) + b[-1][::-1]"),
    *operations("mVi", "e.Vector([e.Vector([a[c][0], v]) @ e.Vector([a[0][0], b[0]]) for v in b])"),
]
ROWS = [
    *of_one("r"),
    *operations("m", "a[:]", "a[1:]", "a @ a[:]"),
    *operations("mQM", "e.Rows([a @ b[0], c @ b[-1]])", "e.Rows([a @ b[-1], c @ b[0]])"),
    *operations("mn", "a[b]", "a[b]", "a[b]", "a[b] * 0.9", "a @ a[b]", "e.tanh(a[b])"),
    *operations("mQ", "a @ b", "a @ b", "a @ b", "a @ b", "e.tanh(a @ b)", "a @ (b * 0.9)", "(a @ b) * (a @ b)"),
    *operations("r", "e.softmax(a)", "e.rmsnorm(a)", "a * a", "e.Rows([*a][::-1])", "e.Rows([row[::-1] for row in a])"),
    *operations("rR", "a + b", "a + b", "a * b", "a - b", "a / b", "e.tanh(a) * b", "a + e.tanh(b)"),
    *operations("rs", "a * b", "b - a", "b + a", "a / b"),
    *operations("ri", "a[b]", "a[b]", "a[b][::-1]", "e.cross_entropy(a[b], 0)"),
    *operations("rn", "a[b]", "e.Rows([a[i] for i in b])"),
    *operations("rRh", "e.attention(a, [a], [b], c)", "e.attention(a, [b], [b], c)", "e.attention(a, list(a), [b], c)"),
    *operations("rRRh", "e.attention(a, [b], [c], d)", "e.attention(a, [b, c], [c, b], d)"),
    *operations("rt", "e.cross_entropy(a, b)"),
    *operations("rj", "e.Vector([row[b] for row in a])"),
    *operations("rV", "e.Vector([row @ b for row in a])", "e.Vector([b @ row for row in a])", "e.Rows([row * b for row in a])"),
    *operations("vV", "e.Rows([a, b])", "e.Rows([b, a, b])"),
]
# Nodes that are nearly a run, or nearly what the composites put.
NEARLY = [
    *operations(
        "v",
        "e.Vector([v * (0.3 + 1e-12 * i) for i, v in enumerate(a)])",
        "e.Vector([v * (0.3 + 0.1 * i) for i, v in enumerate(a)])",
    ),
    *operations("v", "e.Vector([a[i:].sum() for i in range(len(a))])", "e.Vector([a[: i + 1].sum() for i in range(len(a))])"),
    *operations("vV", "e.Vector([a[i:] @ b[i:] for i in range(len(a))])", "e.Vector([v * w + w for v, w in zip(a, b)])"),
    *operations("vV", "e.Vector([a[:-i] @ b[i:] for i in range(1, len(a))])", "e.Vector([v for w in zip(a, b) for v in w])"),
    *operations("vVi", "e.Vector([e.Vector([a[c], b[0], a[0]][:n]) @ e.Vector([b[c], a[0], a[-1]][:n]) for n in (2, 3)])"),
    *operations("vVi", "e.Vector([e.Vector([a[0], v]) @ e.Vector([a[c], b[0]]) for v in e.tanh(b)])"),
    *operations("vVi", "e.Vector([e.Vector([v, a[0]]) @ e.Vector([b[c], v]) for v in b])", "e.tanh(a)[c] * b"),
    *operations("vVi", "e.Vector([e.Vector([e.tanh(v) for v in w]) @ a for w in (a, b, a)])[0] + (a * b)[c]"),
    *operations("v", "e.Vector([*accumulate(a)])", "e.Vector([*accumulate(a, lambda v, w: e.tanh(v * w))])"),
    *operations("rR", "e.Rows([e.Vector([v @ w for v in a]) for w in b])", "e.Rows([e.Vector([v @ w for w in b]) for v in a])"),
    *operations("rR", "e.Rows([v for w in zip(a, b) for v in w])", "e.Rows([a[0], *b[1:]]) if len(b) > 1 else a"),
    *(
        Operation(f"(lambda x: (-e.log(e.Vector([{taken}]) * e.Vector([row.sum() for row in x]) ** -1)).sum())({x})", operands)
        for taken in ("row[0] for row in x", "x[0][0] for row in x", "row[-1] for row in [*x][::-1]")
        for operands, x in (
            ("mQ", "e.exp((a @ b) - 0.5)"),
            ("mQ", "e.exp(e.Rows([*(a @ b)][::-1]) - 0.5)"),
            ("mQM", "e.exp(e.Rows([a @ b[0], c @ b[-1]]) - 0.5)"),
            ("mQ", "(lambda z: e.exp(e.Rows([z[0], *[*z][:0:-1]]) - 0.5))(a @ b)"),
            ("rR", "e.exp(e.Rows([e.Vector([v @ w for v in a]) for w in b]) - 0.5)"),
        )
    ),
]
# The positions of a document, and what a loss makes of them.
TOKENS = [
    *operations("mn", "a[b]", "a[b] * 0.9", "a[b] * 0.9", "a[b] + a[b]"),
    *operations("m", "a[:]", "a @ a[:]", "e.tanh(a @ a[:])"),
    *operations("mQM", "e.Rows([a @ b[0], c @ b[-1]])"),
]
POSITIONS = [
    *operations("mQ", "a @ b", "a @ b", "e.tanh(a @ b)", "a @ e.tanh(b)", "a @ (b * 0.9)"),
    *operations("r", "e.tanh(a)", "e.tanh(a)", "e.rmsnorm(a)", "a * 0.9", "e.Rows([*a][::-1])", "a[:-1]", "a[1:]"),
    *operations("rR", "a + b", "a + b", "a * b", "e.tanh(a) + b"),
    *operations("rRh", "e.attention(a, [a], [b], c)", "e.attention(a, [b], [b], c)"),
]
LOSSES = [
    *operations(
        "mQT", "e.cross_entropy(a @ b, c).sum()", "e.cross_entropy(a @ b, c).sum() * 0.25", "e.cross_entropy(a @ b, c).mean()"
    ),
    *operations("mQM", "e.Vector([*(a @ b[0]), *(c @ b[-1])]).sum()", "e.Vector([*(a @ b[-1]), *(c @ b[0])]).sum()"),
    *operations("mQTi", "e.cross_entropy(a @ b, c).sum() + a[d] @ b[0]", "a[d] @ b[-1] + e.cross_entropy(a @ b, c).sum()"),
    *operations("mQTi", "e.cross_entropy(a @ b, c)[0] + b[-1] @ a[d]", "e.cross_entropy(a @ b, c)[-1] + b[0][0]"),
    *operations("mQ", "e.Vector([v for row in a @ b for v in row]).sum()", "e.Vector([(a @ row).sum() for row in b]).sum()"),
    *operations(
        "mQM", "(c @ b[0]) @ (a @ b[-1])", "e.Vector([*(a @ b[0]), *(c @ b[-1])]) @ e.Vector([*(c @ b[0]), *(a @ b[-1])])"
    ),
    *operations(
        "mQ",
        "e.Vector([v for row in a @ b[:-1] for v in row]).sum()",
        "(a @ b[0]).sum()",
        "(a @ b[0]) @ b[-1]",
        "b[-1] @ (a @ b[0])",
    ),
    *operations("mQ", "(a[0] @ b[0]) * (a[-1] @ b[-1])", "e.Vector([row @ a[0] for row in b]).sum()"),
    *operations("mQ", "e.Vector([e.tanh(a @ row) @ (a @ row) for row in b]).sum()"),
    *operations("rt", "e.cross_entropy(a, b).sum()"),
    *[operation for operation in NEARLY if "e.log" in operation.text],
]
# One position: rows of a matrix for tokens, the same rows for what comes next.
TOKEN = operations("mi", "a[b]", "a[b] + a[-1]", "e.tanh(a[b])", "a[b] * a[b - 1]", "a[b] * 0.9")
POSITION = [
    *operations("mV", "a @ b", "e.tanh(a @ b)", "e.tanh(a @ b)", "a @ list(b)", "a[0] * b"),
    *operations("mVi", "a[c][::-1] * b", "a[c] + b", "b * a[c]", "b * e.tanh(a[c])", "b + a[c][::-1]", "b + e.tanh(a[c])"),
    *operations("vV", "a * b", "a + b[::-1]", "b * a[0]", "e.tanh(a)", "a + b"),
    *operations("mVi", "e.Vector([e.Vector([r, a[-1][0]]) @ e.Vector([v, a[0][0]]) for r, v in zip(a[c], b)])"),
    *operations("mVi", "e.Vector([v * r for v, r in zip(b, a[c])])", "e.Vector([v + r for v, r in zip(b, a[c][::-1])])"),
]
LAST = [
    *operations("mVi", "a[c] @ b", "a[c] @ b", "a[c] @ b", "b @ a[c]", "a[c][::-1] @ b", "a[c] @ b + b[0]"),
    *operations("v", "e.Vector([e.Vector([a[0], e.tanh(v)]) @ e.Vector([a[1:][0], a[-1]]) for v in a]).sum()"),
    *operations("vV", "e.Vector([e.Vector([a[0], v]) @ e.Vector([a[-1], b[0]]) for v in e.tanh(a)]).sum()"),
    *operations("mVi", "e.cross_entropy(a @ b, c)", "(a @ b).sum()", "b[0] + a[c] @ b"),
]
CHAINS = ((TOKENS, POSITIONS, LOSSES), (TOKEN, POSITION, LAST))
BACKWARD = [Operation("a.backward()", "s")]
EFFECTS = [
    *operations("s", "a.zero_grad()", "inspect", "inspect"),
    *operations("LD", "a.data = b", "a.data = b"),
    *operations("xG", "a.grad = b"),
    *operations("x", "del a", "del a", "del a"),
    *operations("", "collect", "collect", "begin", "end"),
    *operations("L", "e.Adam([a])"),
    *operations("LL", "e.Adam([a, b], learning_rate=0.1, weight_decay=0.01)"),
    *operations("Ak", "a.step(abs(b))", "a.step(0.1)", "a.step(0.1)", "a.step(0.1)"),
]
LEAF = "shape and seed"  # the picks of one of these
LEAVES = {"m": Operation("e.Matrix(a)", LEAF), "v": Operation("e.Vector(a)", LEAF), "s": Operation("e.Value(a)", LEAF)}
ROOTS = [
    *operations("vV", "a @ b", "a @ b", "(a * b).sum()", "a.sum()", "e.cross_entropy(a, 0)", "a @ a"),
    *operations("rt", "e.cross_entropy(a, b).sum()"),
    *operations("mQT", "e.cross_entropy(a @ b, c).sum()", "e.cross_entropy(a @ b, c).mean()"),
    *operations("mVi", "e.cross_entropy(a @ b, c)", "a[c] @ b"),
]
TABLE_OF = {
    operation.text: table
    for table in (VALUES, REDUCTIONS, VECTORS, MATRICES, ROWS, NEARLY, ROOTS, *itertools.chain(*CHAINS), BACKWARD)
    for operation in table
}
# How often an instruction is of which table, by the kind of program.
TABLES = {
    "general": ((VALUES, 4), (REDUCTIONS, 4), (VECTORS, 5), (MATRICES, 4), (ROWS, 4), (NEARLY, 2), (BACKWARD, 3), (EFFECTS, 4)),
    "tied": ((VALUES, 1), (REDUCTIONS, 4), (VECTORS, 4), (MATRICES, 6), (ROWS, 4), (NEARLY, 2), (BACKWARD, 3), (EFFECTS, 2)),
    "same-shape": ((VALUES, 1), (REDUCTIONS, 2), (VECTORS, 5), (MATRICES, 5), (ROWS, 4), (NEARLY, 3)),
    "memory": ((VALUES, 2), (REDUCTIONS, 3), (VECTORS, 2), (MATRICES, 1), (BACKWARD, 3), (EFFECTS, 9), ([*LEAVES.values()], 2)),
}
KINDS = ("general", "tied", "same-shape")
NUMBERS = (0.5, -1.0, 0.3, 1.7, 0.1, 2.0, -0.7, 3.0)
EXPONENTS = (2, -1, 0.5, 3, -0.5, 1, 2.5, -2)
SPECIAL = (math.inf, -math.inf, math.nan, 0.0, -0.0, 5e-324, -1e-310, 1e308, -1e200, 1e-200, 1.0, -1.0)
MOST_DIFFERENCES = 3
MOST_NODES = 600  # of a program, after which only effects follow


# Making programs.


def generate(kind: str, rng: random.Random) -> Program:
    n = rng.choice((1, 2, 2, 2, 3, 3, 4, 5, 6))
    leaves = [leaf("m", rng, rng.choice((n, n, rng.randint(1, 6))), n)]
    if kind != "tied" or rng.random() < 0.3:
        leaves += [leaf("m", rng, n, n), leaf("v", rng, n), leaf("s", rng)]
    if rng.random() < 0.4:
        leaves.append(leaf("v", rng, n))
    if kind == "general" and rng.random() < 0.3:
        kind = "memory"
    if kind == "memory" or rng.random() < 0.1:
        leaves += [instruction(rng, Operation("e.Adam([a])", "L")) for _ in range(2)]
    if kind != "same-shape":
        return [*leaves, *instructions(kind, rng, rng.randint(4, 22)), *root(rng)]
    if rng.random() < 0.3:
        leaves.append(instruction(rng, Operation("e.Adam([a])", "L")))
    block = chain(rng) if rng.random() < 0.7 else [*instructions(kind, rng, rng.randint(1, 9)), *root(rng)]
    program = list(leaves)
    for changes in (0, 0, 0, *rng.choice(((1, 0), (1, 1), (0, 1), (1, 0, 2), (2, 1, 1)))):  # seen, learnt, recalled
        now = list(block)
        for _ in range(changes):
            change(now, rng)
        program += [Instruction("begin", "", ()), *now]
        if rng.random() < 0.15:
            program += instructions("general", rng, 1)
        program.append(Instruction("end", "", ()))
    return program


def leaf(kind: str, rng: random.Random, *shape: int) -> Instruction:
    """A Matrix, a Vector or a Value with random numbers, a few of them special ones once in a while."""
    seed = rng.randrange(1, 1000)
    return Instruction(*LEAVES[kind], (*shape, -seed if rng.random() < 0.04 else seed))


def instructions(kind: str, rng: random.Random, n: int) -> Program:
    tables, weights = zip(*TABLES[kind], strict=True)
    return [instruction(rng, rng.choice(table)) for table in rng.choices(tables, weights, k=n)]


# The newest ones most, and the oldest ones, below 0.
PICKS = (0, 0, 0, 1, 1, 2, 3, 4, 5, -1, -1, -2, -3)


def instruction(rng: random.Random, operation: Operation, picks: Sequence[int] = PICKS) -> Instruction:
    if operation.operands == LEAF:
        kind = next(kind for kind in LEAVES if LEAVES[kind] == operation)
        return leaf(kind, rng, *[rng.randint(1, 4) for _ in range("svm".index(kind))])
    return Instruction(*operation, tuple([pick(rng, letter, picks) for letter in operation.operands]))


def pick(rng: random.Random, letter: str, picks: Sequence[int] = PICKS) -> int:
    """A number for an operand: of lists of numbers it is the seed."""
    return rng.randrange(-30, 1000) if letter in "ntTDG" else rng.choice(picks)


def root(rng: random.Random) -> Program:
    program = [instruction(rng, rng.choice(ROOTS))]
    if rng.random() < 0.3:
        program.append(instruction(rng, rng.choice(VALUES)))
    return [*program, Instruction(*BACKWARD[0], (0,))]


def chain(rng: random.Random) -> Program:
    """Positions, one step after the other, and a loss or two."""
    first, steps, last = rng.choice(CHAINS)
    tables = [first, *[steps] * rng.randint(1, 4), last, *rng.choice(((), (), (), (last,), (BACKWARD, last)))]
    program = [instruction(rng, rng.choice(table), (0, 0, 0, 0, 1, 2, -1, -2)) for table in tables]
    if rng.random() < 0.3:
        program.append(instruction(rng, rng.choice(VALUES)))
    return [*program, Instruction(*BACKWARD[0], (0,))]


def change(program: Program, rng: random.Random) -> None:
    """Let one operand or one operation be another, or two of them change places."""
    i = rng.randrange(len(program))
    now = program[i]
    how = rng.random()
    if how < 0.6 and now.picks and now.operands != LEAF:
        k = rng.randrange(len(now.picks))
        program[i] = now._replace(picks=(*now.picks[:k], pick(rng, now.operands[k]), *now.picks[k + 1 :]))
    elif how < 0.9:
        program[i] = instruction(rng, rng.choice(TABLE_OF[now.text]))
    elif i > 0:
        program[i - 1], program[i] = program[i], program[i - 1]


# Running them.


class Handle:
    """What one name stands for on both sides."""

    def __init__(self, name: str, ours: Any, theirs: Any) -> None:
        self.name, self.kind, self.ours, self.theirs = name, name[0], ours, theirs
        self.shape: tuple[int, ...] = ()
        if self.kind == "v":
            self.shape = (len(theirs),)
        elif self.kind in "mr":
            self.shape = theirs.shape


class Difference(Exception):  # noqa: N818 - not an error of the program
    """The engine is not equal to its twin."""


CLASSES = ((microgpt.Value, "s"), (microgpt.Vector, "v"), (microgpt.Matrix, "m"), (microgpt.Rows, "r"), (microgpt.Adam, "A"))
REFUSED = (ArithmeticError, ValueError, RuntimeError)


@cache
def function(text: str, n: int) -> Callable[..., Any]:
    parameters = ", ".join(["e", *"abcd"[:n]])
    namespace: dict[str, Any] = {"accumulate": itertools.accumulate}
    exec(f"def f({parameters}): {'' if ' = ' in text else 'return '}{text}", namespace)
    made: Callable[..., Any] = namespace["f"]
    return made


class Run:
    """One run of a program."""

    def __init__(self) -> None:
        self.handles: list[Handle] = []
        self.count = 0  # of the handles ever made
        self.marks: list[int] = []  # that count at each `begin`
        self.log: list[tuple[str, str, list[Any]]] = []  # what was done: the line of a script, text and operands

    def run(self, program: Iterable[Instruction]) -> None:
        """Raise Difference where the two are not equal."""
        begin()
        first = get_tape().nodes
        for instruction in program:
            if get_tape().nodes - first < MOST_NODES or instruction.text in ("a.backward()", "end", "del a"):
                self.execute(instruction)
        self.check()

    def execute(self, instruction: Instruction) -> None:
        operands = self.resolve(instruction)
        if operands is None:
            return
        text = instruction.text
        if text == "begin":
            self.marks.append(self.count)
        elif text == "end":
            self.drop([h for h in self.handles if int(h.name[1:]) > self.marks[-1]] if self.marks else [])
            del self.marks[-1:]
        elif text == "del a":
            self.drop(operands)
        elif text == "collect":
            self.note("get_tape().collect()")
            get_tape().collect()
        elif text == "inspect":
            self.note("yield inspect, a", operands=operands)
            inspect(operands[0].ours, operands[0].theirs)
        elif text == "a.backward()":
            self.backward(operands)
        else:
            self.call(text, operands)

    def call(self, text: str, operands: list[Any]) -> None:
        call = function(text, len(operands))
        ours = attempt(call, microgpt, [h.ours if isinstance(h, Handle) else h for h in operands])
        theirs = attempt(call, twin, [h.theirs if isinstance(h, Handle) else h for h in operands])
        if isinstance(ours, type) or isinstance(theirs, type):
            self.note(f"yield refused, lambda: {text}", operands=operands)
            if not (isinstance(ours, type) and isinstance(theirs, type)):
                raise Difference(f"{describe(ours)}, the twin: {describe(theirs)}")
        elif ours is None:
            self.note(text, operands=operands)
            if text == "a.data = b":
                twin.written(operands[0].theirs)
        else:
            self.count += 1
            handle = Handle(next(kind for cls, kind in CLASSES if isinstance(ours, cls)) + str(self.count), ours, theirs)
            self.note(f"{handle.name} = {{}}", text, operands)
            self.handles.append(handle)

    def backward(self, operands: list[Any]) -> None:
        """Gradients may be refused only where a leaf was changed in between; where they are not, they must be right."""
        root = operands[0]
        try:
            root.ours.backward()
        except RuntimeError as error:
            self.note("yield refused, a.backward", operands=operands)
            if not twin.is_stale(root.theirs):
                raise Difference(f"backward: {error}") from None
        else:
            self.note("a.backward()", operands=operands)
            root.theirs.backward()
        self.check()

    def drop(self, handles: Sequence[Handle]) -> None:
        self.handles = [h for h in self.handles if h not in handles]
        if handles:
            self.note(f"del {', '.join(h.name for h in handles)}")

    def check(self) -> None:
        if self.handles:
            self.note(f"yield check, [{', '.join(h.name for h in self.handles)}]")
            check([h.ours for h in self.handles], [h.theirs for h in self.handles])

    def resolve(self, instruction: Instruction) -> list[Any] | None:
        """The operands that the picks of an instruction stand for. None where there are none that fit."""
        operands: list[Any] = []
        if instruction.operands == LEAF:
            return [numbers(instruction.picks[:-1], instruction.picks[-1])]
        for letter, pick in zip(instruction.operands, instruction.picks, strict=True):
            if letter in LITERALS:
                operands.append(LITERALS[letter](operands, pick))
                continue
            first = operands[0] if operands else None
            fitting = [h for h in self.handles if FITS[letter](h, first)]
            if not fitting:
                return None
            operands.append(fitting[-1 - pick % len(fitting)] if pick >= 0 else fitting[(-1 - pick) % len(fitting)])
        return operands

    def note(self, line: str, text: str = "", operands: Sequence[Any] = ()) -> None:
        """Keep a line of the script. Names, not handles: those would live on."""
        self.log.append((line, text, [h.name if isinstance(h, Handle) else h for h in operands]))

    def script(self) -> str:
        """The run as a script that compares the two again."""
        lines = []
        for line, text, operands in self.log:
            put = re.sub(r"\b[abcd]\b", lambda m: str(operands["abcd".index(m[0])]), text or line)  # noqa: B023
            lines.append("    " + (line.format(put) if text else put))
        return "\n".join([HEAD, *lines, FOOT])


HEAD = """import sys
from itertools import accumulate
from math import inf, nan

sys.path.insert(0, "tests")
from fuzz import check, get_tape, inspect, refused, replay


def program(e):"""
FOOT = """

replay(program)"""


def begin() -> None:
    """Start as a new process would, but for the room that the tape has."""
    start_over(1)
    get_tape().collect()
    twin.hidden.clear()


def replay(program: Callable[[Any], Iterator[tuple[Callable[..., None], Any]]]) -> None:
    """Run a script on both sides, each comparison when it comes. Raise Difference where they are not equal."""
    begin()
    ours, theirs = program(microgpt), program(twin)
    while True:
        now = next(ours, None), next(theirs, None)
        if now[0] is None:
            return
        now[0][0](now[0][1], now[1][1])
        del now  # it would keep handles alive


def check(ours: Sequence[Any], theirs: Sequence[Any]) -> None:
    """Compare the data and gradients of all handles."""
    x, y = [list(state(h)) for h in ours], [list(state(h)) for h in theirs]
    if array("d", itertools.chain(*x)).tobytes() != array("d", itertools.chain(*y)).tobytes():
        for handle, a, b in zip(ours, x, y, strict=True):
            if bits(a) != bits(b):
                raise Difference(f"data and grad of a {type(handle).__name__}:\n  {bits(a)}, the twin:\n  {bits(b)}")


def inspect(ours: Any, theirs: Any) -> None:
    """Compare the data and gradients of all nodes that a Value reaches."""
    pairs, seen = [(ours, theirs)], {theirs}
    for a, b in pairs:
        if bits(state(a)) != bits(state(b)):
            raise Difference(f"data and grad of a node `{a.op}`: {bits(state(a))}, the twin: {bits(state(b))}")
        children = a.children
        for pair in zip(children, twin.children_of(b, a.op, len(children)), strict=True):
            if pair[1] not in seen:
                seen.add(pair[1])
                pairs.append(pair)


def refused(ours: Callable[[], Any], _theirs: Any) -> None:
    if not isinstance(attempt(lambda _: ours(), None, ()), type):
        raise Difference("the engine refuses this no more")


def attempt(call: Callable[..., Any], engine: Any, operands: Sequence[Any]) -> Any:
    """The result, or the type of the exception."""
    try:
        return call(engine, *operands)
    except REFUSED as error:
        return type(error)


def state(handle: Any) -> Iterable[float]:
    if isinstance(handle, (microgpt.Adam, twin.Adam)):
        return [*handle.m, *handle.v]
    data, grad = handle.data, handle.grad
    if not isinstance(data, list):
        return [data, grad]
    return itertools.chain(*data, *grad) if isinstance(data[0], list) else data + grad


def bits(numbers: Iterable[float]) -> list[str]:
    return ["nan" if math.isnan(x) else float(x).hex() for x in numbers]


def describe(result: Any) -> str:
    return result.__name__ if isinstance(result, type) else "a result"


def numbers(shape: Sequence[int], seed: int, without: float | None = None) -> Any:
    """Random numbers, from a seed below 0 with special ones among them."""
    rng = random.Random(seed)
    special = [x for x in SPECIAL if bits([x]) != bits([without])] if without is not None else SPECIAL

    def of_shape(shape: Sequence[int]) -> Any:
        if shape:
            return [of_shape(shape[1:]) for _ in range(shape[0])]
        return rng.choice(special) if seed < 0 and rng.random() < 0.4 else round(rng.gauss(0, 1), 3)

    return of_shape(shape)


def indices(pick: int, n: int, count: int | None = None) -> list[int]:
    rng = random.Random(pick)
    return [rng.randrange(n) for _ in range(count or rng.randint(1, 3))]


# By letter: numbers, from the operands before and a pick.
LITERALS: dict[str, Callable[[list[Any], int], Any]] = {
    "i": lambda given, pick: pick % given[0].shape[0],
    "j": lambda given, pick: pick % given[0].shape[-1],
    "n": lambda given, pick: indices(pick, given[0].shape[0]),
    "k": lambda given, pick: NUMBERS[pick % len(NUMBERS)],
    "p": lambda given, pick: EXPONENTS[pick % len(EXPONENTS)],
    "h": lambda given, pick: [h for h in range(1, 7) if given[0].shape[-1] % h == 0][pick % 2 - 1],
    "t": lambda given, pick: indices(pick, given[0].shape[1], given[0].shape[0]),
    "T": lambda given, pick: indices(pick, given[0].shape[0], given[1].shape[0]),
    "D": lambda given, pick: numbers(given[0].shape, pick),
    # Not -0.0: the twin's partial sums begin at 0.0, to which it adds, and a dot has none.
    "G": lambda given, pick: numbers(given[0].shape, pick, -0.0),
}
# By letter: whether a handle fits, beside the first operand.
FITS: dict[str, Callable[[Handle, Any], bool]] = {
    **{kind: lambda h, first, kind=kind: h.kind == kind for kind in "svmrA"},
    "x": lambda h, first: h.kind != "A",
    "V": lambda h, first: h.kind == "v" and h.shape[0] == first.shape[-1],
    "M": lambda h, first: h.kind == "m" and h.shape[1] == first.shape[-1],
    "Q": lambda h, first: h.kind == "r" and h.shape[1] == first.shape[-1],
    "R": lambda h, first: h.kind == "r" and h.shape == first.shape,
    "L": lambda h, first: h.kind in "svm" and not any(v.children for v in twin.flat(h.theirs)),
}


# Making them small.


def difference(program: Program) -> str | None:
    """What a run of the program shows, None if the two are equal."""
    try:
        Run().run(program)
    except Exception as error:
        return f"{type(error).__name__}: {error}"
    return None


def shrunk(program: Program) -> Program:
    """Leave out what the difference does not need: halves, quarters, ..., one instruction at a time, as long as that helps."""
    kind = str(difference(program)).partition(":")[0]
    size = len(program) // 2
    while size > 0:
        left = [program[:i] + program[i + size :] for i in range(0, len(program), size)]
        smaller = next((p for p in left if str(difference(p)).partition(":")[0] == kind), None)
        if smaller is None:
            size //= 2
        else:
            program = smaller
            size = min(size, max(1, len(program) // 2))
    return program


def script(program: Program) -> str:
    """A script that shows the difference of this program."""
    run = Run()
    try:
        run.run(program)
    except Exception as error:
        return f"{run.script()}  # {type(error).__name__}: {error}"
    return run.script()


def programs(kinds: Sequence[str], seed: int, first: int = 0) -> Iterator[tuple[int, str, Program]]:
    """Programs of these kinds in turn, each with its number."""
    for number in itertools.count(first):
        kind = kinds[number % len(kinds)]
        yield number, kind, generate(kind, random.Random(f"{seed} {kind} {number}"))


# Its power: guards of the engine that can be taken out.

ROOT = Path(__file__).parent.parent


def faults() -> list[str]:
    """The names of all guards that `FAULT` takes out in a build for that (kernels.h)."""
    sources = sorted((ROOT / "src_pyx" / "microgpt").glob("*.p*"))
    return [name for source in sources for name in re.findall(r'FAULT\(b"([^"]+)"\)', source.read_text())]


def try_faults(seconds: float, seed: int) -> int:
    """Build the engine with faults, run programs with each until one differs or for so many seconds, and print what was found."""
    missed = 0
    with tempfile.TemporaryDirectory() as place:
        shutil.copytree(ROOT, place, dirs_exist_ok=True, ignore=shutil.ignore_patterns(".*", "build", "*.so"))
        flags = os.environ.get("CFLAGS", "") + " -O1 -DMICROGPT_FAULTS"
        build = [sys.executable, "setup.py", "-q", "build_ext", "--inplace", "-j2"]
        subprocess.run(build, cwd=place, env={**os.environ, "CFLAGS": flags}, check=True)
        run = [sys.executable, "tests/fuzz.py", "--brief", f"--seconds={seconds}", f"--seed={seed}"]

        def attempt_with(name: str) -> subprocess.CompletedProcess[str]:
            environment = {**os.environ, "MICROGPT_FAULT": name, "PYTHONPATH": place}
            return subprocess.run(run, cwd=place, env=environment, capture_output=True, text=True, check=False)

        names = ["", *faults()]  # without a fault nothing may be found
        with ThreadPoolExecutor(os.cpu_count()) as pool:
            for name, result in zip(names, pool.map(attempt_with, names), strict=True):
                found = result.returncode != 0
                missed += found == (name == "")
                last = result.stdout.strip() or f"ended with status {result.returncode}"
                print(f"{'found' if found else '-----'}  {name or 'no fault'}: {last}", flush=True)
    print(f"{missed} of {len(names)} not as they should be")
    return 1 if missed else 0


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description="Random programs on the engine and on its twin.")
    parser.add_argument("--seconds", type=float, default=math.inf, help="how long to go on; with --faults, for each of them")
    parser.add_argument("--programs", type=int, default=None, help="how many programs at most")
    parser.add_argument("--seed", type=int, default=random.randrange(10**6), help="else a new one each time")
    parser.add_argument("--first", type=int, default=0, help="number of the first program")
    parser.add_argument("--kind", choices=KINDS, help="of the programs; else each in turn")
    parser.add_argument("--variant", help="of the long loops (microgpt._vectors)")
    parser.add_argument("--progress", action="store_true", help="name each program before it runs, for one that ends the process")
    parser.add_argument("--brief", action="store_true", help="stop at the first difference, without a script")
    parser.add_argument("--faults", action="store_true", help="take out each guard of the engine in turn, until that is noticed")
    args = parser.parse_args(arguments)
    if args.faults:
        return try_faults(args.seconds, args.seed)
    if args.variant:
        _vectors.choose(args.variant)
    kinds = [args.kind] if args.kind else KINDS
    start = time.perf_counter()
    done = differences = 0
    for number, kind, program in programs(kinds, args.seed, args.first):
        if time.perf_counter() - start > args.seconds or done == args.programs or differences == MOST_DIFFERENCES:
            break
        if args.progress:
            print(f"program {number}", file=sys.stderr, flush=True)
        done += 1
        if difference(program) is not None:
            differences += 1
            if args.brief:
                break
            print(f"program {number}, {kind}:\n\n{script(shrunk(program))}\n", flush=True)
    seconds = time.perf_counter() - start
    print(f"seed {args.seed}: {done} programs in {seconds:.1f} s, {done / seconds:.0f} a second, {differences} differences")
    return 1 if differences else 0


if __name__ == "__main__":
    faulthandler.enable()
    sys.exit(main())
