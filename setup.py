"""Build of the compiled engine; everything static is in pyproject.toml."""

import os
import sys
from pathlib import Path

from setuptools import Extension, setup

SOURCES = Path("src_pyx/microgpt")

# The numbers contract: no fused multiply-add where the source has two roundings, and C's own pow, which gcc otherwise replaces
# by x * x and 1 / x for the exponents 2 and -1. Nobody reads errno: without it sqrt is one instruction, and vectorised.
if sys.platform == "win32":
    compile_args = ["/O2", "/fp:precise"]
else:
    compile_args = ["-ffp-contract=off", "-fno-builtin-pow", "-fno-math-errno"]
    if "-fsanitize" not in os.environ.get("CFLAGS", ""):  # those name a level that keeps stacks readable, and the last one wins
        compile_args.append("-O3")
    if os.environ.get("MICROGPT_NATIVE"):  # for this machine only: the wide vectors everywhere, not in the long loops alone
        compile_args.append("-march=native")


def extensions() -> list[Extension]:
    """Describe one extension module per .pyx file."""
    return [
        Extension(
            f"microgpt.{path.stem}",
            [path.as_posix()],
            include_dirs=[SOURCES.as_posix()],
            depends=[header.as_posix() for header in sorted([*SOURCES.glob("*.h"), *SOURCES.glob("*.pxd")])],
            extra_compile_args=compile_args,
            # Named, though Python brings it along: else the linker takes glibc's oldest exp and pow, with a detour for errno.
            libraries=[] if sys.platform == "win32" else ["m"],
        )
        for path in sorted(SOURCES.glob("*.pyx"))
    ]


if sys.implementation.name == "cpython":
    from Cython.Build import cythonize

    modules = cythonize(
        extensions(),
        build_dir="build/cython",
        include_path=["src_pyx"],
        annotate=bool(os.environ.get("MICROGPT_ANNOTATE")),
        compiler_directives={
            "auto_pickle": False,
            "autotestdict": False,
            "binding": False,  # methods are Python's own kind: they refuse a self of another class, others would read its memory
            "embedsignature": True,
            "embedsignature.format": "clinic",
        },
    )
else:
    modules = []  # other interpreters run microgpt.reference

setup(ext_modules=modules)
