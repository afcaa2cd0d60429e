"""Train the pure-Python twin on any Python: token lists come in as JSON, CPU times and losses go out as JSON.

    pypy3 benchmarks/twin.py < documents.json

Input: `{"vocab_size": ..., "state": ..., "steps": ..., "documents": [[...], ...]}`, the state as `random.getstate` gives it.
"""

from __future__ import annotations

import json
import random
import sys
import time

from microgpt import reference


def main() -> None:
    given = json.load(sys.stdin)
    version, words, gauss_next = given["state"]
    rng = random.Random()
    rng.setstate((version, tuple(words), gauss_next))
    model = reference.GPT(given["vocab_size"], rng)
    optimizer = reference.Adam(model.parameters())
    milliseconds, losses = [], []
    for s, document in enumerate(given["documents"]):
        start = time.process_time()
        loss = model.loss(document)
        loss.backward()
        optimizer.step(0.01 * (1 - s / given["steps"]))
        losses.append(loss.data)
        milliseconds.append(1000 * (time.process_time() - start))
    json.dump({"milliseconds": milliseconds, "losses": losses}, sys.stdout)


if __name__ == "__main__":
    main()
