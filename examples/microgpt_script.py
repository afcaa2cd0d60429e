"""A GPT on scalars: the whole algorithm with nothing but `Value` and lists, as a script for microgpt.py would have it.

    python examples/microgpt_script.py [--reference] [--steps N]

With --reference the same lines run on the pure-Python Value and print the same numbers, slowly. Written for reading: Vector,
Matrix, GPT and Adam of the package do the same work many times faster.
"""

import argparse
import random
from operator import add, mul

import microgpt
from microgpt import data, reference

EMBD, HEADS, BLOCK = 16, 4, 16  # width, attention heads, longest context
HEAD = EMBD // HEADS


def new_weights(Value, vocab_size, rng):
    """The matrices of one layer, as rows of leaves."""

    def matrix(rows, columns):
        return [[Value(rng.gauss(0, 0.08)) for _ in range(columns)] for _ in range(rows)]

    shapes = {
        "wte": (vocab_size, EMBD),
        "wpe": (BLOCK, EMBD),
        "lm_head": (vocab_size, EMBD),
        "attn_wq": (EMBD, EMBD),
        "attn_wk": (EMBD, EMBD),
        "attn_wv": (EMBD, EMBD),
        "attn_wo": (EMBD, EMBD),
        "mlp_fc1": (4 * EMBD, EMBD),
        "mlp_fc2": (EMBD, 4 * EMBD),
    }
    return {name: matrix(*shape) for name, shape in shapes.items()}


def dot(w, x):
    return sum(map(mul, w, x))


def linear(matrix, x):
    return [sum(map(mul, row, x)) for row in matrix]


def plus(x, y):
    return list(map(add, x, y))


def rmsnorm(x):
    scale = (dot(x, x) / len(x) + 1e-5) ** -0.5
    return [a * scale for a in x]


def softmax(logits):
    top = max(z.data for z in logits)
    exps = [(z - top).exp() for z in logits]
    total = sum(exps)
    return [e / total for e in exps]


def attention(query, keys, values):
    out = []
    for start in range(0, EMBD, HEAD):
        head = slice(start, start + HEAD)
        q = query[head]
        weights = softmax([dot(q, key[head]) / HEAD**0.5 for key in keys])
        out += [dot(weights, column) for column in zip(*(value[head] for value in values))]
    return out


def gpt(weights, token, position, keys, values):
    """The logits of the next token; `keys` and `values` of the earlier ones get those of this one."""
    x = rmsnorm(plus(weights["wte"][token], weights["wpe"][position]))
    h = rmsnorm(x)
    query = linear(weights["attn_wq"], h)
    keys.append(linear(weights["attn_wk"], h))
    values.append(linear(weights["attn_wv"], h))
    x = plus(linear(weights["attn_wo"], attention(query, keys, values)), x)
    h = [a.relu() for a in linear(weights["mlp_fc1"], rmsnorm(x))]
    x = plus(linear(weights["mlp_fc2"], h), x)
    return linear(weights["lm_head"], x)


def loss_of(weights, tokens):
    """The mean cross entropy of each token, given those before it."""
    n = min(BLOCK, len(tokens) - 1)
    keys, values, losses = [], [], []
    for position in range(n):
        logits = gpt(weights, tokens[position], position, keys, values)
        losses.append(-softmax(logits)[tokens[position + 1]].log())
    return (1 / n) * sum(losses)


def adam(parameters, moments, step, learning_rate, beta1=0.85, beta2=0.99):
    """Move each parameter against its gradient; `moments` holds its running means, of the gradient and of its square."""
    for p, moment in zip(parameters, moments):
        moment[0] = beta1 * moment[0] + (1 - beta1) * p.grad
        moment[1] = beta2 * moment[1] + (1 - beta2) * p.grad**2
        mean = moment[0] / (1 - beta1 ** (step + 1))
        square = moment[1] / (1 - beta2 ** (step + 1))
        p.data -= learning_rate * mean / (square**0.5 + 1e-8)
        p.grad = 0


def sample(weights, characters, rng, temperature=0.5):
    token = bos = len(characters)
    keys, values, text = [], [], ""
    for position in range(BLOCK):
        logits = gpt(weights, token, position, keys, values)
        probabilities = [p.data for p in softmax([z / temperature for z in logits])]
        token = rng.choices(range(bos + 1), weights=probabilities)[0]
        if token == bos:
            break
        text += characters[token]
    return text


def main():
    parser = argparse.ArgumentParser(description="Train a GPT written with Value and lists alone.")
    parser.add_argument("--reference", action="store_true", help="use the pure-Python Value")
    parser.add_argument("--steps", type=int, default=100, help="default: %(default)s")
    args = parser.parse_args()
    rng = random.Random(42)
    documents = data.load_names()
    rng.shuffle(documents)
    characters = sorted(set("".join(documents)))
    bos = len(characters)
    weights = new_weights((reference if args.reference else microgpt).Value, bos + 1, rng)
    parameters = [p for matrix in weights.values() for row in matrix for p in row]
    moments = [[0.0, 0.0] for _ in parameters]
    for step in range(args.steps):
        tokens = [bos, *(characters.index(c) for c in documents[step % len(documents)]), bos]
        loss = loss_of(weights, tokens)
        loss.backward()
        adam(parameters, moments, step, 0.01 * (1 - step / args.steps))
        print(f"step {step + 1} loss {loss.data!r}")
    for _ in range(5):
        print(sample(weights, characters, rng))


if __name__ == "__main__":
    main()
