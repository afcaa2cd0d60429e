"""microgpt.explore: what the page holds, that nothing in it is markup or network, and the command."""

from __future__ import annotations

import base64
import hashlib
import html
import json
import random
import re
import subprocess
import sys
import zlib
from array import array
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from process import printed_by
from test_inspect import bits, random_root

import microgpt
from microgpt import GPT, Adam, CharTokenizer, GPTConfig, Matrix, Value, Vector, exp
from microgpt import explore as by_name
from microgpt._inspect import KINDS
from microgpt.explore import ABSENT, LEFT_OUT, PAGE, UNUSED, Page, document_page, explore
from microgpt.graphs import graph

HOSTILE = "</script><script>alert(1)</script><img src=x onerror=alert(2)>\"'&\u2028<!--"
WORDS = ["anna", "hannah", "nan", "an"]


def small_model(**sizes: int) -> tuple[GPT, CharTokenizer]:
    tokenizer = CharTokenizer(WORDS)
    config = GPTConfig(tokenizer.vocab_size, **{"n_layer": 2, "n_embd": 8, "n_head": 2, "block_size": 8, **sizes})
    return GPT(config, random.Random(7)), tokenizer


def payload_of(page: Page) -> dict[str, Any]:
    """The data as the page's own script reads it."""
    found = re.search(r'<script type="application/json" id="graph">(.*?)</script>', page.html(), re.S)
    assert found is not None
    data: dict[str, Any] = json.loads(found[1])
    return data


def numbers(typecode: str, text: str) -> array[Any]:
    result = array(typecode)
    result.frombytes(zlib.decompress(base64.b64decode(text)))
    return result


class Elements(HTMLParser):
    """Tags and attributes of a page."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.attributes: list[str] = []
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += [name for name, _ in attrs]


@pytest.mark.parametrize("seed", range(10))
def test_the_page_holds_the_graph_to_the_last_bit(seed: int) -> None:
    root = random_root(seed)
    g = graph(root)
    data = payload_of(explore(root))
    assert (data["nodes"], data["whole"], data["exact"]) == (len(g), len(g), len(g))
    assert data["total"] == {"nodes": len(g), "edges": len(g.children)}
    for name, typecode, expected in (
        ("op", "B", g.ops),
        ("data", "d", g.data),
        ("grad", "d", g.grad),
        ("first", "I", g.first_child),
        ("children", "I", g.children),
    ):
        assert list(numbers(typecode, data[name])) == list(expected), name
    assert list(numbers("I", data["steps"])) == [number for row in g.steps.tolist() for number in row]


def test_every_element_of_a_name_is_a_cell() -> None:
    model, tokenizer = small_model()
    trace = model.trace(tokenizer.encode("anna"))
    g = graph(trace.loss, trace.names)
    data = payload_of(explore(trace.loss, trace.names))
    seen = set()
    for one in data["maps"]:
        for k, place in enumerate(numbers("I", one["places"])):
            if place not in (UNUSED, ABSENT, LEFT_OUT):
                seen.add(place)
                row, column = divmod(k, one["columns"])
                place_in = {0: "", 1: f"[{k}]", 2: f"[{row}][{column}]"}[one["rank"]]
                assert g.name(place) == one["name"] + place_in
    assert seen == set(range(len(g)))
    wte = next(one for one in data["maps"] if one["name"] == "wte")
    places = numbers("I", wte["places"])
    unused = [k for k, place in enumerate(places) if place == UNUSED]
    assert [k // 8 for k in unused] == [1] * 8  # the h, which is not in anna
    assert list(numbers("d", wte["data"])) == model.wte.data[1]
    attention = next(one for one in data["maps"] if one["name"] == "layer0.attn[1]")
    triangle = [place == ABSENT for place in numbers("I", attention["places"])]
    assert triangle == [key > query for query in range(5) for key in range(5)]


def test_updates_are_those_of_the_next_step_and_nothing_changes() -> None:
    model, tokenizer = small_model()
    optimizer = Adam(model.parameters(), 0.05, weight_decay=0.1)
    for _ in range(3):
        model.loss(tokenizer.encode("hannah")).backward()
        optimizer.step()
    before, state = [value.data for value in optimizer.parameters], optimizer.state_dict()
    trace = model.trace(tokenizer.encode("anna"))
    data = payload_of(explore(trace.loss, trace.names, optimizer=optimizer))
    assert [value.data for value in optimizer.parameters] == before
    assert optimizer.state_dict() == state
    assert not any(value.grad for value in optimizer.parameters)
    trace.loss.backward()
    optimizer.step()
    change = [value.data - then for value, then in zip(optimizer.parameters, before, strict=True)]
    shown = [number for one in data["maps"] if one["update"] is not None for number in numbers("d", one["update"])]
    assert bits(shown) == bits(change)
    assert any(change)


def test_the_page_can_compute_every_op() -> None:
    script = (PAGE / "page.js").read_text(encoding="utf-8")
    table = script[script.index("const VALUES = {") : script.index("};", script.index("const VALUES = {"))]
    known = set(re.findall(r"(?:^|[{,])\s*(\w+)(?=:|,|$)", table[len("const VALUES = ") :], re.M))
    assert set(KINDS) - {"leaf", "sum", "dot", "custom"} <= known


def test_a_name_stays_below_a_megabyte() -> None:
    tokenizer = CharTokenizer(["abcdefghijklmnopqrstuvwxyz"])
    model = GPT(GPTConfig(27), random.Random(1))
    page = document_page(model, tokenizer, "isabellamariaann"[:15], Adam(model.parameters()))
    assert len(page.html().encode()) < 1_000_000


def test_the_page_loads_nothing_and_obeys_its_own_script_alone() -> None:
    page = explore(Value(1.0).exp()).html()
    addresses = set(re.findall(r"[a-z]+://[^\s\"'<>]+", page))
    assert addresses == {"http://www.w3.org/2000/svg"}  # the name of SVG, which nothing loads
    assert not re.search(
        r"\b(import|fetch|XMLHttpRequest|WebSocket|innerHTML|outerHTML|insertAdjacentHTML|eval|Function)\b", page
    )
    assert not re.search(r"\burl\(|@import", page)
    found = re.search(r'Content-Security-Policy" content="([^"]*)"', page)
    assert found is not None
    parts = dict(part.strip().split(" ", 1) for part in found[1].split(";"))
    assert parts["default-src"] == "'none'"
    for name, pattern in (("style-src", r"<style>(.*?)</style>"), ("script-src", r"<script>(.*?)</script>")):
        (content,) = re.findall(pattern, page, re.S)
        assert parts[name] == f"'sha256-{base64.b64encode(hashlib.sha256(content.encode()).digest()).decode()}'"


def test_names_and_titles_never_become_markup() -> None:
    x = Value(2.0, label=HOSTILE)
    own = Value(4.0, (x,), (1.0,))
    own._op = HOSTILE
    m = Matrix([[1.0, 2.0]])
    root = own * (m @ Vector([x, x]))[0]
    plain = Elements(explore(Value(2.0) * 2).html())
    page = explore(root, {HOSTILE: m}, title=HOSTILE)
    hostile = Elements(page.html())
    assert hostile.tags == plain.tags
    assert hostile.attributes == plain.attributes
    assert HOSTILE in payload_of(page)["labels"].values()
    frame = Elements(page._repr_html_())
    assert frame.tags == ["iframe"]
    assert frame.attributes == ["srcdoc", "sandbox", "title", "style"]
    assert html.unescape(re.search('srcdoc="([^"]*)"', page._repr_html_())[1]) == page.html()  # type: ignore[index]


def test_half_a_character_is_shown_escaped(tmp_path: Path) -> None:
    explore(Value(2.0, label="half \ud800") * 2, title="a \udfff").save(tmp_path / "page.html")
    assert "<title>a \\udfff</title>" in (tmp_path / "page.html").read_text(encoding="utf-8")


def test_a_large_graph_is_cut_and_says_so() -> None:
    model, tokenizer = small_model()
    trace = model.trace(tokenizer.encode("hannah"))
    g = graph(trace.loss, trace.names)
    data = payload_of(explore(trace.loss, trace.names, max_edges=500))
    whole = data["whole"]
    assert g.first_child[whole] <= 500 < g.first_child[whole + 1]
    assert data["total"]["nodes"] == len(g)
    children = numbers("I", data["children"])
    assert len(children) == g.first_child[whole]
    ops, exact = numbers("B", data["op"]), numbers("d", data["data"])
    assert [exact[child] for child in children] == [g.data[child] for child in g.children[: len(children)]]
    assert [ops[child] for child in children] == [g.ops[child] for child in g.children[: len(children)]]
    far = numbers("f", data["far_data"])
    assert len(exact) + len(far) == data["nodes"] == len(g)  # every node has a name
    assert payload_of(explore(trace.loss, max_nodes=10))["nodes"] < 200
    assert payload_of(explore(trace.loss, max_nodes=10))["whole"] == 10
    with pytest.raises(ValueError, match="max_edges must be at least 1, got 0"):
        explore(trace.loss, max_edges=0)


def test_numbers_beyond_32_bits_are_infinite_far_from_the_root() -> None:
    x = Value(300.0, label="x")
    big = exp(x) * 1e-200
    data = payload_of(explore(big, {"x": x, "e": big.children[0]}, max_nodes=1))
    assert list(numbers("f", data["far_data"])) == [300.0]
    data = payload_of(explore(big * 1.0, {"x": x, "e": big.children[0]}, max_nodes=1))
    assert list(numbers("f", data["far_data"])) == [float("inf"), 300.0]


def test_a_million_nodes_in_a_row_make_a_page() -> None:
    code = """
import threading, microgpt
def show():
    x = microgpt.Value(1.0)
    for _ in range(10**6):
        x = x + 1e-6
    print(1000 < len(microgpt.explore(x, max_nodes=5000).html()) < 10**6)
threading.stack_size(256 * 1024)
thread = threading.Thread(target=show)
thread.start()
thread.join()
"""
    assert printed_by(code) == "True\n"


@pytest.mark.parametrize("given", [None, 1.0, Vector([1.0])], ids=str)
def test_only_a_value_is_explored(given: Any) -> None:
    with pytest.raises(TypeError, match="a graph is that of a Value, got"):
        explore(given)


def test_the_module_is_the_function_too() -> None:
    x = Value(2.0) * 3
    assert microgpt.explore(x).html() == explore(x).html() == by_name(x).html()
    code = "import sys, microgpt; print('microgpt.explore' in sys.modules); import microgpt.explore; print(callable(microgpt."
    assert printed_by(code + "explore))") == "False\nTrue\n"


def run(folder: Path, *arguments: str) -> tuple[int, str, str]:
    result = subprocess.run(
        [sys.executable, "-m", "microgpt.explore", *arguments], capture_output=True, text=True, cwd=folder, timeout=120
    )
    return result.returncode, result.stdout, result.stderr


def test_the_command_writes_a_page_of_a_saved_model(tmp_path: Path) -> None:
    model, tokenizer = small_model()
    model.save(tmp_path / "model.safetensors", tokenizer)
    status, out, errors = run(tmp_path, "model.safetensors", "--text", "anna", "--save", "anna.html")
    size = (tmp_path / "anna.html").stat().st_size
    g = graph(model.loss(tokenizer.encode("anna")))
    told = f"wrote anna.html: {len(g):,} nodes and {len(g.children):,} edges in {size / 1000:,.0f} kB\n"
    assert (status, out, errors) == (0, "", told)
    text = (tmp_path / "anna.html").read_text(encoding="utf-8")
    assert "The update is the first step of an Adam: the file holds none." in text
    data = json.loads(re.search(r'id="graph">(.*?)</script>', text, re.S)[1])  # type: ignore[index]
    assert data["document"] == {
        "seen": list("\u2022anna"),
        "wanted": list("anna\u2022"),
        "letters": list("ahn\u2022"),
        "bos": "\u2022",
    }
    titles = [section["title"] for section in data["sections"]]
    assert titles[1:3] == ["Layer 0: attention", "Layer 0: MLP"]
    assert sorted(name for section in data["sections"] for name in section["maps"]) == sorted(one["name"] for one in data["maps"])


def test_the_command_shows_the_next_update_of_a_training_run(tmp_path: Path) -> None:
    (tmp_path / "words.txt").write_text("\n".join(WORDS * 3))
    train = [
        "-m",
        "microgpt.train",
        "--data",
        "words.txt",
        "--steps",
        "5",
        "--n-embd",
        "8",
        "--n-head",
        "2",
        "--quiet",
        "--samples",
        "0",
    ]
    subprocess.run(
        [sys.executable, *train, "--save", "run.safetensors"], cwd=tmp_path, check=True, capture_output=True, timeout=120
    )
    status, _, errors = run(tmp_path, "run.safetensors", "--text", "anna" * 9, "--save", "anna.html")
    assert status == 0
    assert errors.startswith(
        "warning: 'annaannaannaannaannaannaannaannaanna' is cut at the model's 16 positions\nwrote anna.html"
    )
    text = (tmp_path / "anna.html").read_text(encoding="utf-8")
    assert "what step 6 of the run's Adam would be on this text, at the learning rate 0.01 that the run began with" in text


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["model.safetensors", "--text", "anne", "--save", "x.html"], "character 'e' is not in the vocabulary 'ahn'"),
        (["none.safetensors", "--text", "anna", "--save", "x.html"], "none.safetensors: No such file or directory"),
        (["bare.safetensors", "--text", "anna", "--save", "x.html"], "it holds no vocabulary"),
        (["words.txt", "--text", "anna", "--save", "x.html"], "words.txt"),
        (["model.safetensors", "--text", "anna", "--save", "no/x.html"], "no/x.html: No such file or directory"),
        (["model.safetensors", "--text", "anna"], "the page of a MODEL needs --text TEXT and --save FILE"),
    ],
)
def test_what_can_be_mended_is_said_in_one_line(arguments: list[str], words: str, tmp_path: Path) -> None:
    model, tokenizer = small_model()
    model.save(tmp_path / "model.safetensors", tokenizer)
    model.save(tmp_path / "bare.safetensors")
    (tmp_path / "words.txt").write_text("anna\n")
    status, out, errors = run(tmp_path, *arguments)
    assert (status, out) == (2, "")
    assert words in errors
    assert errors.count("\n") == 1
    assert not (tmp_path / "x.html").exists()
