"""Training steps without a graph, their gradients written by hand: in C for the main job, in numpy for any size."""

from __future__ import annotations

import ctypes
import subprocess
import sysconfig
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import measure

from microgpt import _vectors

# Those of the engine's own loops (setup.py), and of the variant in which these run on this processor.
FLAGS = ("-O3", "-ffp-contract=off", "-fno-builtin-pow", "-fno-math-errno", "-fPIC", "-shared")
VARIANTS = {"baseline": (), "avx2": ("-mavx2", "-mfma")}


class InC:
    """The main job, `measure.start()`, in C: by_hand.c."""

    def __init__(self, start: measure.Start) -> None:
        with tempfile.TemporaryDirectory() as folder:
            library = Path(folder, "by_hand.so")
            compiler = sysconfig.get_config_var("CC").split()[0]
            flags = (*FLAGS, *VARIANTS[_vectors.chosen_variant()], f"-DVOCAB={start.vocab_size}")
            subprocess.run([compiler, *flags, str(Path(__file__).with_suffix(".c")), "-o", str(library), "-lm"], check=True)
            self.train = ctypes.CDLL(str(library)).train
        starts = [0]
        for document in start.documents:
            starts.append(starts[-1] + len(document))
        tokens = [token for document in start.documents for token in document]
        self.documents = (ctypes.c_int * len(tokens))(*tokens), (ctypes.c_int * len(starts))(*starts)
        self._losses = (ctypes.c_double * measure.STEPS)()

    def begin(self, weights: Sequence[float]) -> None:
        """Begin a run with these weights."""
        numbers = ctypes.c_double * len(weights)
        self.arrays = numbers(*weights), numbers(), numbers()

    @property
    def losses(self) -> list[float]:
        """The loss of each step."""
        return list(self._losses)

    def run(self, first: int, end: int) -> None:
        """Make some of the steps of the run, counted from 0."""
        self.train(*self.arrays, *self.documents, first, end, measure.STEPS, self._losses)


class InNumpy:
    """A GPT and Adam on one flat array of doubles; sums go as BLAS adds them."""

    def __init__(self, state_dict: dict[str, Any], n_layer: int, n_head: int, learning_rate: float) -> None:
        import numpy as np  # here: its threads are counted when it is imported

        self.np, self.n_layer, self.n_head, self.learning_rate = np, n_layer, n_head, learning_rate
        rows = [np.array(matrix.data) for matrix in state_dict.values()]
        self.weights = np.concatenate([matrix.ravel() for matrix in rows])
        self.grad, self.m, self.v = (np.zeros_like(self.weights) for _ in range(3))
        self.w, self.d, self.steps, end = {}, {}, 0, 0
        for name, matrix in zip(state_dict, rows, strict=True):
            begin, end = end, end + matrix.size
            self.w[name] = self.weights[begin:end].reshape(matrix.shape)
            self.d[name] = self.grad[begin:end].reshape(matrix.shape)

    def step(self, tokens: Sequence[int]) -> float:
        """Train on one document and return its loss."""
        loss = self.gradients(tokens)
        np, beta1, beta2 = self.np, 0.85, 0.99
        self.steps += 1
        self.m *= beta1
        self.m += (1 - beta1) * self.grad
        self.v *= beta2
        self.v += (1 - beta2) * self.grad * self.grad
        root = np.sqrt(self.v / (1 - beta2**self.steps))
        self.weights -= self.learning_rate / (1 - beta1**self.steps) * self.m / (root + 1e-8)
        return loss

    def norm(self, x: Any) -> tuple[Any, Any]:
        scale = ((x * x).mean(1, keepdims=True) + 1e-5) ** -0.5
        return x * scale, scale

    def norm_back(self, x: Any, scale: Any, dy: Any) -> Any:
        return dy * scale - x * (scale**3 * (dy * x).mean(1, keepdims=True))

    def softmax(self, x: Any) -> Any:
        e = self.np.exp(x - x.max(-1, keepdims=True))
        e /= e.sum(-1, keepdims=True)
        return e

    def heads(self, x: Any) -> Any:
        return x.reshape(len(x), self.n_head, -1).transpose(1, 0, 2)

    def product_back(self, name: str, x: Any, dy: Any) -> Any:
        self.np.matmul(dy.T, x, out=self.d[name])
        return dy @ self.w[name]

    def gradients(self, tokens: Sequence[int]) -> float:
        """Set the gradients of a document's loss, which is returned."""
        np, w, n = self.np, self.w, len(tokens) - 1
        inputs, targets, positions = np.array(tokens[:-1]), np.array(tokens[1:]), np.arange(n)
        later = np.triu(np.full((n, n), -np.inf), 1)
        embedded = w["wte"][inputs] + w["wpe"][:n]
        x, first_scale = self.norm(embedded)
        root = (x.shape[1] // self.n_head) ** 0.5
        kept = []
        for i in range(self.n_layer):
            layer = f"layer{i}."
            h, scale = self.norm(x)
            q, k, v = (self.heads(h @ w[f"{layer}attn_w{name}"].T) for name in "qkv")
            shares = self.softmax(q @ k.transpose(0, 2, 1) / root + later)
            out = (shares @ v).transpose(1, 0, 2).reshape(x.shape)
            middle = out @ w[f"{layer}attn_wo"].T + x
            h2, scale2 = self.norm(middle)
            wide = np.maximum(h2 @ w[f"{layer}mlp_fc1"].T, 0)
            kept.append((layer, x, scale, h, q, k, v, shares, out, middle, scale2, h2, wide))
            x = wide @ w[f"{layer}mlp_fc2"].T + middle
        probabilities = self.softmax(x @ w["lm_head"].T)
        loss = -np.log(probabilities[positions, targets]).mean()
        probabilities[positions, targets] -= 1
        dx = self.product_back("lm_head", x, probabilities / n)
        for layer, x, scale, h, q, k, v, shares, out, middle, scale2, h2, wide in reversed(kept):
            dwide = self.product_back(f"{layer}mlp_fc2", wide, dx)
            dh2 = self.product_back(f"{layer}mlp_fc1", h2, dwide * (wide > 0))
            dx = dx + self.norm_back(middle, scale2, dh2)
            dout = self.heads(self.product_back(f"{layer}attn_wo", out, dx))
            dshares = dout @ v.transpose(0, 2, 1)
            dscores = shares * (dshares - (dshares * shares).sum(-1, keepdims=True)) / root
            parts = {"q": dscores @ k, "k": dscores.transpose(0, 2, 1) @ q, "v": shares.transpose(0, 2, 1) @ dout}
            flat = {name: part.transpose(1, 0, 2).reshape(x.shape) for name, part in parts.items()}
            dh = sum(self.product_back(f"{layer}attn_w{name}", h, part) for name, part in flat.items())
            dx = dx + self.norm_back(x, scale, dh)
        dx = self.norm_back(embedded, first_scale, dx)
        self.d["wte"][:], self.d["wpe"][:] = 0, 0
        np.add.at(self.d["wte"], inputs, dx)
        self.d["wpe"][:n] = dx
        return float(loss)
