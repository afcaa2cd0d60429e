"""Find the rates of two populations, which eat and are eaten, from what was counted: an equation's parameters from data.

    python examples/ode_parameters.py [steps]

The loss runs Runge-Kutta's method over all steps. It is recorded once; each look of the optimizer is one run of the Program.
"""

import random
import sys
import time

import numpy
from scipy.optimize import minimize

from microgpt import Value, Vector, record

TRUE = [1.1, 0.4, 0.4, 0.1]
START = [1.0, 0.5, 0.3, 0.12]
BOUNDS = [(0.05, 2.0)] * 4  # beyond, a step may overflow
H = 0.05


def slopes(rates, u, v):
    a, b, c, d = rates
    return a * u - b * u * v, d * u * v - c * v


def populations(rates, u, v, steps):
    """The two at each step: prey, predators."""
    for _ in range(steps):
        k1, m1 = slopes(rates, u, v)
        k2, m2 = slopes(rates, u + k1 * (H / 2), v + m1 * (H / 2))
        k3, m3 = slopes(rates, u + k2 * (H / 2), v + m2 * (H / 2))
        k4, m4 = slopes(rates, u + k3 * H, v + m3 * H)
        u = u + (k1 + k2 * 2.0 + k3 * 2.0 + k4) * (H / 6)
        v = v + (m1 + m2 * 2.0 + m3 * 2.0 + m4) * (H / 6)
        yield u, v


def main(steps=200):
    rng = random.Random(1)
    counted = [(u + rng.gauss(0, 0.05), v + rng.gauss(0, 0.05)) for u, v in populations(TRUE, 10.0, 5.0, steps)]

    def squares(states):
        return sum(((u - x) ** 2 + (v - y) ** 2 for (u, v), (x, y) in zip(states, counted)), 0.0)

    rates = Vector(START)
    start = time.perf_counter()
    loss = record(squares(populations(list(rates), Value(10.0), Value(5.0), steps)), rates)
    print(f"{loss}, recorded in {1e3 * (time.perf_counter() - start):.0f} ms")

    start = time.perf_counter()
    fit = minimize(loss.value_and_grad, numpy.array(START), jac=True, method="SLSQP", bounds=BOUNDS)
    took = time.perf_counter() - start
    print(f"gradients of the Program: {fit.nfev} calls, {1e3 * took:.1f} ms, {numpy.round(fit.x, 4)}")

    def loss_of_floats(p):
        return squares(populations(p.tolist(), 10.0, 5.0, steps))

    start = time.perf_counter()
    plain = minimize(loss_of_floats, numpy.array(START), method="SLSQP", bounds=BOUNDS)
    took = time.perf_counter() - start
    print(f"finite differences of plain Python: {plain.nfev} calls, {1e3 * took:.1f} ms, {numpy.round(plain.x, 4)}")
    return fit.x


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
