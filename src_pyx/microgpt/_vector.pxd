# What Python holds of many nodes.

from libc.stdint cimport uint8_t, uint32_t

from microgpt._runs cimport Operands
from microgpt._tape cimport Handle, Tape

cdef class Vector(Handle):
    cdef uint32_t n                 # number of elements, at least 1
    cdef uint32_t start             # first node of a contiguous run
    cdef uint32_t *listed           # ids of the elements where they are no run, owned by the Vector; NULL for a run

cdef class Matrix(Handle):
    cdef uint32_t start             # first leaf; row after row
    cdef uint32_t rows
    cdef uint32_t columns
    cdef list rows_of(self, object given)

cdef inline Operands elements(Vector v, uint32_t first) noexcept nogil:
    """The elements of `v` from number `first` on. Void after the next reserve."""
    if v.listed == NULL:
        return Operands(v.start + first, 1, NULL)
    return Operands(0, 0, &v.listed[first])

cdef Vector new_vector()
cdef void settle(Vector v, uint32_t start, uint32_t n) noexcept
cdef Vector as_vector(object x)
cdef object apply(uint8_t op, object x)
