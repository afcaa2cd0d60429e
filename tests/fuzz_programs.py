"""Programs for the fuzzer: which operations there are, and which of them follow each other."""

from __future__ import annotations

import itertools
import math
import random
from collections.abc import Iterable, Sequence
from typing import NamedTuple


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
#     N D G       numbers in the shape of the first one, as operand, as data (also those it had first), as gradients
#     S W w       a leaf, a Vector of leaves, a number for an element of it
#     l q o       a word, a number as it is, a list of Values


def operations(operands: str, *texts: str) -> list[Operation]:
    return [Operation(text, operands) for text in texts]


def of_one(kind: str) -> list[Operation]:
    """Operations on one operand of this kind."""
    functions = ("exp", "relu", "tanh", "tanh", "sigmoid", "sin", "cos", "log", "sqrt", "gelu", "silu", "softplus")
    others = ("asin", "acos", "atan", "sinh", "cosh", "log1p", "expm1", "log2", "log10", "erf", "lgamma", "floor")
    return [
        *operations(kind, *(f"e.{name}(a)" for name in (*functions, *others)), "e.log(a * a + 0.1)", "abs(a)", "-a", "2.5 ** a"),
        *operations(kind + "k", "a * b", "a + b", "a - b", "b - a", "b * a", "a / b", "b / a"),
        *operations(kind + "p", "a ** b"),
    ]


VALUES = [
    *of_one("s"),
    *operations("ss", "a + b", "a - b", "a * b", "a / b", "abs(a) ** e.sigmoid(b)", "e.minimum(a, b)", "e.maximum(a, b)"),
    *operations("ss", "e.atan2(a, b)", "e.hypot(a, b)", "e.where(a < b, a, b)", "e.where(b, a, 0.5)"),
    *operations("sk", "e.minimum(a, b)", "e.maximum(b, a)", "e.atan2(b, a)", "e.atan2(a, b)", "e.hypot(b, a)"),
    *operations("ss", "a < b", "a >= b", "sorted([a, b])[0] is a", "max(a, b) is a"),
    *operations("sk", "a <= b", "b < a"),
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
    *operations("vV", "(a[1:] + a[:-1]) @ b[1:]", "(a[1:] * a[:-1]) @ b[1:]", "(a[1:] + a[:-1]) @ b[1:] + b @ a"),
    *operations("v", "e.Vector([e.Vector([a[0], e.tanh(v)]) @ e.Vector([a[1:][0], a[-1]]) for v in a]).sum()"),
    *operations("vV", "e.Vector([e.Vector([a[0], v]) @ e.Vector([a[-1], b[0]]) for v in e.tanh(a)]).sum()"),
    *operations("vV", "e.Vector([e.Vector([a[0], v]) @ e.Vector([b[-1], b[0]]) for v in e.tanh(a * 0.9)]).sum()"),
    *operations(
        "vV", "e.Vector([e.Vector([a[0], v]) @ e.Vector([b[0], b[-1]]) for v in e.tanh(e.Vector([a[0], *a[:0:-1]]))]).sum()"
    ),
    *operations("mVi", "a[c] @ b", "b @ a[c]", "a[c] @ b[::-1]", "(a @ b)[c]", "e.cross_entropy(a @ b, c)"),
    *operations("mV", "e.Vector([*(a @ b), *(a @ b)]).sum()", "e.Vector([*(a @ b), *(a @ b)]) @ e.Vector([*b, *b])"),
    *operations("v", "(a[1:] * a[:-1]).sum()", "(a[1:] + a[:-1]) @ a[1:]", "(a * a[0]).sum()", "(a * a[-1]) @ a"),
    *operations("r", "e.Vector([v for row in a for v in row]).sum()", "e.Vector([row @ row for row in a]).sum()"),
    *operations("m", "e.Vector([v for row in a @ a[:] for v in row]).sum()"),
    *operations("mM", "e.Vector([x * y for x, y in zip([w @ v for v, w in zip(a, b)], a[-1])]).sum()"),
    *operations("mM", "(lambda x: e.Vector([*(a @ x[0]), *(b @ x[1])]).sum())(e.Matrix([b[0].data, a[-1].data]))"),
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
    *operations("vV", "e.where(a, b, a)", "e.where(b, 0.5, a)", "e.where([v < w for v, w in zip(a, b)], a, b)"),
    *operations("vN", "a + b", "b - a", "a * b", "b / a", "a @ b", "a + array('d', b)", "e.where(b, a, b)"),
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
    *operations("rN", "a + b", "b - a", "a * b", "e.where(b, a, 0.5)"),
    *operations("rR", "e.where(a, b, a)"),
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
    *operations("vV", "e.Vector([a[:1] @ b[:1], a[1:3] @ b[:2]])", "e.Vector([a[:1] @ b[1:2], a[1:3] @ b[1:3], a[-1] * b[-1]])"),
    *operations("vV", "e.Vector([a[:-i] @ b[i:] for i in range(1, len(a))])", "e.Vector([v for w in zip(a, b) for v in w])"),
    *operations("vVi", "e.Vector([e.Vector([a[c], b[0], a[0]][:n]) @ e.Vector([b[c], a[0], a[-1]][:n]) for n in (2, 3)])"),
    *operations("vVi", "e.Vector([e.Vector([a[0], v]) @ e.Vector([a[c], b[0]]) for v in e.tanh(b)])"),
    *operations("vV", "e.Vector([e.Vector([v, w]) @ b[:2] for v, w in zip(a, e.tanh(a))])"),
    *operations("vV", "(lambda x: x * e.Vector([e.Vector([v, w]) @ b[:2] for v, w in zip(x, e.sin(x))]).sum())(e.tanh(a))"),
    *operations("vV", "(lambda x: e.attention(b, [a, b], [x, e.Vector([e.sin(v) for v in (b[0], *x[1:])])], 1) @ x)(e.tanh(a))"),
    *operations("vVi", "e.Vector([e.Vector([v, a[0]]) @ e.Vector([b[c], v]) for v in b])", "e.tanh(a)[c] * b"),
    *operations("vVi", "e.Vector([e.Vector([e.tanh(v) for v in w]) @ a for w in (a, b, a)])[0] + (a * b)[c]"),
    *operations("v", "e.Vector([*accumulate(a, lambda v, _: e.tanh(v))])"),
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
            ("mQ", "(lambda z: e.exp(e.Rows([e.Vector([v @ w for v in z]) for w in b]) - 0.5))(a[:] * 0.9)"),
            ("mQM", "(lambda z: e.exp(e.Rows([a @ b[0], *(e.Vector([v @ w for v in z]) for w in b[1:])]) - 0.5))(c[:] * 0.9)"),
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
]
ENTROPIES = [
    *operations("mQT", "e.cross_entropy(a @ b, c).sum()", "e.cross_entropy(a @ b, c).mean()") * 4,
    *[operation for operation in NEARLY if "e.log" in operation.text],
]
# Some of the positions, after a loss of all.
SOME = [
    *operations(
        "mQ", "e.Vector([v for row in a @ b[:-1] for v in row]).sum()", "e.Vector([v for row in a @ b[1:] for v in row]).sum()"
    ),
    *operations("mQ", "(a @ b[0]).sum()", "(a @ b[-1]).sum()"),
]
# One position: rows of a matrix for tokens, the same rows for what comes next.
TOKEN = operations("mi", "a[b]", "a[b] + a[-1]", "e.tanh(a[b])", "a[b] * a[b - 1]", "a[b] * 0.9")
POSITION = [
    *operations("mV", "a @ b", "e.tanh(a @ b)", "e.tanh(a @ b)", "a @ list(b)", "a[0] * b", "e.tanh(a @ (a @ e.tanh(b)))"),
    *operations("mVi", "a[c][::-1] * b", "a[c] + b", "b * a[c]", "b * e.tanh(a[c])", "b + a[c][::-1]", "b + e.tanh(a[c])"),
    *operations("vV", "a * b", "a + b[::-1]", "b * a[0]", "e.tanh(a)", "a + b"),
    *operations("mVi", "e.Vector([e.Vector([r, a[-1][0]]) @ e.Vector([v, a[0][0]]) for r, v in zip(a[c], b)])"),
    *operations("mVi", "e.Vector([v * r for v, r in zip(b, a[c])])", "e.Vector([v + r for v, r in zip(b, a[c][::-1])])"),
]
LAST = [
    *operations("mVi", "a[c] @ b", "a[c] @ b", "a[c] @ b", "b @ a[c]", "a[c][::-1] @ b", "a[c] @ b + b[0]"),
    *operations("v", "e.Vector([e.Vector([a[0], e.tanh(v)]) @ e.Vector([a[1:][0], a[-1]]) for v in a]).sum()"),
    *operations("vV", "e.Vector([e.Vector([a[0], v]) @ e.Vector([a[-1], b[0]]) for v in e.tanh(a)]).sum()"),
    *operations("vV", "e.Vector([e.Vector([a[0], v]) @ e.Vector([b[-1], b[0]]) for v in e.tanh(a * 0.9)]).sum()"),
    *operations(
        "vV", "e.Vector([e.Vector([a[0], v]) @ e.Vector([b[0], b[-1]]) for v in e.tanh(e.Vector([a[0], *a[:0:-1]]))]).sum()"
    ),
    *operations("mVi", "e.cross_entropy(a @ b, c)", "(a @ b).sum()", "b[0] + a[c] @ b"),
]
# What is used more than twice, by nodes that were not made in the sequence in which the search comes to them.
COMMON = operations("v", "e.tanh(a)", "e.tanh(a * 0.9)") + operations("mi", "a[b]", "e.tanh(a[b])")
USERS = [
    *operations("v", "a * e.Vector([a[i : i + 1] @ a[i + 1 : i + 2] for i in range(len(a) - 1)]).sum()"),
    *operations("v", "a * e.Vector([a[i : i + 2] @ a[i + 1 : i + 3] for i in range(0, len(a) - 2, 2)]).sum()"),
    *(
        Operation(f"(lambda x, y, z: e.tanh(e.Vector([(y, x, z)[i % 3] for i in range(len(a))])))({users})", operands)
        for operands, users in (
            ("vM", "a[1:] @ b[0][1:], a[:-1] @ b[1 % len(b)][:-1], a[:-1] @ b[-1][1:]"),
            ("viii", "*(e.Vector([a[i], a[0]]).sum() for i in (b, c, d))"),
            ("v", "*accumulate([a[0], 0, 0], lambda v, _: e.tanh(v))"),
        )
    ),
]
ENDS = operations("mVVi", "b.sum() + a[d] @ c", "a[d] @ c + b.sum()") + operations("mVi", "a[c] @ b")
CHAINS = ((TOKENS, POSITIONS, LOSSES), (TOKENS, POSITIONS, ENTROPIES), (TOKEN, POSITION, LAST), (COMMON, USERS, ENDS))
# The same with other operands: one computed, a leaf, or both the same; other rows, or one row three times.
SHARED = [
    *(
        operations(
            "mVi", *(f"(lambda q, v: q.sum() + a[c] @ {users})({two})" for two in ("e.tanh(b), b", "b, b", "*[e.tanh(b)] * 2"))
        )
        for users in (
            "(lambda x, y, z: y * x + z)(e.tanh(q), e.exp(v), e.sin(q))",
            "(lambda x, z, y: x * y + z)(e.tanh(q), e.sin(q), e.Vector([v[-1], *v[:-1]]).sum())",
        )
    ),
    operations(
        "m",
        *(
            f"a[0] @ (lambda x, y, z: y * x + z)(*(f(a[i % len(a)]) for f, i in zip((e.tanh, e.exp, e.sin), {rows})))"
            for rows in ((1, 3, 2), (1, 1, 1), (2, 0, 2))
        ),
    ),
    # What a plan made for one of them is not for the other, or rows are not where one of their nodes is used by all.
    operations("mVi", "(lambda x: (lambda z: z[0] + a[c] @ z)(x * (x * x[0])))(e.tanh(b))"),
    operations("mVi", "e.cross_entropy(a @ (a @ e.tanh(b)), c)", "(lambda z: z[-1] + e.cross_entropy(z, c))(a @ e.tanh(b))"),
    operations("mMT", "e.cross_entropy(a @ e.tanh(b[:]), c).sum()"),
    operations("mn", "e.Vector([v for row in e.tanh(a[b] * 0.9) for v in row]).sum()"),
    operations("vk", "e.tanh((e.Vector(a.data) if b > 0.4 else e.exp(a)) * 0.9).sum()"),
    operations("m", "e.Vector([row.sum() for row in (lambda x: e.attention(x, x, x, 1))(e.tanh(a @ a[:]))]).sum()"),
    operations("mii", "(lambda x, y: e.tanh(x) * y + y)(a[b][:-1], a[c][1:]).sum()"),
    operations("mk", "(lambda x: e.Vector([*(x[0] * 0.5), *(x[1] * (0.5 if b > 0.4 else b))]).sum())(e.tanh(a[[0, -1]]))"),
    operations("vVk", "(lambda w: w @ e.tanh(b))(e.Vector(a.data) if c > 0.4 else a * 1.0)"),
]
# A text of many positions at once: more nodes than all else together.
TEXTS = operations(
    "mMMT",
    "e.cross_entropy(a @ e.tanh(c @ (b[:] * 0.9)), d).sum()",
    "e.cross_entropy(a @ (b[:] + c @ b[:]), d).mean()",
    "e.cross_entropy(a @ e.attention(c @ b[:], [c @ b[:]], [b[:]], 1), d).sum()",
    "e.Vector([v for row in a @ e.rmsnorm(c @ b[:]) for v in row]) @ e.Vector([v for row in a @ b[:] for v in row])",
)
BACKWARD = [Operation("a.backward()", "s")]
FLICKER = Operation("flicker(a)", "S")
CLEARING = operations("x", "del a", "del a") + operations("", "collect")
EFFECTS = [
    *operations("s", "a.zero_grad()", "inspect", "inspect"),
    *operations("LD", "a.data = b", "a.data = b"),
    *operations("Wiw", "a[b].data = c"),
    FLICKER,
    *operations("xG", "a.grad = b"),
    *operations("x", "del a", "del a", "del a"),
    *operations("", "collect", "collect", "begin", "end"),
    *operations("L", "e.Adam([a])"),
    *operations("LL", "e.Adam([a, b], learning_rate=0.1, weight_decay=0.01)"),
    *operations("Ak", "a.step(abs(b))", "a.step(0.1)", "a.step(0.1)", "a.step(0.1)"),
]
# What is written on nodes, also on those that no handle stands for, and own steps of backward().
WRITING = [
    *operations("sl", "a.label = b", "a.note = b", "a.note = b"),
    *operations("sql", "child(a, b).label = c", "child(a, b).note = c", "child(child(a, b), b).note = c"),
    *operations("vil", "a[b].label = c", "child(a[b], 0).note = c"),
    *operations("ss", "a.friend = b", "a.friend = b", "a.friend = [b, a]", "child(a, 0).friend = b", "child(a, 1).friend = [a]"),
    *operations("ss", "[a, b * 0.5]", "friend(a).friend = [b]", "friend(a).friend = b", "friend(friend(a)).friend = [b, a]"),
    *operations("so", "a.friend = b", "a.friend = b", "b[1].friend = [a]", "child(a, 0).friend = b", "friend(a).friend = b"),
    *operations("oi", "a[b]", "a[b].friend = a", "a[b].friend = [e.tanh(a[0])]"),
    *operations("sl", "friend(a).note = b"),
    *operations(
        "s", "friend(a)", "a.friend = e.tanh(a)", "a.friend = [e.Value(0.5) * a]", "e.Value(a.data, (a,), 'op', 'label')"
    ),
]
HOOKS = operations("rij", "hook(a[b][c])")
OWN = [
    *HOOKS,
    *operations("s", "own(e, a)", "own(e, a)", "own(e, a) * own(e, a)", "hook(a)", "nested(e, a)", "e.Value(0.5, (a, a), 'op')"),
    *operations("sS", "setting(e, a, b)", "setting(e, a * b, b)"),
    *operations("Wi", "hook(a[b])", "hook(a[b])"),
    *operations("sq", "hook(child(a, b))"),
    *operations("vi", "hook(a[b])"),
    *operations("v", "e.Vector([own(e, v) for v in a])"),
]
ATTRIBUTES = {operation.text for operation in (*WRITING, *OWN)}
FLAT = operations("r", "e.Vector([v for row in a for v in row]).sum()", "e.Vector([v for row in a for v in row]) @ a[0]")
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
    for table in (VALUES, REDUCTIONS, VECTORS, MATRICES, ROWS, NEARLY, ROOTS, *itertools.chain(*CHAINS), SOME, *SHARED, BACKWARD)
    for operation in table
}
# How often an instruction is of which table, by the kind of program.
TABLES = {
    "general": (
        *((VALUES, 4), (REDUCTIONS, 4), (VECTORS, 5), (MATRICES, 4), (ROWS, 4), (NEARLY, 2), (BACKWARD, 3), (EFFECTS, 4)),
        *((WRITING, 0.5), (OWN, 0.5)),
    ),
    "tied": ((VALUES, 1), (REDUCTIONS, 4), (VECTORS, 4), (MATRICES, 6), (ROWS, 4), (NEARLY, 2), (BACKWARD, 3), (EFFECTS, 2)),
    "same-shape": ((VALUES, 1), (REDUCTIONS, 2), (VECTORS, 5), (MATRICES, 5), (ROWS, 4), (NEARLY, 3)),
    "memory": ((VALUES, 2), (REDUCTIONS, 3), (VECTORS, 2), (MATRICES, 1), (BACKWARD, 3), (EFFECTS, 9), ([*LEAVES.values()], 2)),
    "attributes": ((VALUES, 2), (VECTORS, 2), (BACKWARD, 1), (EFFECTS, 3), (CLEARING, 3), (WRITING, 9), (OWN, 1)),
    "own": ((VALUES, 2), (REDUCTIONS, 4), (VECTORS, 2), (MATRICES, 2), (ROWS, 3), (BACKWARD, 4), (EFFECTS, 3), (OWN, 5)),
}
KINDS = (*TABLES, "models")
IN_TURN = [*TABLES] * 20 + ["models"]  # these take as long as fifty others
WORDS = ("loss", "hidden", "x")
NAMES = ("label", "note")  # what WRITING writes, beside `friend`
NUMBERS = (0.5, -1.0, 0.3, 1.7, 0.1, 2.0, -0.7, 3.0)
EXPONENTS = (2, -1, 0.5, 3, -0.5, 1, 2.5, -2)
SPECIAL = (math.inf, -math.inf, math.nan, 0.0, -0.0, 5e-324, -1e-310, 1e308, -1e200, 1e-200, 1.0, -1.0)
MOST_DIFFERENCES = 3
MOST_NODES = 600  # of a program, after which only effects follow


# Making programs.


def generate(kind: str, rng: random.Random) -> Program:
    if kind == "models":
        return models(rng)
    n = rng.choice((1, 2, 2, 2, 3, 3, 4, 5, 6))
    leaves = [leaf("m", rng, rng.choice((n, n, rng.randint(1, 6))), n)]
    if kind != "tied" or rng.random() < 0.3:
        leaves += [leaf("m", rng, n, n), leaf("v", rng, n), leaf("s", rng)]
    if rng.random() < 0.4:
        leaves.append(leaf("v", rng, n))
    if kind == "memory" or rng.random() < 0.1:
        leaves += [instruction(rng, Operation("e.Adam([a])", "L")) for _ in range(2)]
    if kind == "own" and rng.random() < 0.3:
        return [*leaves, *following((TOKENS, POSITIONS, HOOKS, FLAT, BACKWARD), rng)]
    if kind != "same-shape":
        return [*leaves, *instructions(kind, rng, rng.randint(4, 22)), *root(rng)]
    if rng.random() < 0.3:
        leaves.append(instruction(rng, Operation("e.Adam([a])", "L")))
    block = chain(rng) if rng.random() < 0.7 else [*instructions(kind, rng, rng.randint(1, 9)), *root(rng)]
    program = list(leaves)
    for changes in (
        0,
        0,
        0,
        *rng.choice(((1, 0), (1, 1), (0, 1), (1, 0, 2), (2, 1, 1))),
    ):  # more plans than one
        now = list(block)
        for _ in range(changes):
            change(now, rng)
        program += [Instruction("begin", "", ()), *now]
        if rng.random() < 0.15:
            program += instructions("general", rng, 1)
        program.append(Instruction("end", "", ()))
    return program


def models(rng: random.Random) -> Program:
    """A text again and again, as in training. Then all of that is gone, and a few nodes are on a tape that was full."""
    n = rng.randint(4, 12)
    text = Instruction(*rng.choice(TEXTS), (0, 2, 1, rng.randrange(1000)))
    step = instructions("memory", rng, rng.randint(0, 1))
    program = [Instruction("begin", "", ())]
    program += [leaf("m", rng, rows, n) for rows in (rng.randint(8, 24), n, rng.randint(2, 12))]
    for _ in range(3):
        program += [Instruction("begin", "", ()), text, Instruction(*BACKWARD[0], (0,)), *step, Instruction("end", "", ())]
    program += [Instruction("end", "", ()), leaf("s", rng), instruction(rng, FLICKER), leaf("v", rng, 2)]
    return [*program, *instructions("memory", rng, rng.randint(2, 8)), *root(rng)]


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
    return rng.randrange(-30, 1000) if letter in "ntTNDG" else rng.choice(picks)


def root(rng: random.Random) -> Program:
    program = [instruction(rng, rng.choice(ROOTS))]
    if rng.random() < 0.3:
        program.append(instruction(rng, rng.choice(VALUES)))
    return [*program, Instruction(*BACKWARD[0], (0,))]


def following(tables: Iterable[Sequence[Operation]], rng: random.Random) -> Program:
    """An instruction of each table, of what came last for the most part."""
    return [instruction(rng, rng.choice(table), (0, 0, 0, 0, 1, 2, -1, -2)) for table in tables]


def chain(rng: random.Random) -> Program:
    """Positions, one step after the other, and a loss or two."""
    if rng.random() < 0.2:
        return following((rng.choice(SHARED), BACKWARD), rng)
    first, steps, last = rng.choice(CHAINS)
    tables = [first, *[steps] * rng.randint(1, 4), last, *rng.choice(((), (), (), (last,), (BACKWARD, last), (BACKWARD, SOME)))]
    program = following(tables, rng)
    if rng.random() < 0.3:
        program.append(instruction(rng, rng.choice(VALUES)))
    return [*program, Instruction(*BACKWARD[0], (0,))]


def change(program: Program, rng: random.Random) -> None:
    """Let one operand or one operation be another, leave one out, or let two of them change places."""
    i = rng.choice((rng.randrange(len(program)), max(0, len(program) - 2)))  # more often what comes before backward()
    now = program[i]
    how = rng.random()
    if how < 0.5 and now.picks and now.operands != LEAF:
        k = rng.randrange(len(now.picks))
        program[i] = now._replace(picks=(*now.picks[:k], pick(rng, now.operands[k]), *now.picks[k + 1 :]))
    elif how < 0.9:
        program[i] = instruction(rng, rng.choice(TABLE_OF[now.text]))
    elif how < 0.95:
        del program[i]
    elif i > 0:
        program[i - 1], program[i] = program[i], program[i - 1]
