# Gradients, task by task.

from microgpt._schedule cimport Pivot, Task
from microgpt._tape cimport Tape

cdef size_t propagate_computed(Tape *t, const Task *task, size_t left, const Pivot *pivots, size_t *work) noexcept nogil
cdef size_t propagate_leaves(Tape *t, const Task *task, size_t left, size_t *work) noexcept nogil
