"""Where the boxes of a drawing stand and how its lines run: layers from left to right, with few crossings.

Each box is one layer left of the leftmost that uses it. A line over several layers has a place in each (a dummy). The order in a
layer is that of the mean place of its neighbours, swept to and fro; then heights are as near to those of the neighbours as order
and distances allow, by isotonic regression.
Source: Sugiyama, Tagawa & Toda 1981; Gansner et al. 1993 for dummies and sweeps; Barlow et al. 1972 for pooling.
"""

from __future__ import annotations

from bisect import bisect_right, insort
from collections.abc import Sequence
from itertools import pairwise
from typing import NamedTuple

LAYER_GAP = 48.0  # between boxes of two layers, room for the curves
BOX_GAP = 14.0  # between two boxes of a layer, and half of it between lines
MARGIN = 12.0
SWEEPS = 8
MANY = 4000  # vertices, dummies included, with which one sweep must do

Point = tuple[float, float]


class Layout(NamedTuple):
    """`centers` of boxes and `routes` of lines, from the box that is used to the one that uses it; the size of the whole."""

    centers: list[Point]
    routes: list[list[Point]]
    width: float
    height: float


def layout(sizes: Sequence[tuple[float, float]], edges: Sequence[tuple[int, int]]) -> Layout:
    """Place boxes of these widths and heights. `edges`: (user, used), users come before what they use."""
    n = len(sizes)
    rank = [0] * n
    for user, used in sorted(edges):
        rank[used] = max(rank[used], rank[user] + 1)
    heights = [height for _, height in sizes]
    chains: list[list[int]] = []  # of each edge its vertices, dummies included
    neighbours: list[tuple[list[int], list[int]]] = [([], []) for _ in range(n)]  # in the layer before, in the one after
    for user, used in edges:
        chain = [user]
        for between in range(rank[user] + 1, rank[used]):
            rank.append(between)
            heights.append(0.0)
            neighbours.append(([], []))
            chain.append(len(rank) - 1)
        chain.append(used)
        for before, after in pairwise(chain):
            neighbours[before][1].append(after)
            neighbours[after][0].append(before)
        chains.append(chain)
    layers = ordered_layers(rank, neighbours)
    y = settle(layers, heights, neighbours)
    low = min(y[v] - heights[v] / 2 for v in range(n))
    widths = [max([sizes[v][0] for v in layer if v < n], default=0.0) for layer in layers]
    right = [0.0] * len(layers)  # right end of each layer, the first one rightmost
    for k in range(len(layers) - 2, -1, -1):
        right[k] = right[k + 1] + LAYER_GAP + widths[k]
    shift = MARGIN + widths[-1]
    centers = [(right[rank[v]] + shift - sizes[v][0] / 2, y[v] - low + MARGIN) for v in range(n)]
    routes = []
    for chain in chains:
        points = [(right[rank[v]] + shift - widths[rank[v]] / 2, y[v] - low + MARGIN) for v in chain]
        points[0], points[-1] = centers[chain[0]], centers[chain[-1]]
        routes.append(points[::-1])
    bottom = max(y[v] + heights[v] / 2 for v in range(len(y))) - low
    return Layout(centers, routes, right[0] + shift + MARGIN, bottom + 2 * MARGIN)


def ordered_layers(rank: Sequence[int], neighbours: Sequence[tuple[list[int], list[int]]]) -> list[list[int]]:
    """Return the vertices of each layer, from top to bottom."""
    layers: list[list[int]] = [[] for _ in range(max(rank) + 1)]
    seen = [False] * len(rank)
    waiting = [v for v in range(len(rank) - 1, -1, -1) if rank[v] == 0]
    while waiting:  # depth first: of a tree this has no crossings
        v = waiting.pop()
        if not seen[v]:
            seen[v] = True
            layers[rank[v]].append(v)
            waiting.extend(reversed(neighbours[v][1]))
    best, fewest = layers, crossings(layers, neighbours)
    for _ in range(SWEEPS if len(rank) < MANY else 1):
        if fewest == 0:
            break
        layers = [layer[:] for layer in layers]
        for side, sweep in ((0, layers[1:]), (1, layers[-2::-1])):
            place = [0.0] * len(rank)
            for layer in layers:
                for i, v in enumerate(layer):
                    place[v] = i
            for layer in sweep:
                middle = {v: mean([place[u] for u in neighbours[v][side]], place[v]) for v in layer}
                layer.sort(key=middle.__getitem__)
                for i, v in enumerate(layer):
                    place[v] = i
        count = crossings(layers, neighbours)
        if count < fewest:
            best, fewest = layers, count
    return best


def mean(numbers: Sequence[float], otherwise: float) -> float:
    """Return the mean, or `otherwise` of none."""
    return sum(numbers) / len(numbers) if numbers else otherwise


def crossings(layers: Sequence[Sequence[int]], neighbours: Sequence[tuple[list[int], list[int]]]) -> int:
    """Count how many pairs of lines cross."""
    count = 0
    for upper, lower in pairwise(layers):
        place = {v: i for i, v in enumerate(lower)}
        ends: list[int] = []
        for v in upper:
            mine = sorted(place[u] for u in neighbours[v][1])
            count += sum(len(ends) - bisect_right(ends, end) for end in mine)
            for end in mine:
                insort(ends, end)
    return count


def settle(
    layers: Sequence[Sequence[int]], heights: Sequence[float], neighbours: Sequence[tuple[list[int], list[int]]]
) -> list[float]:
    """Return the height at which each vertex stands."""
    y = [0.0] * len(heights)
    for layer in layers:
        at = 0.0
        for v in layer:
            y[v] = at
            at += heights[v] + BOX_GAP
    for sides, sweep in (((0,), layers), ((1,), layers[::-1]), ((0,), layers), ((1,), layers[::-1]), ((0, 1), layers)):
        for layer in sweep:
            wanted = [mean([y[u] for side in sides for u in neighbours[v][side]], y[v]) for v in layer]
            offsets = [0.0]
            for before, v in pairwise(layer):
                gap = BOX_GAP if heights[before] or heights[v] else BOX_GAP / 2
                offsets.append(offsets[-1] + (heights[before] + heights[v]) / 2 + gap)
            rising = isotonic([want - offset for want, offset in zip(wanted, offsets, strict=True)])
            for v, at, offset in zip(layer, rising, offsets, strict=True):
                y[v] = at + offset
    return y


def isotonic(wanted: Sequence[float]) -> list[float]:
    """Return the numbers that never fall and are nearest to `wanted`, by least squares."""
    pools: list[tuple[float, int]] = []  # mean and number of those that are equal
    for want in wanted:
        value, count = want, 1
        while pools and pools[-1][0] > value:
            before, many = pools.pop()
            value = (value * count + before * many) / (count + many)
            count += many
        pools.append((value, count))
    return [value for value, count in pools for _ in range(count)]
