"""The curves of a training run, drawn by matplotlib."""

from __future__ import annotations

import io
import os
from collections.abc import Mapping, Sequence

from microgpt.files import write_atomically

SMOOTHED = 50  # the mean is taken over this fraction of the steps


def check_plot(path: str) -> None:
    """Raise ValueError if matplotlib is not installed or cannot write files such as `path`: it draws an empty one."""
    try:
        from matplotlib.backend_bases import FigureCanvasBase
    except ImportError as error:
        raise ValueError(f"--plot needs matplotlib ({error}): pip install matplotlib") from None
    formats = FigureCanvasBase.get_supported_filetypes()
    if file_format(path) not in formats:
        raise ValueError(f"--plot {path} must end in one of .{', .'.join(sorted(formats))}")
    try:
        draw(path, [], {})
    except Exception as error:  # some formats call other programs, each with errors of its own
        raise ValueError(f"matplotlib cannot draw {path}: {error}") from error


def plot(path: str, losses: Sequence[float], validations: Mapping[int, float]) -> None:
    """Write a picture of the losses by step, their running mean, and the validation losses. The extension gives the format.

    Errors: OSError if the file cannot be written, which is then as before.
    """
    write_atomically(path, draw(path, losses, validations))


def draw(path: str, losses: Sequence[float], validations: Mapping[int, float]) -> bytes:
    """Return the content of the file `path`."""
    from matplotlib.figure import Figure  # here: only a run with a plot pays for the import, and needs it

    figure = Figure(figsize=(8, 4.5), layout="constrained")
    axes = figure.add_subplot(xlabel="step", ylabel="loss (nats)")
    window = max(1, len(losses) // SMOOTHED)
    axes.plot(range(1, len(losses) + 1), losses, color="0.8", linewidth=0.5, label="loss")
    if window > 1:
        axes.plot(range(window, len(losses) + 1), running_mean(losses, window), label=f"mean of {window} steps")
    if validations:
        axes.plot(list(validations), list(validations.values()), marker=".", label="validation")
    axes.legend(framealpha=1)  # PostScript has no transparency
    content = io.BytesIO()
    figure.savefig(content, format=file_format(path), dpi=150)
    return content.getvalue()


def running_mean(losses: Sequence[float], window: int) -> list[float]:
    """Return the mean of each `window` losses that follow each other."""
    means = []
    total = 0.0
    for i, loss in enumerate(losses):
        total += loss
        if i >= window:
            total -= losses[i - window]
        if i + 1 >= window:
            means.append(total / window)
    return means


def file_format(path: str) -> str:
    """Return the extension, without its dot, in small letters."""
    return os.path.splitext(path)[1][1:].lower()
