"use strict";
// The page of a graph. It holds the nodes in the order of backward (0 is the root, each before its children), computes the
// gradients itself, in the engine's sequence, and recomputes what lies above a scalar that is changed.

const UNUSED = 2 ** 32 - 1, ABSENT = 2 ** 32 - 2, LEFT_OUT = 2 ** 32 - 3;
const NAMELESS = -1; // as the rank of a map whose elements have names of their own
const POINTS = 41; // of a curve
let payload; // what the page shows
const still = matchMedia("(prefers-reduced-motion: reduce)");
const narrow = matchMedia("(max-width: 900px)");
const darkness = matchMedia("(prefers-color-scheme: dark)");

const byId = (id) => document.getElementById(id);

// Text goes in as text nodes alone: what people call their values is never markup.
function make(tag, properties = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(properties)) {
    if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
    else if (value !== null) element.setAttribute(name, value);
  }
  element.append(...children.filter((child) => child !== null));
  return element;
}

async function unpack(Type, text) {
  const raw = Uint8Array.from(atob(text), (letter) => letter.charCodeAt(0));
  const stream = new Blob([raw]).stream().pipeThrough(new DecompressionStream("deflate"));
  return new Type(await new Response(stream).arrayBuffer());
}

const plain = (x) => (Number.isFinite(x) ? String(Number(x.toPrecision(5))) : String(x));
const signed = (x) => (x > 0 ? "+" : "") + plain(x);
const count = (n, one, many = `${one}s`) => `${n.toLocaleString("en")} ${n === 1 ? one : many}`;

// Functions that JavaScript does not have.

function erfc(x) {
  if (x < 0) return 2 - erfc(-x);
  if (x < 2.5) {
    let term = x, sum = x;
    for (let n = 1; Math.abs(term) > 1e-18 * Math.abs(sum); n++) {
      term *= (-x * x * (2 * n - 1)) / (n * (2 * n + 1));
      sum += term;
    }
    return 1 - (2 / Math.sqrt(Math.PI)) * sum;
  }
  let fraction = x;
  for (let n = 60; n > 0; n--) fraction = x + n / 2 / fraction;
  return Math.exp(-x * x) / (fraction * Math.sqrt(Math.PI));
}

const LANCZOS = [
  0.99999999999980993, 676.5203681218851, -1259.1392167224028, 771.32342877765313, -176.61502916214059, 12.507343278686905,
  -0.13857109526572012, 9.9843695780195716e-6, 1.5056327351493116e-7,
];

function lgamma(x) {
  if (x < 0.5) return Math.log(Math.PI / Math.abs(Math.sin(Math.PI * x))) - lgamma(1 - x);
  let sum = LANCZOS[0];
  for (let k = 1; k < 9; k++) sum += LANCZOS[k] / (x - 1 + k);
  const t = x + 6.5;
  return 0.5 * Math.log(2 * Math.PI) + (x - 0.5) * Math.log(t) - t + Math.log(sum);
}

const sigmoid = (x) => (x >= 0 ? 1 / (1 + Math.exp(-x)) : Math.exp(x) / (1 + Math.exp(x)));

// Value of an op of x, and of y: its second operand or its number.
const VALUES = {
  add: (x, y) => x + y, add_k: (x, y) => x + y, mul: (x, y) => x * y, mul_k: (x, y) => x * y,
  pow: (x, y) => x ** y, pow_k: (x, y) => x ** y, k_pow: (x, y) => y ** x,
  exp: Math.exp, log: Math.log, relu: (x) => (x > 0 ? x : 0), tanh: Math.tanh, sigmoid, sqrt: Math.sqrt, sin: Math.sin, cos: Math.cos,
  abs: Math.abs, atan: Math.atan, asin: Math.asin, acos: Math.acos, sinh: Math.sinh, cosh: Math.cosh, log1p: Math.log1p,
  expm1: Math.expm1, log2: Math.log2, log10: Math.log10, erf: (x) => 1 - erfc(x), lgamma, gelu: (x) => 0.5 * x * erfc(-x / Math.SQRT2),
  silu: (x) => x * sigmoid(x), softplus: (x) => Math.max(x, 0) + Math.log1p(Math.exp(-Math.abs(x))), floor: Math.floor,
  where: (x) => x, minimum: Math.min, minimum_k: Math.min, maximum: Math.max, maximum_k: Math.max,
  atan2: Math.atan2, atan2_k: Math.atan2, k_atan2: (x, y) => Math.atan2(y, x), hypot: Math.hypot, hypot_k: Math.hypot,
};

const SIGNS = { add: "+", mul: "\u00d7", pow: "^" };

class Graph {
  static async read() {
    const graph = new Graph();
    const { nodes, exact, whole } = payload;
    graph.whole = whole; // so many nodes, from the root on, have all their edges here
    graph.nodes = nodes;
    graph.op = await unpack(Uint8Array, payload.op);
    graph.data = new Float64Array(nodes);
    graph.engine = new Float64Array(nodes);
    graph.data.set(await unpack(Float64Array, payload.data));
    graph.data.set(await unpack(Float32Array, payload.far_data), exact);
    graph.engine.set(await unpack(Float64Array, payload.grad));
    graph.engine.set(await unpack(Float32Array, payload.far_grad), exact);
    graph.first = await unpack(Uint32Array, payload.first);
    graph.child = await unpack(Uint32Array, payload.children);
    graph.steps = await unpack(Uint32Array, payload.steps);
    graph.length = graph.steps.length / 3;
    const constants = await unpack(Float64Array, payload.constants);
    graph.constant = new Float64Array(nodes).fill(NaN);
    for (let i = 0, k = 0; i < nodes; i++) if (/^k_|_k$/.test(graph.kind(i))) graph.constant[i] = constants[k++];
    graph.findPartials(await unpack(Float64Array, payload.given));
    graph.findUses();
    graph.findWays();
    return graph;
  }

  kind(i) {
    return payload.kinds[this.op[i]];
  }

  findPartials(given) {
    const { child, data, first } = this;
    this.partial = new Float64Array(child.length);
    this.owner = new Uint32Array(child.length);
    let next = 0;
    for (let i = 0; i < this.whole; i++) {
      const kind = this.kind(i);
      for (let e = first[i]; e < first[i + 1]; e++) {
        this.owner[e] = i;
        if (kind === "dot" || kind === "mul") this.partial[e] = data[child[first[i] + ((e - first[i]) ^ 1)]];
        else if (kind === "sum" || kind === "add" || kind === "add_k") this.partial[e] = 1;
        else if (kind === "mul_k") this.partial[e] = this.constant[i];
        else if (kind === "exp") this.partial[e] = data[i];
        else if (kind === "relu") this.partial[e] = data[child[e]] > 0 ? 1 : 0;
        else this.partial[e] = given[next++];
      }
    }
    this.closed = this.partial.some(Number.isNaN); // some nodes pass their gradients on in ways of their own
  }

  // The edges that step s of backward goes along, in their sequence.
  *edgesOf(s) {
    const [node, low, high] = this.steps.subarray(3 * s, 3 * s + 3);
    const start = this.first[node], kind = this.kind(node);
    if (kind === "sum" || kind === "dot") {
      const width = kind === "dot" ? 2 : 1;
      for (let k = high - 1; k >= low; k--) for (let j = 0; j < width; j++) yield start + k * width + j;
    } else for (let e = start; e < this.first[node + 1]; e++) yield e;
  }

  findUses() {
    this.sequence = new Uint32Array(this.child.length); // all edges as backward goes along them
    this.until = new Uint32Array(this.length + 1); // where each step begins in it
    let at = 0;
    for (let s = 0; s < this.length; s++) {
      for (const e of this.edgesOf(s)) this.sequence[at++] = e;
      this.until[s + 1] = at;
    }
    this.firstUse = new Uint32Array(this.nodes + 1);
    for (const c of this.child) this.firstUse[c + 1]++;
    for (let i = 0; i < this.nodes; i++) this.firstUse[i + 1] += this.firstUse[i];
    const free = this.firstUse.slice();
    this.use = new Uint32Array(this.child.length);
    for (const e of this.sequence) this.use[free[this.child[e]]++] = e;
  }

  // Of each node the edge by which the way with the largest product of partials leads to the root.
  findWays() {
    this.strength = new Float64Array(this.nodes);
    this.strength[0] = 1;
    this.way = new Int32Array(this.nodes).fill(-1);
    for (let e = 0; e < this.child.length; e++) {
      const strength = Math.abs(this.partial[e]) * this.strength[this.owner[e]];
      if (strength > this.strength[this.child[e]]) {
        this.strength[this.child[e]] = strength;
        this.way[this.child[e]] = e;
      }
    }
  }

  // Gradients after so many steps of backward.
  backward(steps) {
    const { child, owner, partial, sequence } = this;
    const grad = new Float64Array(this.nodes);
    grad[0] = 1;
    const end = this.until[steps];
    for (let k = 0; k < end; k++) grad[child[sequence[k]]] += partial[sequence[k]] * grad[owner[sequence[k]]];
    // Not all users of the nodes further down are here.
    if (steps === this.length) grad.set(this.engine.subarray(this.whole), this.whole);
    return grad;
  }

  // The nodes above one, it not included, in the order in which they are computed.
  above(node) {
    const reached = new Uint8Array(this.nodes);
    reached[node] = 1;
    for (let i = Math.min(node, this.whole) - 1; i >= 0; i--) {
      for (let e = this.first[i]; e < this.first[i + 1]; e++) {
        if (reached[this.child[e]]) {
          reached[i] = 1;
          break;
        }
      }
    }
    const nodes = [];
    for (let i = Math.min(node, this.whole) - 1; i >= 0; i--) if (reached[i]) nodes.push(i);
    return nodes;
  }

  // All data if `node` had the number x; `above` are the nodes above it.
  recompute(node, x, above) {
    const now = this.data.slice();
    now[node] = x;
    for (const i of above) now[i] = this.value(i, now);
    return now;
  }

  value(i, now) {
    const { child, first } = this, start = first[i], end = first[i + 1], kind = this.kind(i);
    let sum = 0;
    if (kind === "dot") for (let e = start; e < end; e += 2) sum += now[child[e]] * now[child[e + 1]];
    else if (kind === "sum") for (let e = start; e < end; e++) sum += now[child[e]];
    else if (kind === "custom") {
      // What an own op computes only its author knows: it is followed along its partials.
      sum = this.data[i];
      for (let e = start; e < end; e++) sum += this.partial[e] * (now[child[e]] - this.data[child[e]]);
    } else return VALUES[kind](now[child[start]], end - start > 1 ? now[child[start + 1]] : this.constant[i]);
    return sum;
  }
}

class Plate {
  // A tensor as a picture of one pixel a cell.
  constructor(page, stored) {
    this.page = page;
    Object.assign(this, stored);
    const [rowLabels, columnLabels] = payload.axes[this.name] ?? [null, null];
    this.turned = this.rows > 1.5 * this.columns && !columnLabels;
    this.across = this.turned ? rowLabels : columnLabels;
    this.down = this.turned ? columnLabels : rowLabels;
    this.width = this.turned ? this.rows : this.columns;
    this.height = this.turned ? this.columns : this.rows;
    this.extra = new Map(); // of places without a node, which number of `data` and `grad` is theirs
    this.places.forEach((place, k) => {
      if (place === UNUSED || place === LEFT_OUT) this.extra.set(k, this.extra.size);
    });
    this.at = 0;
  }

  static async read(page, given) {
    return new Plate(page, {
      ...given,
      places: await unpack(Uint32Array, given.places),
      data: await unpack(Float64Array, given.data),
      grad: await unpack(Float64Array, given.grad),
      update: given.update === null ? null : await unpack(Float64Array, given.update),
    });
  }

  cell(x, y) {
    return this.turned ? x * this.columns + y : y * this.columns + x;
  }

  spot(k) {
    const row = Math.floor(k / this.columns), column = k % this.columns;
    return this.turned ? [row, column] : [column, row];
  }

  number(k, view = this.page.view) {
    const place = this.places[k];
    if (place === ABSENT) return NaN;
    if (view === "update") return this.update === null ? NaN : this.update[k];
    if (this.extra.has(k)) return (view === "data" ? this.data : this.grad)[this.extra.get(k)];
    return (view === "data" ? this.page.now : this.page.grad)[place];
  }

  title(k) {
    const place = this.places[k], row = Math.floor(k / this.columns), column = k % this.columns;
    if (this.rank === NAMELESS) return place < LEFT_OUT ? this.page.name(place) : this.name;
    return this.name + ["", `[${k}]`, `[${row}][${column}]`][this.rank];
  }

  // What is to be said of a cell beside its number.
  remark(k) {
    const place = this.places[k], row = Math.floor(k / this.columns), column = k % this.columns;
    const [rows, columns] = payload.axes[this.name] ?? [null, null];
    const where = [rows?.[row], columns?.[column]].filter((label) => label !== undefined).map((label) => `\u201c${label}\u201d`);
    const whose = where.length ? ` (${where.join(", ")})` : "";
    if (place === ABSENT) return columns ? `${whose} masked: the key is of a later position` : `${whose} nothing is here`;
    if (place === UNUSED) {
      return `${whose} ${rows && this.rank === 2 ? "this letter is not in the document" : "not used"}: no gradient comes here`;
    }
    if (place === LEFT_OUT) return `${whose} beyond what this page holds of the graph`;
    const graph = this.page.graph;
    if (graph.kind(place) === "relu" && graph.data[place] === 0) return `${whose} a closed relu: its input is not above 0, nothing passes back`;
    return whose;
  }

  show() {
    const room = narrow.matches ? Math.min(720, innerWidth - 60) : 720;
    const size = Math.max(4, Math.min(this.across || this.down ? 18 : 14, Math.floor(room / Math.max(this.width, this.height))));
    this.size = size;
    this.canvas = make("canvas", {
      class: "map", width: this.width, height: this.height, tabindex: 0, role: "application", "aria-roledescription": "heat map",
      "aria-label": `${this.name}, ${this.rank < 2 ? count(this.places.length, "cell") : `${this.rows} rows of ${this.columns}`}. ` +
        "Arrow keys move, Enter chooses.",
    });
    this.canvas.style.width = `${this.width * size}px`;
    this.canvas.style.height = `${this.height * size}px`;
    this.mark = make("div", { class: "mark" });
    this.cursor = make("div", { class: "mark cursor" });
    const field = make("div", { class: "field" }, this.canvas, this.mark, this.cursor);
    const labels = (texts, name, side) => {
      const spans = texts.map((text) => {
        const span = make("span", {}, text);
        span.style[side] = `${size}px`;
        if (side === "height") span.style.lineHeight = `${size}px`;
        return span;
      });
      return make("div", { class: name, "aria-hidden": "true" }, ...spans);
    };
    const plate = make("div", { class: "plate" },
      make("div", { class: "corner" }),
      this.across ? labels(this.across, "across", "width") : make("div"),
      this.down ? labels(this.down, "down", "height") : make("div"),
      field);
    this.scaleText = make("span", { class: "scale" });
    const sizes = this.rank === 2 ? ` ${this.rows}\u00d7${this.columns}${this.turned ? ", turned" : ""}` : this.rank === 1 ? ` ${this.columns}` : "";
    this.canvas.addEventListener("pointermove", (event) => this.tell(this.under(event)));
    this.canvas.addEventListener("click", (event) => this.choose(this.under(event)));
    this.canvas.addEventListener("keydown", (event) => this.key(event));
    this.canvas.addEventListener("focus", () => this.move(this.at));
    this.canvas.addEventListener("blur", () => (this.cursor.style.display = "none"));
    this.paint();
    return make("figure", {}, make("figcaption", {}, make("strong", {}, this.name), sizes, " ", this.scaleText), plate);
  }

  under(event) {
    const box = this.canvas.getBoundingClientRect();
    const limit = (x, n) => Math.max(0, Math.min(n - 1, Math.floor(x)));
    return this.cell(limit((event.clientX - box.left) / this.size, this.width), limit((event.clientY - box.top) / this.size, this.height));
  }

  tell(k) {
    const number = this.number(k), word = { data: "data", grad: "gradient", update: "update" }[this.page.view];
    this.page.say(`${this.title(k)}${this.remark(k)}${Number.isNaN(number) && this.places[k] === ABSENT ? "" : `: ${word} ${signed(number)}`}`);
  }

  choose(k) {
    this.at = k;
    const place = this.places[k];
    if (place < LEFT_OUT) this.page.select(place, this);
    else this.tell(k);
  }

  move(k) {
    this.at = k;
    this.frame(this.cursor, k);
    this.tell(k);
  }

  key(event) {
    const [x, y] = this.spot(this.at);
    const goal = {
      ArrowLeft: [x - 1, y], ArrowRight: [x + 1, y], ArrowUp: [x, y - 1], ArrowDown: [x, y + 1], Home: [0, y], End: [this.width - 1, y],
    }[event.key];
    if (goal) this.move(this.cell(Math.max(0, Math.min(this.width - 1, goal[0])), Math.max(0, Math.min(this.height - 1, goal[1]))));
    else if (event.key === "Enter" || event.key === " ") this.choose(this.at);
    else return;
    event.preventDefault();
  }

  frame(mark, k) {
    const [x, y] = this.spot(k);
    mark.style.display = "block";
    mark.style.left = `${x * this.size - 2}px`;
    mark.style.top = `${y * this.size - 2}px`;
    mark.style.width = mark.style.height = `${this.size + 4}px`;
  }

  paint() {
    if (!this.canvas) return;
    const cells = this.places.length, view = this.page.view;
    const numbers = new Float64Array(cells), sizes = [];
    for (let k = 0; k < cells; k++) {
      numbers[k] = this.number(k);
      if (Number.isFinite(numbers[k]) && numbers[k] !== 0) sizes.push(Math.abs(numbers[k]));
    }
    // The largest sizes would leave all others pale.
    sizes.sort((a, b) => a - b);
    const scale = sizes.length ? sizes[Math.min(sizes.length - 1, Math.floor(0.98 * sizes.length))] : 0;
    this.scaleText.textContent = scale ? `\u00b1${plain(scale)}${view === "data" ? "" : ", by root"}` : view === "update" && !this.update ? "no parameter" : "all 0";
    const image = new ImageData(this.width, this.height);
    for (let k = 0; k < cells; k++) {
      const [x, y] = this.spot(k);
      const share = scale ? Math.min(1, Math.abs(numbers[k]) / scale) : 0;
      const strength = view === "data" ? share : Math.sqrt(share);
      const { low, high, zero, none } = this.page.colours;
      const to = numbers[k] < 0 ? low : high;
      for (let c = 0; c < 3; c++) {
        image.data[4 * (y * this.width + x) + c] = Number.isNaN(numbers[k]) ? none[c] : zero[c] + strength * (to[c] - zero[c]);
      }
      image.data[4 * (y * this.width + x) + 3] = 255;
    }
    this.canvas.getContext("2d").putImageData(image, 0, 0);
    this.showChosen();
  }

  showChosen() {
    if (!this.canvas) return;
    const chosen = this.places.indexOf(this.page.chosen);
    if (chosen >= 0) this.frame(this.mark, chosen);
    else if (this.marked) this.mark.style.display = "none";
    this.marked = chosen >= 0;
  }
}

class Page {
  async start() {
    const leaving = new AbortController(); // of a graph that another one replaces
    this.leave = () => {
      leaving.abort();
      clearInterval(this.timer);
    };
    this.signal = leaving.signal;
    for (const id of ["maps", "detail"]) byId(id).replaceChildren();
    byId("views").replaceChildren(make("legend", {}, "Show"));
    this.graph = await Graph.read();
    this.now = this.graph.data;
    this.view = "data";
    this.chosen = 0;
    this.readColours();
    this.names = new Array(this.graph.nodes);
    this.plates = new Map();
    for (const given of payload.maps) this.plates.set(given.name, await Plate.read(this, given));
    for (const plate of this.plates.values()) {
      plate.places.forEach((place, k) => {
        if (place < LEFT_OUT && plate.rank !== NAMELESS) this.names[place] ??= plate.title(k);
      });
    }
    this.numbers = new Map();
    for (let i = this.graph.nodes - 1; i >= 0; i--) this.numbers.set(this.name(i), i);
    this.all = this.graph.length;
    this.grad = this.graph.closed ? this.graph.engine : this.graph.backward(this.all);
    this.writeHead();
    this.writeMaps();
    this.select(this.addressed());
    this.on(darkness, "change", () => {
      this.readColours();
      this.paint();
    });
    document.documentElement.dataset.ready = "yes";
  }

  on(element, event, act) {
    element.addEventListener(event, act, { signal: this.signal });
  }

  name(i) {
    return this.names[i] ?? payload.labels[i] ?? `${this.title(i)} #${i}`;
  }

  title(i) {
    if (payload.titles[i] !== undefined) return payload.titles[i];
    const kind = this.graph.kind(i), constant = plain(this.graph.constant[i]);
    return kind.startsWith("k_") ? `${constant} ${kind.slice(2)}` : kind.endsWith("_k") ? `${kind.slice(0, -2)} ${constant}` : kind;
  }

  say(text) {
    byId("status").textContent = text;
  }

  readColours() {
    const style = getComputedStyle(document.documentElement);
    this.colours = {};
    for (const name of ["low", "high", "zero", "none"]) {
      const hex = style.getPropertyValue(`--${name}`).trim().slice(1);
      this.colours[name] = [0, 2, 4].map((k) => parseInt(hex.slice(k, k + 2), 16));
    }
  }

  paint() {
    for (const plate of this.plates.values()) plate.paint();
    this.paintLetters();
  }

  writeHead() {
    const { graph } = this, { total } = payload;
    byId("title").textContent = payload.title;
    const whole = graph.whole === total.nodes;
    const held = whole ? "" : ` This page holds the ${count(graph.whole, "node")} nearest to the root whole, and ${
      count(graph.nodes - graph.whole, "more node")} without what is below.`;
    let agree = 0;
    for (let i = 0; i < graph.whole; i++) agree += Object.is(this.grad[i], graph.engine[i]);
    this.agree = agree;
    const checked = graph.closed
      ? " Some nodes pass gradients on by functions of their own: the gradients are the engine's."
      : agree === graph.whole
        ? ` The gradients are computed on this page, and equal the engine's in ${whole ? "all" : "these"} ${count(agree, "node")} to the last bit.`
        : ` Of the gradients computed on this page ${count(graph.whole - agree, "one")} differ from the engine's.`;
    byId("summary").textContent = `${count(total.nodes, "node")}, ${count(total.edges, "edge")}; the root is ${plain(graph.data[0])}.${held}${checked}`;
    byId("moment").textContent = payload.note ?? "";
    const views = [["data", "data"], ["grad", "gradient"]];
    if (payload.maps.some((one) => one.update !== null)) views.push(["update", "update"]);
    for (const [view, word] of views) {
      const input = make("input", { type: "radio", name: "view", value: view, onchange: () => this.setView(view) });
      input.checked = view === "data";
      byId("views").append(make("label", {}, input, ` ${word}`));
    }
    this.on(byId("controls"), "submit", (event) => event.preventDefault());
    this.on(byId("goto"), "change", (event) => {
      const i = this.numbers.get(event.target.value.trim());
      if (i === undefined) this.say(`There is no ${event.target.value} here. A name is written as the page does, such as ${this.name(0)}.`);
      else this.select(i);
    });
    const slider = byId("backward");
    slider.max = this.all;
    slider.value = this.all;
    byId("step").textContent = `${this.all} of ${this.all}`;
    slider.closest(".backward").hidden = graph.closed || this.all === 0;
    this.on(slider, "input", () => this.setStep(Number(slider.value)));
    byId("play").hidden = still.matches;
    this.on(byId("play"), "click", () => this.play());
  }

  setView(view) {
    this.view = view;
    for (const input of byId("views").querySelectorAll("input")) input.checked = input.value === view;
    this.paint();
  }

  setStep(step) {
    const { graph } = this;
    this.grad = graph.backward(step);
    byId("step").textContent = `${step} of ${this.all}`;
    const node = step > 0 ? graph.steps[3 * (step - 1)] : 0;
    byId("moment").textContent = step === 0
      ? "Nothing has been passed back: the root has gradient 1, all others 0."
      : step === this.all
        ? "Backward is complete."
        : `Just now ${this.name(node)} (${this.title(node)}) passed its gradient ${plain(this.grad[node])} to ${
          count(graph.until[step] - graph.until[step - 1], "operand")}.`;
    if (this.view === "grad") this.paint();
    else this.setView("grad");
    this.writeDetail();
    this.say(`${this.name(this.chosen)}: gradient so far ${signed(this.grad[this.chosen])}`);
  }

  play() {
    const slider = byId("backward");
    if (this.timer) {
      clearInterval(this.timer);
      this.timer = null;
      byId("play").textContent = "Play";
      return;
    }
    if (Number(slider.value) === this.all) slider.value = 0;
    byId("play").textContent = "Stop";
    this.timer = setInterval(() => {
      slider.value = Math.min(this.all, Number(slider.value) + Math.max(1, Math.round(this.all / 300)));
      this.setStep(Number(slider.value));
      if (Number(slider.value) === this.all) this.play();
    }, 50);
  }

  writeMaps() {
    payload.sections.forEach(({ title, maps }, number) => {
      const row = make("div", { class: "row" });
      const fill = () => {
        if (!row.childElementCount) row.append(...maps.map((name) => this.plates.get(name).show()));
      };
      if (!maps.length) return;
      if (number === payload.sections.length - 1 && payload.sections.some((other, k) => k < number && other.maps.length)) {
        const summary = make("summary", {}, `${title} (${count(maps.length, "map")})`);
        byId("maps").append(make("details", { ontoggle: fill }, summary, row));
        return;
      }
      byId("maps").append(make("section", {}, make("h2", {}, title), row));
      fill();
      if (payload.document && maps.includes("logits")) {
        this.letters = make("div", { class: "letters" });
        byId("maps").append(make("section", {}, make("h3", {}, "Probability of the next letter, the right one marked"), this.letters));
        this.paintLetters();
      }
    });
  }

  paintLetters() {
    if (!this.letters) return;
    const { seen, wanted, letters } = payload.document;
    const plate = this.plates.get("exp"), sums = this.plates.get("sum");
    const columns = seen.map((letter, row) => {
      const chances = letters.map((next, column) => {
        const place = plate.places[row * plate.columns + column];
        return { next, place, chance: this.now[place] / this.now[sums.places[row]] };
      });
      const best = [...chances].sort((a, b) => b.chance - a.chance).slice(0, 5);
      const right = chances.find(({ next }) => next === wanted[row]);
      if (!best.includes(right)) best[4] = right;
      const items = best.map(({ next, place, chance }) => {
        const bar = make("span", { class: "bar" });
        bar.style.width = `${100 * chance}%`;
        const label = `${next}: ${(100 * chance).toFixed(1)} %${next === wanted[row] ? ", the right one" : ""}`;
        return make("li", { class: next === wanted[row] ? "wanted" : null },
          make("button", { type: "button", "aria-label": label, onclick: () => this.select(place) },
            make("span", {}, next), bar, make("span", {}, `${(100 * chance).toFixed(1)} %`)));
      });
      return make("div", {}, `after ${seen.slice(0, row + 1).join("")}`, make("ul", { class: "bars" }, ...items));
    });
    this.letters.replaceChildren(...columns);
  }

  // Choose a node, in the map `plate` or, by default, in the first that has it.
  select(node, plate = null) {
    const changed = this.now !== this.graph.data;
    this.chosen = node;
    this.plate = plate ?? [...this.plates.values()].find((one) => one.places.includes(node));
    this.now = this.graph.data;
    this.above = this.graph.above(node);
    this.writeDetail();
    this.writeCurve();
    if (changed) this.paint();
    else for (const one of this.plates.values()) one.showChosen();
    this.writeAddress();
    if (plate && narrow.matches) byId("detail").scrollIntoView();
    this.say(`${this.name(node)}: data ${signed(this.graph.data[node])}, gradient ${signed(this.grad[node])}`);
  }

  writeAddress() {
    if (!byId("graph")) return; // of a run: its address holds what lets one in
    try {
      history.replaceState(null, "", `#${encodeURIComponent(this.name(this.chosen))}`);
    } catch {
      // A notebook's frame has no address.
    }
  }

  addressed() {
    try {
      return this.numbers.get(decodeURIComponent(location.hash.slice(1))) ?? 0;
    } catch {
      return 0; // no name that could be read
    }
  }

  link(node) {
    return make("button", { type: "button", onclick: () => {
      this.select(node);
      byId("detail").focus();
    } }, this.name(node));
  }

  formula(node) {
    const { graph } = this, kind = graph.kind(node), start = graph.first[node], end = graph.first[node + 1];
    const data = (e) => plain(graph.data[graph.child[e]]), result = plain(graph.data[node]), constant = plain(graph.constant[node]);
    const guard = (text) => (text.startsWith("-") ? `(${text})` : text);
    if (kind === "leaf") return "A leaf: nothing is below it.";
    if (kind === "dot") return `${count((end - start) / 2, "product")} added up = ${result}`;
    if (kind === "sum") return `${count(end - start, "number")} added up = ${result}`;
    if (kind === "custom") return `${this.title(node)}(${Array.from({ length: end - start }, (_, k) => data(start + k)).join(", ")}) = ${result}`;
    const word = kind.replace(/^k_|_k$/, "");
    const operands = end - start > 1 ? [data(start), data(start + 1)]
      : kind.startsWith("k_") ? [constant, data(start)] : kind.endsWith("_k") ? [data(start), constant] : [data(start)];
    if (SIGNS[word]) return `${word === "pow" ? guard(operands[0]) : operands[0]} ${SIGNS[word]} ${guard(operands[1])} = ${result}`;
    return `${word}(${operands.join(", ")}) = ${result}`;
  }

  table(caption, heads, rows, foot = null) {
    const body = rows.map((cells) => make("tr", {}, ...cells.map((cell) => make("td", {}, cell))));
    const table = make("table", {}, make("caption", {}, caption),
      make("thead", {}, make("tr", {}, ...heads.map((head) => make("th", { scope: "col" }, head)))), make("tbody", {}, ...body));
    if (foot) table.append(make("tfoot", {}, make("tr", {}, ...foot.map((cell) => make("td", {}, cell)))));
    return make("div", { class: "scroll", tabindex: rows.length > 8 ? 0 : null, role: "group", "aria-label": caption }, table);
  }

  writeDetail() {
    const { graph, chosen, grad, plate } = this, parts = [];
    const remark = plate ? plate.remark(plate.places.indexOf(chosen)).trim() : "";
    parts.push(make("h2", {}, this.name(chosen)));
    const facts = [["op", this.title(chosen)], ["data", String(graph.data[chosen])], ["gradient", String(grad[chosen])]];
    if (plate?.update) facts.push(["update", String(plate.update[plate.places.indexOf(chosen)])]);
    parts.push(make("dl", {}, ...facts.flatMap(([name, text]) => [make("dt", {}, name), make("dd", { "data-fact": name }, text)])));
    if (remark) parts.push(make("p", {}, remark));
    if (plate) {
      const show = () => {
        if (!plate.canvas) byId("maps").querySelector("details").open = true;
        setTimeout(() => {
          plate.at = plate.places.indexOf(chosen);
          plate.canvas.focus();
        }, plate.canvas ? 0 : 100); // maps of a closed section are made when it opens
      };
      parts.push(make("button", { type: "button", onclick: show }, `Show in ${plate.name}`));
    }
    if (chosen >= graph.whole) {
      parts.push(make("p", {}, "The page's graph ends above this node: what it is computed from, and users that it may have there, are left out."));
    } else {
      parts.push(make("p", {}, make("code", { "data-fact": "formula" }, this.formula(chosen))));
      const edges = [];
      for (let e = graph.first[chosen]; e < graph.first[chosen + 1]; e++) edges.push(e);
      if (edges.length) {
        const rows = edges.map((e) => [
          this.link(graph.child[e]), plain(graph.data[graph.child[e]]), plain(graph.partial[e]), plain(graph.partial[e] * grad[chosen]),
        ]);
        parts.push(this.table(`Computed from (${count(edges.length, "child", "children")})`,
          ["child", "data", "partial", "gets"], rows));
      }
    }
    const beyond = chosen >= graph.whole;
    const uses = Array.from(graph.use.subarray(graph.firstUse[chosen], graph.firstUse[chosen + 1]));
    let total = chosen === 0 ? 1 : 0;
    const rows = uses.map((e) => {
      const given = graph.partial[e] * grad[graph.owner[e]];
      total += given;
      return [this.link(graph.owner[e]), plain(grad[graph.owner[e]]), plain(graph.partial[e]), plain(given)];
    });
    if (uses.length) {
      const foot = [`${beyond ? "these " : ""}added up${total === grad[chosen] ? ": the gradient" : ""}`, "", "", plain(total)];
      parts.push(this.table(`Used by (${count(uses.length, "time")}${beyond ? " on this page" : ""}), in the order in which backward adds`,
        ["user", "gradient", "partial", "gives"], rows, foot));
    } else if (chosen === 0) parts.push(make("p", {}, "The root: its gradient by itself is 1."));
    if (graph.way[chosen] >= 0 && !beyond) {
      const way = [];
      let product = 1;
      for (let i = chosen; i !== 0; i = graph.owner[graph.way[i]]) {
        product *= graph.partial[graph.way[i]];
        way.push(graph.owner[graph.way[i]]);
      }
      parts.push(make("h3", {}, "Strongest way to the root"),
        make("p", { class: "dim" }, `This way alone brings ${plain(product)} of the gradient: the product of its ${count(way.length, "partial")}.`),
        make("div", { class: "path" }, ...way.map((node) => this.link(node))));
    }
    this.curve = make("div", {});
    byId("detail").replaceChildren(...parts, this.curve);
    if (this.points) this.showCurve();
  }

  // Computed after the rest is there: it takes longest.
  writeCurve() {
    this.points = null;
    const { chosen, graph } = this;
    if (chosen === 0 || chosen >= graph.whole || !this.above.length || graph.closed) return;
    setTimeout(() => {
      if (this.chosen !== chosen) return;
      const x = graph.data[chosen], reach = Math.max(1, 2 * Math.abs(x)), h = 1e-5 * Math.max(1, Math.abs(x));
      const loss = (at) => graph.recompute(chosen, at, this.above)[0];
      const here = loss(x);
      this.slopes = [(here - loss(x - h)) / h, (loss(x + h) - here) / h];
      this.points = Array.from({ length: POINTS }, (_, k) => {
        const at = x + reach * ((2 * k) / (POINTS - 1) - 1);
        return [at, loss(at)];
      });
      this.reach = reach;
      if (this.points.filter(([, y]) => Number.isFinite(y)).length > 1 && Number.isFinite(here)) this.showCurve();
      else this.points = null;
    });
  }

  showCurve() {
    const { graph, chosen, points, reach } = this, x = graph.data[chosen], slope = graph.engine[chosen];
    const width = 400, height = 160, losses = points.map(([, y]) => y).filter(Number.isFinite);
    const low = Math.min(...losses), high = Math.max(...losses), room = high - low || 1;
    const px = (at) => ((at - x) / reach + 1) * (width / 2), py = (y) => height - 8 - ((y - low) / room) * (height - 16);
    const svg = (tag, properties) => {
      const element = document.createElementNS("http://www.w3.org/2000/svg", tag);
      for (const [name, value] of Object.entries(properties)) element.setAttribute(name, value);
      return element;
    };
    const label = `The root for ${this.name(chosen)} from ${plain(x - reach)} to ${plain(x + reach)}: from ${plain(points[0][1])} over ${
      plain(graph.data[0])} to ${plain(points[POINTS - 1][1])}; the line has the gradient's slope.`;
    const plot = svg("svg", { viewBox: `0 0 ${width} ${height}`, class: "plot", role: "img", "aria-label": label, preserveAspectRatio: "none" });
    const line = (ends, colour, dash) => svg("polyline", {
      points: ends.filter(([, y]) => Number.isFinite(y)).map(([at, y]) => `${px(at).toFixed(1)},${py(y).toFixed(1)}`).join(" "),
      fill: "none", stroke: colour, "stroke-width": 2, "stroke-dasharray": dash, "vector-effect": "non-scaling-stroke",
    });
    plot.append(line([[x - reach, graph.data[0] - slope * reach], [x + reach, graph.data[0] + slope * reach]], "var(--high)", "5 4"),
      line(points, "var(--low)", "none"));
    const spot = svg("circle", { r: 5, fill: "var(--ink)", cx: px(x), cy: py(graph.data[0]) });
    plot.append(spot);
    const told = make("p", { "data-fact": "what if" }, "");
    const slider = make("input", {
      type: "range", min: -100, max: 100, value: 0, step: 1, "aria-label": `Another number for ${this.name(chosen)}`,
    });
    const set = () => {
      const at = x + (reach * Number(slider.value)) / 100;
      this.now = Number(slider.value) === 0 ? graph.data : graph.recompute(chosen, at, this.above);
      spot.setAttribute("cx", px(at));
      spot.setAttribute("cy", py(this.now[0]));
      told.textContent = Number(slider.value) === 0
        ? `At ${plain(x)}, as computed. The slider changes it, and all ${count(this.above.length, "node")} above.`
        : `At ${plain(at)} the root is ${plain(this.now[0])} (${signed(this.now[0] - graph.data[0])}); the tangent says ${
          plain(graph.data[0] + slope * (at - x))}.`;
      if (this.view !== "data" && Number(slider.value) !== 0) this.setView("data");
      else this.paint();
    };
    slider.addEventListener("input", set);
    const back = make("button", { type: "button", onclick: () => {
      slider.value = 0;
      set();
    } }, "Put back");
    const [left, right] = this.slopes;
    const own = this.above.some((i) => graph.kind(i) === "custom");
    this.curve.replaceChildren(...[
      make("h3", {}, "If this scalar were another"),
      make("dl", {}, ...[["gradient", slope], ["difference, left", left], ["difference, right", right]].flatMap(([name, number]) => [
        make("dt", {}, name), make("dd", { "data-fact": name === "gradient" ? "tangent" : name }, String(Number(number.toPrecision(9)))),
      ])),
      plot, slider, told, back,
      own ? make("p", { class: "dim" }, "A node above is an own op, which the page cannot compute: it is followed along its partials.") : null,
    ].filter((part) => part !== null));
    told.textContent = `At ${plain(x)}, as computed. The slider changes it, and all ${count(this.above.length, "node")} above.`;
  }
}

async function openGraph(given) {
  window.graphPage?.leave();
  payload = given;
  window.graphPage = new Page();
  await window.graphPage.start();
}

if (byId("graph")) openGraph(JSON.parse(byId("graph").textContent));
