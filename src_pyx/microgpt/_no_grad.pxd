# Results without a graph.

from libc.stdint cimport uint32_t

from microgpt._tape cimport tape

cdef void cut_off(uint32_t start) noexcept


cdef inline void finish(uint32_t start) noexcept:
    """Let the results of an op, all nodes from `start` on, be leaves inside no_grad(). Their handle is anchored already."""
    if tape.no_grad > 0:
        cut_off(start)
