"use strict";
// A run to watch: frames are asked for, one at a time, so that a slow reader never falls behind.

const token = location.hash.slice(1);
const IDLE = 300; // ms between two frames of a run that stands still
const COLUMNS = 300; // of the plot: more losses than that are averaged
const TOP_PACE = 1e6;

const run = { losses: [], running: false };

async function ask(path, options = {}) {
  const answer = await fetch(path, { ...options, headers: { "X-Token": token } });
  if (!answer.ok) throw new Error((await answer.text()).trim());
  return answer;
}

async function order(verb, number = 0) {
  try {
    await ask("/do", { method: "POST", body: JSON.stringify({ verb, number }) });
    byId("problem").textContent = "";
  } catch (error) {
    byId("problem").textContent = error.message;
  }
}

async function pull() {
  for (;;) {
    try {
      const raw = await (await ask(`/frame?step=${run.losses.length}`)).arrayBuffer();
      const length = new Uint32Array(raw, 0, 1)[0];
      const head = JSON.parse(new TextDecoder().decode(new Uint8Array(raw, 4, length)));
      const numbers = new Float32Array(raw, 4 + length);
      show(head, numbers.subarray(0, head.losses), numbers.subarray(head.losses));
    } catch (error) {
      byId("problem").textContent = `The run does not answer: ${error.message}`;
      document.documentElement.dataset.gone = "yes";
      return;
    }
    // A hidden page gets no frames of the screen, and asks for none of the run.
    if (!run.running) await new Promise((resolve) => setTimeout(resolve, IDLE));
    await new Promise(requestAnimationFrame);
  }
}

function show(head, losses, weights) {
  for (const loss of losses) run.losses.push(loss);
  run.running = head.running;
  const rest = head.trouble || (head.finished ? "finished" : head.running ? "running" : "paused");
  const changed = head.changed ? " The learning rate was changed on the way: the run is not the one of its flags." : "";
  const loss = run.losses.length ? `, loss ${plain(run.losses[run.losses.length - 1])}` : "";
  byId("state").textContent = `Step ${head.step.toLocaleString("en")} of ${head.steps.toLocaleString("en")}, ${rest}${loss}; learning rate ${
    plain(head.rate)}.${changed}`;
  byId("run").textContent = head.running ? "Pause" : "Run";
  byId("run").disabled = byId("one").disabled = head.finished || head.trouble !== "";
  for (const id of ["when", "other"]) Object.assign(byId(id), { min: head.first, max: head.step });
  if (losses.length || !run.shown) {
    plotLosses(head);
    paintWeights(head.tensors, weights);
  }
  writeSamples(head.samples);
  writeHealth(head.health);
  run.shown = true;
  document.documentElement.dataset.step = head.step;
}

function plotLosses(head) {
  const size = Math.max(1, Math.ceil(run.losses.length / COLUMNS)), means = [];
  for (let i = 0; i < run.losses.length; i += size) {
    if (i > 0 && i + size > run.losses.length) break; // a stretch that is not complete says less than the others
    const some = run.losses.slice(i, i + size);
    means.push([i + some.length / 2, some.reduce((a, b) => a + b, 0) / some.length]);
  }
  const checks = head.validations.map(([step, loss]) => [step, loss]);
  const all = [...means, ...checks].map(([, loss]) => loss).filter(Number.isFinite);
  const low = Math.min(...all), high = Math.max(...all), wide = Math.max(1, run.losses.length);
  const line = (points, colour) => {
    const element = document.createElementNS("http://www.w3.org/2000/svg", "polyline");
    const places = points.filter(([, loss]) => Number.isFinite(loss)).map(([step, loss]) =>
      `${((600 * step) / wide).toFixed(1)},${(195 - (190 * (loss - low)) / (high - low || 1)).toFixed(1)}`);
    for (const [name, value] of Object.entries({
      points: places.join(" "), fill: "none", stroke: `var(--${colour})`, "stroke-width": 1.5, "vector-effect": "non-scaling-stroke",
    })) element.setAttribute(name, value);
    return element;
  };
  byId("losses").replaceChildren(...(all.length ? [line(means, "low"), line(checks, "high")] : []));
  if (!all.length) return;
  byId("losses").setAttribute("aria-label", `Losses of ${count(run.losses.length, "step")}, from ${plain(means[0][1])} to ${
    plain(means[means.length - 1][1])}; the lowest mean is ${plain(low)}.`);
  if (!byId("table").closest("details").open) return;
  const rows = means.filter((_, k) => k % Math.ceil(means.length / 20) === 0).map(([at, loss]) => [Math.round(at), plain(loss)]);
  const checked = checks.map(([step, loss]) => [step, `validation ${plain(loss)}`]);
  byId("table").replaceChildren(grid(["step", "loss"], [...rows, ...checked]));
}

function grid(heads, rows) {
  const cells = (tag, texts) => make("tr", {}, ...texts.map((text) => make(tag, tag === "th" ? { scope: "col" } : {}, String(text))));
  return make("table", {}, make("thead", {}, cells("th", heads)), make("tbody", {}, ...rows.map((row) => cells("td", row))));
}

function rewrite(id, fresh) {
  const text = JSON.stringify(fresh);
  if (run[id] === text) return false;
  run[id] = text;
  return true;
}

function writeSamples(samples) {
  if (!rewrite("samples", samples)) return;
  byId("samples").replaceChildren(grid(["begun with", "goes on as"], samples.map(({ prompt, text }) => [prompt || "nothing", text])));
}

function writeHealth(health) {
  if (!rewrite("health", health)) return;
  const share = (x) => `${(100 * x).toFixed(x < 0.1 ? 2 : 1)} %`;
  const tensors = health.filter((one) => "gradient" in one), units = health.filter((one) => "zeros" in one);
  byId("health").replaceChildren(
    grid(["MLP", "outputs that are 0", "units never open"], units.map((one) => [one.name, share(one.zeros), `${one.dead} of ${one.units}`])),
    grid(["tensor", "weights, root mean square", "gradient", "update by weight"],
      tensors.map((one) => [one.name, plain(one.weight), plain(one.gradient), share(one.update)])));
}

function colours() {
  const style = getComputedStyle(document.documentElement);
  return ["low", "high", "zero"].map((name) => {
    const hex = style.getPropertyValue(`--${name}`).trim();
    return [1, 3, 5].map((k) => parseInt(hex.slice(k, k + 2), 16));
  });
}

function picture(name, [rows, columns]) {
  const turned = rows > 1.5 * columns, width = turned ? rows : columns, height = turned ? columns : rows;
  const canvas = make("canvas", { class: "map", width, height, role: "img" });
  const size = Math.max(2, Math.min(8, Math.floor(300 / width)));
  canvas.style.width = `${width * size}px`;
  canvas.style.height = `${height * size}px`;
  const scale = make("span", { class: "scale" });
  return { name, rows, columns, turned, canvas, scale, figure: make("figure", {}, make("figcaption", {}, make("strong", {}, name), " ", scale), canvas) };
}

function paint({ name, rows, columns, turned, canvas, scale }, numbers, [low, high, zero]) {
  const sizes = Float32Array.from(numbers, Math.abs).sort();
  const most = sizes[Math.min(sizes.length - 1, Math.floor(0.98 * sizes.length))] || 1;
  const image = new ImageData(canvas.width, canvas.height);
  for (let k = 0; k < rows * columns; k++) {
    const share = Math.min(1, Math.abs(numbers[k]) / most), to = numbers[k] < 0 ? low : high;
    const at = turned ? (k % columns) * rows + Math.floor(k / columns) : k;
    for (let c = 0; c < 3; c++) image.data[4 * at + c] = zero[c] + share * (to[c] - zero[c]);
    image.data[4 * at + 3] = 255;
  }
  canvas.getContext("2d").putImageData(image, 0, 0);
  scale.textContent = `\u00b1${plain(most)}`;
  canvas.setAttribute("aria-label", `${name}, ${rows} rows of ${columns}, sizes up to ${plain(most)}`);
}

function paintWeights(tensors, weights) {
  run.weights = weights;
  if (!run.pictures) {
    run.pictures = tensors.map(([name, shape]) => picture(name, shape));
    byId("weights").replaceChildren(...run.pictures.map(({ figure }) => figure));
  }
  run.tensors = tensors;
  let start = 0;
  const palette = colours();
  for (const one of run.pictures) {
    paint(one, weights.subarray(start, start + one.rows * one.columns), palette);
    start += one.rows * one.columns;
  }
}

async function compare() {
  const steps = [byId("when").value, byId("other").value];
  try {
    const [before, after] = await Promise.all(steps.map(async (step) =>
      new Float32Array(await (await ask(`/weights?step=${Number(step)}`)).arrayBuffer())));
    byId("problem").textContent = "";
    const palette = colours(), rows = [];
    let start = 0;
    for (const [name, shape] of run.tensors) {
      const end = start + shape[0] * shape[1];
      const sides = [before.subarray(start, end), after.subarray(start, end)];
      sides.push(sides[1].map((x, k) => x - sides[0][k]));
      const figures = [`${name}, step ${steps[0]}`, `step ${steps[1]}`, "difference"].map((title, k) => {
        const one = picture(title, shape);
        paint(one, sides[k], palette);
        return one.figure;
      });
      rows.push(make("div", { class: "row" }, ...figures));
      start = end;
    }
    byId("sides").replaceChildren(...rows);
  } catch (error) {
    byId("problem").textContent = error.message;
  }
}

async function look() {
  try {
    const given = await (await ask(`/graph?step=${Number(byId("when").value)}`)).json();
    byId("problem").textContent = "";
    byId("explorer").hidden = false;
    await openGraph(given);
    byId("explorer").scrollIntoView();
  } catch (error) {
    byId("problem").textContent = error.message;
  }
}

function paced() {
  const top = Number(byId("pace").value) >= 5;
  byId("paced").textContent = top ? "as fast as it can" : `${plain(Math.round(10 ** Number(byId("pace").value)))} steps/s`;
  return top ? TOP_PACE : 10 ** Number(byId("pace").value);
}

byId("run").addEventListener("click", () => order(run.running ? "pause" : "run"));
byId("one").addEventListener("click", () => order("step", 1));
byId("pace").addEventListener("input", () => order("pace", paced()));
byId("steer").addEventListener("submit", (event) => {
  event.preventDefault();
  const rate = Number(byId("rate").value);
  if (byId("rate").value.trim() === "" || !Number.isFinite(rate)) byId("problem").textContent = "A learning rate is a number, such as 0.005.";
  else order("rate", rate);
});
byId("back").addEventListener("submit", (event) => {
  event.preventDefault();
  look();
});
byId("compare").addEventListener("click", compare);
darkness.addEventListener("change", () => run.weights && paintWeights(run.tensors, run.weights));
paced();
pull();
