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
import random
import re
import sys
import time
from array import array
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import cache
from typing import Any

import twin
from fuzz_faults import try_faults
from fuzz_own import HELPERS, friends
from fuzz_programs import (
    ATTRIBUTES,
    EXPONENTS,
    IN_TURN,
    KINDS,
    LEAF,
    MOST_DIFFERENCES,
    MOST_NODES,
    NAMES,
    NUMBERS,
    SPECIAL,
    WORDS,
    Instruction,
    Program,
    generate,
)

import microgpt
from microgpt import _vectors
from microgpt._plans import forget_plans
from microgpt._schedule import set_worth
from microgpt._tape import get_tape

# Running them.


class Handle:
    """What one name stands for on both sides."""

    def __init__(self, name: str, ours: Any, theirs: Any) -> None:
        self.name, self.kind, self.ours, self.theirs = name, name[0], ours, theirs
        self.shape: tuple[int, ...] = ()
        self.data = None if self.kind in "Ao" else theirs.data  # of leaves: what it was set to first
        if self.kind in "vo":
            self.shape = (len(theirs),)
        elif self.kind in "mr":
            self.shape = theirs.shape


class Difference(Exception):  # noqa: N818 - not an error of the program
    """The engine is not equal to its twin."""


class End(Exception):  # noqa: N818 - no error
    """What follows is not determined."""


CLASSES = (
    (microgpt.Value, "s"),
    (microgpt.Vector, "v"),
    (microgpt.Matrix, "m"),
    (microgpt.Rows, "r"),
    (microgpt.Adam, "A"),
    (list, "o"),
)
REFUSED = (ArithmeticError, ValueError, RuntimeError)


@cache
def function(text: str, n: int) -> Callable[..., Any]:
    parameters = ", ".join(["e", *"abcd"[:n]])
    namespace = {"accumulate": itertools.accumulate, "array": array, **{f.__name__: f for f in HELPERS}}
    exec(f"def f({parameters}): {'' if ' = ' in text else 'return '}{text}", namespace)
    made: Callable[..., Any] = namespace["f"]
    return made


class Run:
    """One run of a program."""

    def __init__(self) -> None:
        self.has_attributes = False
        self.handles: list[Handle] = []
        self.count = 0  # of the handles ever made
        self.marks: list[int] = []  # that count at each `begin`
        self.log: list[tuple[str, str, list[Any]]] = []  # what was done: the line of a script, text and operands

    def run(self, program: Iterable[Instruction]) -> None:
        """Raise Difference where the two are not equal."""
        begin()
        try:
            for instruction in program:
                if get_tape().nodes - at_first < MOST_NODES or instruction.text in ("a.backward()", "end", "del a"):
                    self.execute(instruction)
            self.check()
        except End:
            pass
        self.drop(self.handles)
        self.execute(Instruction("collect", "", ()))

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
            self.note(f"yield collected, [{', '.join(h.name for h in self.handles)}]")
            collected([h.ours for h in self.handles], [h.theirs for h in self.handles])
        elif text == "inspect":
            self.note("yield inspect, a", operands=operands)
            inspect(operands[0].ours, operands[0].theirs)
        elif text == "a.backward()":
            self.backward(operands)
        else:
            self.has_attributes |= text in ATTRIBUTES
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
        elif isinstance(ours, (bool, str)):
            self.note(f"yield same, {text}", operands=operands)
            same(ours, theirs)
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
            may_be_refused = twin.may_be_refused(root.theirs)
            if any("setting(" in text for _, text, _ in self.log):  # which may have been called before
                if not may_be_refused:
                    root.theirs.backward()
                if may_be_refused or twin.may_be_refused(root.theirs):
                    raise End from None
            if not may_be_refused:
                raise Difference(f"backward: {error}") from None
        else:
            self.note("a.backward()", operands=operands)
            root.theirs.backward()
        self.check()

    def drop(self, handles: Sequence[Handle]) -> None:
        if handles:
            self.note(f"del {', '.join(h.name for h in handles)}")
        self.handles = [h for h in self.handles if h not in handles]

    def check(self) -> None:
        if self.handles:
            self.note(f"yield check, [{', '.join(h.name for h in self.handles)}]")
            check([h.ours for h in self.handles], [h.theirs for h in self.handles])
            if self.has_attributes:
                self.note(f"yield attributes, [{', '.join(h.name for h in self.handles)}]")
                attributes([h.ours for h in self.handles], [h.theirs for h in self.handles])

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
        self.log.append((line, text, [h.name if isinstance(h, Handle) else repr(h) for h in operands]))

    def script(self) -> str:
        """The run as a script that compares the two again."""
        lines = []
        for line, text, operands in self.log:
            put = re.sub(r"(?<!')\b[abcd]\b", lambda m: str(operands["abcd".index(m[0])]), text or line)  # noqa: B023
            lines.append("    " + (line.format(put) if text else put))
        return "\n".join([HEAD, *lines, FOOT])


HEAD = """import sys
from itertools import accumulate
from math import inf, nan

sys.path.insert(0, "tests")
from fuzz import *
from fuzz import array
from fuzz_own import *


def program(e):"""
FOOT = """

replay(program)"""


at_first = 0  # nodes on the tape where a program begins


def begin() -> None:
    """Start as a new process would, but for the room that the tape has."""
    global at_first
    forget_plans()
    set_worth(1, 1)
    twin.mixed.clear()
    get_tape().collect()
    at_first = get_tape().nodes


def collected(_: Any, theirs: Sequence[Any]) -> None:
    """Collect as long as nodes go (cycles that hold cycles), and compare how many there are then."""
    before = None
    while before != get_tape().nodes:
        before = get_tape().nodes
        get_tape().collect()
    nodes, there = get_tape().nodes - at_first, len(twin.reached(theirs))
    if not there <= nodes <= len(twin.reached(theirs, whole_rows=True)):
        raise Difference(f"{nodes} nodes are left, {there} can be reached")


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
    """Compare all nodes that a Value reaches."""
    pairs, seen = [(ours, theirs)], {theirs}
    for a, b in pairs:
        equal(a, b)
        for pair in zip(a.children, twin.children(b), strict=True):
            if pair[1] not in seen:
                seen.add(pair[1])
                pairs.append(pair)


def equal(ours: Any, theirs: Any, levels: int = 0) -> None:
    """Compare two nodes and what was written on them, and so many levels of the nodes that they refer to."""
    x, y = ([*bits(state(v)), *(getattr(v, name, None) for name in NAMES)] for v in (ours, theirs))
    if x != y:
        raise Difference(f"a node `{ours.op}`: {x}, the twin: {y}")
    if levels > 0:
        for a, b in zip(ours.children, twin.children(theirs), strict=True):
            equal(a, b, levels - 1)
        for a, b in zip(friends(ours), friends(theirs), strict=True):
            equal(a, b, levels - 1)


def attributes(ours: Sequence[Any], theirs: Sequence[Any]) -> None:
    """Compare what was written on the nodes of all handles, and on those that they refer to."""
    for a, b in zip(ours, theirs, strict=True):
        if isinstance(a, microgpt.Value):
            equal(a, b, 2)
        elif not isinstance(a, microgpt.Adam):
            for v, w in zip(a, b, strict=True):
                equal(v, w, 1) if isinstance(v, microgpt.Value) else attributes([v], [w])


def same(ours: Any, theirs: Any) -> None:
    if ours != theirs:
        raise Difference(f"{ours!r}, the twin: {theirs!r}")


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
    if type(handle) is list:
        return itertools.chain(*map(state, handle))
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
    "l": lambda given, pick: WORDS[pick % len(WORDS)],
    "q": lambda given, pick: pick,
    "N": lambda given, pick: numbers(given[0].shape, pick),
    "D": lambda given, pick: given[0].data if pick % 2 else numbers(given[0].shape, pick % 6),
    "w": lambda given, pick: given[0].data[given[1]] if pick % 2 else float(pick % 6),
    # Not -0.0: the twin's partial sums begin at 0.0, to which it adds, and a dot has none.
    "G": lambda given, pick: numbers(given[0].shape, pick, -0.0),
}


def is_leaf(h: Handle) -> bool:
    return not any(v.children for v in twin.flat(h.theirs))


# By letter: whether a handle fits, beside the first operand.
FITS: dict[str, Callable[[Handle, Any], bool]] = {
    **{kind: lambda h, first, kind=kind: h.kind == kind for kind in "svmrAo"},
    "x": lambda h, first: h.kind not in "Ao",
    "V": lambda h, first: h.kind == "v" and h.shape[0] == first.shape[-1],
    "M": lambda h, first: h.kind == "m" and h.shape[1] == first.shape[-1],
    "Q": lambda h, first: h.kind == "r" and h.shape[1] == first.shape[-1],
    "R": lambda h, first: h.kind == "r" and h.shape == first.shape,
    "L": lambda h, first: h.kind in "svm" and is_leaf(h),
    "S": lambda h, first: h.kind == "s" and is_leaf(h),
    "W": lambda h, first: h.kind == "v" and is_leaf(h),
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


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description="Random programs on the engine and on its twin.")
    parser.add_argument("--seconds", type=float, default=math.inf, help="how long to go on")
    parser.add_argument("--programs", type=int, default=None, help="how many programs at most")
    parser.add_argument("--seed", type=int, default=random.randrange(10**6), help="else a new one each time")
    parser.add_argument("--first", type=int, default=0, help="number of the first program")
    parser.add_argument("--kind", choices=KINDS, help="of the programs; else each in turn")
    parser.add_argument("--variant", help="of the long loops (microgpt._vectors)")
    parser.add_argument("--progress", action="store_true", help="name each program before it runs, for one that ends the process")
    parser.add_argument("--brief", action="store_true", help="stop at the first difference, without a script")
    parser.add_argument(
        "--faults", metavar="NAME", nargs="?", const="", help="take out each guard of the engine in turn (with NAME in its name)"
    )
    args = parser.parse_args(arguments)
    if args.faults is not None:
        return 1 if try_faults(args.faults) else 0
    if args.variant:
        _vectors.choose(args.variant)
    kinds = [args.kind] if args.kind else IN_TURN
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
