"""Train on an ordinary text, beside PyTorch where it is installed: time a step, and time to a validation loss.

    python benchmarks/validation.py [--steps N] [--sizes LAYERSxWIDTHxBLOCKxBATCH ...] [--json FILE]

Both begin with the same weights and go through the same windows with the same rates, one thread each, in turns; PyTorch with
32-bit floats, as people use it. CPU time. The loss to reach is the higher one of the last validations, so that both come to it.
"""

from __future__ import annotations

import argparse
import json
import random
import sys
from collections.abc import Iterator, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any, NamedTuple

import measure
from measure import clock, spread
from ordinary import ordinary_text

from microgpt.cli import Parser, run, say, whole_number
from microgpt.files import write_atomically
from microgpt.settings import Settings
from microgpt.text import Text
from microgpt.trainer import Trainer, mean

SIZES = ("1x16x16x1", "1x16x16x8", "2x32x32x4", "4x64x64x4", "4x128x64x4")
VALIDATIONS = 10  # in a run


class Ours:
    """A run of this package."""

    def __init__(self, trainer: Trainer) -> None:
        self.trainer = trainer

    def step(self) -> None:
        """Train on the next batch."""
        self.trainer.train_step()

    def validation(self) -> float:
        """Return the loss of what is held out."""
        return self.trainer.validation_loss()


class Torch:
    """The same run in PyTorch: as many of the operations of a batch at once as it can."""

    def __init__(self, trainer: Trainer) -> None:
        import torch

        torch.set_num_threads(1)
        self.torch, self.config = torch, trainer.model.config
        self.weights = {
            name: torch.tensor(matrix.data, requires_grad=True) for name, matrix in trainer.model.state_dict().items()
        }
        self.optimizer = torch.optim.Adam(list(self.weights.values()), betas=(0.85, 0.99), eps=1e-8)
        self.trainer, self.made = trainer, 0
        self.rng = random.Random()
        self.rng.setstate(trainer.rng.getstate())

    def loss(self, batch: Sequence[Sequence[int]]) -> Any:
        """Return the mean loss of windows of one length."""
        functional, w = self.torch.nn.functional, self.weights
        tokens = self.torch.tensor(batch)
        count, length = tokens.shape[0], tokens.shape[1] - 1

        def norm(x: Any) -> Any:
            return x * (x.pow(2).mean(-1, keepdim=True) + 1e-5).rsqrt()

        def heads(x: Any) -> Any:
            return x.view(count, length, self.config.n_head, -1).transpose(1, 2)

        x = norm(w["wte"][tokens[:, :-1]] + w["wpe"][:length])
        for i in range(self.config.n_layer):
            h = norm(x)
            query, key, value = (heads(h @ w[f"layer{i}.attn_w{name}"].T) for name in "qkv")
            mixed = functional.scaled_dot_product_attention(query, key, value, is_causal=True)
            x = x + mixed.transpose(1, 2).reshape(count, length, -1) @ w[f"layer{i}.attn_wo"].T
            x = x + (norm(x) @ w[f"layer{i}.mlp_fc1"].T).relu() @ w[f"layer{i}.mlp_fc2"].T
        logits = x @ w["lm_head"].T
        return functional.cross_entropy(logits.flatten(0, 1), tokens[:, 1:].flatten())

    def step(self) -> None:
        """Train on the next batch."""
        loss = self.loss(self.trainer.batches.batch(self.made, self.rng))
        self.optimizer.zero_grad()
        loss.backward()
        self.optimizer.param_groups[0]["lr"] = self.trainer.rate_at(self.made)
        self.optimizer.step()
        self.made += 1

    def validation(self) -> float:
        """Return the loss of what is held out."""
        with self.torch.no_grad():
            return mean([self.loss([tokens]).item() for tokens in self.trainer.batches.held_out()])


class Progress(NamedTuple):
    """What a run has taken so far, at each validation."""

    seconds: list[float]
    losses: list[float]

    def until(self, loss: float) -> float:
        """Return the seconds until a loss was reached."""
        return next(seconds for seconds, reached in zip(self.seconds, self.losses, strict=True) if reached <= loss)


def compare(text: str, size: str, steps: int) -> dict[str, Any]:
    """Train on a text, this package and PyTorch in turns, and return what each took."""
    n_layer, n_embd, block_size, batch_size = map(int, size.split("x"))
    sizes: dict[str, Any] = {"n_layer": n_layer, "n_embd": n_embd, "block_size": block_size, "batch_size": batch_size}
    rates: dict[str, Any] = {"learning_rate": 0.003, "schedule": "cosine", "warmup": min(100, steps)}
    settings = Settings(**sizes, **rates, format="text", steps=steps, validation=0.1, validation_every=2**31 - 1)
    trainer = Trainer(settings, Text([text]))
    runs: dict[str, Any] = {"microgpt": Ours(trainer)}
    if find_spec("torch") is not None:
        runs["PyTorch"] = Torch(trainer)
    times: dict[str, list[float]] = {name: [] for name in runs}
    progress = {name: Progress([], []) for name in runs}
    controls = []
    for step in range(1, steps + 1):
        for name, one in runs.items():
            start = clock()
            one.step()
            times[name].append((clock() - start) / 1e6)
        if step % max(1, steps // VALIDATIONS) == 0 or step == steps:
            controls.append(measure.control())
            for name, one in runs.items():
                progress[name].seconds.append(sum(times[name]) / 1e3)
                progress[name].losses.append(one.validation())
    target = max(done.losses[-1] for done in progress.values())
    results: dict[str, Any] = {"control": spread(controls), "parameters": trainer.model.n_parameters, "loss": target}
    for name in runs:
        results[name] = {"step": spread(times[name]), "last": progress[name].losses[-1], "seconds": progress[name].until(target)}
    return results


def report(results: dict[str, Any]) -> Iterator[str]:
    """Return the lines about one size."""
    for name in ("microgpt", "PyTorch"):
        if name in results:
            yield measure.line(f"{name}, a step", results[name]["step"], " ms")
            reached = f"{results['loss']:.4f} after {results[name]['seconds']:.1f} s of CPU"
            yield f"      validation {results[name]['last']:.4f}; {reached}"
    if "PyTorch" in results:
        ratio = results["microgpt"]["step"]["median"] / results["PyTorch"]["step"]["median"]
        yield f"      microgpt takes {ratio:.2f} times as long a step as PyTorch"


def size_of(text: str) -> str:
    """Return the argument, four numbers. ValueError if it is none."""
    if len(text.split("x")) != 4 or not all(number.isdecimal() for number in text.split("x")):
        raise argparse.ArgumentTypeError(f"needs LAYERSxWIDTHxBLOCKxBATCH, got {text!r}")
    return text


def build_parser() -> Parser:
    """Return the parser of the command line."""
    parser = Parser(description="Train on an ordinary text, beside PyTorch where it is installed.")
    parser.add_argument("--steps", type=whole_number(2), default=500, metavar="N", help="of each run (default: %(default)s)")
    parser.add_argument("--sizes", nargs="+", type=size_of, default=SIZES, metavar="SIZE", help=f"default: {' '.join(SIZES)}")
    parser.add_argument("--characters", type=whole_number(1000), default=1_000_000, metavar="N", help="of the text")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write all results to FILE")
    return parser


def benchmark(args: argparse.Namespace) -> None:
    """Do what `args` ask for, printing as it goes."""
    results: dict[str, Any] = {"machine": measure.machine()}
    machine = results["machine"]
    say(f"microgpt {machine['microgpt']}, {machine['python']}, {machine['platform']}")
    say(f"{machine['cpu']}, {machine['cores']} cores; {machine['compiler']}")
    text = ordinary_text(args.characters)
    for size in args.sizes:
        results[size] = compare(text, size, args.steps)
        say(f"\n{size}, {results[size]['parameters']:,} parameters, {args.steps} steps")
        say(measure.line("control loop, plain Python", results[size]["control"], " ms"))
        say("\n".join(report(results[size])), flush=True)
    if args.json is not None:
        write_atomically(args.json, (json.dumps(results, indent=1) + "\n").encode())


if __name__ == "__main__":
    sys.exit(run(build_parser, benchmark, None))
