"""What a program computes, as a list of instructions: values, gradients, derivatives of both along a direction.

A gradient is pulled: the one of a node is a chain of a * b + c over its uses, in the sequence of the reference's backward. So
nothing has to be zeroed, and instructions may be run in any order that has operands first.

All arithmetic is a * b + c with two roundings: a product is a * b + -0.0, a sum a * 1.0 + b, and both are exact. A gradient
starts at +0.0, as the reference's does, so it is never -0.0, and one that is passed on as it is, is not computed again.
"""

from libc.math cimport signbit
from libc.stdint cimport uint8_t, uint32_t, uint64_t
from libc.stdlib cimport calloc, free, malloc
from libc.string cimport memcpy, memset

from microgpt._program_record cimport LARGER, SHIFT
from microgpt._tape cimport (
    ABS, ADD, ADD_CONSTANT, CONSTANT_POW, EXP, FLOOR, HYPOT, HYPOT_CONSTANT, LAST_UNARY, MAXIMUM, MAXIMUM_CONSTANT, MINIMUM,
    MINIMUM_CONSTANT, MUL, MUL_CONSTANT, POW, POW_CONSTANT, RELU, SQRT, TANH, reallocate
)

cdef enum:
    FIRST_CONSTANT = ADD_CONSTANT   # unary ops from here on have a number


cdef inline bint is_unary(uint8_t op) noexcept nogil:
    return op <= LAST_UNARY or op == SHIFT


cdef inline uint64_t hash_of(const Instruction *i) noexcept nogil:
    cdef uint64_t h = (<uint64_t>i.op << 32 | i.a) * 0x9e3779b97f4a7c15u
    h = (h ^ h >> 29 ^ (<uint64_t>i.b << 32 | i.c)) * 0xbf58476d1ce4e5b9u
    return h ^ h >> 32


cdef class Listing:
    def __dealloc__(self):
        free(self.code)
        free(self.logits)
        free(self.logit)
        free(self.found)
        free(self.constant)
        free(self.value)
        free(self.gradient)
        free(self.tangent)
        free(self.gradient_tangent)
        free(self.active)

    cdef uint32_t number(self, double x) except? 0:
        """Return the leaf that is the number `x`."""
        cdef uint64_t bits
        cdef uint32_t leaf
        memcpy(&bits, &x, sizeof(bits))
        known = self.constant_of.get(bits)
        if known is not None:
            return known
        if self.constants == self.constants_room:
            reallocate(<void **>&self.constant, 2 * <size_t>self.constants_room + 64, sizeof(double))
            self.constants_room = 2 * self.constants_room + 64
        leaf = LEAF_BIT | (self.fixed + self.constants)
        self.constant[self.constants] = x
        self.constants += 1
        self.constant_of[bits] = leaf
        return leaf

    cdef uint32_t put(self, uint32_t op, uint32_t a, uint32_t b, uint32_t c) except? 0:
        """Return the instruction, which is put unless there is an equal one."""
        cdef Instruction new
        cdef Instruction *old
        cdef uint32_t place
        if op == CODE_MADD and a > b:   # a product has its factors in either order
            a, b = b, a
        new = Instruction(op, a, b, c)
        if self.n == self.room:
            self.grow()
        place = hash_of(&new) & self.found_mask
        while self.found[place] != NONE:
            old = &self.code[self.found[place]]
            if old.op == op and old.a == a and old.b == b and old.c == c:
                return self.found[place]
            place = (place + 1) & self.found_mask
        self.found[place] = self.n
        self.code[self.n] = new
        self.n += 1
        return self.n - 1

    cdef uint32_t put_softmax(self, const uint32_t *nodes, uint32_t n) except? 0:
        """Return the softmax of the values of `n` nodes. Its exponentials, their sum, the inverse of that, and the products of
        both are its projections.
        """
        cdef uint32_t i
        reallocate(<void **>&self.logits, rounded_up(self.softmaxes + 1), sizeof(Logits))
        reallocate(<void **>&self.logit, rounded_up(self.logit_names + n), sizeof(uint32_t))
        self.logits[self.softmaxes] = Logits(self.logit_names, n)
        for i in range(n):
            self.logit[self.logit_names + i] = self.value[nodes[i]]
        self.logit_names += n
        self.softmaxes += 1
        i = LEAF_BIT | (self.softmaxes - 1)
        return self.put(CODE_SOFTMAX, i, i, i)

    cdef int grow(self) except -1:
        """Make room for twice as many instructions. The table stays half empty."""
        cdef uint32_t room = 2 * self.room if self.room > 0 else 1024
        cdef uint32_t k, place
        if room >= LEAF_BIT:
            raise MemoryError("a program has at most 2**30 instructions")
        reallocate(<void **>&self.code, room, sizeof(Instruction))
        reallocate(<void **>&self.found, 2 * <size_t>room, sizeof(uint32_t))
        self.room = room
        self.found_mask = 2 * room - 1
        memset(self.found, 0xff, 2 * <size_t>room * sizeof(uint32_t))
        for k in range(self.n):
            place = hash_of(&self.code[k]) & self.found_mask
            while self.found[place] != NONE:
                place = (place + 1) & self.found_mask
            self.found[place] = k
        return 0


cdef inline size_t rounded_up(size_t n) noexcept nogil:
    """The power of two that is not below `n`: an array that grows by ones has that room."""
    cdef size_t room = 64
    while room < n:
        room *= 2
    return room


cdef uint32_t *new_names(size_t n) except NULL:
    cdef uint32_t *names = <uint32_t *>malloc((n + 1) * sizeof(uint32_t))
    if names == NULL:
        raise MemoryError(f"no room for a program of {n} nodes")
    memset(names, 0xff, n * sizeof(uint32_t))   # NONE
    return names


cdef Listing new_listing(Graph g, uint32_t directions):
    cdef Listing x = Listing.__new__(Listing)
    cdef uint32_t i
    x.g = g
    x.directions = directions
    x.fixed = g.inputs + directions + g.parameters
    x.constant_of = {}
    x.value = new_names(g.nodes)
    for i in range(g.leaves):
        if i < g.inputs:
            x.value[i] = LEAF_BIT | i
        elif i < g.inputs + g.parameters:
            x.value[i] = LEAF_BIT | (i + directions)
        else:
            x.value[i] = x.number(g.constant[i - g.inputs - g.parameters])
    put_values(x)
    return x


cdef int put_values(Listing x) except -1:
    """The value of each node. A product that is added to something is not waited for: it is computed together with the sum."""
    cdef Graph g = x.g
    cdef uint32_t one = x.number(1.0)
    cdef uint32_t minus_zero = x.number(-0.0)
    cdef uint32_t minus_one = x.number(-1.0)
    cdef uint32_t i, k, a, b, result, factor, other, n
    cdef uint32_t softmax = NONE    # the last one
    cdef uint32_t first_shift = 0   # its first node, and how many it has
    cdef uint32_t logits = 0
    cdef uint32_t added = 0         # exponentials that `sum` is the sum of
    cdef uint32_t sum = NONE
    cdef uint8_t op, of
    for i in range(g.leaves, g.nodes):
        k = i - g.leaves
        op = g.op[k]
        a = x.value[g.a[k]]
        b = a if is_unary(op) and op != SHIFT else x.value[g.b[k]]
        if op == SHIFT and i >= first_shift + logits:
            n = whole_softmax(g, k)
            if n > 0:
                softmax = x.put_softmax(&g.a[k], n)
                first_shift = i
                logits = n
                sum = NONE
                added = 0
        if softmax != NONE:
            result = projection(x, g, k, softmax, first_shift, logits, &sum, &added)
            if result != NONE:
                x.value[i] = result
                continue
        if op == MUL:
            result = x.put(CODE_MADD, a, b, minus_zero)
        elif op == MUL_CONSTANT:
            result = x.put(CODE_MADD, a, x.number(g.k[k]), minus_zero)
        elif op == ADD or op == ADD_CONSTANT:
            factor = one
            other = b if op == ADD else x.number(g.k[k])
            if is_product(g, g.a[k]):
                of = g.op[g.a[k] - g.leaves]
                a = x.value[g.a[g.a[k] - g.leaves]]
                factor = x.value[g.b[g.a[k] - g.leaves]] if of == MUL else x.number(g.k[g.a[k] - g.leaves])
            elif op == ADD and is_product(g, g.b[k]):
                of = g.op[g.b[k] - g.leaves]
                other = a
                a = x.value[g.a[g.b[k] - g.leaves]]
                factor = x.value[g.b[g.b[k] - g.leaves]] if of == MUL else x.number(g.k[g.b[k] - g.leaves])
            result = x.put(CODE_MADD, a, factor, other)
        elif op == SHIFT:
            result = x.put(CODE_MADD, b, minus_one, a)
        elif op == LARGER:
            result = x.put(CODE_LARGER, a, b, a)
        elif op == POW_CONSTANT and g.k[k] == -1.0:
            result = x.put(CODE_RECIPROCAL, a, a, a)
        elif op == POW_CONSTANT and g.k[k] == 2.0:
            result = x.put(CODE_SQUARE, a, a, a)
        else:
            result = x.put(op, a, x.number(g.k[k]) if FIRST_CONSTANT <= op <= LAST_UNARY else b, a)
        if softmax != NONE and added > 0 and sum == NONE:
            sum = result
        x.value[i] = result
    return 0


cdef uint32_t whole_softmax(Graph g, uint32_t k) noexcept nogil:
    """Return how many nodes from computed node `k` on are shifts by the maximum of what they are computed from; 0 if that is of
    others, too, or if they are too few or too many.
    """
    cdef uint32_t n = 0
    cdef uint32_t maximum = g.b[k]
    cdef uint32_t i, link
    while k + n < g.nodes - g.leaves and g.op[k + n] == SHIFT and g.b[k + n] == maximum:
        n += 1
    if not 2 <= n <= MOST_LOGITS or maximum < g.leaves + n - 2:
        return 0
    for i in range(1, n):
        link = maximum - g.leaves - (n - 1 - i)
        if g.op[link] != LARGER or g.b[link] != g.a[k + i] or g.a[link] != (g.a[k] if i == 1 else g.leaves + link - 1):
            return 0
    return n


cdef inline bint is_projection(Listing x, uint32_t name, uint32_t softmax, uint32_t k) noexcept nogil:
    return not name & LEAF_BIT and x.code[name].op == CODE_PROJECT + k and x.code[name].a == softmax


cdef uint32_t projection(Listing x, Graph g, uint32_t k, uint32_t softmax, uint32_t first_shift, uint32_t n, uint32_t *sum,
                         uint32_t *added) except? 0:
    """Return the part of a softmax that computed node `k` is: an exponential, their sum, its inverse, a product. NONE for others.

    `sum`, `added`: the sum so far and of how many exponentials it is; NONE if the node is the next sum, but not the last.
    """
    cdef uint8_t op = g.op[k]
    cdef uint32_t a = x.value[g.a[k]]
    cdef uint32_t b, i
    if op == EXP and first_shift <= g.a[k] < first_shift + n:
        return x.put(CODE_PROJECT + g.a[k] - first_shift, softmax, softmax, softmax)
    if op == ADD_CONSTANT and is_projection(x, a, softmax, 0) and g.k[k] == 0.0 and not signbit(g.k[k]):
        added[0] = 1
        sum[0] = NONE
        return NONE
    if op == ADD and added[0] > 0 and a == sum[0] and is_projection(x, x.value[g.b[k]], softmax, added[0]):
        added[0] += 1
        sum[0] = NONE
        if added[0] < n:
            return NONE
        added[0] = 0
        return x.put(CODE_PROJECT + n, softmax, softmax, softmax)
    if op == POW_CONSTANT and g.k[k] == -1.0 and is_projection(x, a, softmax, n):
        return x.put(CODE_PROJECT + n + 1, softmax, softmax, softmax)
    if op == MUL:
        b = x.value[g.b[k]]
        if is_projection(x, b, softmax, n + 1) and not a & LEAF_BIT and x.code[a].a == softmax and (
                CODE_PROJECT <= x.code[a].op < CODE_PROJECT + n):
            i = x.code[a].op - CODE_PROJECT
            return x.put(CODE_PROJECT + n + 2 + i, softmax, softmax, softmax)
    return NONE


cdef inline bint is_product(Graph g, uint32_t i) noexcept nogil:
    return i >= g.leaves and (g.op[i - g.leaves] == MUL or g.op[i - g.leaves] == MUL_CONSTANT)


cdef uint32_t put_partial(Listing x, uint32_t i, bint of_b) except? 0:
    """The derivative of computed node `i` by its first or second operand: NONE for 1."""
    cdef Graph g = x.g
    cdef uint32_t k = i - g.leaves
    cdef uint8_t op = g.op[k]
    cdef uint32_t a = x.value[g.a[k]]
    cdef uint32_t b = a
    cdef uint32_t result = x.value[i]
    if op == ADD or op == ADD_CONSTANT or op == SHIFT:
        return NONE
    if op == MUL:
        return a if of_b else x.value[g.b[k]]
    if op == MUL_CONSTANT:
        return x.number(g.k[k])
    if op == EXP:
        return result
    if op == TANH:                  # 1 - result * result
        return x.put(CODE_MADD, x.put(CODE_MADD, result, result, x.number(-0.0)), x.number(-1.0), x.number(1.0))
    if op == SQRT:
        return x.put(CODE_PARTIAL_A + SQRT, result, result, result)
    if op == POW_CONSTANT and g.k[k] == 2.0:
        return x.put(CODE_MADD, x.number(2.0), a, x.number(-0.0))
    if op == POW_CONSTANT and g.k[k] == -1.0:
        return x.put(CODE_RECIPROCAL_PARTIAL, a, a, a)
    if op > LAST_UNARY:
        b = x.value[g.b[k]]
    elif op >= FIRST_CONSTANT:
        b = x.number(g.k[k])
    if not (op == CONSTANT_POW or op == HYPOT or op == HYPOT_CONSTANT or (op == POW and of_b)):
        result = a
    return x.put((CODE_PARTIAL_B if of_b else CODE_PARTIAL_A) + op, a, b, result)


cdef uint32_t add_product(Listing x, uint32_t partial, uint32_t y, uint32_t sum) except? 0:
    """sum + partial * y, where a partial of NONE is 1 and a sum of NONE is 0. `y` is a gradient or tangent, so not -0.0."""
    if partial == NONE:
        return y if sum == NONE else x.put(CODE_MADD, y, x.number(1.0), sum)
    return x.put(CODE_MADD, partial, y, x.number(0.0) if sum == NONE else sum)


cdef int find_active(Listing x) except -1:
    cdef Graph g = x.g
    cdef uint32_t i, k
    x.active = <unsigned char *>calloc(g.nodes + <size_t>1, 1)
    if x.active == NULL:
        raise MemoryError(f"no room for a program of {g.nodes} nodes")
    memset(x.active, 1, g.inputs)
    for i in range(g.leaves, g.nodes):
        k = i - g.leaves
        if g.op[k] != LARGER:
            x.active[i] = x.active[g.a[k]] or (not is_unary(g.op[k]) and x.active[g.b[k]])
    return 0


cdef uint32_t arrange(Graph g, uint32_t root, uint32_t *order, uint32_t *path, unsigned char *seen) noexcept nogil:
    """Fill `order` with the computed nodes that `root` reaches, as the reference's search leaves them. Return how many.

    `seen` is 0 for each node: then 1 where the first operand is to be looked at, 2 the second, 3 none.
    """
    cdef uint32_t n = 0
    cdef uint32_t depth = 0
    cdef uint32_t i, child
    if root < g.leaves:
        return 0
    seen[root] = 1
    path[0] = root
    depth = 1
    while depth > 0:
        i = path[depth - 1]
        if seen[i] == 3:
            depth -= 1
            order[n] = i
            n += 1
            continue
        child = g.a[i - g.leaves] if seen[i] == 1 else g.b[i - g.leaves]
        seen[i] = 3 if is_unary(g.op[i - g.leaves]) else seen[i] + 1
        if child >= g.leaves and seen[child] == 0:
            seen[child] = 1
            path[depth] = child
            depth += 1
    return n


cdef int put_gradients(Listing x, uint32_t root) except -1:
    """The gradient of each node below `root` that depends on an input; with tangents, theirs, too.

    The tangent of a gradient has a term for each use: tangent of the partial times gradient, then partial times tangent of the
    gradient, where they are not 0 for all inputs.
    """
    cdef Graph g = x.g
    cdef uint32_t *order = NULL     # freed below, as the next two
    cdef uint32_t *path = NULL
    cdef unsigned char *seen = NULL
    cdef uint32_t n, i, k, child, partial, slope
    cdef bint of_b
    x.gradient = new_names(g.nodes)
    if x.tangent != NULL:
        x.gradient_tangent = new_names(g.nodes)
    try:
        order = new_names(g.nodes)
        path = new_names(g.nodes)
        seen = <unsigned char *>calloc(g.nodes + <size_t>1, 1)
        if seen == NULL:
            raise MemoryError(f"no room for a program of {g.nodes} nodes")
        n = arrange(g, root, order, path, seen)
        x.gradient[root] = x.number(1.0)
        while n > 0:
            n -= 1
            i = order[n]
            k = i - g.leaves
            if not x.active[i]:
                continue
            for of_b in range(1 if is_unary(g.op[k]) else 2):
                child = g.b[k] if of_b else g.a[k]
                if not x.active[child]:
                    continue
                partial = put_partial(x, i, of_b)
                x.gradient[child] = add_product(x, partial, x.gradient[i], x.gradient[child])
                if x.tangent == NULL:
                    continue
                slope = put_partial_tangent(x, i, of_b)
                if slope != NONE:
                    x.gradient_tangent[child] = add_product(x, slope, x.gradient[i], x.gradient_tangent[child])
                if x.gradient_tangent[i] != NONE:
                    x.gradient_tangent[child] = add_product(x, partial, x.gradient_tangent[i], x.gradient_tangent[child])
    finally:
        free(order)
        free(path)
        free(seen)
    return 0


cdef int put_tangents(Listing x) except -1:
    """The derivative of each node along the direction: 0 + partial * tangent for each operand that depends on an input."""
    cdef Graph g = x.g
    cdef uint32_t i, k
    x.tangent = new_names(g.nodes)
    for i in range(g.inputs):
        x.tangent[i] = x.put(CODE_MADD, LEAF_BIT | (g.inputs + i), x.number(1.0), x.number(0.0))    # never -0.0
    for i in range(g.leaves, g.nodes):
        k = i - g.leaves
        if not x.active[i]:
            continue
        if x.active[g.a[k]]:
            x.tangent[i] = add_product(x, put_partial(x, i, False), x.tangent[g.a[k]], NONE)
        if not is_unary(g.op[k]) and x.active[g.b[k]]:
            x.tangent[i] = add_product(x, put_partial(x, i, True), x.tangent[g.b[k]], x.tangent[i])
    return 0


cdef bint is_straight(uint8_t op) noexcept nogil:
    """Whether the second derivatives of the op are 0."""
    return op in (ADD, ADD_CONSTANT, MUL_CONSTANT, SHIFT, RELU, ABS, FLOOR, MINIMUM, MINIMUM_CONSTANT, MAXIMUM, MAXIMUM_CONSTANT)


cdef uint32_t put_partial_tangent(Listing x, uint32_t i, bint of_b) except? 0:
    """The derivative along the direction of a partial of node `i`, NONE for 0: 0 + second partial * tangent for each operand."""
    cdef Graph g = x.g
    cdef uint32_t k = i - g.leaves
    cdef uint8_t op = g.op[k]
    cdef uint32_t a = x.value[g.a[k]]
    cdef uint32_t tangent_a = x.tangent[g.a[k]]
    cdef uint32_t sum = NONE
    cdef uint32_t b, tangent_b
    if is_straight(op):
        return NONE
    if op == MUL:
        return tangent_a if of_b else x.tangent[g.b[k]]
    if op == EXP:
        return add_product(x, x.value[i], tangent_a, NONE)
    if op == POW_CONSTANT and g.k[k] == 2.0:
        return add_product(x, x.number(2.0), tangent_a, NONE)
    if op <= LAST_UNARY:
        b = x.number(g.k[k]) if op >= FIRST_CONSTANT else a
        return add_product(x, x.put(CODE_SECOND_AA + op, a, b, x.value[i]), tangent_a, NONE)
    b = x.value[g.b[k]]
    tangent_b = x.tangent[g.b[k]]
    if tangent_a != NONE:
        sum = add_product(x, x.put((CODE_SECOND_AB if of_b else CODE_SECOND_AA) + op, a, b, x.value[i]), tangent_a, sum)
    if tangent_b != NONE:
        sum = add_product(x, x.put((CODE_SECOND_BB if of_b else CODE_SECOND_AB) + op, a, b, x.value[i]), tangent_b, sum)
    return sum


cdef Listing list_values(Graph g):
    """The outputs."""
    cdef Listing x = new_listing(g, 0)
    cdef uint32_t i
    x.outputs = []
    for i in range(g.outputs):
        x.outputs.append(x.value[g.output[i]])
    return x


cdef Listing list_gradient(Graph g, uint32_t output, bint all_nodes):
    """An output, and its gradient by each input, or by each node that depends on one."""
    cdef Listing x = new_listing(g, 0)
    cdef uint32_t zero = x.number(0.0)
    cdef uint32_t i
    find_active(x)
    put_gradients(x, g.output[output])
    x.outputs = [x.value[g.output[output]]]
    for i in range(g.nodes if all_nodes else g.inputs):
        if x.active[i]:
            x.outputs.append(zero if x.gradient[i] == NONE else x.gradient[i])
    return x


cdef Listing list_product(Graph g, uint32_t output):
    """The Hessian of an output times the direction."""
    cdef Listing x = new_listing(g, g.inputs)
    cdef uint32_t zero = x.number(0.0)
    cdef uint32_t i
    find_active(x)
    put_tangents(x)
    put_gradients(x, g.output[output])
    x.outputs = []
    for i in range(g.inputs):
        x.outputs.append(zero if x.gradient_tangent[i] == NONE else x.gradient_tangent[i])
    return x
