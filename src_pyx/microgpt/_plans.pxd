# Plans kept from one graph to the next.

from libc.stdint cimport uint32_t

from microgpt._schedule cimport Plan
from microgpt._tape cimport Run, Tape

cdef size_t use_plan(Tape *t, uint32_t root, Plan *plan) except? 0
cdef void keep_plan(Tape *t, uint32_t root, const Run *order, size_t length, const Plan *plan) noexcept
