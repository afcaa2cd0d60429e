"""Record once, run many: a graph as a Program, which computes values and derivatives for other inputs.

    program = record(price, [spot, volatility])     # of Values
    program([101.0, 0.2])                           # as building the graph for these numbers
    value, gradient = program.value_and_grad([101.0, 0.2])
    values, gradients = program.run_many(rows)      # several rows side by side, on all cores

Values and gradients equal those of a fresh graph and `backward()` to the last bit, for any inputs, whatever runs them.
"""

from __future__ import annotations

import os
import sys
import threading
from array import array
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

from microgpt._program_code import Code, add_rows, explain, run_rows
from microgpt._program_places import compile_gradient, compile_product, compile_values
from microgpt._program_record import Graph, record_graph, restore_graph
from microgpt._value import Value
from microgpt._vector import Vector

if TYPE_CHECKING:
    from concurrent.futures import Executor
    from pathlib import Path
    from typing import TypeAlias

    from microgpt._matrix import Matrix, Rows

    _Recorded: TypeAlias = Value | Vector | Matrix | Rows | Sequence["_Recorded"]

__all__ = ["Program", "program", "record"]

Progress = Callable[[int, int], object]

TREE_ROWS = 256  # rows that `reduce="sum"` adds up one after the other
CACHE = 1 << 22  # bytes that slots may take for eight rows at once, else there are four: what a cache holds beside other things
GO = b"\0"


def record(outputs: _Recorded, inputs: _Recorded, parameters: _Recorded = ()) -> Program:
    """Return the Program that computes `outputs` from other data of `inputs`.

    `outputs`: a Value, a Vector, or a list of them. `inputs` and `parameters`: leaves, as Values, Vectors, Matrices, Rows or
    lists of them, numbered in that order. Parameters can be set between runs, `program.parameters`; gradients are by inputs.
    All else is constant, as it is now: numbers, other leaves, and whatever Python decided by looking at data.
    Errors: TypeError for what holds no Values; ValueError for inputs that are computed or given twice, for nodes with partials or
    a _backward of their own, and for nodes of where(), of which nothing tells the condition.
    Cost: a fraction of a microsecond for each node below the outputs.
    """
    graph, count = record_graph(outputs, inputs, parameters)
    return Program(graph, count is None, array("d", graph.parameter_data))


class Program:
    """A recorded graph (`record`). It does not change, but for its parameters, and several threads may run it at once."""

    __slots__ = ("__weakref__", "_codes", "_graph", "_lock", "_one_output", "_parameters", "inputs", "outputs")

    def __init__(self, graph: Graph, one_output: bool, parameters: array[float]) -> None:
        self._graph = graph
        self._one_output = one_output  # a Value, not a list of one
        self._parameters = parameters
        self._codes: dict[tuple[Any, ...], Code] = {}
        self._lock = threading.Lock()  # while code is made
        self.inputs, _, self.outputs = graph.sizes

    @property
    def parameters(self) -> tuple[float, ...]:
        """The data of the parameters. Runs that have begun keep those they began with."""
        return tuple(self._parameters)

    @parameters.setter
    def parameters(self, given: Any) -> None:
        self._parameters = array("d", numbers(given, len(self._parameters), "parameters"))

    def __call__(self, x: Any) -> Any:
        """Return the outputs for the inputs `x`: a float for one that is a Value, else a list, or an array for an array.

        Errors: ValueError unless there is a number for each input; where an op has no value, what building the graph raises.
        """
        row = numbers(x, self.inputs, "inputs")
        out = self._run_one("values", None, row, self.outputs)
        return out[0] if self._one_output else like(x, out, (self.outputs,))

    def value_and_grad(self, x: Any) -> tuple[float, Any]:
        """Return the one output and its gradient by each input, as `backward()` gives it to leaves that had none.

        Errors: as of a call; ValueError if there are several outputs.
        """
        self._need_one_output("value_and_grad")
        row = numbers(x, self.inputs, "inputs")
        out = self._run_one("gradient", 0, row, 1 + self.inputs)
        return out[0], like(x, out[1:], (self.inputs,))

    def jacobian(self, x: Any) -> Any:
        """Return the gradient of each output, row by row, each as `backward()` from that output gives it.

        Shape: [outputs][inputs].
        """
        row = numbers(x, self.inputs, "inputs")
        out = array("d")
        for k in range(self.outputs):
            out += self._run_one("gradient", k, row, 1 + self.inputs)[1:]
        return like(x, out, (self.outputs, self.inputs))

    def hessian_vector_product(self, x: Any, v: Any) -> Any:
        """Return the matrix of second derivatives of the one output, times `v`.

        It is the derivative of the gradient along `v`, term by term in the order of the gradient's own terms: of a contribution
        partial * g first (derivative of partial) * g, then partial * (derivative of g). A derivative of a value, or of a partial,
        adds its operands' terms in their order, from 0.0. Where a first derivative jumps, the second is 0.
        """
        self._need_one_output("hessian_vector_product")
        row = array("d", numbers(x, self.inputs, "inputs"))
        row.extend(numbers(v, self.inputs, "numbers of v"))
        return like(x, self._run_one("product", 0, row, self.inputs), (self.inputs,))

    def hessian(self, x: Any) -> Any:
        """Return the matrix of second derivatives of the one output: row i is the product with the i-th unit vector.

        Shape: [inputs][inputs]. It is symmetric but for rounding.
        Cost: that of a product for each input, several side by side.
        """
        self._need_one_output("hessian")
        n = self.inputs
        row = array("d", numbers(x, n, "inputs"))
        rows = array("d")
        for i in range(n):
            rows += row
            rows.extend(float(i == k) for k in range(n))
        out = doubles(n * n)
        parameters = self._parameters
        if run_rows(self._batch_code("product", 0), parameters, rows, out, n, NO_NUMBERS, 0, n, False, GO) >= 0:
            self._explain(parameters, row, 0, "")
        return like(x, out, (n, n))

    def run_many(
        self,
        rows: Any,
        *,
        gradients: bool = True,
        threads: int | None = None,
        errors: str = "raise",
        progress: Progress | None = None,
        executor: Executor | None = None,
        reduce: str | None = None,
    ) -> Any:
        """Run each row of inputs; return the values and their gradients, `(values, gradients)`, or the values alone.

        Shape: [rows][inputs] -> [rows], [rows][inputs]; without gradients [rows], or [rows][outputs] if the outputs are a list.
        numpy arrays come back as such, other buffers as memoryviews of doubles, lists as lists.
        `threads`: how many share the rows, by default one for each core. `executor`: shares them instead, among processes or
        machines; any of `concurrent.futures`, or `client.get_executor()` of dask.distributed. `progress(done, rows)` is called
        in between. Bits do not depend on any of these.
        `errors`: "raise" the error of the first row where an op has no value, or go on with "nan" for all that the row has.
        `reduce="sum"`: return sums over the rows in place of rows. 256 rows each are added one after the other, from 0.0, then
        these sums in pairs, first and second, third and fourth, ..., and so on; memory does not grow with the rows.
        Errors: ValueError for rows of another length, or gradients of several outputs; what a worker raises.
        """
        if errors not in ("raise", "nan"):
            raise ValueError(f'errors must be "raise" or "nan", got {errors!r}')
        if reduce not in (None, "sum"):
            raise ValueError(f'reduce must be None or "sum", got {reduce!r}')
        if threads is not None and (isinstance(threads, bool) or not isinstance(threads, int) or threads < 1):
            raise ValueError(f"threads must be a whole number above 0, got {threads!r}")
        if gradients:
            self._need_one_output("run_many with gradients")
        x, n_rows = table(rows, self.inputs)
        job = Job(self, x, n_rows, gradients, errors == "nan", reduce == "sum", progress)
        if executor is not None:
            job.run_by(executor)
        else:
            job.run_here(max(1, min(threads or os.cpu_count() or 1, n_rows // 8)))
        one = self._one_output or gradients
        if reduce:
            values = job.heads[0] if one else like(rows, job.heads, (self.outputs,))
            return (values, like(rows, job.rest, (self.inputs,))) if gradients else values
        values = like(rows, job.heads, (n_rows,) if one else (n_rows, self.outputs))
        return (values, like(rows, job.rest, (n_rows, self.inputs))) if gradients else values

    def save(self, path: str | Path) -> None:
        """Write the program to a safetensors file, with a checksum; see `microgpt.checkpoint` for errors."""
        from microgpt import checkpoint  # here, as in `load` and `run_by`: `import microgpt` stays quick

        inputs, arrays = self._graph.state()
        arrays["parameter"] = self._parameters
        tensors = {name: ((len(values),), values) for name, values in arrays.items()}
        checkpoint.write(path, tensors, {"program": {"inputs": inputs, "one_output": self._one_output}})

    @classmethod
    def load(cls, path: str | Path) -> Program:
        """Return the program that `save` wrote.

        Errors: OSError if the file cannot be read; ValueError, `path` in it, unless it is a whole program.
        """
        from microgpt import checkpoint

        tensors, metadata = checkpoint.read(path)
        try:
            own = metadata["program"]
            one_output = own["one_output"]
            if type(one_output) is not bool or type(own["inputs"]) is not int:
                raise ValueError("its metadata make no sense")
            arrays = {name: values for name, (_, values) in tensors.items()}
            graph = restore_graph((own["inputs"], arrays))
            if one_output and graph.sizes[2] != 1:
                raise ValueError("it has several outputs in place of one")
        except (LookupError, TypeError, OverflowError, ValueError) as error:
            raise ValueError(f"{os.fspath(path)} is no program of microgpt: {str(error)[: checkpoint.MAX_REASON]}") from None
        return cls(graph, one_output, arrays["parameter"])

    def __reduce__(self) -> tuple[Any, ...]:
        return Program, (self._graph, self._one_output, self._parameters)

    def __len__(self) -> int:
        """Number of computed nodes, as `microgpt.reference` has them: a sum is a chain of additions."""
        return len(self._graph)

    @property
    def op_counts(self) -> dict[str, int]:
        """How many nodes there are of each op."""
        return self._graph.op_counts()

    @property
    def nbytes(self) -> int:
        """Bytes of the graph, and of the code made so far, with one workspace each."""
        return self._graph.nbytes + sum(code.nbytes for code in list(self._codes.values()))

    def __repr__(self) -> str:
        with_parameters = f", parameters={len(self._parameters)}" if self._parameters else ""
        return f"Program(inputs={self.inputs}{with_parameters}, outputs={self.outputs}, nodes={len(self)})"

    def _need_one_output(self, what: str) -> None:
        if self.outputs != 1:
            raise ValueError(f"{what} needs a program of one output, this one has {self.outputs}: there is jacobian")

    def _code(self, kind: str, output: int | None, width: int) -> Code:
        """The code for `width` rows at once, made when it is first asked for."""
        key = kind, output, width
        code = self._codes.get(key)
        if code is None:
            with self._lock:
                code = self._codes.get(key)
                if code is None:
                    if kind == "values":
                        code = compile_values(self._graph, width)
                    else:
                        code = (compile_gradient if kind == "gradient" else compile_product)(self._graph, output, width)
                    self._codes[key] = code
        return code

    def _batch_code(self, kind: str, output: int | None) -> Code:
        """The code for as many rows at once as the cache has room for."""
        code = self._code(kind, output, 8)
        return code if code.slots * 64 <= CACHE else self._code(kind, output, 4)

    def _run_one(self, kind: str, output: int | None, row: Any, n: int) -> array[float]:
        """Return the outputs of one row."""
        out = doubles(n)
        parameters = self._parameters
        if run_rows(self._code(kind, output, 1), parameters, row, out, n, NO_NUMBERS, 0, 1, False, GO) >= 0:
            self._explain(parameters, row, 0, "")
        return out

    def _explain(self, parameters: array[float], rows: Any, row: int, where: str) -> None:
        """Raise the error of a row that has an op without a value."""
        try:
            explain(self._graph, parameters, memoryview(rows)[row * self.inputs : (row + 1) * self.inputs])
        except (ArithmeticError, ValueError) as error:
            raise type(error)(f"{where}{error}") from None


class Job:
    """One `run_many`: its rows, where results go, and how far it is."""

    def __init__(
        self, program: Program, rows: Any, n_rows: int, gradients: bool, go_on: bool, add_up: bool, progress: Progress | None
    ) -> None:
        self.program, self.rows, self.n_rows = program, rows, n_rows
        self.gradients, self.go_on, self.add_up, self.progress = gradients, go_on, add_up, progress
        self.parameters = program._parameters
        self.n_heads, self.n_rest = program.outputs, program.inputs if gradients else 0
        kept = 1 if add_up else n_rows
        self.heads, self.rest = doubles(kept * self.n_heads), doubles(kept * self.n_rest)
        self.tree = Tree()
        self.keep_leaf: Callable[[int, array[float]], None] = self.tree.add
        self.done = self.reported = 0
        self.failed = n_rows  # the first row that has an op without a value
        self.stop = bytearray(1)
        self.lock = threading.Lock()

    def pieces(self, parts: int) -> Iterator[tuple[int, int]]:
        """Yield the rows of each piece of work, about `parts` of them: whole leaves of the tree where that adds up."""
        grain = TREE_ROWS if self.add_up else 8
        size = max(grain, self.n_rows // parts // grain * grain)
        for first in range(0, self.n_rows, size):
            yield first, min(first + size, self.n_rows)

    def run(self, first: int, last: int) -> None:
        """Run these rows in this thread."""
        code = self.program._batch_code(*(("gradient", 0) if self.gradients else ("values", None)))
        n_heads, n_rest = self.n_heads, self.n_rest
        if not self.add_up:
            self.note_failure(
                run_rows(code, self.parameters, self.rows, self.heads, n_heads, self.rest, first, last, self.go_on, self.stop)
            )
            return
        for start in range(first, last, TREE_ROWS):
            n = min(TREE_ROWS, last - start)
            heads, rest, total = doubles(n * n_heads), doubles(n * n_rest), doubles(n_heads + n_rest)
            rows = memoryview(self.rows)[start * self.program.inputs : (start + n) * self.program.inputs]
            failed = run_rows(code, self.parameters, rows, heads, n_heads, rest, 0, n, self.go_on, self.stop)
            self.note_failure(start + failed if failed >= 0 else -1)
            add_rows(heads, n_heads, memoryview(total)[:n_heads])
            if n_rest:
                add_rows(rest, n_rest, memoryview(total)[n_heads:])
            with self.lock:
                self.keep_leaf(start // TREE_ROWS, total)

    def note_failure(self, row: int) -> None:
        with self.lock:
            if 0 <= row < self.failed:
                self.failed = row

    def is_over(self) -> bool:
        """Whether nothing needs to be begun any more: pieces are taken in order, those before a failure have been."""
        return bool(self.stop[0]) or (self.failed < self.n_rows and not self.go_on)

    def note_done(self, n: int) -> None:
        with self.lock:
            self.done += n

    def run_here(self, threads: int) -> None:
        """Run all rows: in this thread, which looks after signals, and others."""
        pieces = self.pieces(16 * threads)
        errors: list[BaseException] = []

        def work(report: bool) -> None:
            try:
                while not self.is_over():
                    with self.lock:
                        piece = next(pieces, None)
                    if piece is None:
                        break
                    self.run(*piece)
                    self.note_done(piece[1] - piece[0])
                    if report and self.progress is not None:
                        self.reported = self.done
                        self.progress(self.reported, self.n_rows)
            except BaseException as error:
                self.stop[0] = 1
                errors.append(error)

        others = [threading.Thread(target=work, args=(False,), daemon=True) for _ in range(threads - 1)]
        try:
            for thread in others:
                thread.start()
            work(True)
            for thread in others:
                thread.join()
        finally:
            self.stop[0] = 1
            for thread in others:
                if thread.ident is not None:
                    thread.join()
        if errors:
            raise errors[0]
        if self.progress is not None and self.reported < self.done:
            self.progress(self.done, self.n_rows)
        self.finish()

    def run_by(self, executor: Executor) -> None:
        """Run all rows in tasks of an executor."""
        import pickle
        from hashlib import sha256

        content = pickle.dumps(self.program)
        common = sha256(content).hexdigest(), content, self.gradients, self.go_on, self.add_up, self.parameters
        n = self.program.inputs
        view = memoryview(self.rows)
        pieces = list(self.pieces(64))
        futures = [executor.submit(run_piece, *common, bytes(view[first * n : last * n])) for first, last in pieces]
        try:
            for (first, last), future in zip(pieces, futures, strict=True):
                if self.is_over():
                    break
                failed, heads, rest, sums = future.result()
                self.note_failure(first + failed if failed >= 0 else -1)
                if self.add_up:
                    for k, total in enumerate(sums):
                        self.tree.add(first // TREE_ROWS + k, total)
                else:
                    self.heads[first * self.n_heads : last * self.n_heads] = heads
                    self.rest[first * self.n_rest : last * self.n_rest] = rest
                self.note_done(last - first)
                if self.progress is not None:
                    self.progress(self.done, self.n_rows)
        finally:
            for future in futures:
                future.cancel()
        self.finish()

    def finish(self) -> None:
        """Raise the error of the first row that has one; add up."""
        if self.failed < self.n_rows and not self.go_on:
            self.program._explain(self.parameters, self.rows, self.failed, f"row {self.failed}: ")
        if self.add_up and self.n_rows > 0:
            total = self.tree.total()
            self.heads, self.rest = total[: self.n_heads], total[self.n_heads :]


class Tree:
    """Adds rows up in pairs, each as soon as both are there."""

    def __init__(self) -> None:
        self.sums: dict[tuple[int, int], array[float]] = {}  # by level and place

    def add(self, place: int, total: array[float]) -> None:
        """Add the sum of the leaf at `place`."""
        level = 0
        while (level, place ^ 1) in self.sums:
            other = self.sums.pop((level, place ^ 1))
            total = sum_of(other, total) if place & 1 else sum_of(total, other)
            level, place = level + 1, place // 2
        self.sums[level, place] = total

    def total(self) -> array[float]:
        """Return the sum of all: what has no partner goes up as it is."""
        rest = sorted(self.sums.items())  # the last subtree first, since each is smaller than the one before
        _, total = rest[0]
        for _, larger in rest[1:]:
            total = sum_of(larger, total)
        return total


def sum_of(x: array[float], y: array[float]) -> array[float]:
    result = x[:]
    add_rows(y, len(y), result)
    return result


programs: dict[str, Program] = {}  # of a worker, those it has run; by the checksum of their content


def run_piece(
    digest: str, content: bytes, gradients: bool, go_on: bool, add_up: bool, parameters: array[float], rows: bytes
) -> tuple[int, array[float], array[float], list[array[float]]]:
    """Run rows in a worker. Return the first without a value, or -1; outputs, or the sums that are the leaves of a tree."""
    program = programs.get(digest)
    if program is None:
        import pickle

        program = pickle.loads(content)
        while len(programs) >= 8:
            programs.pop(next(iter(programs)), None)
        programs[digest] = program
    x = array("d")
    x.frombytes(rows)
    n_rows = len(x) // program.inputs
    job = Job(program, x, n_rows, gradients, go_on, add_up, None)
    job.parameters = parameters
    leaves: list[array[float]] = []
    job.keep_leaf = lambda _, total: leaves.append(total)
    job.run(0, n_rows)
    failed = job.failed if job.failed < n_rows else -1
    return failed, job.heads, job.rest, leaves


NO_NUMBERS = array("d")


def doubles(n: int) -> array[float]:
    """Return `n` zeros."""
    return array("d", bytes(8 * n))


def is_numpy(x: Any) -> bool:
    numpy = sys.modules.get("numpy")
    return numpy is not None and isinstance(x, numpy.ndarray)


def flat_doubles(x: Any, dimensions: int) -> tuple[Any, tuple[int, ...]]:
    """Return the numbers of a buffer or of (nested) lists, one after the other, and its shape. No copy of doubles in order."""
    if is_numpy(x):
        if x.dtype.kind not in "fiub":
            raise TypeError(f"a program needs real numbers, got an array of {x.dtype}")
        return sys.modules["numpy"].ascontiguousarray(x, dtype="float64").reshape(-1), x.shape
    if isinstance(x, (list, tuple)):
        if dimensions == 1:
            return array("d", x), (len(x),)
        result = array("d")
        widths = set()
        for row in x:
            result.extend(row)
            widths.add(len(row))
        if len(widths) > 1:
            raise ValueError(f"rows of inputs need one length, got {' and '.join(map(str, sorted(widths)))}")
        return result, (len(x), *widths)
    try:
        view = memoryview(x)
    except TypeError:
        raise TypeError(f"a program needs numbers as a list or array, got {type(x).__name__}") from None
    shape = view.shape or ()
    if view.format != "d" or not view.c_contiguous:
        return flat_doubles(view.tolist(), dimensions)
    return array("d") if 0 in shape else view.cast("B").cast("d"), shape


def numbers(x: Any, n: int, what: str) -> Any:
    """Return `n` doubles; a number stands for a list of it."""
    if isinstance(x, (int, float)):
        x = [x]
    values, shape = flat_doubles(x, 1)
    if shape != (n,):
        given = f"{shape[0]}" if len(shape) == 1 else f"numbers of shape {shape}"
        raise ValueError(f"this program has {n} {what}, got {given}")
    return values


def table(x: Any, n: int) -> tuple[Any, int]:
    """Return rows of `n` doubles, one after the other, and how many there are."""
    values, shape = flat_doubles(x, 2)
    if shape == (0,):
        shape = (0, n)
    if len(shape) != 2 or shape[1] != n:
        raise ValueError(f"run_many needs rows of {n} inputs, [rows][{n}], got shape {list(shape)}")
    return values, shape[0]


def like(x: Any, values: array[float], shape: tuple[int, ...]) -> Any:
    """Return numbers as `x` came: as a numpy array, a list, or, for other buffers, a memoryview."""
    if is_numpy(x):
        return sys.modules["numpy"].frombuffer(values).reshape(shape) if values else sys.modules["numpy"].empty(shape)
    if not isinstance(x, (list, tuple, int, float)):
        return memoryview(values).cast("B").cast("d", shape) if values and len(shape) > 1 else memoryview(values)
    if len(shape) == 1:
        return values.tolist()
    return [values[i * shape[1] : (i + 1) * shape[1]].tolist() for i in range(shape[0])]


def program(function: Callable[..., Any]) -> Function:
    """Make a function of Values a function of numbers that is recorded when it is first called: a decorator.

    An argument is a number, a list or array of numbers, or a list of such: the function gets a Value, a Vector, or a list of
    these. What it returns, a Value or a list of them, comes back as numbers. Each pattern of arguments, numbers of numbers, is
    recorded once, so what the function decides by looking at data stays decided: see `record`.
    """
    return Function(function)


class Function:
    """A function that is a Program for each pattern of inputs (`program`)."""

    def __init__(self, function: Callable[..., Any]) -> None:
        self.__wrapped__ = function
        self.__doc__ = function.__doc__
        self.__name__ = getattr(function, "__name__", type(function).__name__)
        self.programs: dict[tuple[Any, ...], Program] = {}

    def __call__(self, *arguments: Any) -> Any:
        """Return the value of the function."""
        return self.program_for(*arguments)(inputs_of(arguments))

    def value_and_grad(self, *arguments: Any) -> tuple[float, Any]:
        """Return the value and its gradient: by the argument, or a tuple by all of several."""
        value, gradient = self.program_for(*arguments).value_and_grad(inputs_of(arguments))
        rest = iter(gradient)
        parts = tuple(arranged(pattern_of(x), rest) for x in arguments)
        return value, parts[0] if len(parts) == 1 else parts

    def program_for(self, *arguments: Any) -> Program:
        """Return the program for arguments of this pattern, recorded with them if it is new."""
        pattern = tuple(map(pattern_of, arguments))
        found = self.programs.get(pattern)
        if found is None:
            given = [as_values(x) for x in arguments]
            found = record(self.__wrapped__(*given), given)
            self.programs[pattern] = found
        return found

    def __repr__(self) -> str:
        return f"<program {self.__name__}>"


def items_of(x: Any) -> list[Any] | None:
    """Return the items of a list or array, None for a number."""
    if isinstance(x, (int, float)) or getattr(x, "shape", None) == ():
        return None
    items = x.tolist() if hasattr(x, "tolist") else x
    if not isinstance(items, (list, tuple)):
        raise TypeError(f"a program needs numbers or lists of them, got {type(x).__name__}")
    return list(items)


def pattern_of(x: Any) -> Any:
    """Return None for a number, the length of a list of numbers, or a tuple of the patterns of others."""
    items = items_of(x)
    if items is None:
        return None
    inner = tuple(map(pattern_of, items))
    return len(inner) if not any(p is not None for p in inner) else inner


def inputs_of(x: Any) -> list[float]:
    """Return all numbers in order."""
    items = items_of(x)
    return [float(x)] if items is None else [number for item in items for number in inputs_of(item)]


def as_values(x: Any) -> Any:
    items = items_of(x)
    if items is None:
        return Value(x)
    return Vector(items) if isinstance(pattern_of(x), int) and items else [as_values(item) for item in items]


def arranged(pattern: Any, rest: Iterator[float]) -> Any:
    """Return numbers in the pattern of an argument."""
    if pattern is None:
        return next(rest)
    return [arranged(None, rest) for _ in range(pattern)] if isinstance(pattern, int) else [arranged(p, rest) for p in pattern]
