# What Python holds of many nodes.

from libc.stdint cimport uint8_t, uint32_t

from microgpt._runs cimport Operands
from microgpt._tape cimport Handle, Tape

cdef enum Arithmetic:               # what a Python operator asks for; two of them are written with the others
    PLUS
    MINUS
    TIMES
    OVER
    POWER

cdef enum:                          # how numpy prints arrays, too
    WHOLE = 1000                    # elements that a repr shows, of more ...
    EDGE = 3                        # ... the first and last ones of each dimension

cdef class Vector(Handle):
    cdef uint32_t n                 # number of elements, at least 1
    cdef uint32_t start             # first node of a contiguous run
    cdef uint32_t *listed           # ids of the elements where they are no run, owned by the Vector; NULL for a run

cdef inline Operands elements(Vector v, uint32_t first) noexcept nogil:
    """The elements of `v` from number `first` on. Void after the next reserve."""
    if v.listed == NULL:
        return Operands(v.start + first, 1, NULL)
    return Operands(0, 0, &v.listed[first])

cdef Vector new_vector()
cdef void settle(Vector v, uint32_t start, uint32_t n) noexcept
cdef Vector detached(Vector v)
cdef void settle_result(Vector v, uint32_t start, uint32_t n) noexcept
cdef Vector as_vector(object x)
cdef object apply(uint8_t op, object x)
cdef object arithmetic(Arithmetic how, Vector v, object other, bint reflected)
cdef uint32_t *room_for_ids(Vector v, size_t n) except NULL
cdef void settle_listed(Vector v, uint32_t n) noexcept
cdef int fill(Vector v, Operands x, uint32_t n) except -1
cdef Py_ssize_t as_whole(object x) except? -1
cdef uint32_t place(object index, uint32_t count) except? 0
cdef list numbers_of(Vector v, uint32_t first, uint32_t n, bint grads)
cdef object as_list(object x)
cdef tuple shape_of_list(object x)
cdef bint is_nested(object x) except -1
cdef str shown(Vector v, uint32_t first, uint32_t n, bint grads, bint whole)
cdef object no_array(str what)
cdef list floats(object given, str what)
cdef list numbers(object given, uint32_t n)
cdef int copy_numbers(Vector v, object buffer, bint grads) except -1
cdef int write_leaves(Operands x, list values) except -1
cdef void write_grads(Operands x, list values) noexcept
