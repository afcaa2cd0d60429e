# What a root reaches.

from libc.stdint cimport uint32_t

cdef struct Step:                       # of backward: the operands (or pairs) [low, high) of a node get their contributions
    uint32_t id
    uint32_t low
    uint32_t high

cdef struct Turn:                       # of the path from the root to where the search is
    uint32_t id
    uint32_t next                       # the operand (or pair) to look at next; the steps of those before `low` are there
    uint32_t low

cdef struct Found:                      # by a search; freed by `release`
    uint32_t *place                     # of each id: 0 if not reached, UINT32_MAX on the path, else its place in `order`, from 1
    uint32_t *order                     # ids, children before parents
    uint32_t nodes
    Step *steps                         # of computed nodes
    size_t length
    Turn *path
    uint32_t depth
    size_t edges
    size_t own_partials                 # of custom nodes
    size_t words                        # of pool blocks
    size_t records                      # of the nodes; of runs of which the first node was reached

cdef int search(Found *found, uint32_t root) except -1
cdef int allocate(Found *found, size_t n) except -1
cdef void release(Found *found) noexcept
