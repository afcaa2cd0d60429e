"""Whatever is written on a Value stays as long as its node is there, and goes with it: random lives of attributes."""

from __future__ import annotations

import contextlib
import copy
import gc
import os
import pickle
import threading
import weakref
from collections.abc import Callable
from typing import Any, ClassVar

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, precondition, rule

from microgpt import Rows, Value, Vector
from microgpt._tape import get_tape


class Token:
    """Something to write on a Value, of which is known whether it is still there."""

    there: ClassVar[weakref.WeakSet[Token]] = weakref.WeakSet()
    number: int

    def __new__(cls, *_: Any) -> Token:
        token = super().__new__(cls)
        cls.there.add(token)
        return token

    def __init__(self, number: int) -> None:
        self.number = number


class Sub(Value):
    """Its objects are made and freed in the general way."""


class Node:
    """What a node must be: `attributes` holds numbers, strings, Tokens, Nodes for Values, and tuples of these for collections."""

    def __init__(self, *children: Node) -> None:
        self.children = children
        self.attributes: dict[str, Any] = {}


class Step:
    """A `_backward` that refers to its own node, as closures do."""

    def __init__(self, out: Value, child: Value) -> None:
        self.out, self.child = out, child

    def __call__(self) -> None:
        self.child.grad += self.out.grad


def reachable(nodes: list[Node]) -> set[Node]:
    found: set[Node] = set()
    left: list[Any] = list(nodes)
    while left:
        item = left.pop()
        if isinstance(item, tuple):
            left += item
        elif isinstance(item, Node) and item not in found:
            found.add(item)
            left += [*item.children, *item.attributes.values()]
    return found


def tokens_of(nodes: set[Node]) -> set[int]:
    values = [value for node in nodes for value in node.attributes.values()]
    return {value[1] for value in values if isinstance(value, tuple) and value[0] == "token"}


class Comparison:
    """That Values and Nodes correspond, one to one, from some of them on."""

    def __init__(self) -> None:
        self.values: dict[Value, Node] = {}
        self.nodes: dict[Node, Value] = {}
        self.left: list[tuple[Any, Any]] = []

    def of(self, held: list[tuple[Value, Node]]) -> None:
        self.left += held
        while self.left:
            is_there, expected = self.left.pop()
            if isinstance(expected, Node):
                self.of_node(is_there, expected)
            elif not isinstance(expected, tuple):
                assert (type(is_there), is_there) == (type(expected), expected)
            elif expected[0] == "token":
                assert (type(is_there), is_there.number) == (Token, expected[1])
            elif expected[0] == "step":
                self.left += [(is_there.out, expected[1]), (is_there.child, expected[2])]
            else:
                assert type(is_there).__name__ == expected[0]
                items = is_there[0] if isinstance(is_there, Rows) else is_there
                self.left += zip(items, expected[1:], strict=True)

    def of_node(self, value: Value, node: Node) -> None:
        if value in self.values or node in self.nodes:
            assert self.values[value] is node
            assert self.nodes[node] is value
            return
        self.values[value], self.nodes[node] = node, value
        assert vars(value).keys() == node.attributes.keys()
        assert value.label is vars(value).get("label", Value.label)
        assert value.op == node.attributes.get("_op", value.op)
        self.left += zip(value.children, node.children, strict=True)
        self.left += [(vars(value)[name], expected) for name, expected in node.attributes.items()]


picks = st.integers(0, 7)
names = st.sampled_from(["label", "m", "color", "users"])


class AttributeLives(RuleBasedStateMachine):
    """Random writing and reading; `held` is what variables would hold, nodes in between are held by nobody."""

    def __init__(self) -> None:
        super().__init__()
        self.held: list[tuple[Value, Node]] = []
        self.numbers = 0
        self.always = False

    @initialize(always=st.booleans())
    def begin(self, always: bool) -> None:
        """Looking changes who holds what: some runs look after every rule, others now and then."""
        self.always = always
        self.new(Value(1.0), Node())

    def new(self, value: Value, node: Node) -> None:
        self.held.append((value, node))
        self.look_always()

    def look_always(self) -> None:
        if self.always:
            self.look()

    def pick(self, i: int) -> tuple[Value, Node]:
        return self.held[-1 - i % len(self.held)]

    def token(self) -> tuple[Token, Any]:
        self.numbers += 1
        return Token(self.numbers), ("token", self.numbers)

    def thing(self, kind: str, other: tuple[Value, Node]) -> tuple[Any, Any]:
        """Something to write, and what stands for it."""
        value, node = other
        if kind == "token":
            return self.token()
        if kind in ("text", "number"):
            self.numbers += 1
            plain = f"text {self.numbers}" if kind == "text" else self.numbers
            return plain, plain
        made: dict[str, Callable[[], Any]] = {
            "Value": lambda: value,
            "list": lambda: [value, value],
            "Vector": lambda: Vector([value, value]),
            "Rows": lambda: Rows([[value, value]]),
        }
        return made[kind](), node if kind == "Value" else (kind, node, node)

    @rule(sub=st.booleans())
    def leaf(self, sub: bool) -> None:
        self.new((Sub if sub else Value)(0.5), Node())

    @rule(sub=st.booleans(), i=picks)
    def named(self, sub: bool, i: int) -> None:
        value, below = self.pick(i)
        self.numbers += 1
        node = Node(below)
        node.attributes = {"_op": f"op {self.numbers}", "label": f"label {self.numbers}"}
        self.new((Sub if sub else Value)(0.5, (value,), *node.attributes.values()), node)

    @rule(i=picks, j=picks, kind=st.sampled_from(["add", "mul", "tanh", "dot"]), deep=st.integers(1, 3))
    def compute(self, i: int, j: int, kind: str, deep: int) -> None:
        """Also nodes that no variable ever held."""
        (x, below), (y, beside) = self.pick(i), self.pick(j)
        for _ in range(deep):
            if kind == "add":
                x, below = x + y, Node(below, beside)
            elif kind == "mul":
                x, below = x * y, Node(below, beside)
            elif kind == "tanh":
                x, below = x.tanh(), Node(below)
            else:
                x, below = Vector([x, y]) @ Vector([y, x]), Node(below, beside, beside, below)
        self.new(x, below)

    @rule(i=picks)
    def own(self, i: int) -> None:
        value, below = self.pick(i)
        out, node = Value(value.data, (value,), "own"), Node(below)
        out._backward = Step(out, value)
        node.attributes = {"_op": "own", "_backward": ("step", node, below)}
        self.new(out, node)

    @rule(
        i=picks, j=picks, name=names,
        kind=st.sampled_from(["text", "number", "token", "token", "Value", "list", "Vector", "Rows"]),
        depth=st.integers(0, 3), child=picks, by_dict=st.booleans(),
    )  # fmt: skip
    def write(self, i: int, j: int, name: str, kind: str, depth: int, child: int, by_dict: bool) -> None:
        """On what is held or, `depth` steps below, on what may be held by nobody."""
        value, node = self.pick(i)
        for _ in range(depth):
            if node.children:
                k = child % len(node.children)
                value, node = value.children[k], node.children[k]
        thing, node.attributes[name] = self.thing(kind, self.pick(j))
        if by_dict:
            vars(value)[name] = thing
        else:
            setattr(value, name, thing)
        del value, thing
        self.look_always()

    @rule(i=picks, name=names, all_of_them=st.booleans())
    def remove(self, i: int, name: str, all_of_them: bool) -> None:
        value, node = self.pick(i)
        if all_of_them:
            kept = {key: thing for key, thing in node.attributes.items() if key in ("_op", "_backward")}
            node.attributes = kept
            for key in [key for key in vars(value) if key not in kept]:
                delattr(value, key)
        elif name in node.attributes:
            del node.attributes[name]
            delattr(value, name)
        else:
            with pytest.raises(AttributeError):
                delattr(value, name)
        self.look_always()

    @rule(i=picks, k=picks)
    def hold(self, i: int, k: int) -> None:
        """A Value that is found again counts as any other, whatever becomes of the way to it."""
        value, node = self.pick(i)
        if node.children:
            self.new(value.children[k % len(node.children)], node.children[k % len(node.children)])

    @precondition(lambda self: len(self.held) > 1)
    @rule(i=picks)
    def forget(self, i: int) -> None:
        del self.held[-1 - i % len(self.held)]
        self.look_always()

    @precondition(lambda self: self.held)
    @rule(i=picks, n=st.integers(1, 300))
    def rewind(self, i: int, n: int) -> None:
        """What is written on temporaries goes with them, at once; the objects serve again."""
        value, _ = self.pick(i)
        before = len(Token.there)
        made = [value * float(k) for k in range(n)]
        for k, temporary in enumerate(made):
            temporary.label, temporary.m = f"temporary {k}", Token(-1)
        assert len(Token.there) == before + n
        del made, temporary
        assert len(Token.there) == before
        assert {(v.label, len(vars(v))) for v in [value * float(k) for k in range(n)]} == {("", 0)}
        self.look_always()

    @rule(i=picks)
    def fail(self, i: int) -> None:
        value, _ = self.pick(i)
        zero = value - value.data
        zero.label, zero.m = "zero", Token(-1)
        for call in (
            zero.log,
            lambda: zero * "a",  # noqa: F821
            lambda: Value(1.0, (zero, value), (1.0,), "label"),  # noqa: F821
            lambda: zero + (zero - 1.0).log(),  # noqa: F821
        ):
            with pytest.raises((ValueError, TypeError)):
                call()
        del zero, call
        gc.collect()  # tracebacks
        assert -1 not in {token.number for token in Token.there}
        self.look_always()

    @rule(i=picks)
    def backward(self, i: int) -> None:
        value, _ = self.pick(i)
        with contextlib.suppress(RuntimeError):  # a node below has neither partials nor a function
            value.backward()
        self.look_always()

    @rule(i=picks)
    def backward_that_fails(self, i: int) -> None:
        value, _ = self.pick(i)
        before = vars(value).get("_backward")

        def fail() -> None:
            raise KeyError

        value._backward = fail
        with pytest.raises((KeyError, RuntimeError)):
            value.backward()
        if before is None:
            del value._backward
        else:
            value._backward = before
        self.look_always()

    @rule(i=picks, way=st.sampled_from(["copy", "deepcopy", "pickle"]))
    def travel(self, i: int, way: str) -> None:
        value, node = self.pick(i)
        if node.children:
            with pytest.raises(TypeError, match="cannot be copied"):
                copy.copy(value)
            return
        if way != "copy" and any(
            isinstance(a, Node) or (isinstance(a, tuple) and a[0] != "token") for a in node.attributes.values()
        ):
            return
        alike = Node()
        alike.attributes = dict(node.attributes)
        ways: dict[str, Callable[[Any], Any]] = {
            "copy": copy.copy,
            "deepcopy": copy.deepcopy,
            "pickle": lambda leaf: pickle.loads(pickle.dumps(leaf)),
        }
        self.new(ways[way](value), alike)

    @rule(i=picks, name=names)
    def thread(self, i: int, name: str) -> None:
        value, node = self.pick(i)
        thing, expected = self.token()
        made: list[Value] = []

        def work() -> None:
            setattr(value, name, thing)
            made.append(value * 1.0)
            made[0].label = "of a thread"
            get_tape().collect()

        worker = threading.Thread(target=work)
        worker.start()
        worker.join()
        node.attributes[name] = expected
        result = Node(node)
        result.attributes["label"] = "of a thread"
        self.new(made[0], result)

    @precondition(lambda _: hasattr(os, "fork"))
    @rule(collect=st.booleans())
    def fork(self, collect: bool) -> None:
        child = os.fork()
        if child == 0:
            status = 1
            try:
                if collect:
                    self.collect()
                self.look()
                self.held.clear()
                get_tape().collect()
                status = 0
            finally:
                os._exit(status)
        assert os.waitpid(child, 0)[1] == 0

    @rule()
    def collect(self) -> None:
        """What only dead nodes had is gone, cycles included."""
        gc.collect()
        get_tape().collect()
        assert {token.number for token in Token.there} <= tokens_of(reachable([node for _, node in self.held]))
        self.look_always()

    @rule()
    def look(self) -> None:
        Comparison().of(self.held)

    def teardown(self) -> None:
        self.look()
        self.held.clear()
        gc.collect()
        get_tape().collect()
        assert len(Token.there) == 0


TestAttributeLives = pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")(AttributeLives.TestCase)
TestAttributeLives.settings = settings(max_examples=settings.default.max_examples // 4, stateful_step_count=25)
