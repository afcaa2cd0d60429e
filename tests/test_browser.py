"""The page of microgpt.explore in a real browser: Chromium, by Debian's package or CHROMIUM, driven by playwright."""

from __future__ import annotations

import os
import random
import shutil
import statistics
import threading
import time
from array import array
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from op_table import COMPOSITES, ROWS
from test_explore import HOSTILE, small_model
from test_inspect import bits, pushed, random_root

import microgpt
from microgpt import Adam, Matrix, Value, Vector, relu
from microgpt._inspect import KINDS
from microgpt.explore import Page, document_page, explore
from microgpt.graphs import Graph, graph
from microgpt.live import Server, Session, serve
from microgpt.settings import Settings
from microgpt.trainer import Trainer

api = pytest.importorskip("playwright.sync_api", reason="needs playwright: pip install '.[browser]'")
CHROMIUM = os.environ.get("CHROMIUM") or shutil.which("chromium")
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="needs Chromium: apt-get install chromium, or its path in CHROMIUM")

FLAGS = ["--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-sync"]
FLAGS += ["--disable-background-networking", "--disable-component-update"]
WAIT = 20.0  # seconds until the page must be ready


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        yield browser
        browser.close()


class Tab:
    """A page open from disk, which must neither complain nor load anything."""

    def __init__(self, browser: Any, page: Page, folder: Path, fragment: str = "", **options: Any) -> None:
        path = folder / "page.html"
        page.save(path)
        self.complaints: list[str] = []
        self.tab = browser.new_page(**options)
        self.tab.on("console", lambda message: self.complaints.append(message.text))
        self.tab.on("pageerror", lambda error: self.complaints.append(str(error)))
        self.tab.on("dialog", lambda dialog: self.complaints.append(dialog.message))
        self.tab.on("request", lambda request: self.complaints.append(request.url) if request.url != self.address else None)
        self.address = path.as_uri()
        self.tab.goto(self.address + fragment)
        self.wait_for("document.documentElement.dataset.ready === 'yes'")

    def wait_for(self, condition: str) -> None:
        end = time.monotonic() + WAIT
        while not self.js(condition):  # by hand: the page's policy forbids what playwright would do for it
            assert time.monotonic() < end, (condition, self.complaints)
            time.sleep(0.02)

    def js(self, code: str, argument: Any = None) -> Any:
        return self.tab.evaluate(code, argument)

    def fact(self, name: str) -> str:
        return str(self.tab.locator(f'#detail [data-fact="{name}"]').first.text_content())

    def close(self) -> None:
        assert self.complaints == []
        self.tab.close()


@pytest.fixture
def name_page() -> tuple[Page, Graph]:
    model, tokenizer = small_model()
    trace = model.trace(tokenizer.encode("hanna"))
    return document_page(model, tokenizer, "hanna", Adam(model.parameters())), Graph(trace.loss, trace.names)


@pytest.mark.parametrize("seed", [0, 3, 5, 8])
def test_gradients_of_the_page_are_the_engines_to_the_last_bit(seed: int, browser: Any, tmp_path: Path) -> None:
    root = random_root(seed)
    g = graph(root)
    tab = Tab(browser, explore(root), tmp_path)
    assert bits(tab.js("Array.from(graphPage.grad)")) == bits(g.grad)
    assert tab.js("graphPage.agree") == len(g)
    assert bits(tab.js("Array.from(graphPage.graph.partial)")) == bits(g.partials)
    assert tab.js("Array.from(graphPage.graph.use)") == list(g.uses)
    assert "to the last bit" in tab.js("document.getElementById('summary').textContent")
    tab.close()


def test_a_name_agrees_too_and_its_steps_are_partial_sums(name_page: tuple[Page, Graph], browser: Any, tmp_path: Path) -> None:
    page, g = name_page
    tab = Tab(browser, page, tmp_path)
    assert bits(tab.js("Array.from(graphPage.grad)")) == bits(g.grad) == bits(pushed(g))
    steps = g.steps.tolist()
    for some in (0, 1, 17, len(steps) // 2, len(steps)):
        tab.js(
            "step => { const s = document.getElementById('backward'); s.value = step; s.dispatchEvent(new Event('input')); }",
            some,
        )
        expected = [1.0] + [0.0] * (len(g) - 1)
        for node, low, high in steps[:some]:
            start, end = g.first_child[node], g.first_child[node + 1]
            width = {"dot": 2, "sum": 1}.get(g.op(node), 0)
            runs = (
                [range(start + k * width, start + (k + 1) * width) for k in reversed(range(low, high))]
                if width
                else [range(start, end)]
            )
            for e in (e for run in runs for e in run):
                expected[g.children[e]] += g.partials[e] * expected[node]
        assert bits(tab.js("Array.from(graphPage.grad)")) == bits(expected)
        assert tab.js("graphPage.view") == "grad"
    tab.close()


def test_a_click_shows_the_engines_numbers(name_page: tuple[Page, Graph], browser: Any, tmp_path: Path) -> None:
    page, g = name_page
    tab = Tab(browser, page, tmp_path)
    for tensor, row, column in (("layer0.q", 2, 5), ("layer1.mlp_fc1", 30, 3), ("wte", 2, 0), ("logits", 4, 1)):
        canvas = tab.tab.locator(f'canvas[aria-label^="{tensor},"]')
        size, turned = tab.js("name => { const p = graphPage.plates.get(name); return [p.size, p.turned]; }", tensor)
        x, y = (row, column) if turned else (column, row)
        canvas.click(position={"x": (x + 0.5) * size, "y": (y + 0.5) * size})
        name = f"{tensor}[{row}][{column}]"
        node = next(i for i in range(len(g)) if g.name(i) == name)
        assert tab.tab.locator("#detail h2").text_content() == name
        assert float(tab.fact("data")) == g.data[node]
        assert float(tab.fact("gradient")) == g.grad[node]
        assert tab.js("document.getElementById('status').textContent").startswith(name)
        assert "added up: the gradient" in tab.tab.locator("#detail tfoot").text_content()
        users = tab.tab.locator("#detail table").last.locator("tbody tr button").all_text_contents()
        assert users == [g.name(g.parent(e)) for e in g.uses[g.first_use[node] : g.first_use[node + 1]]]
        tab.wait_for("!!document.querySelector('#detail .plot')")
        for side in ("left", "right"):
            assert float(tab.fact(f"difference, {side}")) == pytest.approx(g.grad[node], rel=1e-3, abs=1e-6)
    tab.close()


def test_children_have_their_formula_and_lead_on(browser: Any, tmp_path: Path) -> None:
    a, b = Value(2.0, label="a"), Value(-3.0, label="b")
    root = (a * b).tanh() + a**2
    root.label = "L"
    tab = Tab(browser, explore(root), tmp_path)
    assert tab.fact("formula") == "-0.99999 + 4 = 3"
    tab.tab.locator("#detail tbody button").nth(1).click()
    assert tab.fact("formula") == "2 ^ 2 = 4"
    tab.tab.locator("#detail tbody button").first.click()
    assert tab.tab.locator("#detail h2").text_content() == "a"
    assert tab.js("location.hash") == "#a"
    assert float(tab.fact("gradient")) == graph(root).grad[graph(root).index(a)]
    tab.close()


def test_an_address_leads_to_a_scalar(name_page: tuple[Page, Graph], browser: Any, tmp_path: Path) -> None:
    tab = Tab(browser, name_page[0], tmp_path, "#layer1.k%5B1%5D%5B2%5D")
    assert tab.tab.locator("#detail h2").text_content() == "layer1.k[1][2]"
    tab.close()
    tab = Tab(browser, name_page[0], tmp_path, "#%E0%A4%A")
    assert tab.tab.locator("#detail h2").text_content() == "loss"
    tab.close()


def test_the_keyboard_is_enough(name_page: tuple[Page, Graph], browser: Any, tmp_path: Path) -> None:
    tab = Tab(browser, name_page[0], tmp_path)
    press = tab.tab.keyboard.press
    for _ in range(30):
        press("Tab")
        if tab.js("document.activeElement.className") == "map":
            break
    assert tab.js("document.activeElement.getAttribute('aria-label')").startswith("wte,")
    for key in ("ArrowRight", "ArrowDown", "ArrowDown", "End", "Home", "ArrowRight", "ArrowUp"):
        press(key)
    assert tab.js("document.getElementById('status').textContent").startswith("wte[1][1]")
    press("Enter")
    assert tab.tab.locator("#detail h2").text_content() == "wte[1][1]"
    tab.tab.locator("#goto").focus()
    tab.tab.keyboard.type("layer0.q[2][5]")
    press("Enter")
    assert tab.tab.locator("#detail h2").text_content() == "layer0.q[2][5]"
    tab.tab.locator("#goto").fill("nothing")
    press("Enter")
    assert "There is no nothing here" in tab.js("document.getElementById('status').textContent")
    tab.tab.locator("#backward").focus()
    press("ArrowLeft")
    assert tab.js("document.getElementById('step').textContent") == f"{len(name_page[1].steps) - 1} of {len(name_page[1].steps)}"
    unnamed = tab.js("""() => [...document.querySelectorAll('button, input, canvas, svg[role=img]')].filter(
        (e) => !(e.textContent.trim() || e.getAttribute('aria-label') || e.labels?.length)).length""")
    assert unnamed == 0
    tab.close()


def test_what_is_masked_unused_or_closed_is_told_apart(name_page: tuple[Page, Graph], browser: Any, tmp_path: Path) -> None:
    tab = Tab(browser, name_page[0], tmp_path)
    remark = "([name, k]) => graphPage.plates.get(name).remark(k)"
    assert "masked: the key is of a later position" in tab.js(remark, ["layer0.attn[0]", 3])
    assert tab.js(remark, ["wpe", 8 * 6 + 1]).strip() == "not used: no gradient comes here"
    closed = next(
        i for i in range(len(name_page[1])) if name_page[1].name(i).startswith("layer0.relu") and name_page[1].data[i] == 0
    )
    place = tab.js("i => Array.from(graphPage.plates.get('layer0.relu').places).indexOf(i)", closed)
    assert "a closed relu" in tab.js(remark, ["layer0.relu", place])
    tab.close()
    model, tokenizer = small_model()
    tab = Tab(browser, document_page(model, tokenizer, "anna", Adam(model.parameters())), tmp_path)
    assert "\u201ch\u201d) this letter is not in the document" in tab.js(remark, ["wte", 8])
    tab.close()


def test_every_op_is_recomputed(browser: Any, tmp_path: Path) -> None:
    leaves = [[Value(x) for x in point] for row in ROWS + COMPOSITES for point in row.points]
    functions = [row.function for row in ROWS + COMPOSITES for _ in row.points]
    roots = [function(microgpt, some) * 1 for function, some in zip(functions, leaves, strict=True)]
    g = graph(Vector(roots).sum())
    assert {g.kind(i) for i in range(len(g))} >= {kind for kind in KINDS if not kind.startswith("custom")}
    tab = Tab(browser, explore(g), tmp_path)
    again = tab.js(
        "() => { const g = graphPage.graph; return Array.from(g.data, (x, i) => g.kind(i) === 'leaf' ? x : g.value(i, g.data)); }"
    )
    for i, (number, expected) in enumerate(zip(again, g.data, strict=True)):
        assert number == pytest.approx(expected, rel=1e-12, abs=1e-13, nan_ok=True), g.line(i)
    tab.close()


def test_the_slider_computes_what_the_engine_does(browser: Any, tmp_path: Path) -> None:
    w, x = Matrix([[0.3, -0.2], [0.7, 0.1]]), Vector([1.0, 2.0])

    def f() -> Value:
        return relu(w @ x).sum().exp() + w[0][1] ** 2

    root = f()
    tab = Tab(browser, explore(root, {"w": w, "x": x}), tmp_path, "#w%5B0%5D%5B1%5D")
    tab.wait_for("!!document.querySelector('#detail .plot')")
    tab.js("() => { const s = document.querySelector('#detail input'); s.value = 40; s.dispatchEvent(new Event('input')); }")
    w[0][1].data = -0.2 + 0.4
    assert tab.js("graphPage.now[0]") == pytest.approx(f().data, rel=1e-14)
    assert tab.js("graphPage.plates.get('w').number(1)") == pytest.approx(0.2)
    assert tab.fact("what if").startswith("At 0.2 the root is ")
    tab.tab.get_by_text("Put back").click()
    assert tab.js("graphPage.now === graphPage.graph.data")
    tab.close()


def test_names_of_all_kinds_stay_text(browser: Any, tmp_path: Path) -> None:
    x = Value(2.0, label=HOSTILE)
    own = Value(4.0, (x,), (1.0,))
    own._op = HOSTILE
    tab = Tab(browser, explore(own * Matrix([[1.0, 2.0]])[0][1], {HOSTILE: own}, title=HOSTILE), tmp_path)
    for node in range(4):
        tab.js("i => graphPage.select(i)", node)
    assert tab.js("document.querySelector('title').textContent") == HOSTILE.replace("\u2028", "\\u2028")
    assert tab.js("document.getElementById('title').textContent") == HOSTILE
    assert tab.js("document.scripts.length") == 2
    assert tab.js("document.images.length") == 0
    time.sleep(0.1)
    tab.close()


def test_a_graph_with_an_own_backward_shows_the_engines_gradients(browser: Any, tmp_path: Path) -> None:
    x = Value(2.0, label="x")
    y = Value(4.0, (x,), "square")

    def pass_on() -> None:
        x.grad += 2 * x.data * y.grad

    y._backward = pass_on
    tab = Tab(browser, explore(y * 3), tmp_path, "#x")
    assert float(tab.fact("gradient")) == 12.0
    assert "functions of their own" in tab.js("document.getElementById('summary').textContent")
    assert tab.js("document.querySelector('.backward').hidden")
    tab.close()


def test_a_page_that_is_cut_shows_whole_gradients_and_says_what_is_missing(browser: Any, tmp_path: Path) -> None:
    model, tokenizer = small_model()
    trace = model.trace(tokenizer.encode("hannah"))
    g = graph(trace.loss, trace.names)
    tab = Tab(browser, explore(trace.loss, trace.names, max_edges=600), tmp_path, "#layer0.attn_wq%5B3%5D%5B5%5D")
    whole = tab.js("graphPage.graph.whole")
    assert tab.js("graphPage.agree") == whole < len(g)
    assert f"holds the {whole:,} nodes nearest to the root whole" in tab.js("document.getElementById('summary').textContent")
    node = next(i for i in range(len(g)) if g.name(i) == "layer0.attn_wq[3][5]")
    assert node >= whole
    assert float(tab.fact("gradient")) == pytest.approx(g.grad[node], rel=1e-6)
    assert "graph ends above this node" in tab.js("document.getElementById('detail').textContent")
    tab.close()


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [1280, 400])
def test_it_fits_the_window_and_its_text_can_be_read(
    scheme: str, width: int, name_page: tuple[Page, Graph], browser: Any, tmp_path: Path
) -> None:
    tab = Tab(
        browser, name_page[0], tmp_path, "#layer0.q%5B2%5D%5B5%5D", color_scheme=scheme, viewport={"width": width, "height": 800}
    )
    tab.wait_for("!!document.querySelector('#detail .plot')")
    assert tab.js("document.documentElement.scrollWidth") <= width
    contrast = """() => {
      const style = getComputedStyle(document.documentElement);
      const light = (name) => {
        const hex = style.getPropertyValue(name).trim();
        const [r, g, b] = [1, 3, 5].map((k) => parseInt(hex.slice(k, k + 2), 16) / 255)
          .map((c) => (c <= 0.03928 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4));
        return 0.2126 * r + 0.7152 * g + 0.0722 * b;
      };
      return ["--ink", "--dim", "--low", "--high"].flatMap((text) => ["--back", "--panel"].map((back) => {
        const [a, b] = [light(text), light(back)].sort();
        return (b + 0.05) / (a + 0.05);
      }));
    }"""
    assert min(tab.js(contrast)) >= 4.5  # WCAG 2, level AA
    tab.close()


def test_less_motion_means_no_play(name_page: tuple[Page, Graph], browser: Any, tmp_path: Path) -> None:
    for preference, hidden in (("reduce", True), ("no-preference", False)):
        tab = Tab(browser, name_page[0], tmp_path, reduced_motion=preference)
        assert tab.js("document.getElementById('play').hidden") is hidden
        tab.close()


def test_a_click_answers_at_once(name_page: tuple[Page, Graph], browser: Any, tmp_path: Path) -> None:
    tab = Tab(browser, name_page[0], tmp_path)
    rng = random.Random(1)
    times = [
        tab.js(
            "i => { const t = performance.now(); graphPage.select(i); return performance.now() - t; }",
            rng.randrange(len(name_page[1])),
        )
        for _ in range(31)
    ]
    assert statistics.quantiles(times, n=4)[0] < 20  # ms; the slower ones tell how busy the machine is
    tab.close()


def test_a_notebooks_frame_shows_the_page(name_page: tuple[Page, Graph], browser: Any, tmp_path: Path) -> None:
    tab = browser.new_page()
    complaints: list[str] = []
    tab.on("console", lambda message: complaints.append(message.text))
    (tmp_path / "notebook.html").write_text(f"<!doctype html><meta charset=utf-8>{name_page[0]._repr_html_()}", encoding="utf-8")
    tab.goto((tmp_path / "notebook.html").as_uri())
    frame = tab.frames[-1]
    end = time.monotonic() + WAIT
    while frame.evaluate("document.documentElement.dataset.ready") != "yes":
        assert time.monotonic() < end, complaints
        time.sleep(0.02)
    assert frame.evaluate("graphPage.agree") == len(name_page[1])
    frame.evaluate("graphPage.select(5)")
    assert complaints == []
    tab.close()


@pytest.fixture
def live() -> Iterator[tuple[Session, Server]]:
    documents = [*["anna", "hannah", "nan", "an", "<b>ha</b>"] * 4, "<img src=x onerror=alert(1)>"]
    session = Session(Trainer(Settings(steps=1_000_000, n_embd=8, n_head=2, validation=0.2, validation_every=10), documents))
    server = serve(session)
    over: list[int] = []
    thread = threading.Thread(target=session.loop, args=(lambda: over,))
    thread.start()
    yield session, server
    over.append(1)
    thread.join()
    server.shutdown()
    server.server_close()


def test_a_run_is_watched_steered_and_looked_back_at(live: tuple[Session, Server], browser: Any) -> None:
    session, server = live
    complaints: list[str] = []
    tab = browser.new_page()
    tab.on("console", lambda message: complaints.append(message.text))
    tab.on("pageerror", lambda error: complaints.append(str(error)))
    tab.on("dialog", lambda dialog: complaints.append(dialog.message))
    tab.on("request", lambda request: complaints.append(request.url) if not request.url.startswith(address) else None)
    address = f"http://127.0.0.1:{server.server_port}/"
    tab.goto(server.address)

    def wait_for(condition: str) -> None:
        end = time.monotonic() + WAIT
        while not tab.evaluate(condition):
            assert time.monotonic() < end, (condition, complaints, tab.evaluate("document.body.innerText"))
            time.sleep(0.02)

    wait_for("document.documentElement.dataset.step === '0'")
    assert len(session.trainer.losses) == 0  # nothing runs before it is asked to
    tab.locator("#one").click()
    wait_for("document.documentElement.dataset.step === '1'")
    tab.locator("#pace").fill("3")
    tab.locator("#run").click()
    wait_for("Number(document.documentElement.dataset.step) > 25")
    tab.locator("#run").click()
    wait_for("document.getElementById('state').textContent.includes('paused')")
    made = len(session.trainer.losses)
    wait_for(f"run.losses.length === {made}")
    assert tab.evaluate("run.losses.map(Math.fround)") == [*array("f", session.trainer.losses)]
    assert tab.locator("#samples tbody tr").count() == len(session.prompts)
    assert "layer0.relu" in tab.locator("#health").inner_text()
    assert tab.locator("#weights canvas").count() == len(session.shapes)

    tab.locator("#when").fill("12")
    tab.locator("#look").click()
    wait_for("!document.getElementById('explorer').hidden && window.graphPage?.agree > 0")
    assert tab.evaluate("graphPage.agree") == tab.evaluate("graphPage.graph.nodes")
    again = session.ask(lambda: session.history.at(12))
    tokens = again.batches.batch(12, again.rng)[0]
    assert tab.evaluate("graphPage.graph.data[0]") == again.model.loss(tokens).data
    tab.locator("#when").fill("3")
    tab.locator("#look").click()
    wait_for("document.getElementById('moment').textContent.startsWith('Step 4 of the run')")
    wait_for("graphPage.agree === graphPage.graph.nodes")

    tab.locator("#other").fill("20")
    tab.locator("#compare").click()
    wait_for("document.querySelectorAll('#sides canvas').length > 0")
    assert tab.locator("#sides canvas").count() == 3 * len(session.shapes)

    tab.locator("#rate").fill("much")
    tab.locator("#rate").press("Enter")
    wait_for("document.getElementById('problem').textContent.startsWith('A learning rate is a number')")
    tab.locator("#rate").fill("0.05")
    tab.locator("#rate").press("Enter")
    wait_for("document.getElementById('state').textContent.includes('changed on the way')")
    assert session.trainer.rates == [(made, 0.05)]
    assert complaints == []
    tab.locator("#when").fill("99999")
    tab.evaluate("look()")
    wait_for("document.getElementById('problem').textContent.includes('not at 99999')")
    assert tab.evaluate("document.images.length") == 0
    tab.close()


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [1280, 400])
def test_the_live_page_fits_the_window(scheme: str, width: int, live: tuple[Session, Server], browser: Any) -> None:
    tab = browser.new_page(color_scheme=scheme, viewport={"width": width, "height": 800})
    tab.goto(live[1].address)
    end = time.monotonic() + WAIT
    while not tab.evaluate("!!document.querySelector('#health table') && !!document.querySelector('#weights canvas')"):
        assert time.monotonic() < end
        time.sleep(0.02)
    assert tab.evaluate("document.documentElement.scrollWidth") <= width
    unnamed = tab.evaluate("""() => [...document.querySelectorAll('.live button, .live input, .live canvas, .live svg')].filter(
        (e) => !(e.textContent.trim() || e.getAttribute('aria-label') || e.labels?.length)).length""")
    assert unnamed == 0
    tab.close()


def test_a_page_without_the_token_is_told_so(live: tuple[Session, Server], browser: Any) -> None:
    tab = browser.new_page()
    tab.goto(live[1].address.partition("#")[0])
    end = time.monotonic() + WAIT
    while "open the address that the command has printed" not in tab.evaluate("document.getElementById('problem').textContent"):
        assert time.monotonic() < end
        time.sleep(0.02)
    tab.close()
