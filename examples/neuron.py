"""A neuron of micrograd's lecture, differentiated and drawn.

    python examples/neuron.py [FILE]

FILE ends in .svg (the default is neuron.svg), .png, .pdf, .dot or .txt.
"""

import sys

import microgpt
from microgpt import Value


def neuron():
    x1, x2 = Value(2.0, label="x1"), Value(0.0, label="x2")
    w1, w2 = Value(-3.0, label="w1"), Value(1.0, label="w2")
    b = Value(6.8813735870195432, label="b")
    x1w1, x2w2 = x1 * w1, x2 * w2
    x1w1.label, x2w2.label = "x1*w1", "x2*w2"
    total = x1w1 + x2w2
    total.label = "x1*w1 + x2*w2"
    n = total + b
    n.label = "n"
    o = n.tanh()
    o.label = "o"
    return o


if __name__ == "__main__":
    path = sys.argv[1] if len(sys.argv) > 1 else "neuron.svg"
    output = neuron()
    microgpt.draw(output).save(path)
    print(microgpt.graph(output).tree())
    print(f"wrote {path}")
