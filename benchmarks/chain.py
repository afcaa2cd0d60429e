"""Build, differentiate and drop one chain of nodes from Python: CPU time, and bytes per node at the peak.

    python benchmarks/chain.py [--nodes N]

The loop `y = y * 1.0` stands in a function: at module level Python looks its names up in a dict. For Linux.
"""

from __future__ import annotations

import argparse
import resource
import time

from microgpt import Value


def peak() -> int:
    """Highest resident memory so far, in bytes."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def main() -> None:
    parser = argparse.ArgumentParser(description="Build, differentiate and drop one long chain.")
    parser.add_argument("--nodes", type=int, default=10_000_000, metavar="N", help="default: %(default)s")
    nodes = parser.parse_args().nodes
    before = peak()
    start = time.process_time()
    x = y = Value(1.0)
    for _ in range(nodes):
        y = y * 1.0
    built = time.process_time()
    y.backward()
    differentiated = time.process_time()
    del y
    end = time.process_time()
    assert x.grad == 1.0
    print(f"{nodes} nodes, {end - start:.2f} s of CPU, {(peak() - before) / nodes:.1f} bytes per node at the peak:")
    print(f"build {built - start:.2f} s, backward {differentiated - built:.2f} s, drop {end - differentiated:.2f} s")


if __name__ == "__main__":
    main()
