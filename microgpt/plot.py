"""The curves of a training run, drawn by matplotlib."""

from __future__ import annotations

import io
import os
from collections.abc import Mapping, Sequence
from itertools import accumulate
from typing import TYPE_CHECKING, Any, NamedTuple
from warnings import catch_warnings, simplefilter

from microgpt.cli import printable
from microgpt.files import write_atomically
from microgpt.trainer import Trainer

if TYPE_CHECKING:
    from matplotlib.figure import Figure

POINTS = 250  # of a curve, at most
PART = 25  # the mean at a step is taken over this fraction of all steps around it,
FEWEST = 40  # but over so many steps, or a third of all if that is less
RATIO = 1.4  # on a logarithmic axis it is taken over the steps between step / RATIO and step * RATIO
SHOWN = 50  # characters of the name of a text
MARK = b"losses of a microgpt run"  # in the files, so that nothing else is replaced
MARKED = {"png": "Software", "svg": "Creator", "pdf": "Creator", "ps": "Creator", "eps": "Creator"}  # where formats keep it


class Curve(NamedTuple):
    """The losses of single steps, summed up around some steps: their mean, and the ends of their middle half."""

    steps: list[int]
    mean: list[float]
    low: list[float]
    high: list[float]


def check_plot(path: str) -> None:
    """Raise ValueError if matplotlib is not installed or cannot write files such as `path`, or if that file is none of ours."""
    try:
        from matplotlib.backend_bases import FigureCanvasBase
    except ImportError as error:
        raise ValueError(f"--plot needs matplotlib ({error}): pip install matplotlib") from None
    formats = FigureCanvasBase.get_supported_filetypes()
    if file_format(path) not in formats:
        raise ValueError(f"--plot {path} must end in one of .{', .'.join(sorted(formats))}")
    try:
        draw(path, [], {}, "")
    except Exception as error:  # some formats call other programs, each with errors of its own
        raise ValueError(f"matplotlib cannot draw {path}: {error}") from error
    if os.path.exists(path):
        with open(path, "rb") as file:
            content = file.read()
        if content and MARK not in content:
            what = "that is no plot of a run" if file_format(path) in MARKED else "which may be any picture"
            raise ValueError(f"--plot {path} would replace a file {what}: choose another file, or remove it first")


def plot(path: str, trainer: Trainer, name: str, *, log_x: bool = False) -> None:
    """Write a picture of a run: the mean of the losses around each step, the middle half of them, the validation losses.

    `name`: of its text. The extension gives the format. Errors: OSError if the file cannot be written, which is then as before.
    """
    config, batch = trainer.model.config, trainer.settings.batch_size
    layers = "layer" if config.n_layer == 1 else "layers"
    sizes = f"{config.n_layer} {layers} of width {config.n_embd}, block {config.block_size}, batch {batch}"
    unit = "characters" if trainer.settings.format == "text" else "documents"
    name = printable(name if len(name) <= SHOWN else "..." + name[3 - SHOWN :])
    title = f"{name}, {len(trainer.text):,} {unit}\n{sizes}: {trainer.model.n_parameters:,} parameters"
    write_atomically(path, draw(path, trainer.losses, trainer.validations, title, log_x=log_x))


def draw(path: str, losses: Sequence[float], validations: Mapping[int, float], title: str, *, log_x: bool = False) -> bytes:
    """Return the content of the file `path`."""
    content = io.BytesIO()
    with catch_warnings():
        simplefilter("ignore")  # of characters of a name that the font does not have
        picture = figure(losses, validations, title, log_x=log_x)
        picture.savefig(content, format=file_format(path), dpi=150, metadata=marked(path))
    return content.getvalue()


def figure(losses: Sequence[float], validations: Mapping[int, float], title: str, *, log_x: bool) -> Figure:
    """Return the picture."""
    from matplotlib.figure import Figure  # here: only a run with a plot pays for the import, and needs it

    made = Figure(figsize=(8, 4.8), layout="constrained")
    axes = made.add_subplot(xlabel="step", ylabel="loss (nats)")
    axes.set_title(title, fontsize="medium", parse_math=False)
    curve = summed_up(losses, log_x=log_x)
    axes.fill_between(curve.steps, curve.low, curve.high, color="#cfe0f0", linewidth=0, label="middle half of the steps")
    axes.plot(curve.steps, curve.mean, color="C0", label="mean loss")
    if validations:
        axes.plot(list(validations), list(validations.values()), color="C1", marker=".", markersize=5, label="validation")
        best = min(validations, key=lambda step: validations[step])
        label = f"best validation: {validations[best]:.4f} in step {best:,}"
        star: dict[str, Any] = {
            "color": "C3",
            "marker": "*",
            "markersize": 11,
            "linestyle": "none",
            "clip_on": False,
            "zorder": 3,
        }
        axes.plot([best], [validations[best]], label=label, **star)
    if log_x:
        axes.set_xscale("log")
    else:
        axes.set_xlim(0, max(1, len(losses)))
    if shown := [*curve.mean, *validations.values()]:
        margin = 0.08 * (max(shown) - min(shown)) or 0.1
        # Half of the band beside the curves tells how noisy they are; its peaks would squeeze them.
        low = min(min(shown), sorted(curve.low)[len(curve.low) // 10])
        axes.set_ylim(low - margin, max(shown) + margin)
    axes.grid(color="0.9")
    axes.set_axisbelow(True)
    # Below the axes, where it hides nothing.
    made.legend(loc="outside lower center", ncols=4, frameon=False, fontsize="small", columnspacing=1.5)
    return made


def marked(path: str) -> dict[str, Any] | None:
    """Return the metadata by which the file is known as ours, None for a format that keeps none."""
    key = MARKED.get(file_format(path))
    return None if key is None else {key: MARK.decode()}


def summed_up(losses: Sequence[float], *, log_x: bool) -> Curve:
    """Return the curve of the losses."""
    n = len(losses)
    sums = list(accumulate(losses, initial=0.0))
    curve = Curve([], [], [], [])
    points = min(n, POINTS)
    half = max(n / PART, min(FEWEST, n / 3)) / 2
    for i in range(points):
        share = i / max(1, points - 1)
        step = round(n**share if log_x else 1 + share * (n - 1))
        if curve.steps and step == curve.steps[-1]:
            continue
        low, high = (step / RATIO, step * RATIO) if log_x else (step - half, step + half)
        begin, end = max(1, round(low)) - 1, min(n, round(high))
        ranked = sorted(losses[begin:end])
        quarter = (end - begin) // 4
        curve.steps.append(step)
        curve.mean.append((sums[end] - sums[begin]) / (end - begin))
        curve.low.append(ranked[quarter])
        curve.high.append(ranked[-1 - quarter])
    return curve


def file_format(path: str) -> str:
    """Return the extension, without its dot, in small letters."""
    return os.path.splitext(path)[1][1:].lower()
