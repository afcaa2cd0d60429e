# What Python holds of many vectors.

from libc.stdint cimport uint8_t, uint32_t

from microgpt._tape cimport Handle
from microgpt._vector cimport Vector

cdef class Rows:
    cdef Vector vector              # all elements, row after row
    cdef uint32_t n                 # length of a row, at least 1

cdef class Matrix(Handle):
    cdef uint32_t start             # first leaf; row after row
    cdef uint32_t rows
    cdef uint32_t columns
    cdef Vector products(self, Vector x, uint32_t n)

cdef Rows new_rows(Vector vector, uint32_t n)
cdef Rows as_rows(Rows rows)
cdef Rows rows_of(object vectors)
cdef object each_row(Vector (*function)(Vector, uint32_t), object x)
cdef object apply_to_any(uint8_t op, object x)
