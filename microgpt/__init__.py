"""A scalar autograd at native speed, and the GPT of microgpt.py on top of it.

Value is a scalar that remembers how it was computed; Vector, Matrix and Rows hold many scalars. `value.backward()` fills in the
gradients. Numbers equal those of `microgpt.reference`, the same algorithm in plain Python, to the last bit.
"""

import sys
from typing import Any

if sys.implementation.name == "cpython":
    try:
        from microgpt import _tape as _tape
    except ImportError:
        # Run from a checkout, this source folder hides the installed package, which has the compiled engine: look there too.
        import pkgutil

        __path__ = pkgutil.extend_path(__path__, __name__)
        try:
            from microgpt import _tape as _tape
        except ImportError:
            raise ImportError("the compiled engine of microgpt is not installed: run `pip install .` first") from None

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
    from microgpt._value import Value
    from microgpt._vector import Vector
    from microgpt.model import GPT, GPTConfig
    from microgpt.optim import Adam
    from microgpt.sampler import generate
    from microgpt.tokenizer import CharTokenizer

    __all__ = [
        "GPT",
        "Adam",
        "CharTokenizer",
        "GPTConfig",
        "Matrix",
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
else:
    __all__ = []  # there is no engine for this interpreter; microgpt.reference is all Python


def __getattr__(name: str) -> Any:
    if name == "__version__":
        from importlib.metadata import version  # here, because the import takes longer than all the rest

        return version("microgpt-cython")
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
