"""Matrix and Rows: many vectors. A Matrix holds leaves; Rows are what is computed from it for several vectors at once."""

cimport cython
from cpython.mem cimport PyMem_Free, PyMem_Malloc
from libc.stdint cimport uint8_t, uint32_t

from microgpt._runs cimport Operands, put_products, run
from microgpt._tape cimport BLOCK_END, LIVE, Tape, anchor, put_leaf, reserve, reserve_listed, tape
from microgpt._value cimport as_number
from microgpt._vector cimport (
    MINUS, OVER, PLUS, POWER, TIMES, Arithmetic, Vector, apply, arithmetic, as_vector, elements, new_vector, numbers, part_of,
    settle, settle_listed, write_leaves
)


cdef Rows new_rows(Vector vector, uint32_t n):
    """Return what `vector` consists of, row after row, as Rows of length `n`."""
    cdef Rows rows = Rows.__new__(Rows)
    rows.vector = vector
    rows.n = n
    return rows


cdef Rows as_rows(Rows rows):
    if rows.n == 0:
        raise RuntimeError("these Rows were never made: Rows.__init__ was not called")
    return rows


cdef inline uint32_t count_of(Rows rows) noexcept:
    return rows.vector.n // rows.n


cdef object apply_to_any(uint8_t op, object x):
    """Return `op` of a Value, or of each element of a Vector, list or Rows."""
    if isinstance(x, Rows):
        return new_rows(apply(op, as_rows(<Rows>x).vector), (<Rows>x).n)
    return apply(op, x)


cdef object arithmetic_of_rows(Arithmetic how, Rows rows, object other, bint reflected):
    as_rows(rows)
    if isinstance(other, Rows):
        as_rows(<Rows>other)
        if (<Rows>other).n != rows.n or count_of(<Rows>other) != count_of(rows):
            raise ValueError(f"elementwise operations need Rows of one shape, got {rows.shape} and {other.shape}")
        other = (<Rows>other).vector
    elif isinstance(other, (Vector, list, tuple)):
        return NotImplemented
    result = arithmetic(how, rows.vector, other, reflected)
    return result if result is NotImplemented else new_rows(result, rows.n)


@cython.no_gc
@cython.freelist(32)
cdef class Rows:
    """Vectors of one length, such as one for each position of a text: what is written for one Vector is done for each.

    `Rows(vectors)` holds their elements; `matrix[[2, 0, 1]]`, `matrix[2:4]` and `matrix @ rows` make them, too.
    Shape: [rows][n], both >= 1. Operators work elementwise with Rows of the same shape, a Value or a number.
    Errors: TypeError for an item that is no Vector or list of Values or numbers; ValueError without items, or if lengths differ.
    """

    def __init__(self, vectors):
        cdef list items = []
        cdef Vector vector
        cdef uint32_t n = 0
        if isinstance(vectors, (Vector, str, bytes)) or not hasattr(vectors, "__iter__"):
            raise TypeError(f"Rows need a list of Vectors, got {type(vectors).__name__}")
        if self.n != 0:
            raise TypeError("Rows are made once: __init__ was called again")
        for item in vectors:
            vector = as_vector(item)
            if n not in (0, vector.n):
                raise ValueError(f"Rows need vectors of one length, got {n} and {vector.n}")
            n = vector.n
            items.extend(vector)
        if n == 0:
            raise ValueError("Rows need at least one vector")
        self.vector = Vector(items)
        self.n = n

    @property
    def shape(self):
        """(rows, n)"""
        return len(self), self.n

    def __len__(self):
        return count_of(as_rows(self))

    def __iter__(self):
        for i in range(len(self)):
            yield self[i]

    def __getitem__(self, index):
        """Return row `index`, a Vector of the same nodes, or Rows of the same nodes for a slice."""
        cdef uint32_t i
        if isinstance(index, slice):
            return Rows([self[i] for i in range(len(self))[index]])
        i = checked_index(index, len(self), "Rows")
        return part_of(self.vector, range(i * self.n, (i + 1) * self.n))

    @property
    def data(self):
        """The values, a list of rows of floats."""
        return [row.data for row in self]

    @property
    def grad(self):
        """The gradients, a list of rows of floats."""
        return [row.grad for row in self]

    def __reduce__(self):
        raise TypeError("Rows are a view and cannot be copied or pickled: take rows.data, or copy their Values or Matrix")

    def __repr__(self):
        return f"Rows(data={self.data})"

    def __add__(self, other):
        return arithmetic_of_rows(PLUS, self, other, False)

    def __radd__(self, other):
        return arithmetic_of_rows(PLUS, self, other, True)

    def __sub__(self, other):
        return arithmetic_of_rows(MINUS, self, other, False)

    def __rsub__(self, other):
        return arithmetic_of_rows(MINUS, self, other, True)

    def __mul__(self, other):
        return arithmetic_of_rows(TIMES, self, other, False)

    def __rmul__(self, other):
        return arithmetic_of_rows(TIMES, self, other, True)

    def __truediv__(self, other):
        return arithmetic_of_rows(OVER, self, other, False)

    def __rtruediv__(self, other):
        return arithmetic_of_rows(OVER, self, other, True)

    def __pow__(self, other, modulo):
        return NotImplemented if modulo is not None else arithmetic_of_rows(POWER, self, other, False)

    def __rpow__(self, other, modulo):
        return NotImplemented if modulo is not None else arithmetic_of_rows(POWER, self, other, True)

    def __neg__(self):
        return arithmetic_of_rows(TIMES, self, -1.0, False)

    __array_ufunc__ = None          # numpy leaves operators to this class, it does not take it for a sequence


cdef uint32_t checked_index(object index, Py_ssize_t count, str what) except? 0:
    """Return the number of a row, counted from the end where it is negative."""
    cdef Py_ssize_t i = index
    if i < 0:
        i += count
    if not 0 <= i < count:
        raise IndexError(f"row {index} is out of range for {what} of {count} rows")
    return <uint32_t>i


cdef class Matrix(Handle):
    """Rows of leaves, one after the other.

    `Matrix(rows)` takes rows of numbers. Shape: [rows][columns], both >= 1. `matrix @ x` is the Vector of the dots of each row
    with x, or Rows of them where x are Rows; `matrix[i]` is row i, `matrix[[i, j]]` and `matrix[i:j]` are Rows.
    Errors: TypeError for an item that is no number; ValueError if there is no row, a row is empty, or rows differ in length.
    """

    def __init__(self, rows):
        cdef list given = [[as_number(item, "Matrix") for item in row] for row in rows]
        cdef size_t columns
        if self.rows != 0:
            raise TypeError("a Matrix is made once: __init__ was called again")
        if not given or not given[0]:
            raise ValueError("Matrix needs at least one row and one column")
        columns = len(given[0])
        for i, row in enumerate(given):
            if <size_t>len(row) != columns:
                raise ValueError(f"rows of a Matrix need one length, got {columns} in row 0 and {len(row)} in row {i}")
        reserve(tape, len(given) * columns)
        self.start = tape.top
        self.rows = <uint32_t>len(given)
        self.columns = <uint32_t>columns
        for row in given:
            for item in row:
                put_leaf(tape, item)
        anchor(self, tape.top - 1)

    cdef void mark(self, Tape *t) noexcept:
        cdef uint32_t i
        for i in range(self.start, self.id + 1):
            t.seen[i] |= LIVE

    cdef void move(self, const uint32_t *moved) noexcept:
        Handle.move(self, moved)
        self.start = moved[self.start]

    @property
    def shape(self):
        """(rows, columns)"""
        return self.rows, self.columns

    def __len__(self):
        return self.rows

    def __iter__(self):
        for i in range(self.rows):
            yield self[i]

    def __getitem__(self, index):
        """Return row `index`, a Vector of the same leaves, or Rows of the same leaves for a list of numbers or a slice."""
        cdef Vector row
        if isinstance(index, slice):
            return self.gather(range(self.rows)[index])
        if isinstance(index, (list, tuple, range)):
            return self.gather(index)
        row = new_vector()
        settle(row, self.start + checked_index(index, self.rows, "a Matrix") * self.columns, self.columns)
        return row

    cdef Rows gather(self, object indices):
        """Return Rows of the rows numbered `indices`."""
        cdef Vector vector = new_vector()
        cdef Py_ssize_t count = len(indices)
        cdef uint32_t n = self.columns
        cdef uint32_t first, i
        cdef Py_ssize_t k = 0
        cdef uint32_t *ids
        if count == 0:
            raise ValueError("Rows of a Matrix are one row at least, none was asked for")
        ids = <uint32_t *>PyMem_Malloc(count * n * sizeof(uint32_t))    # freed below
        if ids == NULL:
            raise MemoryError(f"no room for {count} rows of a Matrix")
        try:
            for index in indices[:count]:
                ids[k * n] = checked_index(index, self.rows, "a Matrix")
                k += 1
            for k in range(count):                  # now that no code of others can run, which might move nodes
                first = self.start + ids[k * n] * n
                for i in range(n):
                    ids[k * n + i] = first + i
            settle_listed(vector, Operands(0, 0, ids), <uint32_t>count * n)
        finally:
            PyMem_Free(ids)
        return new_rows(vector, self.columns)

    @property
    def data(self):
        """The values, a list of rows of floats. Settable."""
        return [row.data for row in self]

    @data.setter
    def data(self, data):
        cdef list rows = self.rows_of(data)
        write_leaves(run(self.start), [item for row in rows for item in row])

    @property
    def grad(self):
        """The gradients, a list of rows of floats. Settable."""
        return [row.grad for row in self]

    @grad.setter
    def grad(self, grad):
        cdef list rows = self.rows_of(grad)
        for row, values in zip(self, rows):
            row.grad = values

    cdef list rows_of(self, object given):
        """Return `given` as one list of floats per row."""
        cdef list rows = [numbers(row, self.columns) for row in given]
        if <size_t>len(rows) != self.rows:
            raise ValueError(f"a Matrix of {self.rows} rows needs {self.rows} rows, got {len(rows)}")
        return rows

    def __reduce__(self):
        """Copy and pickle the leaves with their gradients."""
        return Matrix, (self.data,), self.grad

    def __setstate__(self, grad):
        self.grad = grad

    def __repr__(self):
        return f"Matrix(data={self.data})"

    def __matmul__(self, x):
        """Return the Vector of `row . x` for every row, one dot node each, the row's element first in every product.

        Of Rows: the same for each of them.
        """
        if isinstance(x, Rows):
            return new_rows(self.products(as_rows(<Rows>x).vector, (<Rows>x).n), self.rows)
        return self.products(as_vector(x), 0) if isinstance(x, (Vector, list, tuple)) else NotImplemented

    cdef Vector products(self, Vector x, uint32_t n):
        """The products with the vectors of length `n` that `x` consists of; 0 for the whole of it."""
        cdef Vector result = new_vector()
        cdef uint32_t count
        n = n if n != 0 else x.n
        count = x.n // n
        if n != self.columns:
            raise ValueError(f"a Matrix of {self.columns} columns needs a vector of {self.columns}, got {n}")
        reserve(tape, <size_t>self.rows * count)
        if x.listed != NULL:
            reserve_listed(tape, <size_t>self.rows * count * (2 * <size_t>n + BLOCK_END))
        settle(result, put_products(self.start, self.rows, elements(x, 0), n, count), self.rows * count)
        return result

    __array_ufunc__ = None
