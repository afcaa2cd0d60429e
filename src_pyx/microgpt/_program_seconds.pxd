# Second derivatives of the ops.

from libc.stdint cimport uint32_t

cdef double second(uint32_t which, uint32_t op, double x, double y, double result) noexcept nogil
