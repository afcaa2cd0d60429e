from _typeshed import ReadableBuffer, WriteableBuffer
from typing_extensions import disjoint_base

from microgpt._program_record import Graph

@disjoint_base
class Code:
    width: int
    slots: int
    outputs: int
    @property
    def instructions(self) -> int: ...
    @property
    def nbytes(self) -> int: ...

def run_rows(
    code: Code,
    parameters: ReadableBuffer,
    rows: ReadableBuffer,
    heads: WriteableBuffer,
    n: int,
    rest: WriteableBuffer,
    first: int,
    last: int,
    go_on: bool,
    stop: ReadableBuffer,
) -> int: ...
def add_rows(rows: ReadableBuffer, n: int, total: WriteableBuffer) -> None: ...
def explain(g: Graph, parameters: ReadableBuffer, row: ReadableBuffer) -> None: ...
