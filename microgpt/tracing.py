"""The forward pass of a GPT with a name for everything that it computes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from microgpt._functions import attention, cross_entropy, relu, rmsnorm
from microgpt._matrix import Rows
from microgpt._value import Value
from microgpt._vector import Vector
from microgpt.graphs import Named
from microgpt.model import GPT


class Trace(NamedTuple):
    """A loss and what was computed on the way, by name, in the order of the data: parameters, then tensors, then `loss`.

    Of layer i the tensors are layer{i}.q, .k, .v, .attn (head, query, key), .heads, .attn_out, .mid, .mlp_in, .relu, .mlp_out
    and .x; what makes them up has longer names, such as layer0.attn.exp and layer0.attn_norm.scale.
    """

    loss: Value
    names: dict[str, Named]


def trace(model: GPT, tokens: Sequence[int]) -> Trace:
    """Return the loss of `tokens` and the names of what it is computed from. Its graph is that of `model.loss(tokens)`."""
    if type(model).loss is not GPT.loss or type(model).forward is not GPT.forward:
        raise TypeError(f"{type(model).__name__} has a forward pass of its own, trace knows that of GPT")
    n = min(model.config.block_size, len(tokens) - 1)
    if n < 1:
        raise ValueError(f"a loss needs at least two tokens, got {len(tokens)}")
    names: dict[str, Named] = dict(model.named_parameters())
    n_head = model.config.n_head
    embedding = names["embedding"] = model.wte[list(tokens[:n])] + model.wpe[:n]
    x = name_norm(names, "x", rmsnorm(embedding))
    for i, layer in enumerate(model.layers):
        prefix = f"layer{i}"
        h = name_norm(names, f"{prefix}.attn_norm", rmsnorm(x))
        k = layer.attn_wk @ h
        v = layer.attn_wv @ h
        q = layer.attn_wq @ h
        names.update({f"{prefix}.q": q, f"{prefix}.k": k, f"{prefix}.v": v})
        heads = attention(q, [k], [v], n_head)
        name_attention(names, f"{prefix}.attn", heads, n_head)
        attn_out = layer.attn_wo @ heads
        x = attn_out + x
        names.update({f"{prefix}.heads": heads, f"{prefix}.attn_out": attn_out, f"{prefix}.mid": x})
        mlp_in = layer.mlp_fc1 @ name_norm(names, f"{prefix}.mlp_norm", rmsnorm(x))
        active = relu(mlp_in)
        mlp_out = layer.mlp_fc2 @ active
        x = mlp_out + x
        names.update({f"{prefix}.mlp_in": mlp_in, f"{prefix}.relu": active, f"{prefix}.mlp_out": mlp_out, f"{prefix}.x": x})
    logits = model.lm_head @ x
    losses = cross_entropy(logits, list(tokens[1 : n + 1]))
    total = losses.sum()
    loss = (1 / n) * total
    names["logits"] = logits
    name_losses(names, losses)
    names.update({"losses": losses, "total": total, "loss": loss})
    return Trace(loss, names)


def name_norm(names: dict[str, Named], name: str, rows: Rows) -> Rows:
    """Name the parts of an rmsnorm, from its results: x * scale, scale = (mean_square + 1e-5) ** -0.5."""
    scales = [row[0].children[1] for row in rows]
    sums = [scale.children[0] for scale in scales]
    means = [total.children[0] for total in sums]
    squares = [mean.children[0] for mean in means]
    names.update(
        {
            f"{name}.square_sum": Vector(squares),
            f"{name}.mean_square": Vector(means),
            f"{name}.mean_square_eps": Vector(sums),
            f"{name}.scale": Vector(scales),
            name: rows,
        }
    )
    return rows


def name_attention(names: dict[str, Named], name: str, heads: Rows, n_head: int) -> None:
    """Name the weights of attention and what they are computed from, by head, query and key."""
    size = heads.shape[1] // n_head
    parts: dict[str, list[list[Vector]]] = {part: [] for part in ("dot", "score", "shifted", "exp", "inverse", "")}
    sums: list[Vector] = []
    for head in range(n_head):
        for rows in parts.values():
            rows.append([])
        of_queries = []
        for query in heads:
            weights = query[head * size].children[::2]
            pairs = [weight.children for weight in weights]
            shifted = [exponential.children[0] for exponential, _ in pairs]
            scores = [value.children[0] for value in shifted]
            parts["dot"][head].append(Vector([score.children[0] for score in scores]))
            parts["score"][head].append(Vector(scores))
            parts["shifted"][head].append(Vector(shifted))
            parts["exp"][head].append(Vector([exponential for exponential, _ in pairs]))
            parts["inverse"][head].append(Vector([inverse for _, inverse in pairs]))
            parts[""][head].append(Vector(weights))
            of_queries.append(pairs[0][1].children[0])
        sums.append(Vector(of_queries))
    names[f"{name}.sum"] = sums
    for part, rows in parts.items():
        names[f"{name}.{part}" if part else name] = rows


def name_losses(names: dict[str, Named], losses: Vector) -> None:
    """Name what the cross entropies are computed from: the exponentials of each position, their sum, the target's probability."""
    logs = [loss.children[0] for loss in losses]
    probabilities = [log.children[0] for log in logs]
    inverses = [probability.children[1] for probability in probabilities]
    sums = [inverse.children[0] for inverse in inverses]
    exponentials = [Vector(total.children) for total in sums]
    names.update(
        {
            "shifted": Rows([Vector([value.children[0] for value in row]) for row in exponentials]),
            "exp": Rows(exponentials),
            "sum": Vector(sums),
            "inverse": Vector(inverses),
            "probability": Vector(probabilities),
            "log": Vector(logs),
        }
    )
