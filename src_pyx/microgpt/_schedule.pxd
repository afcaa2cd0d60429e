# What a backward pass does, in which order.

from libc.stdint cimport uint32_t, uint64_t

from microgpt._tape cimport LEAF, Run, Tape, op_at

cdef enum:
    SIDE_A = 1                      # first operands, or those of the first span
    SIDE_B = 2                      # second ones
    BOTH = 3
    PIVOT = 4                       # of the dots of one product one comes last: `leaves` is the number of the pivot

cdef struct Task:                   # pass on the gradient of nodes [first, first + count), from the last one to the first
    uint32_t first
    uint32_t count
    uint32_t sides                  # to which of their operands
    uint32_t leaves                 # of a task at leaves: which of the disjoint sets of them; else whether it is to be alone

cdef struct Pivot:                  # the node of a row that is come to before the others
    uint32_t user                   # it is as far from the first of its row as the operand of this node
    uint32_t row                    # is from this one

cdef struct Plan:                   # its arrays are owned here
    Pivot *pivots
    size_t pivot_count
    size_t pivot_room
    Task *tasks                     # first those at computed nodes, then those at leaves, set after set
    size_t length
    size_t at_leaves                # how many of them are at computed nodes
    size_t room

cdef struct Waiting:                # an entry of the order
    uint32_t user                   # the last one of its users so far, itself if none
    uint32_t waits                  # for how many
    uint32_t uses                   # how many entries use it
    uint32_t user_of                # number of the pivot whose user it is, from 1 on; else 0. Its operand may be another one
    uint32_t first_edge             # of those that wait for it
    uint32_t pivot                  # number of the pivot whose row it is a part of, from 1 on; else 0
    uint32_t group                  # the first of the entries that it was taken together with
    uint32_t any_leaves             # sides where others may be its leaves
    uint32_t heir                   # the entry that is the last user, now, of all that this one was the last user of; else itself
    uint32_t rows                   # how many rows of operands, each a step from the one before, it still is the last user of
    uint32_t rows_start
    uint32_t rows_step
    uint32_t rows_length

cdef struct Slot:                   # leaves [start, end) that an entry uses
    uint32_t start
    uint32_t end
    uint32_t set
    bint fixed                      # whether others would make another plan

cdef struct AtLeaves:
    uint32_t entry
    uint32_t side
    uint32_t slot
    bint fixed

cdef struct PivotRow:
    uint32_t first                  # dots of one product
    uint32_t count
    uint32_t first_entry            # of those of its parts, and of the differences and exponentials, part by part
    uint32_t last_entry             # of its parts
    uint32_t left                   # nodes whose tasks are not listed yet
    uint32_t slot                   # of the matrix
    bint shared                     # whether other entries use it, too

cdef struct Scratch:                # its arrays are owned here, and kept from one schedule to the next
    Waiting *entry
    size_t entry_room
    uint32_t *entry_of              # number of the entry of a node, from 1 on, and 0 for a leaf; by id, less `low`; one more
    size_t node_room
    uint32_t *edge                  # entries that wait for another
    size_t edges
    size_t edge_room
    uint64_t *ready                 # a bit for each node that is the first of an entry which waits for nothing
    uint64_t *ready_words           # and one for each word of these that is not 0
    size_t ready_room
    uint32_t low                    # the lowest node of the order
    size_t joined                   # how many of the entries that were taken together with others have been seen
    AtLeaves *at_leaves
    size_t at_leaves_length
    size_t at_leaves_room
    Slot *slots                     # the different ones
    uint32_t *slot_order            # by their starts
    size_t slot_count
    size_t slot_room
    uint32_t *table                 # number of a slot + 1, by a hash of its start
    size_t table_size
    PivotRow *rows                  # of the pivots of the plan
    size_t row_room

cdef Scratch scratch

cdef int schedule(Tape *t, const Run *order, size_t length, Plan *plan) except -1
cdef int room_for(void **array, size_t *room, size_t n, size_t size) except -1


cdef inline bint is_leaf(Tape *t, uint32_t id) noexcept:
    return id < scratch.low or op_at(t, id) == LEAF
