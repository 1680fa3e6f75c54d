"use strict";
/*
 * The page: what is shown, what each control does, and `window.explorer` for scripts.
 *
 * Its state is z (decoded), the pad's image (encoded), and eps (the noise of the sample). A change marks what has to
 * be drawn anew; that happens once a frame.
 */

const $ = (id) => document.getElementById(id);
const description = JSON.parse($("description").textContent);
const { shape, latentDim, count, classes } = description;
const [channels, height, width] = shape;
const area = height * width;
const EDGE = 20;  // images along one side of the manifold
const SIDE = Math.min(200, Math.max(height, width));  // pixels that each of them has there: browsers bound a canvas

// ---------------------------------------------------------------------------------------------- numbers and text

const fixed = (value, digits) => {
  const text = value.toFixed(digits);
  return (Number(text) === 0 ? text.replace("-", "") : text).replace("-", "−");
};
const latentName = (j) => "z" + String(j + 1).replace(/\d/g, (digit) => "₀₁₂₃₄₅₆₇₈₉"[digit]);
const thousands = (value) => value.toLocaleString("en");
const dimensions = Array.from({ length: latentDim }, (_, j) => j);  // above two the most active first
if (latentDim > 2) dimensions.sort((i, j) => description.kl[j] - description.kl[i]);

function element(tag, properties = {}, ...children) {
  const made = Object.assign(document.createElement(tag), properties);
  made.append(...children);
  return made;
}

// --------------------------------------------------------------------------------------------------------- images

/** An image [C * H * W] in [0, 1] as RGBA bytes, row by row. */
function toRGBA(image) {
  const pixels = new Uint8ClampedArray(4 * area).fill(255);
  for (let p = 0; p < area; p++) {
    for (let channel = 0; channel < 3; channel++) pixels[4 * p + channel] = 255 * image[(channel % channels) * area + p];
  }
  return pixels;
}

/** The other way. */
function fromRGBA(pixels) {
  const image = new Float64Array(channels * area);
  for (let i = 0; i < image.length; i++) image[i] = pixels[4 * (i % area) + Math.floor(i / area)] / 255;
  return image;
}

const show = (canvas, image) => canvas.getContext("2d", READABLE).putImageData(new ImageData(toRGBA(image), width, height), 0, 0);
const testImage = (i) => Float64Array.from(data.images.subarray(i * channels * area, (i + 1) * channels * area), (v) => v / 255);
const code = (i) => Float64Array.from(data.codes.subarray(i * latentDim, (i + 1) * latentDim));
const imageName = (i) => `#${thousands(i)}` + (data.labels && classes ? ` · ${classes[data.labels[i]]}` : "");

// ---------------------------------------------------------------------------------------------------------- state

let vae, map, pad;
let truth = null;  // the true posterior, of models that have one here
let data = {};  // images, codes, and labels or errors
let z = new Float64Array(latentDim), eps = new Float64Array(latentDim);
let held = false;  // whether z stays when the pointer moves over the map
let nearest = null, bound = null, samples = [];
let path = null;  // { ends: [z, ...], position, playing, clock }
const changed = new Set();
let frameRequested = false;

/** Have z, the drawing (x), or the map drawn anew in the next frame. */
function change(...parts) {
  parts.forEach((part) => changed.add(part));
  if (!frameRequested && vae) {
    frameRequested = true;
    requestAnimationFrame(draw);
  }
}

function draw(now) {
  frameRequested = false;
  const parts = new Set(changed);
  changed.clear();
  if (path?.playing) advancePath(now, parts);
  if (parts.has("z")) drawDecoded();
  if (parts.has("x")) drawEncoded();
  if (parts.has("base")) map.drawBase();
  if (truth && ["x", "truth", "base"].some((part) => parts.has(part))) drawTruth(parts.has("x"));
  map.drawOverlay({ z, held, nearest, posterior: bound.q, sample: bound.z, path: path?.ends ?? [] });
}

// --------------------------------------------------------------------------------------------------------- decode

function setZ(values) {
  z = Float64Array.from(values);
  change("z");
  announce();
}

function showZ() {
  const align = (text) => (latentDim > 2 ? text.padStart(5, "\u2007") : text);  // so that the lines stay as they are
  $("z").textContent = `(${Array.from(z, (value) => align(fixed(value, 2))).join(", ")})`;
}

/** The image whose code is nearest to z. */
function findNearest() {
  let best = 0, least = Infinity;
  for (let i = 0; i < count; i++) {
    let distance = 0;
    for (let j = 0; j < latentDim && distance < least; j++) distance += (data.codes[i * latentDim + j] - z[j]) ** 2;
    if (distance < least) [best, least] = [i, distance];
  }
  return best;
}

function drawDecoded() {
  show($("decoded"), vae.generate(z));
  showZ();
  const before = nearest;
  nearest = findNearest();
  if (nearest !== before) {
    show($("nearest").querySelector("canvas"), testImage(nearest));
    $("nearest-name").textContent = imageName(nearest);
  }
  for (const [j, { input, output }] of sliders) {
    input.value = z[j];
    output.textContent = fixed(z[j], 2);
  }
}

const mapHint = () => {
  $("map-hint").textContent = held ? "z is held. Click, or press Esc, to let go." : "z follows the pointer and the arrow keys. Click to hold it.";
};

function hold(value) {
  held = value;
  mapHint();
  change("map");
}

/** Number of an image in a field, or null. */
function numberIn(field) {
  const text = field.value.trim().replace(/^#|,/g, ""), valid = /^\d+$/.test(text) && Number(text) < count;
  field.setAttribute("aria-invalid", String(!valid && text !== ""));
  return valid ? Number(text) : null;
}

async function copyZ() {
  const text = `[${Array.from(z, (value) => Number(value.toFixed(6))).join(", ")}]`;
  try {
    await navigator.clipboard.writeText(text);
  } catch {  // no permission: select it instead
    const selection = getSelection();
    selection.selectAllChildren($("z"));
    document.execCommand("copy");
  }
  $("copy").textContent = "Copied";
  setTimeout(() => ($("copy").textContent = "Copy"), 1200);
}

// ----------------------------------------------------------------------------------------------------------- path

const PATH_SECONDS = 4;
const PATH_HINTS = ["Choose the start: click on the map, or press Enter at z.", "Choose the end."];

function setPath(value) {
  path = value;
  $("path").setAttribute("aria-pressed", String(path !== null));
  $("path-position").disabled = path?.ends.length !== 2;
  showPathHint();
  change("map");
}

function showPathHint() {
  $("path-hint").textContent = !path ? "Two points on the map make a path that plays."
    : PATH_HINTS[path.ends.length] ?? (path.playing ? "Playing. Space pauses." : "Paused. Space plays.");
}

function addPathEnd(end) {
  const ends = [...path.ends, Float64Array.from(end)];
  const calm = matchMedia("(prefers-reduced-motion: reduce)").matches;
  setPath({ ends, position: 0, clock: 0, playing: ends.length === 2 && !calm });
}

/** To a place between the ends, 0 to 1. */
function goAlongPath(position) {
  path.position = position;
  $("path-position").value = position;
  setZ(path.ends[0].map((start, j) => start + position * (path.ends[1][j] - start)));
}

function playPath(playing) {
  path.playing = playing;
  path.clock = (Math.acos(1 - 2 * path.position) / Math.PI) * PATH_SECONDS;
  path.last = undefined;
  showPathHint();
  change("map");
}

/** There and back, slowly at the ends. */
function advancePath(now, parts) {
  path.clock += path.last === undefined ? 0 : Math.min(0.1, (now - path.last) / 1000);
  path.last = now;
  goAlongPath((1 - Math.cos((Math.PI * path.clock) / PATH_SECONDS)) / 2);
  parts.add("z");
}

// --------------------------------------------------------------------------------------------------------- encode

function drawEncoded() {
  bound = vae.elbo(pad.image, eps);
  const { q, klPerDimension } = bound;
  show(pad.canvas, pad.image);
  show($("reconstruction"), vae.generate(q.mean));
  show($("step-x"), pad.image);
  show($("step-p"), vae.likelihood.image(bound.p));
  for (const term of ["elbo", "reconstruction", "kl"]) {
    $(`bound-${term}`).textContent = fixed(bound[term], 1);
    $(`sum-${term}`).textContent = fixed(term === "kl" ? -bound.kl : bound[term], 2);
  }
  const most = Math.max(1e-9, ...klPerDimension);
  for (const [j, { cells, bar, text }] of rows) {
    [q.mean[j], q.std[j], eps[j], bound.z[j]].forEach((value, i) => (cells[i].textContent = fixed(value, 3)));
    text.textContent = fixed(klPerDimension[j], 2);
    bar.style.width = `${(100 * klPerDimension[j]) / most}%`;
  }
  $("step-draw").innerHTML = bellCurve();
}

// ------------------------------------------------------------------------------------------------ the true posterior

const GAP_STATES = {
  rough: "The cells are still being decoded.",
  right: "",
  unknown: "Some of the mass lies beyond the cells, or between them: these numbers are not known.",
};

/** Decode a few cells, and show equation 1 on those that there are. */
function drawTruth(isNew) {
  if (isNew) truth.trim();
  truth.decode(performance.now() + 8);
  if (truth.isReady) showTruth(truth.evaluate(pad.image, bound.q));
  if (truth.waiting.length) change("truth");
}

function showTruth(found) {
  const about = { right: "", rough: "≈ ", unknown: null }[found.state], cents = (value) => Math.round(100 * value) / 100;
  const numbers = { elbo: cents(found.elbo), logMarginal: cents(found.logMarginal) };  // that add up
  numbers.gap = numbers.logMarginal - numbers.elbo;
  for (const term in numbers) $(`gap-${term}`).textContent = about === null ? "?" : about + fixed(numbers[term], 2);
  $("gap-state").textContent = GAP_STATES[found.state];
  const density = densityCanvas(found, map.look.true);
  map.drawTruth(density);
  drawCloseUp(density, bound.q);
}

/** The density and the ellipses of one and two standard deviations of q, as large as fits. */
function drawCloseUp({ canvas, box: [left, bottom, right, top] }, { mean, std }) {
  const context = $("truth").getContext("2d"), { width } = $("truth");
  const ends = [[left, right], [bottom, top]].map(([low, high], j) => [Math.min(low, mean[j] - 2.2 * std[j]), Math.max(high, mean[j] + 2.2 * std[j])]);
  const scale = width / Math.max(...ends.map(([low, high]) => high - low)), [a, b] = ends.map(([low, high]) => (low + high) / 2);
  const x = (value) => width / 2 + scale * (value - a), y = (value) => width / 2 - scale * (value - b);
  context.clearRect(0, 0, width, width);
  context.imageSmoothingQuality = "high";
  context.drawImage(canvas, x(left), y(top), scale * (right - left), scale * (top - bottom));
  context.strokeStyle = map.look.accent;
  context.lineWidth = 3;
  for (const times of [1, 2]) {
    context.beginPath();
    context.ellipse(x(mean[0]), y(mean[1]), scale * times * std[0], scale * times * std[1], 0, 0, 2 * Math.PI);
    context.stroke();
  }
}

/** The density of N(0, 1) with the draws of epsilon below it. */
function bellCurve() {
  const x = (value) => 44 + 13 * clamp(value, -3.3, 3.3), y = (value) => 64 - 52 * Math.exp(-0.5 * value ** 2);
  const curve = Array.from({ length: 67 }, (_, i) => -3.3 + i / 10).map((value) => `${x(value)},${y(value)}`);
  const draws = Array.from(eps).map((value) =>
    `<line x1="${x(value)}" x2="${x(value)}" y1="${y(value)}" y2="70" stroke="var(--accent)" stroke-width="1.5"/><circle cx="${x(value)}" cy="70" r="2.5" fill="var(--accent)"/>`);
  return `<svg viewBox="0 0 88 88"><polyline points="${curve.join(" ")}" fill="none" stroke="var(--muted)" stroke-width="1.5"/><line x1="0" x2="88" y1="64" y2="64" stroke="var(--line)"/>${draws.join("")}</svg>`;
}

// --------------------------------------------------------------------------------------------------------- sample

function drawSamples() {
  samples = Array.from({ length: 24 }, () => standardNormal(latentDim));
  const canvases = [...$("sample-list").querySelectorAll("canvas")];
  inTurns(samples.map((sample, i) => () => show(canvases[i], vae.generate(sample))));
}

/** Do many small things, a few milliseconds at a time, so that frames come in time. */
function inTurns(tasks) {
  const start = performance.now();
  while (tasks.length && performance.now() - start < 5) tasks.shift()();
  if (tasks.length) setTimeout(inTurns, 4, tasks);
}

/** The learned manifold, faintly behind the map, from its middle outwards. */
function drawManifold() {
  if (latentDim > 2) return;
  const rowCount = latentDim === 1 ? 1 : EDGE, scale = SIDE / Math.max(height, width);
  const single = element("canvas", { width, height });
  const canvas = $("map-manifold"), context = canvas.getContext("2d", READABLE);
  const bright = data.images.reduce((sum, value) => sum + value, 0) / data.images.length > 127;
  const ink = matchMedia("(prefers-color-scheme: dark)").matches ? 255 : 0;
  const at = (k) => ((2 * k + 1) / EDGE - 1) * map.half;
  const places = Array.from({ length: EDGE * rowCount }, (_, i) => [Math.floor(i / EDGE), i % EDGE]);
  const distance = ([row, column]) => Math.hypot(row - (rowCount - 1) / 2, column - (EDGE - 1) / 2);
  places.sort((one, other) => distance(one) - distance(other));
  inTurns(places.map(([row, column]) => () => {
    const pixels = toRGBA(vae.generate(latentDim === 1 ? [at(column)] : [at(column), -at(row)]));
    if (canvas.classList.contains("ink")) {  // the image is how much ink there is on the map's ground
      for (let p = 0; p < area; p++) {
        pixels[4 * p + 3] = bright ? 255 - pixels[4 * p] : pixels[4 * p];
        pixels.fill(ink, 4 * p, 4 * p + 3);
      }
    }
    single.getContext("2d", READABLE).putImageData(new ImageData(pixels, width, height), 0, 0);
    const [wide, high] = [width, height].map((length) => Math.max(1, Math.round(scale * length)));
    const x = column * SIDE + Math.floor((SIDE - wide) / 2), y = row * SIDE + Math.floor((SIDE - high) / 2);
    context.clearRect(x, y, wide, high);
    context.drawImage(single, x, y, wide, high);
  }));
}

// ------------------------------------------------------------------------------- what is built before the model is

const sliders = new Map();  // by dimension: { input, output }
const rows = new Map();  // by dimension: { cells, bar, text }

function buildSliders() {
  const active = dimensions.filter((j) => description.active[j]);
  $("sliders").hidden = latentDim <= 2;
  if (latentDim <= 2) return;
  $("sliders-hint").textContent = `${active.length} of ${latentDim} are active, the most active first; nats are the mean KL over the ${description.shown}`;
  for (const j of active) {
    const input = element("input", { type: "range", min: -4, max: 4, step: 0.01, value: 0 });
    const output = element("output"), name = element("var", { textContent: latentName(j) });
    input.setAttribute("aria-label", latentName(j));
    input.addEventListener("input", () => setZ(z.map((value, i) => (i === j ? Number(input.value) : value))));
    $("slider-list").append(element("label", {}, name, input, output, element("small", { textContent: `${fixed(description.kl[j], 2)} nats` })));
    sliders.set(j, { input, output });
  }
}

function buildTable() {
  const body = $("dimensions").querySelector("tbody");
  for (const j of dimensions) {
    const cells = Array.from({ length: 4 }, () => element("td", { textContent: " " }));
    const text = element("span"), bar = element("i");
    const head = element("th", { scope: "row", textContent: latentName(j) });
    body.append(element("tr", {}, head, ...cells, element("td", { className: "wide" }, element("div", {}, text, element("div", {}, bar)))));
    rows.set(j, { cells, bar, text });
  }
}

function buildLegend() {
  if (!classes || !description.labels) {
    const [low, high] = ["low", "high"].map((end) => element("span", { id: `ramp-${end}`, textContent: "0.000" }));
    $("legend").append("RMS error of the reconstruction: ", low, element("span", { className: "ramp" }), high);
    $("legend").querySelector(".ramp").style.background = `linear-gradient(90deg, ${ERROR_COLOURS.join(", ")})`;
    return;
  }
  const chosen = new Set();
  classes.forEach((name, label) => {
    const button = element("button", { type: "button", textContent: name });
    button.style.setProperty("--colour", description.colours[label]);
    button.setAttribute("aria-pressed", "false");
    button.addEventListener("click", () => {
      if (!chosen.delete(label)) chosen.add(label);
      button.setAttribute("aria-pressed", String(chosen.has(label)));
      map.emphasised = (i) => !chosen.size || chosen.has(data.labels[i]);
      change("base");
    });
    $("legend").append(button);
  });
}

const PAD_HINTS = {
  binary: "This model was trained on black and white pixels, so the pad has no grey: a pixel turns white where the brush covers half of it.",
  grey: "A soft brush. What the pad shows is what the encoder receives.",
  palette: "Choose a colour and paint pixels; the right mouse button takes a colour up from the pad.",
  colour: "A soft brush in any colour; the right mouse button takes a colour up from the pad.",
};

function buildPad() {
  const mode = description.binary && channels === 1 ? "binary" : description.palette ? "palette" : channels === 1 ? "grey" : "colour";
  pad = new Pad($("pad"), { shape, mode, onChange: () => change("x") });
  $("pad-hint").textContent = PAD_HINTS[mode];
  const side = Math.min(height, width), soft = mode !== "palette";
  pad.radius = soft ? Math.max(0.6, 0.045 * side) : 0.5;
  Object.assign($("brush"), { min: 0.5, max: soft ? Math.max(1.5, 0.12 * side) : 3.5, step: soft ? 0.05 : 0.5, value: pad.radius });
  $("brush").addEventListener("input", () => (pad.radius = Number($("brush").value)));
  $("erase").hidden = channels > 1 || mode === "palette";
  $("erase").addEventListener("click", () => {
    pad.erasing = !pad.erasing;
    $("erase").setAttribute("aria-pressed", String(pad.erasing));
  });
  $("undo").addEventListener("click", () => pad.undo());
  $("clear").addEventListener("click", () => pad.clear());
  if (mode === "palette") buildPalette();
  if (mode === "colour") buildColourInput();
  if (channels > 1 && !description.palette) pad.background = [1, 1, 1].slice(0, channels);
}

const hex = (colour) => "#" + [0, 1, 2].map((i) => colour[i % channels].toString(16).padStart(2, "0")).join("");

function buildPalette() {
  const { palette } = description, buttons = new Map();
  const choose = (colour) => {
    pad.colour = colour.map((value) => value / 255);
    buttons.forEach((button, name) => button.setAttribute("aria-pressed", String(name === hex(colour))));
  };
  for (const colour of palette) {
    const name = hex(colour), button = element("button", { type: "button", title: name });
    button.style.setProperty("--colour", name);
    button.setAttribute("aria-label", `Colour ${name}`);
    button.addEventListener("click", () => choose(colour));
    buttons.set(name, button);
    $("palette").append(button);
  }
  pad.element.addEventListener("pick", () => choose(pad.colour.map((value) => Math.round(255 * value))));
  pad.background = palette[0].map((value) => value / 255);
  choose(palette[Math.min(1, palette.length - 1)]);
  $("palette").hidden = false;
}

function buildColourInput() {
  const input = element("input", { type: "color", value: "#c2410c" });
  input.setAttribute("aria-label", "Colour of the brush");
  const choose = () => (pad.colour = [1, 3, 5].map((place) => parseInt(input.value.slice(place, place + 2), 16) / 255));
  input.addEventListener("input", choose);
  pad.element.addEventListener("pick", () => (input.value = hex(pad.colour.map((value) => Math.round(255 * value)))));
  choose();
  $("palette").append(input);
  $("palette").hidden = false;
}

function buildSamples() {
  for (let i = 0; i < 24; i++) {
    const canvas = element("canvas", { className: "pixels", width, height });
    const button = element("button", { type: "button" }, canvas);
    button.setAttribute("aria-label", `Go to sample ${i + 1}`);
    button.addEventListener("click", () => samples[i] && setZ(samples[i]));
    $("sample-list").append(button);
  }
}

/** Of each likelihood its name, where it is from, its log-density, and what the image shows. */
const LIKELIHOOD_TEXTS = {
  bernoulli: [
    "Bernoulli", "eq. 11",
    "log <i>p</i>(<b>x</b>|<b>z</b>) = Σ <i>x</i> log <i>y</i> + (1 − <i>x</i>) log (1 − <i>y</i>)",
    "The image shows <i>y</i>, the probability of each pixel to be white.",
  ],
  gaussian: [
    "Gaussian", "eq. 12",
    "<i>p</i>(<b>x</b>|<b>z</b>) = 𝒩(<b>x</b>; <b>μ</b>, <b>σ</b>²<b>I</b>)",
    "Each pixel has a mean, which the image shows, and a variance.",
  ],
  gaussian_fixed: [
    "Gaussian (one scale)", "eq. 12",
    "<i>p</i>(<b>x</b>|<b>z</b>) = 𝒩(<b>x</b>; <b>μ</b>, σ²<b>I</b>)",
    "Each pixel has a mean, which the image shows; one variance serves all.",
  ],
  continuous_bernoulli: [
    "continuous Bernoulli", "arXiv 1907.06845",
    "log <i>p</i>(<b>x</b>|<b>z</b>) = Σ λ<i>x</i> − log <i>A</i>(λ)",
    "The continuous Bernoulli, a density on [0, 1]; the image shows its mean.",
  ],
  discretized_logistic: [
    "discretized logistic", "arXiv 1701.05517, eq. 2",
    "<i>p</i>(<b>x</b>|<b>z</b>) = Π F(<i>x</i> + ½) − F(<i>x</i> − ½)",
    "A logistic density over each of 256 levels; the image shows its mean.",
  ],
  categorical: [
    "categorical", "softmax",
    "log <i>p</i>(<b>x</b>|<b>z</b>) = Σ log softmax(<b>l</b>)<sub><i>x</i></sub>",
    "A probability for each colour of the palette; the image shows the most probable ones.",
  ],
};

function buildTexts() {
  const { name, kind } = description.likelihood, [likelihood, source, formula, text] = LIKELIHOOD_TEXTS[name];
  const arxiv = source.match(/arXiv (\S+?),?$|arXiv (\S+),/);
  $("likelihood-equation").textContent = source;
  if (arxiv) $("likelihood-equation").href = `https://arxiv.org/abs/${arxiv[1] ?? arxiv[2]}`;
  if (source === "softmax") $("likelihood-equation").removeAttribute("href");
  $("likelihood-formula").innerHTML = formula;
  $("likelihood-text").innerHTML = text;
  const what = kind[description.binary ? "binary" : "grey"];
  $("kind").textContent = what === "cross-entropy" ? "With grey pixels the first term is a negative cross-entropy."
    : what === "log-density" ? "The first term is a log-density, which may be positive." : "";
  $("summary").textContent = `${latentDim} latent variable${latentDim > 1 ? "s" : ""}, ${likelihood} likelihood, ${thousands(description.parameters)} parameters, ${thousands(count)} ${description.shown} of ${height} × ${width}`;
  const { elbo, reconstruction, kl } = description.meanBound;
  $("bound-mean").textContent = `Mean of the ${thousands(count)} ${description.shown}: ELBO ${fixed(elbo, 1)}, reconstruction ${fixed(reconstruction, 1)}, KL ${fixed(kl, 1)}.`;
  for (const field of [$("start-number"), $("load-number")]) field.placeholder = `0–${thousands(count - 1)}`;
}

function build() {
  for (const canvas of document.querySelectorAll("canvas.pixels")) Object.assign(canvas, { width, height });
  document.body.style.setProperty("--aspect", clamp(width / height, 0.5, 4));  // others would leave the screen
  Object.assign($("map-manifold"), { width: EDGE * SIDE, height: (latentDim === 1 ? 1 : EDGE) * SIDE });
  $("map-manifold").classList.toggle("ink", channels === 1 && latentDim === 2);
  $("map-manifold").classList.toggle("strip", latentDim === 1);
  buildTexts();
  buildLegend();
  buildSliders();
  buildTable();
  buildPad();
  $("gap").hidden = !TruePosterior.isKnown(description, channels * area);
  buildSamples();
  mapHint();
  showPathHint();
  drawEmptyBound();
  document.body.classList.remove("loading");
}

function drawEmptyBound() {
  for (const term of ["elbo", "reconstruction", "kl"]) $(`bound-${term}`).textContent = $(`sum-${term}`).textContent = "…";
  $("z").style.height = latentDim > 2 ? `${Math.min(6, Math.ceil(latentDim / 4)) * 1.5 + 1}em` : "";
  showZ();
}

// --------------------------------------------------------------------------------------------------------- events

let announcement;
function announce() {
  clearTimeout(announcement);
  announcement = setTimeout(() => {
    $("announcer").textContent = `z = ${$("z").textContent}, nearest image ${imageName(nearest)}`;
  }, 900);
}

function listenToMap() {
  const target = $("map");
  let press = null;  // where the button went down
  const go = (event) => setZ(map.moved(z, map.under(event)));
  target.addEventListener("pointerdown", (event) => {
    if (event.button > 0) return;
    target.focus({ preventScroll: true });
    press = { x: event.clientX, y: event.clientY, dragged: false };
    if (path?.ends.length === 2) return;
    go(event);
    try {
      target.setPointerCapture(event.pointerId);
    } catch { /* a pointer that is gone already */ }
  });
  target.addEventListener("pointermove", (event) => {
    if (press && Math.hypot(event.clientX - press.x, event.clientY - press.y) > 4) press.dragged = true;
    if (path?.ends.length === 2 || (held && !press?.dragged)) return;
    go(event);
  });
  target.addEventListener("pointerup", (event) => {
    if (!press) return;
    const { dragged } = press;
    press = null;
    if (path?.ends.length === 2) playPath(!path.playing);
    else if (path) addPathEnd(z);
    else if (event.pointerType === "mouse") hold(dragged || !held);
  });
  target.addEventListener("pointercancel", () => (press = null));
}

function moveByKey(dx, dy, far) {
  if (path?.playing) playPath(false);
  const step = far ? 0.5 : 0.1, inside = (value) => clamp(value, -map.half, map.half);
  const [a, b] = map.position(z);
  setZ(map.moved(z, [inside(a + step * dx), inside(b + step * dy)]));
}

function endAll() {
  if (path) setPath(null);
  else hold(false);
}

const KEYS = {
  ArrowLeft: (far) => moveByKey(-1, 0, far),
  ArrowRight: (far) => moveByKey(1, 0, far),
  ArrowUp: (far) => moveByKey(0, 1, far),
  ArrowDown: (far) => moveByKey(0, -1, far),
  Enter: () => (path && path.ends.length < 2 ? addPathEnd(z) : hold(!held)),
  " ": () => path?.ends.length === 2 && playPath(!path.playing),
  Escape: endAll,
  r: () => $("random").click(),
  p: () => $("path").click(),
  c: () => copyZ(),
  e: () => $("epsilon").click(),
  s: () => $("sample").click(),
  n: () => $("start-number").select(),
  d: () => {
    pad.element.focus();
    pad.showCursor(true);
  },
  "?": () => $("help").showModal(),
};

function listenToKeys() {
  document.addEventListener("keydown", (event) => {
    const { target, key } = event;
    if (event.ctrlKey || event.metaKey || event.altKey || $("help").open) return;
    if (target.matches("input:not([type=range])")) {
      if (key === "Escape") $("map").focus();
      return;
    }
    const action = KEYS[key.length === 1 ? key.toLowerCase() : key];
    if (!action || (target.matches("input[type=range], .table-frame") && /^(Arrow|Page)/.test(key))) return;
    if (target.matches("button, summary, a") && (key === "Enter" || key === " ")) return;
    if (key === " " && path?.ends.length !== 2) return;
    event.preventDefault();
    action(event.shiftKey);
  });
}

function listen() {
  listenToMap();
  listenToKeys();
  $("random").addEventListener("click", () => setZ(standardNormal(latentDim)));
  $("copy").addEventListener("click", copyZ);
  $("nearest").addEventListener("click", () => setZ(code(nearest)));
  $("path").addEventListener("click", () => {
    hold(false);
    setPath(path ? null : { ends: [], position: 0, playing: false });
  });
  $("path-position").addEventListener("input", () => {
    playPath(false);
    goAlongPath(Number($("path-position").value));
  });
  const startAt = () => {
    const number = numberIn($("start-number"));
    if (number !== null) setZ(code(number));
  };
  $("start-number").addEventListener("input", startAt);
  $("start").addEventListener("submit", (event) => {
    event.preventDefault();
    startAt();
  });
  $("load").addEventListener("submit", (event) => {
    event.preventDefault();
    const number = numberIn($("load-number"));
    if (number !== null) pad.load(testImage(number));
  });
  $("load-number").addEventListener("input", () => numberIn($("load-number")));
  $("epsilon").addEventListener("click", () => {
    eps = standardNormal(latentDim);
    change("x");
  });
  $("sample").addEventListener("click", drawSamples);
  $("help-button").addEventListener("click", () => $("help").showModal());
  new ResizeObserver(() => change("base")).observe($("map"));
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => {
    change("base");
    drawManifold();
  });
}

// ---------------------------------------------------------------------------------------------------------- start

/** The arrays of the page's block: every { type, start, length } in a description becomes a typed array. */
async function readArrays(text, ...parts) {
  const binary = atob(text), deflated = new Uint8Array(binary.length);
  for (let i = 0; i < binary.length; i++) deflated[i] = binary.charCodeAt(i);
  const stream = new Blob([deflated]).stream().pipeThrough(new DecompressionStream("deflate"));
  const bytes = await new Response(stream).arrayBuffer();
  const TYPES = { float32: Float32Array, int16: Int16Array, uint8: Uint8Array };
  const read = (part) => {
    if (part === null || typeof part !== "object") return part;
    if (!TYPES[part.type]) return Array.isArray(part) ? part.map(read) : Object.fromEntries(Object.entries(part).map(([key, value]) => [key, read(value)]));
    const values = new TYPES[part.type](bytes, part.start, part.length);
    if (!part.steps) return values;
    const steps = read(part.steps), columns = values.length / steps.length;  // rows in 16 bits, each with its step
    return Float32Array.from(values, (value, i) => value * steps[Math.floor(i / columns)]);
  };
  return parts.map(read);
}

function pointColours() {
  if (data.labels) return Array.from(data.labels, (label) => description.colours[label]);
  const sorted = data.errors.slice().sort(), low = sorted[Math.floor(0.02 * count)], high = sorted[Math.floor(0.98 * (count - 1))];
  $("ramp-low").textContent = fixed(low, 3);
  $("ramp-high").textContent = fixed(high, 3);
  const channelsOf = ERROR_COLOURS.map((colour) => [1, 3, 5].map((place) => parseInt(colour.slice(place, place + 2), 16)));
  return Array.from(data.errors, (error) => {
    const place = clamp((error - low) / (high - low || 1), 0, 1) * (channelsOf.length - 1), i = Math.min(Math.floor(place), channelsOf.length - 2);
    return `rgb(${channelsOf[i].map((from, k) => Math.round(from + (place - i) * (channelsOf[i + 1][k] - from))).join(" ")})`;
  });
}

/** Heights of the points of a single dimension: by label, scattered. */
function pointLanes() {
  const number = classes?.length ?? 1, scattered = (i) => (Math.abs(Math.sin(12.9898 * (i + 1))) * 43758.5453) % 1;
  return Array.from({ length: count }, (_, i) => ((data.labels && classes ? data.labels[i] : 0) + 0.15 + 0.7 * scattered(i)) / number);
}

async function startExplorer() {
  const block = $("block"), { images, codes, labels = null, errors = null } = description;
  const [model, arrays] = await readArrays(block.textContent, description, { images, codes, labels, errors });
  block.remove();
  data = arrays;
  vae = new VAE(model);
  map = new LatentMap($("map"), { codes: data.codes, latentDim, colours: pointColours(), lanes: pointLanes(), plane: description.map });
  if (TruePosterior.isKnown(description, channels * area)) truth = new TruePosterior(vae, Math.max(6, map.half), channels * area);
  eps = standardNormal(latentDim);
  z = code(0);
  pad.image = testImage(0);
  map.drawBase();
  drawDecoded();
  drawEncoded();
  listen();
  change("map", "truth");
  drawSamples();
  drawManifold();
  await new Promise(requestAnimationFrame);
}

let started;
function loadExplorer() {
  started(startExplorer().catch((error) => {
    $("summary").textContent = `The page could not start; it needs a browser of 2023 or later (${error.message}).`;
    throw error;
  }));
}

window.explorer = {
  ready: new Promise((resolve) => (started = resolve)),
  latentDim,
  size: { width, height },
  /** The image at z as RGBA bytes, row by row. */
  decode: (latents) => toRGBA(vae.generate(Float64Array.from(latents))),
  /** q(z|x) for RGBA bytes. */
  encode(pixels) {
    const { mean, std } = vae.encode(fromRGBA(pixels));
    return { mean: Array.from(mean), std: Array.from(std) };
  },
  /** The bound for RGBA bytes, in nats, with noise eps [Z] or a fresh draw. */
  elbo(pixels, noise = standardNormal(latentDim)) {
    const { elbo, reconstruction, kl } = vae.elbo(fromRGBA(pixels), noise);
    return { elbo, reconstruction, kl };
  },
  /** Equation 1 for RGBA bytes, in nats; null where the page does not know the true posterior. */
  gap(pixels) {
    if (!truth) return null;
    const image = fromRGBA(pixels), { logMarginal, elbo, gap, state } = truth.solve(image, vae.encode(image));
    return { logMarginal, elbo, gap, state };
  },
};

build();
