# Backward over the nodes of a tape.

from libc.stdint cimport uint32_t

from microgpt._tape cimport Handle, Tape

cdef int backward(Tape *t, Handle root) except -1
cdef int refuse_stale(Tape *t, uint32_t i) except -1
cdef bint has_no_partials(Tape *t, uint32_t i) noexcept
cdef void note_own(Tape *t, uint32_t i, bint own) noexcept
cdef int wait() except -1
cdef int pass_on(Tape *t, uint32_t i) except -1
cdef int zero_grad(Tape *t, Handle root) except -1
