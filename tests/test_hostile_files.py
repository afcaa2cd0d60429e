"""Checkpoints that lie, with a right checksum: the commands refuse them in one line, or go on with a run that makes sense.

    MICROGPT_HOSTILE=5000 pytest tests/test_hostile_files.py

tries that many instead of a few hundred.
"""

from __future__ import annotations

import copy
import hashlib
import json
import math
import os
import random
import tracemalloc
from array import array
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from microgpt import GPT, CharTokenizer, checkpoint, evaluate, resume, sample, train
from microgpt.sampler import generate
from microgpt.settings import Settings
from microgpt.trainer import Trainer

N_TRIED = int(os.environ.get("MICROGPT_HOSTILE", "300"))
ENOUGH = 20  # steps or samples of a run that was accepted, before it is interrupted
MEMORY = 8 << 20  # bytes a command may take beside twice the file: what a run of a tiny model takes, or its refusal

VALUES: list[Any] = [
    *(None, True, False, 0, 1, 2, 3, 5, -1, -5, 7, 1000, 500_000, 2**31 - 1, 2**31, 2**32, 2**63, 2**64, 10**30, 10**400),
    *(0.0, -0.0, 0.5, 1.0, 1.5, -0.1, 5e-324, 1e-300, 1e300, math.nan, math.inf, -math.inf),
    *("", " ", "0", "1", "evil", "text.txt", "missing.txt", ".", "/dev/null", "/dev/stdin", "/dev/fd/0", "a\0b", "\ud800"),
    *("\x1b[31m", "x" * 5000, "ab", "ba", "é🙂", "linear", "constant", "makemore", "0" * 64, "F" * 64),
    *([], [1], [[]], [None] * 3, [3, [0] * 625, None], [[1, 0.5]], {}, {"a": 1}, [[[[[[[[1]]]]]]]]),
]


class File(NamedTuple):
    """What a file is made of."""

    header: dict[str, Any]  # the tensors of the safetensors header
    own: Any  # the JSON object under the checksum
    numbers: bytes


def taken_apart(path: Path) -> File:
    content = path.read_bytes()
    end = 8 + int.from_bytes(content[:8], "little")
    header = json.loads(content[8:end])
    return File(header, json.loads(header.pop("__metadata__")["microgpt"]), content[end:])


def put_together(file: File) -> bytes:
    """Return the file with a right checksum, whatever it holds."""
    own = {**file.own, "sha256": "0" * 64} if isinstance(file.own, dict) else file.own
    text = json.dumps({"__metadata__": {"microgpt": json.dumps(own)}, **file.header}).encode()
    content = bytearray(len(text).to_bytes(8, "little") + text + file.numbers)
    content[checkpoint.find_digest(content)] = hashlib.sha256(content).hexdigest().encode()
    return bytes(content)


def places(value: Any, within: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Yield the place of every leaf and every collection in `value`; of a long list some entries."""
    yield within
    if isinstance(value, dict):
        for key in value:
            yield from places(value[key], (*within, key))
    elif isinstance(value, list):
        for i in sorted({0, 1, 2, len(value) // 2, len(value) - 1} & set(range(len(value)))):
            yield from places(value[i], (*within, i))


def parent(value: Any, place: tuple[Any, ...]) -> Any:
    for key in place[:-1]:
        value = value[key]
    return value


def replaced(file: File, place: tuple[Any, ...], value: Any) -> None:
    parent(file.own, place)[place[-1]] = copy.deepcopy(value)


def removed(file: File, place: tuple[Any, ...], _: Any) -> None:
    del parent(file.own, place)[place[-1]]


def added(file: File, place: tuple[Any, ...], value: Any) -> None:
    inside = parent(file.own, place)
    if isinstance(inside, dict):
        inside["added"] = copy.deepcopy(value)
    else:
        inside.append(copy.deepcopy(value))


def hostile_files(base: File, n: int, seed: int) -> Iterator[tuple[str, bytes]]:
    """Yield `n` altered files of `base`, each with what was done to it: first every leaf by turns, then whatever comes."""
    rng = random.Random(seed)
    leaves = [place for place in places(base.own) if place and place != ("sha256",)]
    pairs = [(place, value) for place in leaves for value in VALUES]
    rng.shuffle(pairs)
    for _ in range(n):
        file = copy.deepcopy(base)
        done = []
        for _ in range(1 if rng.random() < 0.8 else 2):
            way = rng.random()
            if way < 0.6:
                place, value = pairs.pop() if pairs else (rng.choice(leaves), rng.choice(VALUES))
                change: Callable[[File, tuple[Any, ...], Any], None] = replaced
            else:
                place, value, change = rng.choice(leaves), rng.choice(VALUES), rng.choice([removed, added])
            # What a first change has left may not take a second one.
            with suppress(AttributeError, LookupError, TypeError, ValueError):
                if way < 0.75:
                    done.append(f"{change.__name__} {place} {value!r:.60}")
                    change(file, place, value)
                else:
                    name = rng.choice(list(file.header))
                    file, what = altered_tensors(file, name, rng)
                    done.append(f"{what} {name}")
        yield "; ".join(done), put_together(file)


def altered_tensors(file: File, name: str, rng: random.Random) -> tuple[File, str]:
    """Return the file with one tensor renamed, reshaped, removed, of another type, or with other numbers."""
    header, own, numbers = file
    tensor = header[name]
    begin, end = tensor["data_offsets"]
    what = rng.choice(["rename", "reshape", "remove", "dtype", "offsets", "number", "number", "number", "swap", "cut"])
    if what == "rename":
        header[rng.choice(["x", "adam.m.x", "training.x", "layer9.attn_wq", "\x1b[2J", ""])] = header.pop(name)
    elif what == "reshape":
        tensor["shape"] = rng.choice([tensor["shape"][::-1], [(end - begin) // 8], [], [1, 1, 1], [-1, -4], [2**62, 4], *VALUES])
    elif what == "remove":
        # The file stays one whole piece of numbers: what follows moves down.
        header.pop(name)
        numbers = numbers[:begin] + numbers[end:]
        for other in header.values():
            if other["data_offsets"][0] >= end:
                other["data_offsets"] = [offset - (end - begin) for offset in other["data_offsets"]]
    elif what == "dtype":
        tensor["dtype"] = rng.choice(["F32", "I64", "BF16", *VALUES])
    elif what == "offsets":
        tensor["data_offsets"] = rng.choice([[end, begin], [begin, end + 8], [0, 0], [begin], *VALUES])
    elif what == "number":
        place = begin + 8 * rng.randrange(max(1, (end - begin) // 8))
        number = array("d", [rng.choice([math.nan, math.inf, -math.inf, -1.0, 1e308, -1e308, 0.0, 5e-324])]).tobytes()
        numbers = numbers[:place] + number + numbers[place + 8 :]
    elif what == "swap":
        other = header[rng.choice(list(header))]
        tensor["data_offsets"], other["data_offsets"] = other["data_offsets"], tensor["data_offsets"]
    else:
        numbers = rng.choice([numbers[:-8], numbers + bytes(8), b""])
    return File(header, own, numbers), what


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where the commands are called, with a text; runs that go on are interrupted when they have shown that they can."""
    (tmp_path / "text.txt").write_text("ab\nba\ncab\nabc\nbca\nac\n" * 3, encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    made = {"steps": 0, "samples": 0}

    def counted(what: str, function: Callable[..., Any]) -> Callable[..., Any]:
        def call(*arguments: Any, **options: Any) -> Any:
            made[what] += 1
            if made[what] > ENOUGH:
                made[what] = 0
                raise KeyboardInterrupt
            return function(*arguments, **options)

        return call

    monkeypatch.setattr(Trainer, "train_step", counted("steps", Trainer.train_step))
    monkeypatch.setattr(train, "generate", counted("samples", generate))
    monkeypatch.setattr(train.data, "fetch_makemore", lambda: tmp_path / "text.txt")
    return tmp_path


def runs(folder: Path) -> list[Path]:
    """A finished run and one that stands in the middle, with and without all that a run can have."""
    tiny = {"n_embd": 4, "n_head": 2, "block_size": 4, "samples": 2}
    rich = {"validation": 0.2, "validation_every": 2, "patience": 9, "clip_grad": 1.0, "warmup": 2, "schedule": "cosine"}
    paths = []
    for name, options, steps in (
        ("done", {"steps": 6, **rich}, 6),
        ("begun", {"steps": 12, **rich}, 5),
        ("plain", {"steps": 4}, 2),
    ):
        documents = train.data.load_file("text.txt")
        source = resume.Source(("text.txt",), None, len(documents), resume.fingerprint(documents))
        trainer = Trainer(Settings(**tiny, **options), documents)
        for _ in range(steps):
            trainer.train_step()
        resume.save(str(folder / name), trainer, source)
        paths.append(folder / name)
    return paths


def call(main: Callable[..., int], arguments: list[str]) -> tuple[int | str | None, int]:
    """Return the exit status of a command in this process, and its peak of memory in bytes."""
    tracemalloc.reset_peak()
    before = tracemalloc.get_traced_memory()[0]
    try:
        status: int | str | None = main(arguments)
    except SystemExit as exit:
        status = exit.code
    return status, tracemalloc.get_traced_memory()[1] - before


def test_hostile_files_are_refused_in_one_line_or_make_sense(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    bases = [taken_apart(path) for path in runs(folder)]
    path = folder / "evil"
    others = {other: other.read_bytes() for other in folder.iterdir()}
    statuses: Counter[tuple[bool, bool]] = Counter()  # of commands that take the run; refused
    largest = 0
    tracemalloc.start()
    try:
        for k, base in enumerate(bases):
            for what, content in hostile_files(base, math.ceil(N_TRIED / len(bases)), k):
                path.write_bytes(content)
                for main, arguments in (
                    (train.main, ["--resume", "evil"]),
                    (sample.main, ["evil", "--count", "2"]),
                    (evaluate.main, ["evil", "--data", "text.txt"]),
                    (train.main, ["--init-from", "evil", "--data", "text.txt", "--steps", "1", "--samples", "1"]),
                ):
                    status, memory = call(main, arguments)
                    out, err = capsys.readouterr()
                    largest = max(largest, memory)
                    assert memory < 2 * len(content) + MEMORY, (what, memory)
                    assert "Traceback" not in err
                    assert "\x1b" not in err
                    statuses["--resume" in arguments, status == 2] += 1
                    if status == 2:
                        assert err.splitlines()[-1].startswith("python -m microgpt."), (what, err)
                        if main is train.main and "diverged" not in err:
                            named = any(name in err for name in ("evil", "makemore", "text.txt"))
                            assert (out, err.count("\n"), named) == ("", 1, True), (what, err)
                            assert path.read_bytes() == content
                        assert "--learning-rate" not in err or "diverged" in err, (what, err)
                    else:
                        assert status in (0, 130), (what, status, err)
                assert {other: other.read_bytes() for other in folder.iterdir() if other != path} == others, what
    finally:
        tracemalloc.stop()
    print(f"(run or model, refused or not): {dict(statuses)}, at most {largest / 1e6:.1f} MB of memory")
    assert statuses[True, True] > statuses[True, False]
    assert min(statuses[False, True], statuses[False, False]) > 0
    assert statuses[True, False] > 0  # some alterations are none: a step of 1 that was 1


@pytest.mark.parametrize(
    ("name", "value"), [("n_layer", 500_000), ("n_embd", 2), ("n_embd", 1.5), ("n_embd", "4"), ("n_head", 0)]
)
def test_sizes_are_compared_with_what_the_file_holds_before_anything_is_built(
    name: str, value: object, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In config and settings alike, so that they do not contradict each other."""
    file = taken_apart(runs(folder)[0])
    for sizes in (file.own["metadata"]["config"], file.own["metadata"]["training"]["settings"]):
        sizes[name] = value
    (folder / "evil").write_bytes(put_together(file))
    monkeypatch.setattr("microgpt.model.Matrix", None)  # which would be called
    with pytest.raises(SystemExit, match="2"):
        train.main(["--resume", "evil"])
    with pytest.raises(ValueError, match="evil is not a whole microgpt checkpoint: "):
        GPT.load("evil")


def test_a_good_file_made_longer_is_refused_before_it_is_read(folder: Path) -> None:
    path = runs(folder)[0]
    os.truncate(path, 6 << 30)
    tracemalloc.start()
    try:
        for load in (GPT.load, CharTokenizer.load, resume.load):
            with pytest.raises(ValueError, match=r"done is not a whole .* bytes of numbers, it has 64424"):
                load(path)
        assert tracemalloc.get_traced_memory()[1] < 1 << 20
    finally:
        tracemalloc.stop()


def test_a_number_is_no_path() -> None:
    """It would be a file that this process has open."""
    for call in (GPT.load, CharTokenizer.load, checkpoint.read, lambda path: checkpoint.write(path, {}, {})):
        with pytest.raises(TypeError, match="int"):
            call(0)


def test_a_saved_run_whose_text_is_a_pipe_is_not_waited_for(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = taken_apart(runs(folder)[0])
    os.mkfifo(folder / "pipe")
    file.own["metadata"]["training"]["source"]["data"] = "pipe"
    (folder / "evil").write_bytes(put_together(file))
    with pytest.raises(SystemExit, match="2"):
        train.main(["--resume", "evil"])
    assert "pipe, the text of evil, is no ordinary file: say where with --data" in capsys.readouterr().err
