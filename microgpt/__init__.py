"""A scalar autograd at native speed, and the GPT of microgpt.py on top of it.

Value is a scalar that remembers how it was computed; Vector, Matrix and Rows hold many scalars. `value.backward()` fills in the
gradients. Numbers equal those of `microgpt.reference`, the same algorithm in plain Python, to the last bit.
"""

from __future__ import annotations

import sys

TYPE_CHECKING = False  # for type checkers it is true; the import of typing takes as long as that of the whole engine
if TYPE_CHECKING:
    from typing import Any


def _load_engine() -> None:
    """Import the first module of the compiled engine. One that is there and does not load says itself why."""
    from importlib import import_module

    try:
        import_module("microgpt._tape")
        return
    except ModuleNotFoundError:
        # Run from a checkout, this source folder hides the installed package, which has the compiled engine: look there too.
        import pkgutil

        __path__[:] = pkgutil.extend_path(__path__, __name__)
    try:
        import_module("microgpt._tape")
    except ModuleNotFoundError:
        from glob import glob
        from importlib.machinery import EXTENSION_SUFFIXES

        what = "is not installed"
        for file in (file for folder in __path__ for file in glob(f"{folder}/_tape.*") if file.endswith((".so", ".pyd"))):
            what = f"is for another Python, {file}, and not for this one, whose files end in {EXTENSION_SUFFIXES[0]}"
        raise ImportError(f"the compiled engine of microgpt {what}: run `pip install .` first") from None


if sys.implementation.name == "cpython":
    _load_engine()
    from microgpt._functions import (
        acos,
        asin,
        atan,
        atan2,
        attention,
        cos,
        cosh,
        cross_entropy,
        erf,
        exp,
        expm1,
        floor,
        gelu,
        hypot,
        lgamma,
        log,
        log1p,
        log2,
        log10,
        maximum,
        minimum,
        relu,
        rmsnorm,
        sigmoid,
        silu,
        sin,
        sinh,
        softmax,
        softplus,
        sqrt,
        tanh,
        where,
    )
    from microgpt._matrix import Matrix, Rows
    from microgpt._no_grad import no_grad
    from microgpt._value import Value
    from microgpt._vector import Vector

    if TYPE_CHECKING:
        from microgpt import checkpoint as checkpoint
        from microgpt import plot as plot
        from microgpt import resume as resume
        from microgpt.checking import gradcheck as gradcheck
        from microgpt.drawing import draw as draw
        from microgpt.explore import explore as explore
        from microgpt.graphs import graph as graph
        from microgpt.model import GPT, GPTConfig
        from microgpt.optim import Adam
        from microgpt.programs import Program, program, record
        from microgpt.sampler import generate
        from microgpt.tokenizer import CharTokenizer

    __all__ = [
        "GPT",
        "Adam",
        "CharTokenizer",
        "GPTConfig",
        "Matrix",
        "Program",
        "Rows",
        "Value",
        "Vector",
        "acos",
        "asin",
        "atan",
        "atan2",
        "attention",
        "cos",
        "cosh",
        "cross_entropy",
        "erf",
        "exp",
        "expm1",
        "floor",
        "gelu",
        "generate",
        "hypot",
        "lgamma",
        "log",
        "log1p",
        "log2",
        "log10",
        "maximum",
        "minimum",
        "no_grad",
        "program",
        "record",
        "relu",
        "rmsnorm",
        "sigmoid",
        "silu",
        "sin",
        "sinh",
        "softmax",
        "softplus",
        "sqrt",
        "tanh",
        "where",
    ]
    # Where the names of the model are, and modules that are attributes. They are imported when they are asked for: who works with
    # Values does not wait for the model, and a run that is not saved not for checkpoints.
    MODULES = ("checkpoint", "explore", "files", "model", "optim", "plot", "programs", "ranges", "resume", "sampler", "tokenizer")
    LATER = {"GPT": "model", "GPTConfig": "model", "Adam": "optim", "generate": "sampler", "CharTokenizer": "tokenizer"}
    LATER |= {"Program": "programs", "program": "programs", "record": "programs"}
    LATER |= {"draw": "drawing", "gradcheck": "checking", "graph": "graphs"}
    LATER |= {module: module for module in MODULES}
elif not TYPE_CHECKING:
    __all__, LATER, MODULES = [], {}, ()  # there is no engine for this interpreter; microgpt.reference is all Python


def __dir__() -> list[str]:
    return sorted({*globals(), *LATER})


def __getattr__(name: str) -> Any:
    if name == "__version__":
        from importlib.metadata import version  # here, because the import takes longer than all the rest

        return version("microgpt-cython")
    if name not in LATER:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    module = import_module(f"microgpt.{LATER[name]}")
    value = globals()[name] = module if name in MODULES else getattr(module, name)
    return value
