"use strict";
/*
 * The true posterior p(z|x) of two latent variables, and equation 1: log p(x) = ELBO + KL(q(z|x) || p(z|x)).
 *
 * The plane is cut into cells. Where log p(x|z) is linear in the image, a cell keeps its slope (the logits) and its value
 * at 0, so that it is decoded once and each image is one product. Cells in which p(z|x) or q(z|x) has mass are cut into four
 * until both integrals are right; their decodes are kept for the next images.
 */

const ROOT_SIDE = 64;  // cells along an axis that are there from the beginning
const MAX_SLOPES = 2 ** 24;  // numbers that those may keep, and the finer ones as many
const NEGLIGIBLE = 12;  // nats below the highest density
const NARROWEST = 0.02;  // the standard deviation of a posterior that lies between the cells of the plane and is not lost
const TOLERANCE = 0.01;  // nats
const MAX_HALVINGS = 8;

class TruePosterior {
  /** Whether a model with images of that many values has one here. */
  static isKnown = ({ latentDim, likelihood }, size) => latentDim === 2 && likelihood.linear && size <= MAX_SLOPES / 32 ** 2;

  /** The plane is that from -half to half; images have that many values. */
  constructor(vae, half, size) {
    const side = Math.min(ROOT_SIDE, Math.floor(Math.sqrt(MAX_SLOPES / size))), width = (2 * half) / side;
    Object.assign(this, { vae, half, black: new Float64Array(size), maxCells: Math.floor(MAX_SLOPES / size) });
    this.roots = Array.from({ length: side ** 2 }, (_, i) =>
      ({ z: [((i % side) + 0.5) * width - half, (Math.floor(i / side) + 0.5) * width - half], width }));
    this.waiting = [...this.roots];  // cells to decode
    this.decoded = 0;
  }

  /** Whether every root is decoded. */
  get isReady() {
    return this.decoded >= this.roots.length;
  }

  /** Decode cells that wait, until that time. */
  decode(until) {
    while (this.waiting.length && performance.now() < until) {
      const cell = this.waiting.pop(), p = this.vae.decode(cell.z);
      cell.slope = Float32Array.from(p.logits);
      cell.atBlack = this.vae.likelihood.logDensity(p, this.black) - 0.5 * (cell.z[0] ** 2 + cell.z[1] ** 2) - Math.log(2 * Math.PI);
      this.decoded++;
    }
  }

  /** The four cells of a cell; those that are new wait to be decoded. */
  partsOf(cell) {
    cell.parts ??= [[-1, -1], [1, -1], [-1, 1], [1, 1]].map(([a, b]) =>
      ({ z: [cell.z[0] + (a * cell.width) / 4, cell.z[1] + (b * cell.width) / 4], width: cell.width / 2 }));
    return cell.parts;
  }

  /**
   * Equation 1 for an image and its q(z|x), with every root decoded: the cells with their log p(x, z), its highest, the
   * three numbers, and `state`: "rough" while cells wait, "right", or "unknown" if there is mass beyond or between the cells.
   */
  evaluate(image, { mean, std }) {
    const lit = Int32Array.from(image.keys()).filter((i) => image[i] !== 0), leaves = [], waiting = [];
    let level = this.roots, highest = -Infinity, value = -Infinity, change = Infinity, error = Infinity;
    for (let halvings = 0; level.length; halvings++) {
      const { width } = level[0], slack = NEGLIGIBLE + (width / 2 / NARROWEST) ** 2;
      for (const cell of level) {
        cell.logP = cell.atBlack;
        for (let k = 0; k < lit.length; k++) cell.logP += image[lit[k]] * cell.slope[lit[k]];
        highest = Math.max(highest, cell.logP);
      }
      const before = value, changeBefore = change;
      value = highest + Math.log([leaves, level].flat().reduce((sum, { logP, width }) => sum + Math.exp(logP - highest) * width ** 2, 0));
      change = Math.abs(value - before);
      if (error > TOLERANCE) error = Math.max(change, halvings > 1 ? changeBefore / 10 : 0);  // a small change may be chance
      const next = [];
      for (const cell of level) {
        const isOfP = error > TOLERANCE && cell.logP > highest - slack;
        const isOfQ = cell.z.every((z, j) => Math.abs(z - mean[j]) < 4.5 * std[j] + width / 2) && width > 1.2 * Math.min(...std);
        if (halvings === MAX_HALVINGS || !(isOfP || isOfQ)) {
          leaves.push(cell);
          continue;
        }
        const missing = this.partsOf(cell).filter((part) => !part.slope);
        if (missing.length) leaves.push(cell);
        else next.push(...cell.parts);
        waiting.push(...missing);
      }
      level = next;
    }
    const isFull = this.decoded + waiting.length > 3 * this.maxCells;
    this.waiting = isFull ? [] : waiting;
    let mass = 0, elbo = 0, atEdge = -Infinity;
    for (const { z, width, logP } of leaves) {
      if (Math.max(Math.abs(z[0]), Math.abs(z[1])) + width > this.half) atEdge = Math.max(atEdge, logP);
      const logQ = logNormal(z[0], mean[0], std[0]) + logNormal(z[1], mean[1], std[1]), weight = Math.exp(logQ) * width ** 2;
      mass += weight;
      if (weight) elbo += weight * (logP - logQ);
    }
    elbo /= mass;
    const isRight = !isFull && error <= TOLERANCE && Math.abs(mass - 1) < 0.01 && atEdge < highest - NEGLIGIBLE;
    const state = this.waiting.length ? "rough" : isRight ? "right" : "unknown";
    return { leaves, highest, logMarginal: value, elbo, gap: value - elbo, state };
  }

  /** Before another image: where cells are many, all but the roots are dropped. */
  trim() {
    if (this.decoded <= 2 * this.maxCells) return;
    for (const root of this.roots) delete root.parts;
    [this.decoded, this.waiting] = [this.roots.length, []];
  }

  /** Equation 1, however long it takes. */
  solve(image, q) {
    this.trim();
    for (;;) {
      this.decode(Infinity);
      const found = this.evaluate(image, q);
      if (found.state !== "rough") return found;
    }
  }
}

/** A density as a small canvas in that colour, and the part of the plane that it shows: [left, bottom, right, top]. */
function densityCanvas({ leaves, highest }, colour) {
  const shown = leaves.filter(({ logP }) => logP > highest - 5), step = Math.min(...shown.map(({ width }) => width));
  const ends = (j, sign) => sign * Math.max(...shown.map(({ z, width }) => sign * z[j] + width / 2)) + sign * step;
  const [left, bottom, right, top] = [ends(0, -1), ends(1, -1), ends(0, 1), ends(1, 1)];
  const size = Math.max(step, (right - left) / 400, (top - bottom) / 400);  // of a pixel
  const canvas = element("canvas", { width: Math.round((right - left) / size), height: Math.round((top - bottom) / size) });
  const context = canvas.getContext("2d");
  context.fillStyle = colour;
  for (const { z, width, logP } of shown) {
    const [x, y] = [z[0] - width / 2 - left, top - z[1] - width / 2].map((place) => Math.round(place / size));
    context.globalAlpha = Math.exp(logP - highest);
    context.fillRect(x, y, Math.max(1, Math.round(width / size)), Math.max(1, Math.round(width / size)));
  }
  return { canvas, box: [left, bottom, right, top] };
}
