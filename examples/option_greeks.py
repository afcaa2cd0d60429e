"""The price of a call and its five sensitivities, by Monte Carlo: one path is a Program, the paths are rows.

    python examples/option_greeks.py [paths]

The sensitivities to spot, strike, rate, volatility and time are the gradient; the sixth input is the path's normal number.
"""

import math
import sys
import time

import numpy

from microgpt import Vector, exp, record, relu, sqrt

MARKET = [100.0, 105.0, 0.03, 0.2, 1.0]
NAMES = ["price", "delta", "by strike", "rho", "vega", "by time"]


def path(spot, strike, rate, volatility, years, z):
    end = spot * exp((rate - volatility**2 / 2) * years + volatility * sqrt(years) * z)
    return relu(end - strike) * exp(-(rate * years))


def black_scholes(spot, strike, rate, volatility, years):
    """The exact price and sensitivities."""
    d = (math.log(spot / strike) + (rate + volatility**2 / 2) * years) / (volatility * math.sqrt(years))
    e = d - volatility * math.sqrt(years)
    above, paid = (0.5 * math.erfc(-x / math.sqrt(2)) for x in (d, e))
    density = math.exp(-d * d / 2) / math.sqrt(2 * math.pi)
    discounted = strike * math.exp(-rate * years)
    by_time = spot * density * volatility / (2 * math.sqrt(years)) + rate * discounted * paid
    return [
        spot * above - discounted * paid,
        above,
        -discounted / strike * paid,
        years * discounted * paid,
        spot * density * math.sqrt(years),
        by_time,
    ]


def with_numpy(market, z):
    spot, strike, rate, volatility, years = market
    end = spot * numpy.exp((rate - volatility**2 / 2) * years + volatility * math.sqrt(years) * z)
    return float(numpy.mean(numpy.maximum(end - strike, 0.0)) * math.exp(-rate * years))


def differences(z):
    """Price and sensitivities by central differences, the same paths for each: eleven runs."""
    found = [with_numpy(MARKET, z)]
    for i, x in enumerate(MARKET):
        up, down = MARKET.copy(), MARKET.copy()
        up[i], down[i] = x * 1.0001, x * 0.9999
        found.append((with_numpy(up, z) - with_numpy(down, z)) / (up[i] - down[i]))
    return found


def main(paths=1_000_000):
    z = numpy.random.default_rng(1).standard_normal(paths)
    rows = numpy.column_stack([numpy.tile(MARKET, (paths, 1)), z])

    inputs = Vector([*MARKET, 0.5])
    program = record(path(*inputs), inputs)
    start = time.perf_counter()
    value, gradient = program.run_many(rows, reduce="sum")
    took = time.perf_counter() - start
    ours = [float(x) / paths for x in (value, *gradient[:5])]

    start = time.perf_counter()
    theirs = differences(z)
    took_theirs = time.perf_counter() - start

    print(f"{paths:,} paths        Program {took:.2f} s   numpy, differences {took_theirs:.2f} s         exact")
    for name, x, y, exact in zip(NAMES, ours, theirs, black_scholes(*MARKET)):
        print(f"{name:12} {x:21.6f} {y:25.6f} {exact:23.6f}")
    return ours


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
