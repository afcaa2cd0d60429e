from typing import Any as Buffer

from microgpt._program_record import Graph

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
    parameters: Buffer,
    rows: Buffer,
    heads: Buffer,
    n: int,
    rest: Buffer,
    first: int,
    last: int,
    go_on: bool,
    stop: Buffer,
) -> int: ...
def add_rows(rows: Buffer, n: int, total: Buffer) -> None: ...
def compile_values(g: Graph, width: int) -> Code: ...
def compile_gradient(g: Graph, output: int | None, width: int, all_nodes: bool = False) -> Code: ...
def compile_product(g: Graph, output: int | None, width: int) -> Code: ...
def explain(g: Graph, parameters: Buffer, row: Buffer) -> None: ...
