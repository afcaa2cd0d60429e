"""Build, differentiate and drop one chain of nodes from Python: CPU time, and bytes per node at the peak.

    python benchmarks/chain.py [--nodes N]

The loop `y = y * 1.0` stands in a function: at module level Python looks its names up in a dict. For Linux and macOS.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from measure import clock
from memory import peak_memory

from microgpt import Value
from microgpt.cli import Parser, whole_number

NODES = 10_000_000


def run(nodes: int) -> dict[str, Any]:
    """Measure: seconds of each part, and bytes per node."""
    before = peak_memory()
    start = clock()
    x = y = Value(1.0)
    for _ in range(nodes):
        y = y * 1.0
    built = clock()
    y.backward()
    differentiated = clock()
    del y
    dropped = clock()
    assert x.grad == 1.0
    seconds = {"build": built - start, "backward": differentiated - built, "drop": dropped - differentiated}
    return {
        "nodes": nodes,
        **{part: nanoseconds / 1e9 for part, nanoseconds in seconds.items()},
        "total": (dropped - start) / 1e9,
        "bytes_per_node": (peak_memory() - before) / nodes,
    }


def report(results: dict[str, Any]) -> Iterator[str]:
    """Return the lines of the results."""
    size = f"{results['bytes_per_node']:.1f} bytes per node at the peak"
    yield f"{results['nodes']} nodes, {results['total']:.2f} s of CPU, {size}:"
    yield ", ".join(f"{part} {results[part]:.2f} s" for part in ("build", "backward", "drop"))


def main() -> None:
    parser = Parser(description="Build, differentiate and drop one long chain.")
    parser.add_argument("--nodes", type=whole_number(1), default=NODES, metavar="N", help="default: %(default)s")
    print(*report(run(parser.parse_args().nodes)), sep="\n")


if __name__ == "__main__":
    main()
