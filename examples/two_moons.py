"""Tell two moons apart: micrograd's classifier, on microgpt.nn.

    python examples/two_moons.py [--scalars] [--reference] [--steps N] [--plot FILE]

A perceptron of 2, 16, 16 and 1 neurons, max-margin loss, L2 penalty, plain gradient descent on all points at once. With --scalars
the layers are lists of Values, one operator per scalar; with --reference these run on the pure-Python Value. The losses are
the same. --plot draws where the classifier changes its mind, with matplotlib.
"""

import argparse
import math
import random
from itertools import pairwise

import microgpt
from microgpt import nn, reference

POINTS, NOISE, SEED = 100, 0.1, 1337
PENALTY = 1e-4


def make_moons(rng):
    """Points on two half circles that reach into each other, with noise, and their labels, 1 and -1."""
    points, labels = [], []
    for i in range(POINTS // 2):
        angle = math.pi * i / (POINTS // 2 - 1)
        for label, x, y in ((-1, math.cos(angle), math.sin(angle)), (1, 1 - math.cos(angle), 0.5 - math.sin(angle))):
            points.append([x + rng.gauss(0, NOISE), y + rng.gauss(0, NOISE)])
            labels.append(label)
    return points, labels


class ScalarMLP(nn.Module):
    """What microgpt.nn computes, with Values and lists."""

    def __init__(self, Value, sizes):
        self.layers = [
            [([Value(random.uniform(-1, 1)) for _ in range(nin)], Value(0.0)) for _ in range(nout)]
            for nin, nout in pairwise(sizes)
        ]

    def __call__(self, x):
        for layer in self.layers:
            x = [sum((wi * xi for wi, xi in zip(w, x)), b) for w, b in layer]
            if layer is not self.layers[-1]:
                x = [a.relu() for a in x]
        return x[0]

    def parameters(self):
        return [p for layer in self.layers for w, b in layer for p in [*w, b]]


def loss_and_accuracy(model, points, labels):
    scores = [model(point) for point in points]
    margins = sum((1 - label * score).relu() for label, score in zip(labels, scores)) * (1.0 / len(scores))
    penalty = PENALTY * sum(p * p for p in model.parameters())
    hits = sum((label > 0) == (score.data > 0) for label, score in zip(labels, scores))
    return margins + penalty, hits / len(scores)


def plot(path, model, points, labels):
    from matplotlib.figure import Figure

    axes = Figure(figsize=(6, 4), layout="constrained").add_subplot()
    xs = [-1.5 + 4 * i / 60 for i in range(61)]
    ys = [-1.0 + 2.5 * i / 40 for i in range(41)]
    with microgpt.no_grad():
        scores = [[model([x, y]).data for x in xs] for y in ys]
    axes.contourf(xs, ys, scores, levels=[-math.inf, 0, math.inf], colors=["#9ecae1", "#fdd0a2"])
    for label, colour in ((-1, "#2166ac"), (1, "#b35806")):
        axes.scatter(*zip(*[point for point, other in zip(points, labels) if other == label]), color=colour, s=12)
    axes.figure.savefig(path)


def main():
    parser = argparse.ArgumentParser(description="Train micrograd's classifier of two moons.")
    parser.add_argument("--scalars", action="store_true", help="write the layers with Values alone, not with microgpt.nn")
    parser.add_argument("--reference", action="store_true", help="as --scalars, on the pure-Python Value")
    parser.add_argument("--steps", type=int, default=100, help="default: %(default)s")
    parser.add_argument("--plot", metavar="FILE", help="draw points and boundary; needs matplotlib")
    args = parser.parse_args()
    points, labels = make_moons(random.Random(SEED))
    random.seed(SEED)
    if args.reference or args.scalars:
        model = ScalarMLP((reference if args.reference else microgpt).Value, [2, 16, 16, 1])
    else:
        model = nn.MLP(2, [16, 16, 1])
    for step in range(args.steps):
        loss, accuracy = loss_and_accuracy(model, points, labels)
        model.zero_grad()
        loss.backward()
        learning_rate = 1.0 - 0.9 * step / args.steps
        for p in model.parameters():
            p.data -= learning_rate * p.grad
        print(f"step {step} loss {loss.data!r}, accuracy {100 * accuracy:g} %")
    if args.plot:
        plot(args.plot, model, points, labels)


if __name__ == "__main__":
    main()
