"""The graph below a Value, to be looked at: as buffers, by name, counted, as text."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple, TypeAlias

from microgpt._inspect import Snapshot
from microgpt._matrix import Matrix, Rows
from microgpt._ops import NAMES
from microgpt._value import Value
from microgpt._vector import Vector

Tensor: TypeAlias = Value | Vector | Matrix | Rows
Named: TypeAlias = Tensor | Sequence["Named"]
Names: TypeAlias = Mapping[str, Named]

SHOWN_CHILDREN = 6  # of a node in a tree; of more, the first ones


class Count(NamedTuple):
    """How large a graph is.

    `nodes`, of which `leaves` have no children. `edges`: uses of a node as a child. `depth`: edges on the longest way from
    the root. `ops`: how many nodes there are of each op. `nbytes`: what the nodes take of the tape's memory.
    """

    nodes: int
    leaves: int
    edges: int
    depth: int
    ops: dict[str, int]
    nbytes: int


class Graph(Snapshot):
    """The nodes that `root` reaches, as they are now; made by `graph(root)`.

    Index 0 is the root; the order is that of backward(), the reference's. `graph[i]` is the Value of a node, the graph
    iterates over them, `graph.index(value)` is the way back. The buffers (`ops`, `data`, `grad`, `children`, `partials`, ...)
    are read-only memoryviews, which numpy takes: `np.asarray(graph.grad)`. As long as the Graph is there, its nodes are.
    """

    def __init__(self, root: Value, names: Names | None = None) -> None:
        if not isinstance(root, Value):
            raise TypeError(f"a graph is that of a Value, got {type(root).__name__}")
        super().__init__(root)
        self.tensors: dict[str, Tensor] = dict(flatten(names or {}))
        self.name_tensors(self.tensors.values())
        self._names = list(self.tensors)

    def name(self, index: int) -> str:
        """Return the name of node `index`: of its element in `names`, such as layer0.q[2][5], or its label; "" if it has none."""
        number = self.tensor[index]
        if number == 0:
            return str(self[index].label)
        name = self._names[number - 1]
        return name + place_in(self.tensors[name], self.offset[index])

    def span(self, indices: Sequence[int]) -> str:
        """Return the name of several nodes of one tensor, such as layer0.q[2][0..15]; "" if they are not."""
        numbers = {self.tensor[index] for index in indices}
        number = numbers.pop()
        if numbers or number == 0:
            return ""
        name = self._names[number - 1]
        shape = shape_of(self.tensors[name])
        places = [divmod(self.offset[index], shape[-1]) for index in indices] if shape else []
        ranges = (
            [sorted(place)[:: len(places) - 1] for place in zip(*places, strict=True)][-len(shape) :] if len(places) > 1 else []
        )
        return name + "".join(f"[{low}..{high}]" if low != high else f"[{low}]" for low, high in ranges)

    def title(self, index: int) -> str:
        """Return the op of node `index` with its number: pow 2 for x ** 2, 2 pow for 2 ** x; of an own op its name."""
        constant = self.constants[index]
        name = self.op(index)
        if name == "custom":
            name = self[index].op
        if self.kind(index).startswith("k_"):
            return f"{constant:.4g} {name}"
        return name if constant != constant else f"{name} {constant:.4g}"

    @property
    def count(self) -> Count:
        """How large the graph is."""
        ops: dict[str, int] = {}
        for name, count in zip(NAMES, self.op_counts(), strict=False):
            if count:
                ops[name] = ops.get(name, 0) + count
        edges = len(self.children)
        return Count(len(self), ops.get("leaf", 0), edges, max(self.depths()), ops, self.nbytes)

    def tree(self, depth: int = 6, max_nodes: int = 60) -> str:
        """Return the graph as text, a line for each node and its children below it, from the root down.

        A node that is used several times has its children where it comes first. What is left out, beyond `depth` and `max_nodes`
        lines, is said at the end. ValueError unless both are at least 1.
        """
        check_limits(depth, max_nodes)
        lines: list[str] = []
        seen: set[int] = set()
        expanded: set[int] = set()
        waiting: list[tuple[int, str, str, int]] = [(0, "", "", 0)]  # node, what stands before it and its children, its depth
        while waiting and len(lines) < max_nodes:
            index, before, indent, level = waiting.pop()
            if index < 0:
                lines.append(f"{before}{-index} more children")
                continue
            seen.add(index)
            start, end = self.first_child[index], self.first_child[index + 1]
            line = f"{before}{self.line(index)}"
            if start < end and (index in expanded or level == depth):
                line += " (its children are above)" if index in expanded else " (more below)"
            elif start < end:
                expanded.add(index)
                children = list(self.children[start : min(end, start + SHOWN_CHILDREN)])
                if end - start > SHOWN_CHILDREN:
                    children.append(start + SHOWN_CHILDREN - end)
                forks = [("|- ", "|  ")] * (len(children) - 1) + [("`- ", "   ")]
                for child, (fork, stem) in zip(reversed(children), reversed(forks), strict=True):
                    waiting.append((child, indent + fork, indent + stem, level + 1))
            lines.append(line)
        if len(seen) < len(self):
            lines.append(f"({len(seen):,} of {len(self):,} nodes)")
        return "\n".join(lines)

    def line(self, index: int) -> str:
        """Return node `index` in words: name, op, data and gradient."""
        name, title = self.name(index), self.title(index)
        words = title if not name else name if title == "leaf" else f"{name} = {title}"
        return f"{words}: data {self.data[index]:.4g}, grad {self.grad[index]:.4g}"

    def __repr__(self) -> str:
        return f"<Graph of {self.name(0) or self.title(0)}: {len(self):,} nodes, {len(self.children):,} edges>"


def graph(root: Value, names: Names | None = None) -> Graph:
    """Return the graph below `root`: buffers, names, counts and a tree as text.

    `names`: Values, Vectors, Matrices, Rows or lists of them by name, such as `model.trace(tokens).names`; their elements are
    then called layer0.q[2][5] and so on. Gradients are those of this root, computed apart: nobody's grad changes.
    Errors: TypeError for what is no Value; RuntimeError if a leaf was changed after it was used.
    Cost: about 20 ns an edge. Nothing recurses.
    """
    return Graph(root, names)


def flatten(names: Names) -> Iterator[tuple[str, Tensor]]:
    """Yield what is named, element by element of lists: name[0], name[1], ... TypeError for what cannot be looked at."""
    if not isinstance(names, Mapping):
        raise TypeError(f"names are a dict of Values, Vectors, Matrices and Rows by name, got {type(names).__name__}")
    waiting: list[tuple[str, Named]] = list(names.items())[::-1]
    while waiting:
        name, named = waiting.pop()
        if not isinstance(name, str):
            raise TypeError(f"a name is a string, got {type(name).__name__}")
        if isinstance(named, Value | Vector | Matrix | Rows):
            yield name, named
        elif isinstance(named, list | tuple):
            waiting.extend((f"{name}[{i}]", named[i]) for i in reversed(range(len(named))))
        else:
            raise TypeError(f"{name} must be a Value, Vector, Matrix, Rows or a list of them, got {type(named).__name__}")


def shape_of(tensor: Tensor) -> tuple[int, ...]:
    """Return the shape of what is named: (), (n,) or (rows, n)."""
    return () if isinstance(tensor, Value) else (len(tensor),) if isinstance(tensor, Vector) else tensor.shape


def place_in(tensor: Tensor, offset: int) -> str:
    """Return the indices of element `offset`, row after row."""
    shape = shape_of(tensor)
    return "" if not shape else f"[{offset}]" if len(shape) == 1 else f"[{offset // shape[1]}][{offset % shape[1]}]"


def as_graph(root: Value | Graph, names: Names | None) -> Graph:
    """Return the graph below `root`, or `root` itself where it is one. ValueError for other names than a Graph's own."""
    if not isinstance(root, Graph):
        return Graph(root, names)
    if names is not None:
        raise ValueError("a Graph has its names: give them to microgpt.graph")
    return root


def check_limits(depth: int | None, max_nodes: int) -> None:
    """Raise ValueError unless both are at least 1."""
    for name, limit in (("depth", depth), ("max_nodes", max_nodes)):
        if limit is not None and limit < 1:
            raise ValueError(f"{name} must be at least 1, got {limit}")
