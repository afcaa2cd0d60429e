"""The bar that shows how far a command is."""

from __future__ import annotations

import io
import os
import sys
from collections.abc import Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from importlib.util import find_spec
from typing import Any, TypeVar

from microgpt.cli import tell

Item = TypeVar("Item")


class Bar:
    """A bar on a terminal or in a notebook, or none: then tqdm, which draws it, is not even imported."""

    def __init__(self, tqdm: Any = None) -> None:
        self._tqdm = tqdm

    def update(self, steps: int = 1) -> None:
        """Go on."""
        if self._tqdm is not None:
            self._tqdm.update(steps)

    def each(self, items: Iterable[Item]) -> Iterator[Item]:
        """Yield the items, and go on with each that is done."""
        for item in items:
            yield item
            self.update()

    def show(self, measured: Mapping[str, str]) -> None:
        """Show figures beside the bar, from its next update on."""
        if self._tqdm is not None:
            self._tqdm.set_postfix(measured, refresh=False)

    def aside(self) -> AbstractContextManager[Any]:
        """Return a context in which standard output may be written, the bar being out of the way."""
        return nullcontext() if self._tqdm is None else self._tqdm.external_write_mode(sys.stdout)


@contextmanager
def bar(total: int, initial: int, unit: str, *, quiet: bool) -> Iterator[Bar]:
    """Yield a Bar: one that is seen where standard error is a terminal or this is a notebook, unless `quiet`."""
    notebook = "ipykernel" in sys.modules
    if quiet or not (notebook or sys.stderr.isatty()):
        yield Bar()
        return
    try:
        tqdm = bar_class(notebook)
    except Exception as error:
        # What tqdm takes from the environment has any value, and fails when it is imported, made or drawn.
        variables = ", ".join(sorted(name for name in os.environ if name.startswith("TQDM_"))) or "tqdm"
        tell(f"warning: no bar, because of {variables}: {' '.join(str(error).split())}")
        yield Bar()
        return
    with tqdm(total=total, initial=initial, unit=f" {unit}", dynamic_ncols=True) as drawn:
        yield Bar(drawn)


def bar_class(notebook: bool) -> Any:
    """Return tqdm's class for a terminal, or for a notebook that can show its widget; whatever exception if it does not work."""
    import tqdm

    if any(name.startswith("TQDM_") for name in os.environ):
        with tqdm.tqdm(total=3, initial=1, unit=" x", dynamic_ncols=True, file=io.StringIO()) as tried:
            tried.set_postfix({"x": "1"})
            tried.update()
    if notebook and find_spec("ipywidgets") is not None:  # what its bar is made of
        from tqdm.notebook import tqdm_notebook

        return tqdm_notebook
    return tqdm.tqdm
