"""From one product to a net that learns: the path of Andrej Karpathy's lecture on micrograd, one step after the other.

    python examples/lecture.py

The Value is an ordinary one: with micrograd's own every number that is printed would be the same.
"""

import math
import random

from microgpt import Value, nn


def children_of(node):
    """Return what `node` was computed from, by name: `_prev` is a set."""
    return sorted(node._prev, key=lambda child: child.label)


def draw(node, depth=0):
    """Print the graph below `node`, a line for each way that leads to a node."""
    op = f" ({node._op})" if node._op else ""
    print(f"{'    ' * depth}{node.label}{op}: data {node.data:.4f}, grad {node.grad:.4f}")
    for child in children_of(node):
        draw(child, depth + 1)


print("1. An expression remembers how it was computed.")
price, pieces = Value(1.5, label="price"), Value(4.0, label="pieces")
shipping, rate = Value(2.0, label="shipping"), Value(-0.5, label="rate")
goods = price * pieces
goods.label = "goods"
total = goods + shipping
total.label = "total"
paid = total * rate
paid.label = "paid"
paid.backward()
draw(paid)

print("\n2. A gradient says how much the result moves when an input does.")
h = 1e-6
moved = ((1.5 + h) * 4.0 + 2.0) * -0.5
print(f"price a little higher: {(moved - paid.data) / h:.4f}, by backward: {price.grad:.4f}")


def neuron(squash):
    """Return inputs and nodes of a neuron with two inputs, in the order in which they were made."""
    x1, x2 = Value(0.5, label="x1"), Value(-1.5, label="x2")
    w1, w2, b = Value(2.0, label="w1"), Value(0.75, label="w2"), Value(0.625, label="b")
    x1w1 = x1 * w1
    x1w1.label = "x1*w1"
    x2w2 = x2 * w2
    x2w2.label = "x2*w2"
    weighted = x1w1 + x2w2
    weighted.label = "weighted"
    n = weighted + b
    n.label = "n"
    out = squash(n)
    out.label = "out"
    return [x1, x2, w1, w2, b], [x1w1, x2w2, weighted, n, out]


print("\n3. A neuron, its gradients step by step: each node hands its own to those it was computed from.")
inputs, nodes = neuron(lambda n: n.tanh())
nodes[-1].grad = 1.0
for node in reversed(nodes):
    node._backward()
    print(f"{node.label} gives", ", ".join(f"{child.label} {child.grad:.4f}" for child in children_of(node)))

print("\n4. backward() takes the same steps, in an order in which every node has its gradient before it hands it on.")
by_hand = [v.grad for v in inputs]
inputs, nodes = neuron(lambda n: n.tanh())
nodes[-1].backward()
draw(nodes[-1])
print("the same:", [v.grad for v in inputs] == by_hand)

print("\n5. An op of our own: its value, and what it does with its gradient.")


def squashed(x):
    t = math.tanh(x.data)
    out = Value(t, (x,), "squash")

    def step():
        x.grad += (1 - t * t) * out.grad

    out._backward = step
    return out


inputs, nodes = neuron(squashed)
nodes[-1].backward()
print(nodes[-1]._op, "of", *(child.label for child in children_of(nodes[-1])))
print("the same:", [v.grad for v in inputs] == by_hand)

print("\n6. The same function from smaller ops: how finely a graph is cut makes no difference.")


def from_exponentials(x):
    e = (x * 2).exp()
    return (e - 1) / (e + 1)


inputs, nodes = neuron(from_exponentials)
nodes[-1].backward()
for v, grad in zip(inputs, by_hand):
    print(f"{v.label}: {v.grad:.12f}", "as before" if math.isclose(v.grad, grad, rel_tol=1e-12) else "other than before")

print("\n7. Many neurons are trained by many such passes.")
POINTS = [[2.0, 3.0, -1.0], [3.0, -1.0, 0.5], [0.5, 1.0, 1.0], [1.0, 1.0, -1.0]]
TARGETS = [1.0, -1.0, -1.0, 1.0]


def train(model, steps, learning_rate):
    for step in range(1, steps + 1):
        loss = sum((model(x) - y) ** 2 for x, y in zip(POINTS, TARGETS))
        model.zero_grad()  # gradients add up: each step begins at 0
        loss.backward()
        for p in model.parameters():
            p.data -= learning_rate * p.grad
        if step == 1 or step % 20 == 0:
            print(f"step {step}: loss {loss.data!r}")
    print("outputs:", ", ".join(f"{model(x).data:.3f}" for x in POINTS))


random.seed(5)
model = nn.MLP(3, [4, 4, 1])
print(len(model.parameters()), "parameters")
train(model, 60, 0.01)

print("\n8. A net is made of objects, and any of them may be another one.")


class Squashing(nn.Neuron):
    """A neuron with our own op in the place of relu."""

    def __call__(self, x):
        return squashed(sum((w * v for w, v in zip(self.w, x)), self.b))


model.layers[0].neurons[1:3] = [Squashing(3), Squashing(3)]
for n in model.layers[1].neurons:
    n.nonlin = False
train(model, 60, 0.01)
for i, p in enumerate(model.layers[-1].parameters()):
    p.label = f"p{i}"
print("the last layer:", ", ".join(f"{p.label} {p.data:.4f}" for p in model.layers[-1].parameters()))
