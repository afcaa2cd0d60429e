"""Matrix and Rows: many vectors. A Matrix holds leaves; Rows are what is computed from it for several vectors at once."""

cimport cython
from cpython.object cimport PyObject, PyTypeObject, traverseproc, visitproc
from cpython.slice cimport PySlice_GetIndicesEx
from libc.stdint cimport UINT32_MAX, uint8_t, uint32_t

from microgpt cimport _tape
from microgpt._runs cimport put_products, run
from microgpt._tape cimport (
    ABS, BLOCK_END, MATRIX, Behaviour, Tape, Visit, anchor, put_leaf, reserve, reserve_listed, tape
)
from microgpt._value cimport as_number
from microgpt._vector cimport (
    MINUS, OVER, PLUS, POWER, TIMES, Arithmetic, Vector, apply, arithmetic, as_vector, elements, new_vector, numbers, part_of,
    room_for_ids, settle, settle_listed, write_leaves
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


cdef object each_row(Vector (*function)(Vector, uint32_t), object x):
    """Return `function` of a Vector or list and its length, or of what Rows consist of and the length of one."""
    cdef Vector v
    if isinstance(x, Rows):
        return new_rows(function(as_rows(<Rows>x).vector, (<Rows>x).n), (<Rows>x).n)
    v = as_vector(x)
    return function(v, v.n)


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
        raise TypeError(f"elementwise operations of Rows need Rows of their shape, a Value or a number, got "
                        f"{type(other).__name__}: write Rows([row + v for row in rows])")
    result = arithmetic(how, rows.vector, other, reflected)
    return result if result is NotImplemented else new_rows(result, rows.n)


# It refers to a Vector alone, so that no cycle goes through it but one through nodes (_cycles.pyx). A step makes some 15, kept
# for reuse.
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
        """Return row `index`, a Vector of the same nodes, or Rows of the same nodes for a list of numbers or a slice."""
        cdef uint32_t i
        chosen = row_numbers(index, len(self), "Rows")
        if chosen is not None:
            return new_rows(part_of(self.vector, [i * self.n + k for i in chosen for k in range(self.n)]), self.n)
        i = row_number(index, len(self), "Rows")
        return part_of(self.vector, range(i * self.n, (i + 1) * self.n))

    @property
    def data(self):
        """The values, a list of rows of floats."""
        return [row.data for row in self]

    @property
    def grad(self):
        """The gradients, a list of rows of floats. Settable."""
        return [row.grad for row in self]

    @grad.setter
    def grad(self, grad):
        cdef list rows = rows_of_numbers(grad, len(self), self.n, "Rows")
        for row, values in zip(self, rows):
            row.grad = values

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

    def __abs__(self):
        return apply_to_any(ABS, self)

    __array_ufunc__ = None          # numpy leaves operators to this class, it does not take it for a sequence


cdef int visit_vector(PyObject *rows, visitproc visit, void *arg) except -1:
    return visit(<PyObject *>(<Rows>rows).vector, arg)


(<PyTypeObject *>Rows).tp_traverse = <traverseproc>visit_vector


cdef uint32_t row_number(object index, Py_ssize_t count, str what) except? 0:
    """Return the number of a row, which may be counted from the end."""
    cdef Py_ssize_t i = index
    if i < 0:
        i += count
    if not 0 <= i < count:
        raise IndexError(f"row {index} is out of range for {what} of {count} rows")
    return <uint32_t>i


cdef list row_numbers(object index, Py_ssize_t count, str what):
    """Return the numbers of the rows that a list, tuple, range or slice asks for, None for another index."""
    if isinstance(index, slice):
        index = range(count)[index]
    elif not isinstance(index, (list, tuple, range)):
        return None
    chosen = [row_number(i, count, what) for i in list(index)]
    if not chosen:
        raise ValueError(f"Rows are one row at least, of {what} of {count} none was asked for")
    return chosen


cdef list rows_of_numbers(object given, Py_ssize_t count, uint32_t n, str what):
    """Return `given` as one list of floats per row."""
    cdef list rows = [numbers(row, n) for row in given]
    if len(rows) != count:
        raise ValueError(f"{what} of {count} rows need {count} rows, got {len(rows)}")
    return rows


cdef void each_of_matrix(PyObject *matrix, Tape *t, Visit visit) noexcept:
    cdef uint32_t i
    for i in range((<Matrix>matrix).start, (<Matrix>matrix).id + 1):
        visit(t, i)


cdef void move_matrix(PyObject *matrix, const uint32_t *moved) noexcept:
    (<Matrix>matrix).start = moved[(<Matrix>matrix).start]


_tape.behaviour_of_matrices = Behaviour(each_of_matrix, move_matrix)


cdef class Matrix(Handle):
    """Rows of leaves, one after the other.

    `Matrix(rows)` takes rows of numbers. Shape: [rows][columns], both >= 1. `matrix @ x` is the Vector of the dots of each row
    with x, or Rows of them where x are Rows; `matrix[i]` is row i, `matrix[[i, j]]` and `matrix[i:j]` are Rows.
    Errors: TypeError for an item that is no number; ValueError if there is no row, a row is empty, or rows differ in length.
    """

    def __cinit__(self):
        self.kind = MATRIX

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
        cdef Vector vector
        cdef Py_ssize_t first, _stop, step, count
        if isinstance(index, slice):
            PySlice_GetIndicesEx(index, self.rows, &first, &_stop, &step, &count)
            if step == 1 and count > 0:
                vector = new_vector()
                settle(vector, self.start + <uint32_t>first * self.columns, <uint32_t>count * self.columns)
                return new_rows(vector, self.columns)
        chosen = row_numbers(index, self.rows, "a Matrix")
        if chosen is not None:
            return self.gather(chosen)
        first = row_number(index, self.rows, "a Matrix")
        vector = new_vector()
        settle(vector, self.start + <uint32_t>first * self.columns, self.columns)
        return vector

    cdef Rows gather(self, list chosen):
        """Return Rows of these rows, of which there are some and all in range."""
        cdef Vector vector
        cdef size_t count = len(chosen)
        cdef uint32_t n = self.columns
        cdef uint32_t first, i
        cdef uint32_t k = 0
        cdef uint32_t *ids
        if count > UINT32_MAX // n:
            raise ValueError(f"{count} rows of {n} are too many for Rows")
        vector = new_vector()
        ids = room_for_ids(vector, count * n)
        for number in chosen:
            first = self.start + <uint32_t>number * n
            for i in range(first, first + n):
                ids[k] = i
                k += 1
        settle_listed(vector, k)
        return new_rows(vector, n)

    @property
    def data(self):
        """The values, a list of rows of floats. Settable."""
        return [row.data for row in self]

    @data.setter
    def data(self, data):
        cdef list rows = rows_of_numbers(data, self.rows, self.columns, "a Matrix")
        write_leaves(run(self.start), [item for row in rows for item in row])

    @property
    def grad(self):
        """The gradients, a list of rows of floats. Settable."""
        return [row.grad for row in self]

    @grad.setter
    def grad(self, grad):
        cdef list rows = rows_of_numbers(grad, self.rows, self.columns, "a Matrix")
        for row, values in zip(self, rows):
            row.grad = values

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
        cdef Vector v
        if isinstance(x, Rows):
            return new_rows(self.products(as_rows(<Rows>x).vector, (<Rows>x).n), self.rows)
        if not isinstance(x, (Vector, list, tuple)):
            return NotImplemented
        v = as_vector(x)
        return self.products(v, v.n)

    cdef Vector products(self, Vector x, uint32_t n):
        """The products with the vectors of length `n` that `x` consists of."""
        cdef Vector result = new_vector()
        cdef uint32_t count = x.n // n
        if n != self.columns:
            raise ValueError(f"a Matrix of {self.columns} columns needs a vector of {self.columns}, got {n}")
        reserve(tape, <size_t>self.rows * count)
        if x.listed != NULL:
            reserve_listed(tape, <size_t>self.rows * count * (2 * <size_t>n + BLOCK_END))
        settle(result, put_products(self.start, self.rows, elements(x, 0), n, count), self.rows * count)
        return result

    __array_ufunc__ = None
