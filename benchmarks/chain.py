"""Build, differentiate and drop one chain of nodes from Python: CPU time, and bytes per node at the peak.

    python benchmarks/chain.py

The loop `y = y * 1.0` stands in a function: at module level Python looks its names up in a dict. For Linux and macOS.
"""

from __future__ import annotations

from measure import clock
from memory import peak_memory

from microgpt import Value

NODES = 10_000_000


def run(nodes: int) -> dict[str, float]:
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
    return {
        "build": (built - start) / 1e9,
        "backward": (differentiated - built) / 1e9,
        "drop": (dropped - differentiated) / 1e9,
        "total": (dropped - start) / 1e9,
        "bytes_per_node": (peak_memory() - before) / nodes,
    }


if __name__ == "__main__":
    results = run(NODES)
    print(f"{NODES:,} nodes, {results['total']:.2f} s of CPU, {results['bytes_per_node']:.1f} bytes per node at the peak:")
    print(", ".join(f"{part} {results[part]:.2f} s" for part in ("build", "backward", "drop")))
