"""The chart of the results: steps on a logarithmic scale, and the cost of a multiply-add by size."""

from __future__ import annotations

import io
from typing import Any

import matplotlib as mpl  # type: ignore[import-not-found,unused-ignore]
import measure

mpl.use("Agg")  # files only, no window
import matplotlib.pyplot as plt  # type: ignore[import-not-found,unused-ignore]

WITHIN = "#2a6f97"  # ours
BESIDE = "#b0b7bd"  # others


def draw(results: dict[str, Any]) -> bytes:
    """Draw what the results hold. Return the PNG."""
    charts = [draw_sizes] if "scaling" in results else []
    charts = [draw_bars, *charts] if steps_of(results) else charts
    charts += [draw_peers] if "peers" in results else []
    if not charts:
        raise ValueError("--plot draws the sections training, script, scaling and peers: none of them was measured")
    figure, axes = plt.subplots(1, len(charts), figsize=(6.5 * len(charts), 4), squeeze=False, layout="constrained")
    for chart, axis in zip(charts, axes[0], strict=True):
        chart(axis, results)
        axis.spines[["top", "right"]].set_visible(False)
    png = io.BytesIO()
    figure.savefig(png, dpi=150, format="png")
    plt.close(figure)
    return png.getvalue()


def steps_of(results: dict[str, Any]) -> dict[str, measure.Spread]:
    """Return the milliseconds of a training step by who makes it."""
    steps: dict[str, measure.Spread] = {}
    if "training" in results:
        names = ("engine", "twin, collector off", "twin", "twin, as microgpt.py")
        steps |= {name: results["training"][name]["total"] for name in names}
    if "script" in results:
        row = results["script"]["collector on"]["whole step"]["engine"]
        steps["script, engine's Value"] = {"median": row, "low": row, "high": row}
    if isinstance(results.get("processes", {}).get("pypy"), dict):
        steps["twin on PyPy"] = results["processes"]["pypy"]["total"]
    return steps


def draw_bars(axis: Any, results: dict[str, Any]) -> None:
    bars(axis, steps_of(results), "{:,.3g} ms")
    axis.set_xlabel("CPU ms per training step")


def draw_peers(axis: Any, results: dict[str, Any]) -> None:
    bars(axis, {name: parts["total"] for name, parts in results["peers"]["peers"].items()}, "{:,.0f} ns")
    axis.set_xlabel("CPU ns per scalar operation, forward and backward")


def bars(axis: Any, rows: dict[str, measure.Spread], form: str) -> None:
    """Draw one bar per row, the quickest on top, the middle half as a whisker."""
    ordered = sorted(rows.items(), key=lambda row: row[1]["median"], reverse=True)
    names = [name for name, _ in ordered]
    medians = [values["median"] for _, values in ordered]
    errors = [[v["median"] - v["low"] for _, v in ordered], [v["high"] - v["median"] for _, v in ordered]]
    colours = [WITHIN if "engine" in name else BESIDE for name in names]
    drawn = axis.barh(names, medians, xerr=errors, color=colours, ecolor="#555555", height=0.7)
    axis.bar_label(drawn, labels=[form.format(median) for median in medians], padding=6)
    axis.set_xscale("log")
    axis.set_xlim(min(medians) / 2, max(medians) * 6)


def draw_sizes(axis: Any, results: dict[str, Any]) -> None:
    """Draw the cost of a multiply-add by the number of parameters."""
    sizes = results["scaling"]["sizes"]
    series = {
        "1 layer, n_embd 16 to 256": [row for row in sizes if row["n_layer"] == 1],
        "n_embd 16, 1 to 4 layers": [row for row in sizes if row["n_embd"] == 16],
        "n_embd 64, 1 to 4 layers": [row for row in sizes if row["n_embd"] == 64],
    }
    for label, rows in series.items():
        costs = [row["ns_per_multiply_add"]["median"] for row in rows]
        axis.plot([row["parameters"] for row in rows], costs, marker="o", label=label)
    axis.set_xscale("log")
    axis.set_ylim(bottom=0)
    axis.set_xlabel("parameters")
    axis.set_ylabel("CPU ns of a step per forward multiply-add")
    axis.legend(frameon=False)
