"""Matrix and Rows: many vectors. A Matrix holds leaves; Rows are what is computed from it for several vectors at once."""

cimport cython
from cpython.object cimport PyObject, PyTypeObject, traverseproc, visitproc
from cpython.slice cimport PySlice_GetIndicesEx
from libc.stdint cimport UINT32_MAX, uint8_t, uint32_t

from microgpt cimport _tape
from microgpt._runs cimport Operands, at, part, put_products, run
from microgpt._tape cimport (
    ABS, BLOCK_END, MATRIX, Behaviour, Handle, Tape, Visit, anchor, put_leaf, reserve, reserve_listed, tape
)
from microgpt._value cimport Value, number, written_on
from microgpt._vector cimport (
    EDGE, MINUS, OVER, PLUS, POWER, TIMES, WHOLE, Arithmetic, Vector, apply, arithmetic, as_list, as_vector, copy_numbers,
    detached, elements, fill, floats, is_nested, new_vector, no_array, numbers, numbers_of, place, room_for_ids, settle,
    settle_listed, settle_result, shape_of_list, shown, write_grads, write_leaves
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


cdef tuple shape_of(Rows rows):
    return count_of(rows), rows.n


cdef Vector all_of(Matrix matrix):
    """Return a Vector of all leaves, row after row."""
    cdef Vector vector
    if matrix.rows == 0:
        raise RuntimeError("this Matrix was never made: Matrix.__init__ was not called")
    vector = new_vector()
    settle(vector, matrix.start, matrix.rows * matrix.columns)
    return vector


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
    cdef Rows given
    cdef double k
    as_rows(rows)
    if isinstance(other, Rows):
        as_rows(<Rows>other)
        if (<Rows>other).n != rows.n or count_of(<Rows>other) != count_of(rows):
            raise ValueError(f"elementwise operations need Rows of one shape, got {shape_of(rows)} and {shape_of(<Rows>other)}")
        other = (<Rows>other).vector
    elif isinstance(other, Vector):
        raise TypeError(f"elementwise operations of Rows need Rows of their shape, a Value or a number, got "
                        f"{type(other).__name__}: write Rows([row + v for row in rows])")
    elif not isinstance(other, Value) and not number(other, &k):
        other = as_list(other)
        if not isinstance(other, (list, tuple)):
            return NotImplemented
        if not other or not isinstance(other[0], (Vector, list, tuple)) and not hasattr(other[0], "tolist"):
            raise ValueError(f"elementwise operations need Rows of one shape, got {shape_of(rows)} and {shape_of_list(other)}: "
                             f"write Rows([row + v for row in rows])")
        given = rows_of(other)
        if given.n != rows.n or count_of(given) != count_of(rows):
            raise ValueError(f"elementwise operations need Rows of one shape, got {shape_of(rows)} and {shape_of(given)}")
        other = given.vector
    result = arithmetic(how, rows.vector, other, reflected)
    return result if result is NotImplemented else new_rows(result, rows.n)


# It refers to a Vector alone, so that no cycle goes through it but one through nodes (_cycles.pyx). A step makes some 15, kept
# for reuse.
@cython.no_gc
@cython.freelist(32)
cdef class Rows:
    """Rows(vectors)\n--\n\nVectors of one length, such as one for each position: what is written for one Vector is done for each.

    `Rows(vectors)` holds their elements; `matrix[[2, 0, 1]]`, `matrix[2:4]` and `matrix @ rows` make them, too.
    Shape: [rows][n], both >= 1. Operators work elementwise with Rows, lists or arrays of the same shape, a Value or a number.
    Errors: TypeError for an item that is no Vector or list of Values or numbers; ValueError without items, or if lengths differ.
    """

    def __init__(self, vectors):
        cdef Rows made = rows_of(vectors)
        if self.n != 0:             # asked here, as in Vector.__init__
            raise TypeError("Rows are made once: __init__ was called again")
        self.vector = made.vector
        self.n = made.n

    @property
    def shape(self):
        """(rows, n)"""
        return shape_of(as_rows(self))

    def __len__(self):
        return count_of(as_rows(self))

    def __iter__(self):
        cdef uint32_t i
        for i in range(count_of(as_rows(self))):
            yield row_at(elements(self.vector, i * self.n), self.n)

    def __getitem__(self, index):
        """Return row `index`, a Vector of the same nodes, or Rows of the same nodes for a list of numbers or a slice."""
        return taken(index, self, count_of(as_rows(self)), self.n, "Rows")

    @property
    def data(self):
        """The values, a list of rows of floats."""
        return row_numbers_of(as_rows(self).vector, self.n, False)

    @property
    def grad(self):
        """The gradients, a list of rows of floats. Settable."""
        return row_numbers_of(as_rows(self).vector, self.n, True)

    @grad.setter
    def grad(self, grad):
        cdef list values = flat_numbers(grad, count_of(as_rows(self)), self.n, "Rows")
        write_grads(elements(self.vector, 0), values)

    @grad.deleter
    def grad(self):
        raise AttributeError("grad of Rows cannot be deleted")

    def copy_data(self, buffer):
        """Copy the values, row after row, into a buffer, as `Vector.copy_data` does."""
        copy_numbers(as_rows(self).vector, buffer, False)

    def copy_grad(self, buffer):
        """Copy the gradients, row after row, into a buffer."""
        copy_numbers(as_rows(self).vector, buffer, True)

    def detach(self):
        """Return Rows of new leaves with the same data: no gradient comes here through them."""
        return new_rows(detached(as_rows(self).vector), self.n)

    def __reduce__(self):
        raise TypeError("Rows are a view and cannot be copied or pickled: take rows.data, or copy their Values or Matrix")

    def __repr__(self):
        return f"Rows(data={shown_rows(as_rows(self).vector, self.n)})"

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

    def __array__(self, dtype=None, copy=None):
        """Raise TypeError, as of a Vector."""
        raise no_array("Rows")


cdef int visit_vector(PyObject *rows, visitproc visit, void *arg) except -1:
    return visit(<PyObject *>(<Rows>rows).vector, arg)


(<PyTypeObject *>Rows).tp_traverse = <traverseproc>visit_vector


cdef Rows rows_of(object vectors):
    """Return Rows of what `Rows(vectors)` takes."""
    cdef list items = []
    cdef Vector v, joined
    cdef size_t total
    cdef uint32_t n, i
    cdef uint32_t *ids
    if isinstance(vectors, Rows):
        return as_rows(<Rows>vectors)
    if isinstance(vectors, Matrix):
        return new_rows(all_of(<Matrix>vectors), (<Matrix>vectors).columns)
    vectors = as_list(vectors)
    if isinstance(vectors, (Vector, str, bytes)) or not hasattr(vectors, "__iter__"):
        raise TypeError(f"Rows need a list of Vectors, got {type(vectors).__name__}")
    for item in vectors:
        items.append(as_vector(item))
    if not items:
        raise ValueError("Rows need at least one vector")
    n = (<Vector>items[0]).n
    for v in items:
        if v.n != n:
            raise ValueError(f"Rows need vectors of one length, got {n} and {v.n}")
    joined = new_vector()
    total = checked_total(len(items), n)
    ids = room_for_ids(joined, total)
    for v in items:
        for i in range(n):
            ids[i] = at(elements(v, 0), i)
        ids += n
    settle_listed(joined, <uint32_t>total)
    return new_rows(joined, n)


cdef size_t checked_total(size_t count, uint32_t n) except 0:
    """Return the number of elements of some rows."""
    if count > (<size_t>UINT32_MAX - 1) // n:      # Cython would compute in long, which has 32 bits on Windows
        raise ValueError(f"{count} rows of {n} are too many for Rows")
    return count * n


cdef Vector row_at(Operands x, uint32_t n):
    """Return the first `n` of `x` as a Vector."""
    cdef Vector row = new_vector()
    fill(row, x, n)
    return row


cdef inline Operands elements_of(object owner) noexcept:
    """The elements of Rows or a Matrix, row after row. Void after the next reserve."""
    return run((<Matrix>owner).start) if isinstance(owner, Matrix) else elements((<Rows>owner).vector, 0)


cdef object taken(object index, object owner, uint32_t count, uint32_t n, str what):
    """Return row `index` of the `count` rows of length `n` of Rows or a Matrix, or Rows of several of them."""
    cdef Py_ssize_t first, _stop, step, some
    cdef list chosen
    cdef uint32_t i
    if isinstance(index, slice):
        PySlice_GetIndicesEx(index, count, &first, &_stop, &step, &some)
        if step == 1 and some > 0:
            return new_rows(row_at(part(elements_of(owner), <uint32_t>first * n), <uint32_t>some * n), n)
        return gathered(owner, n, list(range(first, first + some * step, step)), count, what)
    if isinstance(index, tuple):    # of numpy's arrays x[i, j] is an element
        raise TypeError(f"rows are chosen by a number, a slice or a list; x[i][j] is an element, x[[i, j]] are two rows, got "
                        f"{index}")
    if not isinstance(index, int):
        index = as_list(index)
    if isinstance(index, (list, range)):
        chosen = []
        for item in list(index):
            if isinstance(item, bool) or (not isinstance(item, int) and str(getattr(item, "dtype", "")) == "bool"):
                raise TypeError(f"rows are chosen by their numbers, got {item}")
            chosen.append(row_number(item, count, what))
        return gathered(owner, n, chosen, count, what)
    i = row_number(index, count, what)
    return row_at(part(elements_of(owner), i * n), n)


cdef uint32_t row_number(object index, uint32_t count, str what) except? 0:
    """Return the number of a row, which may be counted from the end."""
    cdef uint32_t i = place(index, count)
    if i == count:
        raise IndexError(f"row {index} is out of range for {what} of {count} rows")
    return i


cdef Rows gathered(object owner, uint32_t n, list chosen, uint32_t count, str what):
    """Return Rows of the rows of the numbers `chosen`, all in range."""
    cdef Vector vector
    cdef Operands x
    cdef size_t total
    cdef uint32_t first, i
    cdef uint32_t *ids
    if not chosen:
        raise ValueError(f"Rows are one row at least, of {what} of {count} none was asked for")
    total = checked_total(len(chosen), n)
    vector = new_vector()
    ids = room_for_ids(vector, total)
    x = elements_of(owner)
    for number in chosen:
        first = <uint32_t>number * n
        for i in range(n):
            ids[i] = at(x, first + i)
        ids += n
    settle_listed(vector, <uint32_t>total)
    return new_rows(vector, n)


cdef list row_numbers_of(Vector vector, uint32_t n, bint grads):
    """Return the data, or the grads, as a list for each row of `n`."""
    cdef list rows = []
    cdef uint32_t i
    for i in range(vector.n // n):
        rows.append(numbers_of(vector, i * n, n, grads))
    return rows


cdef str shown_rows(Vector vector, uint32_t n):
    """Return the text of the data; where they are many, of the first and last rows."""
    cdef uint32_t count = vector.n // n
    cdef bint whole = vector.n <= WHOLE
    cdef list rows = []
    cdef uint32_t i = 0
    while i < count:
        if i == EDGE and count > 2 * EDGE and not whole:
            rows.append("...")
            i = count - EDGE
        rows.append(shown(vector, i * n, n, False, whole))
        i += 1
    return f"[{', '.join(rows)}]"


cdef list flat_numbers(object given, uint32_t count, uint32_t n, str what):
    """Return the floats of `count` rows of `n`, row after row."""
    cdef list values = []
    cdef size_t rows = 0
    refuse_no_rows(given, what)
    for row in given:
        values += numbers(row, n)
        rows += 1
    if rows != count:
        raise ValueError(f"{count} rows of numbers needed for {what}, got {rows}")
    return values


cdef int refuse_no_rows(object given, str what) except -1:
    """Raise TypeError for what cannot be rows of plain numbers."""
    if isinstance(given, (Handle, Rows)):
        raise TypeError(f"rows of numbers needed for {what}, got {type(given).__name__}: take its data")
    if not hasattr(given, "__iter__"):
        raise TypeError(f"rows of numbers needed for {what}, got {type(given).__name__}")
    return 0


cdef void each_of_matrix(PyObject *matrix, Tape *t, Visit visit) noexcept:
    cdef uint32_t i
    for i in range((<Matrix>matrix).start, (<Matrix>matrix).id + 1):
        visit(t, i)


cdef void move_matrix(PyObject *matrix, const uint32_t *moved) noexcept:
    (<Matrix>matrix).start = moved[(<Matrix>matrix).start]


_tape.behaviour_of_matrices = Behaviour(each_of_matrix, move_matrix)


cdef class Matrix(Handle):
    """Matrix(rows)\n--\n\nRows of leaves, one after the other.

    `Matrix(rows)` takes rows of numbers. Shape: [rows][columns], both >= 1. `matrix @ x` is the Vector of the dots of each row
    with x, or Rows of them where x are Rows; `matrix[i]` is row i, `matrix[[i, j]]` and `matrix[i:j]` are Rows.
    Errors: TypeError for an item that is no number; ValueError if there is no row, a row is empty, or rows differ in length.
    """

    def __cinit__(self):
        self.kind = MATRIX

    def __init__(self, rows):
        cdef list given = []
        cdef size_t columns
        refuse_no_rows(rows, "a Matrix")
        rows = as_list(rows)
        if isinstance(rows, (list, tuple)) and len(shape_of_list(rows)) > 2:
            raise ValueError(f"a Matrix has two dimensions, got {shape_of_list(rows)}")
        for row in rows:
            given.append(floats(row, "a row of a Matrix"))
        if self.rows != 0:          # asked here, as in Vector.__init__
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
        cdef uint32_t i
        for i in range(self.rows):
            yield row_at(run(self.start + i * self.columns), self.columns)

    def __getitem__(self, index):
        """Return row `index`, a Vector of the same leaves, or Rows of the same leaves for a list of numbers or a slice."""
        return taken(index, self, self.rows, self.columns, "a Matrix")

    @property
    def data(self):
        """The values, a list of rows of floats. Settable."""
        return row_numbers_of(all_of(self), self.columns, False)

    @data.setter
    def data(self, data):
        cdef list values = flat_numbers(data, self.rows, self.columns, "a Matrix")
        write_leaves(run(self.start), values)

    @data.deleter
    def data(self):
        raise AttributeError("data of a Matrix cannot be deleted")

    @property
    def grad(self):
        """The gradients, a list of rows of floats. Settable."""
        return row_numbers_of(all_of(self), self.columns, True)

    @grad.setter
    def grad(self, grad):
        set_grads(self, grad)

    @grad.deleter
    def grad(self):
        raise AttributeError("grad of a Matrix cannot be deleted")

    def copy_data(self, buffer):
        """Copy the values, row after row, into a buffer, as `Vector.copy_data` does."""
        copy_numbers(all_of(self), buffer, False)

    def copy_grad(self, buffer):
        """Copy the gradients, row after row, into a buffer."""
        copy_numbers(all_of(self), buffer, True)

    def detach(self):
        """Return a Matrix of new leaves with the same data: no gradient comes here through them."""
        return Matrix(row_numbers_of(all_of(self), self.columns, False))

    def __reduce__(self):
        """Copy and pickle the leaves with their gradients and what was written on them."""
        cdef Vector leaves = all_of(self)
        cdef dict written = {}
        cdef uint32_t i
        for i in range(leaves.n):
            attributes = written_on(self.start + i)
            if attributes is not None:
                written[i] = attributes
        grads = row_numbers_of(leaves, self.columns, True)
        return Matrix, (row_numbers_of(leaves, self.columns, False),), (grads, written)

    def __setstate__(self, state):
        grads, written = state
        set_grads(self, grads)
        for i, attributes in written.items():
            all_of(self)[i].__setstate__(attributes)

    def __repr__(self):
        return f"Matrix(data={shown_rows(all_of(self), self.columns)})"

    def __matmul__(self, x):
        """Return the Vector of `row . x` for every row, one dot node each, the row's element first in every product.

        Of Rows: the same for each of them.
        """
        cdef Vector v
        if isinstance(x, Rows):
            return new_rows(self.products(as_rows(<Rows>x).vector, (<Rows>x).n), self.rows)
        x = as_list(x)
        if not isinstance(x, (Vector, list, tuple)):
            return NotImplemented
        if is_nested(x):
            raise ValueError(f"a Matrix of {(self.rows, self.columns)} @ {shape_of_list(x)}: write matrix @ Rows(x) for the "
                             f"product with each row")
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
        settle_result(result, put_products(self.start, self.rows, elements(x, 0), n, count), self.rows * count)
        return result

    __array_ufunc__ = None

    def __array__(self, dtype=None, copy=None):
        """Raise TypeError, as of a Vector."""
        raise no_array("Matrix")


cdef int set_grads(Matrix matrix, object grad) except -1:
    cdef list values = flat_numbers(grad, matrix.rows, matrix.columns, "a Matrix")
    write_grads(run(matrix.start), values)
    return 0
