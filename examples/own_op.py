"""An op of your own, and whether its derivative is right.

    python examples/own_op.py

swish(x) = x * sigmoid(x), written as one node with its partial; then with the partial that one writes first, which is wrong.
"""

import microgpt
from microgpt import Value, Vector


def swish(x):
    s = 1 / (1 + microgpt.exp(-x).data)
    y = Value(x.data * s, (x,), (s + x.data * s * (1 - s),))
    y._op = "swish"
    return y


def wrong_swish(x):
    s = 1 / (1 + microgpt.exp(-x).data)
    y = Value(x.data * s, (x,), (s * (1 - s),))
    y._op = "wrong_swish"
    return y


def loss(op):
    return lambda xs: Vector([op(x) ** 2 for x in xs]).sum()


if __name__ == "__main__":
    xs = Vector([0.5, -1.5, 3.0])
    for op in (swish, wrong_swish):
        print(microgpt.gradcheck(loss(op), xs))
