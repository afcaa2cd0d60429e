"""The fuzzer's power: it is to miss each guard of the engine that can be taken out (FAULT in kernels.h)."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

ROOT = Path(__file__).parent.parent
SEEDS = (1, 2, 3)  # one process each: some guards matter only to the first program of one
MOST_PROGRAMS = 2500  # of each seed
MOST_MODELS = 8
MOST_SECONDS = 150  # of a process, else it is taken for one that does not end: a guard may be all that ends a loop
# Which kind of programs is to miss a guard, by how its name begins: the longest of these.
KIND_OF = {
    "": "general",
    "attributes:": "attributes",
    "collect:": "memory",
    "collect: cycles": "attributes",
    "collect: what only": "attributes",
    "cycles:": "attributes",
    "dots with one span": "same-shape",
    "extend:": "same-shape",
    "products: operands": "same-shape",
    "run of dots": "same-shape",
    "own:": "own",
    "past:": "memory",
    "plans:": "same-shape",
    "rewind:": "memory",
    "stamps:": "memory",
}


def faults() -> list[str]:
    """The names of all guards that can be taken out."""
    sources = sorted((ROOT / "src_pyx" / "microgpt").glob("*.p*"))
    return [name for source in sources for name in re.findall(r'FAULT\(b"([^"]+)"\)', source.read_text())]


def kind_of(name: str) -> str:
    return KIND_OF[max((start for start in KIND_OF if name.startswith(start)), key=len)]


def build(place: str) -> None:
    shutil.copytree(ROOT, place, dirs_exist_ok=True, ignore=shutil.ignore_patterns(".*", "build", "*.so"))
    flags = os.environ.get("CFLAGS", "") + " -O1 -DMICROGPT_FAULTS"
    command = [sys.executable, "setup.py", "-q", "build_ext", "--inplace", "-j2"]
    subprocess.run(command, cwd=place, env={**os.environ, "CFLAGS": flags}, check=True)


def search(place: str, name: str) -> tuple[bool, str]:
    """Whether a program shows that this guard is missing, and what the last process said. A crash and no end count, too."""
    environment = {**os.environ, "MICROGPT_FAULT": name, "PYTHONPATH": place}
    kind = kind_of(name)
    last = ""
    for seed in SEEDS:
        command = [sys.executable, "tests/fuzz.py", "--brief", f"--seed={seed}", f"--kind={kind}"]
        command.append(f"--programs={MOST_MODELS if kind == 'models' else MOST_PROGRAMS}")
        try:
            result = subprocess.run(
                command, cwd=place, env=environment, capture_output=True, text=True, timeout=MOST_SECONDS, check=False
            )
        except subprocess.TimeoutExpired:
            return True, f"seed {seed}: no end"
        last = result.stdout.strip() or f"seed {seed}: ended with status {result.returncode}"
        if result.returncode != 0:
            return True, last
    return False, last


def try_faults(wanted: str) -> int:
    """Run programs with each fault whose name has `wanted` in it until one differs, and print a table. Return how many faults
    were missed.
    """
    start = time.perf_counter()
    names = [name for name in faults() if wanted in name]
    missed = 0
    with tempfile.TemporaryDirectory() as place, ThreadPoolExecutor(os.cpu_count()) as pool:
        build(place)
        for name, (found, last) in zip(names, pool.map(lambda name: search(place, name), names), strict=True):
            missed += not found
            print(f"{'found' if found else '-----'}  {name}: {last}", flush=True)
    print(f"{missed} of {len(names)} were missed, in {time.perf_counter() - start:.0f} s")
    return missed
