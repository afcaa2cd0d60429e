"""A graph as a page to click through: one HTML file without network. `python -m microgpt.explore MODEL --text anna --save FILE`.

The module is the function, too: `microgpt.explore(loss, names=...)`.
"""

from __future__ import annotations

import argparse
import base64
import hashlib
import html
import json
import os
import sys
import webbrowser
import zlib
from array import array
from bisect import bisect_right
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from types import ModuleType
from typing import Any

from microgpt import checkpoint, resume
from microgpt._inspect import KINDS
from microgpt._matrix import Matrix, Rows
from microgpt._value import Value
from microgpt._vector import Vector
from microgpt.cli import Parser, printable, run, shorten, tell
from microgpt.files import write_atomically
from microgpt.graphs import Graph, Named, Names, as_graph
from microgpt.initial import Initial
from microgpt.model import GPT
from microgpt.optim import Adam
from microgpt.settings import GROUPS, Settings, flag_of
from microgpt.signals import noted_signals
from microgpt.tokenizer import Tokenizer, tokenizer_in
from microgpt.train_flags import GOES_ON, add_run_flags, prepare_files, settle, way_on

MAX_EDGES = 500_000  # of a page: its graph has the nodes nearest to the root, and all of their children
MAX_NODES = 200_000
WRAPPED = 32  # columns of a map of what has no shape

# Places of a map that have no node.
UNUSED = 2**32 - 1  # an element that the root does not reach
ABSENT = 2**32 - 2  # not there: a later key of attention
LEFT_OUT = 2**32 - 3  # a node beyond the page's limits

COMPUTED = {"leaf", "add", "add_k", "mul", "mul_k", "exp", "relu", "sum", "dot"}  # the page computes their partials itself

NAMELESS = -1

PAGE = Path(__file__).with_name("page")


@dataclass
class Map:
    """A tensor as the page shows it: rows of elements, of which each is a node, or one of the places above."""

    name: str
    rank: int  # number of indices of an element, NAMELESS where elements have names of their own
    rows: list[list[int]]
    data: list[float]  # of the elements that are UNUSED or LEFT_OUT, in order
    grad: list[float]  # as `data`
    update: array[float] | None = None


class Page:
    """A page of a graph, made by `explore`. In a notebook it shows itself; `save(path)` writes it, `html()` returns it."""

    def __init__(self, payload: dict[str, Any]) -> None:
        self._payload = payload

    def html(self) -> str:
        """Return the page: one file, without anything to load."""
        style, script = ((PAGE / name).read_text(encoding="utf-8") for name in ("page.css", "page.js"))
        # Only this script and this style are obeyed, whatever stands in the data.
        sources = (("script-src", script), ("style-src", style))
        hashes = "; ".join(
            f"{kind} 'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'" for kind, text in sources
        )
        data = json.dumps(self._payload, separators=(",", ":")).replace("<", "\\u003c")
        parts = {
            "POLICY": f"default-src 'none'; {hashes}; base-uri 'none'; form-action 'none'",
            "TITLE": html.escape(printable(self._payload["title"])),
            "STYLE": style,
            "DATA": data,
            "SCRIPT": script,
        }
        pieces = (PAGE / "page.html").read_text(encoding="utf-8").split("@@")
        return "".join(parts[piece] if k % 2 else piece for k, piece in enumerate(pieces))

    def save(self, path: str | Path) -> None:
        """Write the page to an HTML file. OSError if it cannot be written, which is then as before."""
        write_atomically(path, self.html().encode())

    def _repr_html_(self) -> str:
        return (
            f'<iframe srcdoc="{html.escape(self.html())}" sandbox="allow-scripts" title="graph" '
            'style="width:100%;height:46rem;border:1px solid"></iframe>'
        )


def explore(
    loss: Value | Graph,
    names: Names | None = None,
    *,
    title: str = "",
    optimizer: Adam | None = None,
    max_nodes: int = MAX_NODES,
    max_edges: int = MAX_EDGES,
) -> Page:
    """Return a page on which every scalar below `loss` can be clicked: value, gradient, formula, users, the way to the loss.

    `names`: as of `graph`, each is a map; what has no name is shown by its op. `optimizer`: an Adam whose next step the page
    shows as a third number beside data and gradient. Neither it nor any grad is changed. Of a graph beyond `max_nodes` or
    `max_edges` the page holds the nodes nearest to the loss with all that it tells of them, of the others that have names data
    and gradient; it says so.
    Errors: as of `graph`; ValueError for limits below 1.
    """
    for name, limit in (("max_nodes", max_nodes), ("max_edges", max_edges)):
        if limit < 1:
            raise ValueError(f"{name} must be at least 1, got {limit}")
    graph = as_graph(loss, names)
    payload = Packer(graph, names or graph.tensors, max_nodes, max_edges).payload(optimizer)
    return Page({"title": title or graph.name(0) or graph.title(0), **payload})


class Packer:
    """Puts a graph into what a page reads."""

    def __init__(self, graph: Graph, names: Names, max_nodes: int, max_edges: int) -> None:
        self.graph = graph
        self.names = names
        first, total = graph.first_child, len(graph)
        # So many nodes, from the root on, have their edges on the page.
        whole = max(1, min(total, max_nodes, bisect_right(first, max_edges) - 1))
        self.whole = whole
        self.edges = graph.children[: first[whole]]
        # Where a node of the graph stands on the page: those whole first, then their other children, then what has a name.
        self.place: dict[int, int] | range = range(total)
        self.kept: Sequence[int] = range(total)
        self.exact = total
        if whole < total:
            beyond = sorted({child for child in self.edges if child >= whole})
            self.exact = whole + len(beyond)
            near = set(beyond)
            tensor = graph.tensor
            named = [i for i in range(whole, total) if tensor[i] and i not in near]
            self.kept = [*range(whole), *beyond, *named]
            self.place = {node: place for place, node in enumerate(self.kept)}

    def payload(self, optimizer: Adam | None) -> dict[str, Any]:
        """Return what the page reads: JSON, with arrays as deflated base64."""
        graph, whole = self.graph, self.whole
        kinds = [KINDS[op] for op in graph.ops]
        given = [graph.partials[e] for i in range(whole) if kinds[i] not in COMPUTED for e in self.edges_of(i)]
        rows: list[Any] = graph.steps.tolist()
        steps = [number for row in rows if row[0] < whole for number in row]
        maps = list(self.named_maps(optimizer))
        others = list(self.other_maps(kinds))
        return {
            "sections": [
                {"title": "Tensors", "maps": [one.name for one in maps]},
                {"title": "Without a name, by op", "maps": [one.name for one in others]},
            ],
            "axes": {},
            "kinds": KINDS,
            "titles": {self.place[i]: graph.title(i) for i in self.kept if kinds[i] == "custom"},
            "labels": {self.place[i]: graph.name(i) for i in self.kept if graph.tensor[i] == 0 and graph.name(i)},
            "nodes": len(self.kept),
            "whole": whole,
            "exact": self.exact,
            "total": {"nodes": len(graph), "edges": len(graph.children)},
            "op": packed("B", self.kept_of(graph.ops)),
            "data": packed("d", self.kept_of(graph.data)[: self.exact]),
            "grad": packed("d", self.kept_of(graph.grad)[: self.exact]),
            "far_data": packed("f", (single(graph.data[i]) for i in self.kept[self.exact :])),
            "far_grad": packed("f", (single(graph.grad[i]) for i in self.kept[self.exact :])),
            "constants": packed("d", (graph.constants[i] for i in self.kept if "k_" in kinds[i] or "_k" in kinds[i])),
            "first": packed("I", graph.first_child[: whole + 1]),
            "children": packed("I", self.edges if isinstance(self.kept, range) else (self.place[child] for child in self.edges)),
            "given": packed("d", given),
            "steps": packed("I", steps),
            "maps": [self.packed_map(one) for one in [*maps, *others]],
        }

    def kept_of(self, numbers: memoryview[Any]) -> Any:
        """Return the numbers of the nodes that are on the page."""
        return numbers if isinstance(self.kept, range) else [numbers[i] for i in self.kept]

    def edges_of(self, node: int) -> range:
        """Return the edges of a node."""
        return range(self.graph.first_child[node], self.graph.first_child[node + 1])

    def named_maps(self, optimizer: Adam | None) -> Iterator[Map]:
        """Yield the maps of what has names: a list of Vectors is one."""
        updates = {} if optimizer is None else updates_of(optimizer, self.graph)
        for name, rank, rows in grids(self.names):
            places: list[list[int]] = []
            data, grad = [], []
            columns = max(len(row) for row in rows)
            change = array("d") if updates else None
            indices = iter(self.graph.indices(Vector([value for row in rows for value in row])))
            for row in rows:
                places.append([])
                for value, index in zip(row, indices, strict=False):  # not the other way round, which would lose an index a row
                    place = self.place_of(index)
                    places[-1].append(place)
                    if place in (UNUSED, LEFT_OUT):
                        data.append(value.data)
                        grad.append(self.graph.grad[index] if index >= 0 else 0.0)
                    if change is not None:
                        change.append(updates.get(value, 0.0))
                places[-1] += [ABSENT] * (columns - len(row))
            has_update = change is not None and any(value in updates for value in rows[0])
            yield Map(name, rank, places, data, grad, change if has_update else None)

    def place_of(self, index: int) -> int:
        """Return where node `index` of the graph stands on the page, or why it does not."""
        if index < 0:
            return UNUSED
        return self.place[index] if isinstance(self.place, range) else self.place.get(index, LEFT_OUT)

    def other_maps(self, kinds: Sequence[str]) -> Iterator[Map]:
        """Yield a map of what has no name, for each op."""
        groups: dict[str, list[int]] = {}
        for i in self.kept:
            if self.graph.tensor[i] == 0:
                groups.setdefault(self.graph.op(i) if kinds[i] != "custom" else self.graph.title(i), []).append(self.place[i])
        for name, nodes in groups.items():
            rows = [nodes[start : start + WRAPPED] for start in range(0, len(nodes), WRAPPED)]
            rows[-1] += [ABSENT] * (len(rows[0]) - len(rows[-1]))
            yield Map({"leaf": "leaves"}.get(name, name), NAMELESS, rows, [], [])

    def packed_map(self, one: Map) -> dict[str, Any]:
        """Return a map as the page reads it."""
        return {
            "name": one.name,
            "rank": one.rank,
            "rows": len(one.rows),
            "columns": len(one.rows[0]),
            "places": packed("I", (place for row in one.rows for place in row)),
            "data": packed("d", one.data),
            "grad": packed("d", one.grad),
            "update": None if one.update is None else packed("d", one.update),
        }


def grids(names: Names) -> Iterator[tuple[str, int, Sequence[Sequence[Value]]]]:
    """Yield name, rank and rows of each map: a list of Vectors is one, of rows that may differ in length."""
    waiting: list[tuple[str, Named]] = list(names.items())[::-1]
    while waiting:
        name, named = waiting.pop()
        if isinstance(named, list | tuple) and named and all(isinstance(row, Vector) for row in named):
            yield name, 2, [list(row) for row in named]
        elif isinstance(named, list | tuple) and named and all(isinstance(value, Value) for value in named):
            yield name, 1, [list(named)]
        elif isinstance(named, list | tuple):
            waiting.extend((f"{name}[{i}]", named[i]) for i in reversed(range(len(named))))
        elif isinstance(named, Value):
            yield name, 0, [[named]]
        elif isinstance(named, Vector):
            yield name, 1, [list(named)]
        elif isinstance(named, Matrix | Rows):
            yield name, 2, [list(row) for row in named]


def updates_of(optimizer: Adam, graph: Graph) -> dict[Value, float]:
    """Return how the optimizer's next step would change each parameter, with the gradients of the graph. It does not step."""
    before = optimizer.parameters.data
    twin = Adam([Vector(before)])
    twin.load_state_dict(optimizer.state_dict())
    twin.parameters.grad = [graph.grad[index] if index >= 0 else 0.0 for index in graph.indices(optimizer.parameters)]
    twin.step()
    return dict(
        zip(optimizer.parameters, (now - then for now, then in zip(twin.parameters.data, before, strict=True)), strict=True)
    )


def single(number: float) -> float:
    """Return a number that an array of 32-bit floats takes: beyond its range, infinity."""
    return number if abs(number) < 3.4e38 or number != number else float("inf") * (1 if number > 0 else -1)


def packed(typecode: str, numbers: Any) -> str:
    """Return an array as the page reads it: little-endian, deflated, in base64."""
    stored = array(typecode, numbers)
    if sys.byteorder == "big":
        stored.byteswap()
    return base64.b64encode(zlib.compress(stored.tobytes(), 9)).decode()


def document_page(model: GPT, tokenizer: Tokenizer, text: str, optimizer: Adam, note: str = "") -> Page:
    """Return the page of one training step on `text`: the model in the order of the data.

    Errors: ValueError for a character that the model does not know.
    """
    tokens = tokenizer.encode(text)
    trace = model.trace(tokens)
    page = explore(trace.loss, trace.names, title=f"{text}: one training step", optimizer=optimizer)
    letters = [BOS if token == tokenizer.bos else tokenizer.text([token]) for token in range(tokenizer.vocab_size)]
    n = min(model.config.block_size, len(tokens) - 1)
    seen, wanted = ([letters[token] for token in some] for some in (tokens[:n], tokens[1 : n + 1]))
    names = [one["name"] for one in page._payload["maps"]]
    sections = sections_of(names, model.config.n_layer)
    axes: dict[str, list[list[str] | None]] = {"wte": [letters, None], "lm_head": [letters, None]}
    parameters = dict(model.named_parameters())
    for name, rank, _ in grids(trace.names):
        if name.endswith("]"):  # attention of one head
            axes[name] = [seen, seen]
        elif rank == 1 or name.endswith(".attn.sum"):  # of several heads
            axes[name] = [None, seen]
        elif rank == 2 and name not in parameters:
            axes[name] = [seen, letters if name in ("logits", "exp", "shifted") else None]
    payload = {**page._payload, "sections": sections, "axes": axes, "note": note}
    payload["document"] = {"seen": seen, "wanted": wanted, "letters": letters, "bos": BOS}
    return Page(payload)


BOS = "\u2022"  # how the token at both ends of a document is shown


def sections_of(names: Sequence[str], n_layer: int) -> list[dict[str, Any]]:
    """Return the sections of a GPT's page, in the order of the data; what no section names comes last."""
    plan: list[tuple[str, list[str]]] = [("Letters and positions become vectors", ["wte", "wpe", "embedding", "x"])]
    for i in range(n_layer):
        layer = f"layer{i}."
        heads = [name for name in names if name.startswith(f"{layer}attn[")]
        before = ["attn_norm", "attn_wq", "q", "attn_wk", "k", "attn_wv", "v"]
        after = ["heads", "attn_wo", "attn_out", "mid"]
        mlp = ["mlp_norm", "mlp_fc1", "mlp_in", "relu", "mlp_fc2", "mlp_out", "x"]
        plan.append((f"Layer {i}: attention", [*(layer + name for name in before), *heads, *(layer + name for name in after)]))
        plan.append((f"Layer {i}: MLP", [layer + name for name in mlp]))
    plan.append(("The next letter", ["lm_head", "logits", "probability", "losses", "loss"]))
    shown = {name for _, some in plan for name in some}
    plan.append(("Steps in between", [name for name in names if name not in shown]))
    return [{"title": title, "maps": [name for name in some if name in names]} for title, some in plan]


def load(path: str) -> tuple[GPT, Tokenizer, Adam, str]:
    """Return model, tokenizer and optimizer of a file, and a sentence on the optimizer. OSError or ValueError as `GPT.load`."""
    tensors, metadata = checkpoint.read(path)
    with checkpoint.refusals(path):
        tokenizer = tokenizer_in(metadata)
        model = GPT.from_checkpoint(tensors, metadata)
        if model.config.vocab_size != tokenizer.vocab_size:
            raise ValueError(f"its model has {model.config.vocab_size} tokens, its tokenizer {tokenizer.vocab_size}")
    if "training" not in metadata:
        return model, tokenizer, Adam(model.parameters()), "The update is the first step of an Adam: the file holds none."
    settings = resume.load(path).settings
    optimizer = Adam(model.parameters(), settings.learning_rate, weight_decay=settings.weight_decay)
    for moment in ("m", "v"):
        values = array("d")
        for name in model.own_matrices():
            values.extend(tensors[f"adam.{moment}.{name}"][1])
        setattr(optimizer, moment, values)
    optimizer.steps = metadata["training"]["step"]
    rate = f"at the learning rate {settings.learning_rate:g} that the run began with"
    return (
        model,
        tokenizer,
        optimizer,
        f"The update is what step {optimizer.steps + 1} of the run's Adam would be on this text, {rate}.",
    )


def build_parser() -> Parser:
    """Return the parser of the command line."""
    parser = Parser(
        prog="python -m microgpt.explore",
        description="Watch a model train in the browser; or, of a MODEL, write a page on which every scalar of one training step "
        "can be clicked: one HTML file to open from disk.",
        epilog="With MODEL: --text and --save FILE.html. Without: the flags of a training run, which Ctrl-C ends.",
    )
    parser.add_argument("model", metavar="MODEL", nargs="?", help="the file that training saved")
    parser.add_argument("--text", metavar="TEXT", help="the document to compute loss and gradients of")
    parser.add_argument("--save", metavar="FILE", help="the HTML file to write; of a run, where to save it at the end")
    parser.add_argument("--resume", metavar="FILE", help=GOES_ON)
    parser.add_argument("--no-browser", action="store_true", help="only print the address of a run, open no browser")
    add_run_flags(parser, [group for group in GROUPS if group != "samples"])
    parser.set_defaults(save_every=None, save_best=None, log=None, plot=None, plot_log=False, quiet=False)
    return parser


def command(args: argparse.Namespace) -> int | None:
    """Write the page that `args` ask for, or let a run be watched."""
    if args.model is None:
        if args.text is not None:
            raise ValueError("--text needs a MODEL, the file that training saved")
        return watch(args)
    settings = [flag_of(field.name) for field in fields(Settings) if hasattr(args, field.name)]
    given = [name for name in ("data", "dataset", "resume", "init_from") if getattr(args, name) is not None]
    settings += map(flag_of, given)
    if settings:
        raise ValueError(f"{settings[0]} is for a run to watch, not for the page of a MODEL")
    if args.text is None or args.save is None:
        raise ValueError("the page of a MODEL needs --text TEXT and --save FILE")
    write_page(args.model, args.text, args.save)
    return None


def write_page(path: str, text: str, save: str) -> None:
    """Write the page of one training step on `text`."""
    model, tokenizer, optimizer, note = load(path)
    size = model.config.block_size
    if len(text) > size:
        tell(f"warning: {shorten(text)} is cut at the model's {size} positions")
    page = document_page(model, tokenizer, text[:size], optimizer, note)
    page.save(save)
    total = page._payload["total"]
    kilobytes = Path(save).stat().st_size / 1000
    tell(f"wrote {save}: {total['nodes']:,} nodes and {total['edges']:,} edges in {kilobytes:,.0f} kB")


def watch(args: argparse.Namespace) -> int:
    """Let a run be watched and steered until Ctrl-C, then save it where that was asked for; return the exit status."""
    from microgpt.live import Session, serve  # here: a page needs no server
    from microgpt.train import start

    saved = None if args.resume is None else resume.load(args.resume)
    initial = None if args.init_from is None or saved is not None else Initial(args.init_from)
    settings = settle(args, saved, initial)
    known = prepare_files(args)
    trainer, source = start(args, settings, saved, initial)
    session = Session(trainer)
    server = serve(session)
    tell(f"open {server.address} to watch; Ctrl-C ends the run")
    with noted_signals() as signals:
        if not args.no_browser and has_screen():
            webbrowser.open(server.address)
        session.loop(lambda: signals)
        server.shutdown()
        server.server_close()
        step = len(trainer.losses)
        if args.save is None:
            tell(f"ended after step {step} of {settings.steps}; nothing is saved without --save")
        elif trainer.rates:
            trainer.model.save(args.save, trainer.tokenizer)
            changed = "the learning rate was changed on the way, so the run cannot be resumed"
            tell(f"ended after step {step} of {settings.steps}; wrote {args.save}, the model alone: {changed}")
        else:
            assert source is not None, "a run that is saved has one"
            resume.save(args.save, trainer, source, known["save"])
            tell(
                f"ended after step {step} of {settings.steps}; wrote {args.save}"
                + ("" if trainer.finished else f"; {way_on(args)}")
            )
    return 0 if trainer.finished else 128 + signals[0]


def has_screen() -> bool:
    """Whether a browser has a window to open. Without one, webbrowser would start one of text, in the terminal of the run."""
    return sys.platform in ("win32", "darwin") or bool(os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY"))


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit status."""
    return run(build_parser, command, argv)


class Explore(ModuleType):
    """This module, which is called as its function: `import microgpt.explore` sets the name microgpt.explore to the module."""

    def __call__(self, *args: Any, **options: Any) -> Page:
        """Do what `explore` does."""
        return explore(*args, **options)


sys.modules[__name__].__class__ = Explore

if __name__ == "__main__":
    sys.exit(main())
