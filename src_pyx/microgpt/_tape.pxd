# The arena: every node of every graph, in parallel arrays indexed by a 32-bit id.
# Children always have smaller ids than their parents.
#
# How a node was computed stands in a record: one for each node that Python made alone, one and its steps for a run, which are
# nodes made at once by one op, operands each the same step further. `node_at` tells of any node what its record says of it.

from cpython.ref cimport PyObject
from libc.stdint cimport uint8_t, uint32_t, uint64_t

cdef extern from *:
    """
    #ifndef MICROGPT_SPARES
    #define MICROGPT_SPARES 256     /* 1 for a sanitizer, which must see objects being freed */
    #endif

    /* Under AddressSanitizer an array ends where the room that was reserved does, though there is more behind it. */
    #ifdef __SANITIZE_ADDRESS__
    #include <sanitizer/asan_interface.h>
    #define MICROGPT_FENCED 1
    #define move_fence(array, from, to) \
        ((from) < (to) ? __asan_unpoison_memory_region((array) + (from), ((to) - (from)) * sizeof *(array)) \
                       : __asan_poison_memory_region((array) + (to), ((from) - (to)) * sizeof *(array)))
    #else
    #define MICROGPT_FENCED 0
    #define move_fence(array, from, to) ((void)0)
    #endif

    /* Give an object that has no reference left the one that is returned, as PyObject_Init does, which other builds of
     * Python need. */
    static inline PyObject *revive(PyObject *dead)
    {
    #if defined(Py_REF_DEBUG) || defined(Py_TRACE_REFS)
        return PyObject_Init(dead, Py_TYPE(dead));
    #else
        Py_SET_REFCNT(dead, 1);
        return dead;
    #endif
    }
    """
    enum:
        SPARES "MICROGPT_SPARES"
        FENCED "MICROGPT_FENCED"
    void move_fence(void *array, size_t start, size_t end) noexcept nogil
    object revive(PyObject *dead)
    PyObject *revive_kept "revive" (PyObject *dead)     # the reference is the tape's

cdef extern from "Python.h":
    Py_ssize_t references "Py_REFCNT" (PyObject *o) noexcept    # the field itself is another one in free-threaded builds

cdef enum:
    UNSEEN = 0                      # a computed node that the depth-first search has not reached
    SEEN = 1                        # reached; always so for a leaf, which has nothing below it
    OPEN = 3                        # seen, and an operand already passed by a sum or dot still open (_order.pyx)
    LIVE = 4                        # added while collecting: a handle reaches the node

cdef enum Op:
    LEAF                # a variable
    EXP                 # one operand, a
    LOG
    RELU
    TANH
    SIGMOID
    SQRT
    SIN
    COS
    ABS
    ATAN
    ASIN
    ACOS
    SINH
    COSH
    LOG1P
    EXPM1
    LOG2
    LOG10
    ERF
    LGAMMA
    GELU
    SILU
    SOFTPLUS
    FLOOR
    WHERE               # the operand that was chosen
    ADD_CONSTANT        # one operand and a number
    MUL_CONSTANT
    POW_CONSTANT        # a ** number
    CONSTANT_POW        # number ** a
    MINIMUM_CONSTANT
    MAXIMUM_CONSTANT
    ATAN2_CONSTANT      # atan2(a, number)
    CONSTANT_ATAN2      # atan2(number, a)
    HYPOT_CONSTANT
    ADD                 # two operands, a and b
    MUL
    POW
    MINIMUM
    MAXIMUM
    ATAN2
    HYPOT
    SUM                 # [a, a + n)
    DOT                 # [a, a + n) . [b, b + n)
    SUM_LISTED          # n operands in the pool block a
    DOT_LISTED          # n pairs of operands in the pool block a: w0, x0, w1, x1, ...
    DOT_STRIDED         # pairs (a + k, b + k * step_a) for k < n; always in a run, where step_a is that, and no step of a
    CUSTOM              # n operands in the pool block a, then their n partials as doubles

cdef enum:
    LAST_UNARY = HYPOT_CONSTANT     # ops up to here have one operand
    LAST_BINARY = HYPOT             # ops up to here have two at most

cdef enum:
    NO_PARTIALS = 1                 # of a custom node, in Pair.b: they were not given, only its own `_backward` can do its step

cdef struct Pair:
    uint32_t b                      # second operand, or start of the second span; of a custom node, NO_PARTIALS or 0
    uint32_t n                      # length of each span, or number of operands (pairs of a dot) in the block

cdef union Argument:
    Pair pair                       # of an op with two operands or spans
    double constant                 # of an op with one operand and a number
    uint64_t stamp                  # of a leaf: when an optimizer last wrote it (new_stamp), 0 for never

cdef enum:
    RUN = 1 << 8                    # added to the op in the record of a run: its Steps follow

cdef struct Node:                   # a record: of a node, or of the first one of a run
    uint32_t op                     # which Op made it
    uint32_t a                      # first operand, or start of the first span, or of a pool block; of a leaf, its last Past
    Argument argument               # what else the op needs

cdef struct Steps:                  # the record after that of a run, as large as that
    uint32_t first                  # id of the first node
    uint32_t count                  # of nodes
    uint32_t step_a                 # how much further the first operand (or span) of each node is than that of the one before
    uint32_t step_b                 # and the second one

cdef inline uint32_t listed_operands(const Node *node) noexcept nogil:
    """Number of operands of a node that stand in its pool block one by one."""
    if node.op <= DOT or node.op == DOT_STRIDED:
        return 0
    return 2 * node.argument.pair.n if node.op == DOT_LISTED else node.argument.pair.n


cdef struct Past:                   # data of a leaf before it was set to another value: nodes made until then used it
    uint64_t clock                  # when it was set
    double data
    uint32_t older                  # the Past before this one, 0 for none

cdef struct Run:
    uint32_t first                  # nodes [first, first + count), of one op, operands each the same step further; or one node
    uint32_t count

cdef struct Shift:                  # the nodes [first, first + count) subtract the maximum of what `size` nodes of softmax are of
    uint32_t first
    uint32_t count
    uint32_t size                   # more than `count` where a collection has taken some

cdef struct Tape:
    double *data                    # the value
    double *grad                    # d(root)/d(node), summed over every use
    uint8_t *seen                   # UNSEEN, SEEN or OPEN; LIVE is added while collecting
    uint32_t *record_of             # number of its record
    PyObject **handle               # first of the live handles anchored at the node, borrowed, or NULL, as from `top` on
    uint32_t top                    # first free id; nodes live in [1, top)
    uint32_t capacity               # ids that fit into the arrays
    uint32_t limit                  # up to this id, at most `capacity`, there is a record for each node

    Node *record                    # how nodes were computed, in the order of their ids
    uint32_t record_top             # first free record
    uint32_t record_capacity
    uint32_t floor                  # what the last rewind left; the nodes from here on are young
    uint32_t young                  # handles anchored at young nodes
    uint32_t kept                   # KEPT Values
    uint32_t kept_young             # those anchored at young nodes
    PyObject *dropped               # KEPT Values whose nodes are gone, linked by `next`: to be released where any code may run
    PyObject **garbage              # attributes that only cycles refer to (_cycles.pyx), owned: to be released there, too
    size_t garbages
    uint32_t garbage_nodes          # how many nodes will go with them
    bint releasing                  # `release` is under way
    bint own_backward               # whether a node ever had a `_backward` of its own, or no partials
    bint own_leaves                 # whether a leaf ever had
    bint shown                      # whether a `__dict__` was handed out, into which one may be written

    uint32_t *pool                  # operands listed one by one: a block per node (put_block)
    size_t pool_top                 # first free word
    size_t pool_capacity

    Shift *shift                    # of each softmax, in the order of their ids: the maximum is a number, no edge shows it
    size_t shifts
    size_t shifts_capacity
    uint32_t least_top              # the nodes below have been the same since this was last raised (_plans.pyx)

    uint64_t *write_clock           # log of leaf writes: the stamp given out ...
    uint32_t *write_top             # ... and the top at that time, both increasing
    size_t writes
    size_t writes_capacity
    uint64_t known_clock[16]        # some of them, by their last bits, to be found at once ...
    uint32_t known_top[16]           # ... and what `top_at` is there
    uint64_t clock                  # the last stamp given out
    uint64_t changes                # how often leaves were written
    uint32_t run_start              # the leaves [run_start, run_end) were last written all at once: their stamp stands here,
    uint32_t run_end                # where it is one store and not one for each
    uint64_t run_stamp

    Past *past                      # [1, past_top): what leaves were before
    size_t past_top
    size_t past_capacity

    uint32_t fence                  # where AddressSanitizer has the arrays end
    uint32_t record_fence           # and that of the records
    uint32_t no_grad                # contexts entered in which results are leaves (_no_grad.pyx)
    uint32_t fixed                  # passes and others that have ids in use: while there are any, no collection
    uint32_t peak                   # highest top of the last `rewinds` rewinds, to see whether the arrays are too large
    uint32_t rewinds

cdef enum Kind:
    VALUE
    VECTOR
    MATRIX
    KEPT                            # a Value that only the tape refers to, since its node has attributes

cdef class Handle:
    cdef uint32_t id                # highest node that this object stands for; 0 if for none
    cdef uint8_t kind
    # Not the last member: there Python 3.11 takes it for one that each subclass adds, and lets no class have two such bases.
    cdef PyObject *attributes       # of a Value: dict of what was written on it, owned, or NULL
    cdef PyObject *next             # the handles before and after it at the same node, borrowed, or NULL
    cdef PyObject *previous

ctypedef void (*Visit)(Tape *t, uint32_t id) noexcept

cdef struct Behaviour:              # of a kind of handle that stands for many nodes
    void (*each)(PyObject *handle, Tape *t, Visit visit) noexcept           # call `visit` with each of them
    void (*move)(PyObject *handle, const uint32_t *moved) noexcept          # they have new ids, moved[id]; its own is set

cdef Behaviour behaviour_of_vectors
cdef Behaviour behaviour_of_matrices
cdef void (*find_cycles)(Tape *t) noexcept                                  # of _cycles.pyx, which is loaded later

cdef Tape *tape                     # the one of this process

cdef int grow(Tape *t, size_t n) except -1
cdef bint rewind(Tape *t) noexcept
cdef void make_leaves(Tape *t, uint32_t start) noexcept
cdef int grow_pool(Tape *t, size_t words) except -1
cdef void collect(Tape *t) noexcept
cdef void release(Tape *t) noexcept
cdef void each_node(PyObject *handle, Tape *t, Visit visit) noexcept
cdef uint64_t new_stamp(Tape *t) except 0
cdef void stamp_run(Tape *t, uint32_t start, uint32_t n, uint64_t stamp) noexcept nogil


cdef inline const Node *record_at(const Tape *t, uint32_t id) noexcept nogil:
    """Return the record of a node, which may be that of a run."""
    return &t.record[t.record_of[id]]


cdef inline uint8_t op_at(const Tape *t, uint32_t id) noexcept nogil:
    """Return the op of a node."""
    return <uint8_t>record_at(t, id).op


cdef inline const Steps *steps_of(const Node *record) noexcept nogil:
    """Return the steps of a run."""
    return <const Steps *>&record[1]


cdef void write_node(const Node *record, uint32_t id, Node *node) noexcept nogil


cdef inline const Node *look_at(const Tape *t, uint32_t id, Node *room) noexcept nogil:
    """Return how a node was computed: its record, or what is written into `room`."""
    cdef const Node *record = record_at(t, id)
    if record.op & RUN:
        write_node(record, id, room)
        return room
    return record


cdef inline Node node_at(const Tape *t, uint32_t id) noexcept nogil:
    """Return how a node was computed."""
    cdef Node room
    return look_at(t, id, &room)[0]


cdef inline Steps look_at_run(const Tape *t, uint32_t id, uint32_t n, Node *node) noexcept nogil:
    """Write how a node was computed, and return the steps of the `n` nodes from it on, which go on alike."""
    cdef const Node *record = record_at(t, id)
    cdef const Steps *steps = steps_of(record)
    cdef uint32_t k
    cdef Node next
    node[0] = record[0]
    if record.op & RUN:
        k = id - steps.first
        node.op ^= RUN
        if node.op != DOT_STRIDED:
            node.a += k * steps.step_a
        if node.op > LAST_UNARY:
            node.argument.pair.b += k * steps.step_b
        if k + 1 < steps.count:
            return Steps(id, n, steps.step_a, steps.step_b)
    if n == 1:
        return Steps(id, 1, 0, 0)
    next = node_at(t, id + 1)
    return Steps(id, n, next.a - node.a, next.argument.pair.b - node.argument.pair.b)


cdef inline uint32_t left_of_run(const Tape *t, uint32_t id) noexcept nogil:
    """Return how many nodes from `id` on are of one run, 0 if it is in none."""
    cdef const Node *record = record_at(t, id)
    return steps_of(record).first + steps_of(record).count - id if record.op & RUN else 0


cdef inline uint32_t stride_at(const Tape *t, uint32_t id) noexcept nogil:
    """Return how far the second operands of a strided dot are from each other."""
    return steps_of(record_at(t, id)).step_a


cdef inline size_t first_above(const Run *runs, size_t n, uint32_t id) noexcept nogil:
    """Return the first of `n` runs, in the order of their ids, that ends above `id`; `n` if none does."""
    cdef size_t low = 0
    cdef size_t high = n
    cdef size_t middle
    while low < high:
        middle = (low + high) // 2
        if runs[middle].first + runs[middle].count <= id:
            low = middle + 1
        else:
            high = middle
    return low


cdef int note_shift(Tape *t, uint32_t first, uint32_t count) except -1
cdef int write_leaf(Tape *t, uint32_t leaf, double data) except -1
cdef bint has_changed(Tape *t, uint32_t leaf, uint32_t since) noexcept nogil


cdef inline void anchor_new(Handle handle, uint32_t id) noexcept:
    """Let the new `handle` stop every rewind below `id`, which was put just now and has no handle yet."""
    cdef Tape *t = tape             # read once: the compiler cannot know that nothing changes it
    handle.id = id
    t.handle[id] = <PyObject *>handle
    t.young += id >= t.floor


cdef inline void anchor(Handle handle, uint32_t id) noexcept:
    """Let the new `handle` stop every rewind below `id`."""
    handle.next = tape.handle[id]
    if handle.next != NULL:
        (<Handle>handle.next).previous = <PyObject *>handle
    anchor_new(handle, id)


cdef inline bint only_kept(PyObject *handle) noexcept:
    """Whether no live handle is among these, all those of one node; there is one at least."""
    return (<Handle>handle).kind == KEPT and (<Handle>handle).next == NULL


cdef inline bint rewind_below(Tape *t, uint32_t id) noexcept:
    """Rewind where the node, which has no live handle any more, was the last one to hold the tape's top. Return as `rewind`."""
    return (id == t.top - 1 or (t.young == 0 and id >= t.floor)) and rewind(t)


cdef inline bint detach(Handle handle) noexcept:
    """Let go of what the dying `handle` kept. Return whether `release` is to follow, which may run any code; this does not."""
    cdef Tape *t = tape
    cdef uint32_t id = handle.id
    cdef PyObject *rest = handle.next
    if id == 0:
        return rewind(t)                # the op that was to fill it failed: its nodes go with it
    t.young -= id >= t.floor
    if rest != NULL:
        (<Handle>rest).previous = handle.previous
    if handle.previous != NULL:
        (<Handle>handle.previous).next = rest
        rest = t.handle[id]
    else:
        t.handle[id] = rest
    return (rest == NULL or only_kept(rest)) and rewind_below(t, id)


# Most handles live for a moment, as a term of an expression. Keeping the dead ones for reuse spares the general ways of making
# and freeing an object.

cdef struct Spares:
    PyObject *kept[SPARES]          # dead handles of one type, without any reference
    int n


cdef inline object take_spare(Spares *spares):
    """Return a handle of no node yet; there must be one."""
    spares.n -= 1
    return revive(spares.kept[spares.n])


cdef inline bint keep_spare(Spares *spares, PyObject *dying) noexcept:
    """Detach the handle whose last reference has gone and keep the object; there must be room. Return as `detach`."""
    cdef bint dropped = detach(<Handle>dying)
    (<Handle>dying).id = 0
    (<Handle>dying).next = (<Handle>dying).previous = NULL
    spares.kept[spares.n] = dying
    spares.n += 1
    return dropped


cdef bint try_reallocate(void **array, size_t n, size_t size) noexcept
cdef int reallocate(void **array, size_t n, size_t size) except -1


cdef inline void fence(Tape *t, size_t end, size_t record_end) noexcept nogil:
    """Let AddressSanitizer report what is read or written from these nodes and records on."""
    move_fence(t.data, t.fence, end)
    move_fence(t.grad, t.fence, end)
    move_fence(t.seen, t.fence, end)
    move_fence(t.record_of, t.fence, end)
    move_fence(t.record, t.record_fence, record_end)
    t.fence = <uint32_t>end
    t.record_fence = <uint32_t>record_end


cdef inline int reserve(Tape *t, size_t n) except -1:
    """Make room for `n` nodes. It may collect: ids read before are void, an op reserves first, then reads its operands."""
    if n > t.limit - t.top:
        grow(t, n)
    if FENCED:
        fence(t, t.top + n, t.record_top + n)
    return 0


cdef enum:
    BLOCK_END = 3                   # words that a block may take beyond its content


cdef inline size_t block_length(size_t words) noexcept nogil:
    """Length of a pool block with `words` words of content: two more end it, and it is even."""
    return words + (words & 1) + 2


cdef inline size_t custom_words(uint32_t n) noexcept nogil:
    """Words of the block of a custom node: n operands, a word of padding if n is odd, n partials of two words each."""
    return n + (n & 1) + 2 * <size_t>n


cdef inline double *partials(Tape *t, uint32_t start, uint32_t n) noexcept nogil:
    """The partials in the block of a custom node."""
    return <double *>&t.pool[start + n + (n & 1)]


cdef inline int reserve_listed(Tape *t, size_t words) except -1:
    """Make room for `words` words of pool blocks, BLOCK_END more for each block included. It may collect, as `reserve`."""
    if words > t.pool_capacity - t.pool_top:
        return grow_pool(t, words)
    return 0


cdef inline void end_block(uint32_t *block, size_t length, uint32_t owner) noexcept nogil:
    """End a block with the node that owns it and its whole length, so that a rewind can walk back block by block."""
    block[length - 2] = owner
    block[length - 1] = <uint32_t>length


cdef inline uint32_t put_block(Tape *t, size_t words) noexcept nogil:
    """Return the start of a pool block of `words` words for the node that is put next, in room reserved before.

    Lengths are even: doubles inside a block are aligned.
    """
    cdef size_t start = t.pool_top
    cdef size_t length = block_length(words)
    end_block(&t.pool[start], length, t.top)
    t.pool_top = start + length
    return <uint32_t>start


cdef inline uint32_t put(Tape *t, uint8_t op, uint8_t seen, uint32_t a, Argument argument, double data) noexcept nogil:
    """Write the next node into room reserved before."""
    cdef uint32_t i = t.top
    cdef uint32_t r = t.record_top
    t.data[i] = data
    t.grad[i] = 0.0
    t.seen[i] = seen
    t.record_of[i] = r
    t.record[r].op = op
    t.record[r].a = a
    t.record[r].argument = argument
    t.record_top = r + 1
    t.top = i + 1
    return i


cdef inline uint32_t put_leaf(Tape *t, double data) noexcept nogil:
    cdef Argument argument
    argument.stamp = 0
    return put(t, LEAF, SEEN, 0, argument, data)


cdef inline uint32_t put_constant(Tape *t, uint8_t op, uint32_t a, double constant, double data) noexcept nogil:
    cdef Argument argument
    argument.constant = constant
    return put(t, op, UNSEEN, a, argument, data)


cdef inline uint32_t put_pair(Tape *t, uint8_t op, uint32_t a, uint32_t b, uint32_t n, double data) noexcept nogil:
    cdef Argument argument
    argument.pair.b = b
    argument.pair.n = n
    return put(t, op, UNSEEN, a, argument, data)
