"""Fit a nonlinear model to data: the loss is written once with Values, recorded, and handed to scipy or to Newton.

python examples/nonlinear_fit.py [points]
"""

import random
import sys
import time

import numpy
from scipy.optimize import minimize

from microgpt import Vector, exp, record, sin

TRUE = [2.0, 0.5, 3.0, 0.3]
START = [1.8, 0.4, 3.1, 0.2]


def model(p, t):
    return p[0] * exp(p[1] * -t) * sin(p[2] * t + p[3])


def main(points=200):
    rng = random.Random(1)
    p = Vector(TRUE)
    data = [(t, model(p, t).data + rng.gauss(0, 0.01)) for t in (5 * i / points for i in range(points))]

    p = Vector(START)
    start = time.perf_counter()
    loss = record(sum(((model(p, t) - y) ** 2 for t, y in data), 0.0), p)
    print(f"{loss}, recorded in {1e3 * (time.perf_counter() - start):.1f} ms")

    def report(name, x, calls, seconds):
        slope = numpy.abs(loss.value_and_grad(x)[1]).max()
        print(f"{name:36} {calls:4} calls {1e3 * seconds:8.2f} ms   largest slope {slope:.0e}   {numpy.round(x, 4)}")

    start = time.perf_counter()
    fit = minimize(loss.value_and_grad, numpy.array(START), jac=True, method="BFGS")
    report("BFGS, gradients of the Program", fit.x, fit.nfev, time.perf_counter() - start)

    start = time.perf_counter()
    differences = minimize(loss, numpy.array(START), method="BFGS")
    report("BFGS, finite differences", differences.x, differences.nfev, time.perf_counter() - start)

    start = time.perf_counter()
    x, steps = numpy.array(START), 0
    while numpy.abs(slope := loss.value_and_grad(x)[1]).max() > 1e-10 and steps < 50:
        x, steps = x - numpy.linalg.solve(loss.hessian(x), slope), steps + 1
    report("Newton, Hessian of the Program", x, steps, time.perf_counter() - start)
    return fit.x, x


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
