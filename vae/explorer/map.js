"use strict";
/*
 * The map: the images' codes on a plane of the latent space, and above them what moves. It draws and converts
 * between latents and places on the screen; what happens there is decided in explorer.js.
 *
 * Above two dimensions the plane is that of the codes' first two principal components, through whichever z it is
 * asked about. With one dimension, heights have no meaning: they keep the labels apart.
 */

const READABLE = { willReadFrequently: true };  // canvases that scripts may read
const ERROR_COLOURS = ["#440154", "#3b528b", "#21918c", "#5ec962", "#fde725"];  // viridis

class LatentMap {
  /**
   * codes: [N * Z]; colours: [N]; lanes: [N], in [0, 1], heights for a single dimension;
   * plane: its centre [Z] and two axes [Z].
   */
  constructor(element, { codes, latentDim, colours, lanes, plane }) {
    Object.assign(this, { element, latentDim, colours, plane });
    [, this.base, this.truth, this.overlay] = element.querySelectorAll("canvas");
    const count = colours.length;
    this.points = new Float32Array(2 * count);
    for (let i = 0; i < count; i++) this.points.set(this.position(codes.subarray(i * latentDim, (i + 1) * latentDim)), 2 * i);
    const sizes = this.points.map(Math.abs).sort();
    const most = sizes.at(-1), usual = sizes[Math.floor(0.998 * (sizes.length - 1))];
    this.half = Math.max(3.2, Math.min(1.08 * most, 1.4 * usual));  // a single stray code does not shrink the rest
    if (latentDim === 1) for (let i = 0; i < count; i++) this.points[2 * i + 1] = (1.8 * lanes[i] - 0.9) * this.half;
    this.emphasised = () => true;
  }

  // ------------------------------------------------------------------------------------------------ places

  /** Where z lies on the plane. */
  position(z) {
    return this.plane.axes.map((axis) => axis.reduce((sum, a, j) => sum + a * (z[j] - this.plane.centre[j]), 0));
  }

  /** z moved within the plane to a position; what lies outside the plane stays. */
  moved(z, position) {
    const now = this.position(z);
    return Float64Array.from(z, (value, j) =>
      this.plane.axes.reduce((sum, axis, k) => sum + axis[j] * (position[k] - now[k]), value));
  }

  pixel([a, b]) {
    return [(0.5 + (0.5 * a) / this.half) * this.size, (0.5 - (0.5 * b) / this.half) * this.size];
  }

  /** The position under a pointer. */
  under(event) {
    const box = this.element.getBoundingClientRect();
    const inside = (share) => Math.min(1, Math.max(0, share));
    const x = inside((event.clientX - box.left) / box.width), y = inside((event.clientY - box.top) / box.height);
    return [(2 * x - 1) * this.half, (1 - 2 * y) * this.half];
  }

  // ----------------------------------------------------------------------------------------------- drawing

  prepare(canvas, options) {
    const scale = window.devicePixelRatio || 1, context = canvas.getContext("2d", options);
    this.size = this.element.clientWidth;
    canvas.width = canvas.height = Math.round(this.size * scale);
    context.setTransform(canvas.width / this.size, 0, 0, canvas.height / this.size, 0, 0);
    return context;
  }

  /** What changes with the page's size and colours alone. */
  drawBase() {
    const style = getComputedStyle(document.documentElement), context = this.prepare(this.base, READABLE);
    this.look = Object.fromEntries(["ink", "muted", "accent", "halo", "lift", "true"].map((name) => [name, style.getPropertyValue(`--${name}`)]));
    this.look.sans = style.getPropertyValue("--sans");
    this.drawScale(context);
    const count = this.colours.length, radius = Math.min(3.4, Math.max(1.5, 62 / Math.sqrt(count)));
    for (let i = 0; i < count; i++) {
      const [x, y] = this.pixel(this.points.subarray(2 * i, 2 * i + 2));
      context.globalAlpha = this.emphasised(i) ? (count > 4000 ? 0.62 : 0.8) : 0.06;
      context.fillStyle = `color-mix(in srgb, white ${this.look.lift}, ${this.colours[i]})`;
      context.beginPath();
      context.arc(x, y, radius, 0, 2 * Math.PI);
      context.fill();
    }
    this.prepare(this.truth);
    this.prepare(this.overlay);
  }

  /** The true posterior, from densityCanvas. */
  drawTruth({ canvas, box: [left, bottom, right, top] }) {
    const context = this.truth.getContext("2d"), [x, y] = this.pixel([left, top]), [x1, y1] = this.pixel([right, bottom]);
    context.clearRect(0, 0, this.size, this.size);
    for (const shadowBlur of [4, 4, 4, 4, 0]) {  // a halo: it may be a few pixels between many points
      Object.assign(context, { shadowColor: this.look.halo, shadowBlur });
      context.drawImage(canvas, x, y, x1 - x, y1 - y);
    }
  }

  drawScale(context) {
    const middle = this.size / 2, unit = middle / this.half;
    context.globalAlpha = 0.35;
    context.strokeStyle = context.fillStyle = this.look.muted;
    context.lineWidth = 1;
    context.setLineDash([2, 4]);
    for (const [x, y] of [[1, 0], [0, 1]]) {
      context.beginPath();
      context.moveTo(middle - middle * x, middle - middle * y);
      context.lineTo(middle + middle * x, middle + middle * y);
      context.stroke();
    }
    context.setLineDash([]);
    context.globalAlpha = 0.9;
    context.font = `11px ${this.look.sans}`;
    context.textAlign = "center";
    const step = this.half > 8 ? 4 : this.half > 5 ? 2 : 1;
    for (let value = -Math.floor(this.half / step) * step; value < this.half; value += step) {
      const text = String(value).replace("-", "−"), place = middle + value * unit;
      if (place < 14 || place > this.size - 22) continue;
      this.haloed(context, text, place, this.size - 6);
      if (this.latentDim > 1) this.haloed(context, text, 12, 2 * middle - place + 4);
    }
    const names = this.plane.shares
      ? this.plane.shares.map((share, i) => `component ${i + 1}: ${Math.round(100 * share)} % of the variance`)
      : [latentName(0), latentName(1)];
    context.font = `12px ${this.look.sans}`;
    context.textAlign = "right";
    this.haloed(context, names[0], this.size - 8, this.size - 20);
    if (this.latentDim > 1) {
      context.textAlign = "left";
      this.haloed(context, names[1], 8, 18);
    }
    context.globalAlpha = 1;
  }

  haloed(context, text, x, y) {
    context.save();
    context.strokeStyle = this.look.halo;
    context.lineWidth = 3;
    context.lineJoin = "round";
    context.strokeText(text, x, y);
    context.restore();
    context.fillText(text, x, y);
  }

  /** What moves: z, its nearest code, q(z|x) with a sample, and a path. Positions may be null. */
  drawOverlay({ z, held, nearest, posterior, sample, path }) {
    const context = this.overlay.getContext("2d");
    context.clearRect(0, 0, this.size, this.size);
    if (posterior) this.drawPosterior(context, posterior, sample);
    if (path.length) this.drawPath(context, path);
    if (nearest !== null) {
      const [x, y] = this.pixel(this.points.subarray(2 * nearest, 2 * nearest + 2));
      this.outlined(context, this.look.ink, 1.5, () => context.arc(x, y, 5, 0, 2 * Math.PI));
    }
    const [x, y] = this.pixel(this.position(z));
    context.strokeStyle = this.look.ink;
    context.globalAlpha = 0.28;
    context.lineWidth = 1;
    context.beginPath();
    if (this.latentDim > 1) {
      context.moveTo(0, y);
      context.lineTo(this.size, y);
    }
    context.moveTo(x, 0);
    context.lineTo(x, this.size);
    context.stroke();
    context.globalAlpha = 1;
    this.outlined(context, this.look.ink, 2, () => context.arc(x, y, 9, 0, 2 * Math.PI));
    if (held) {
      context.fillStyle = this.look.ink;
      context.beginPath();
      context.arc(x, y, 4, 0, 2 * Math.PI);
      context.fill();
    }
  }

  /** A line that is seen on any ground: a halo below it. */
  outlined(context, colour, width, trace) {
    for (const [stroke, lineWidth] of [[this.look.halo, width + 3], [colour, width]]) {
      context.strokeStyle = stroke;
      context.lineWidth = lineWidth;
      context.beginPath();
      trace();
      context.stroke();
    }
  }

  /** The ellipse of two standard deviations of q(z|x) in the plane, its mean, and a sample of it. */
  drawPosterior(context, { mean, std }, sample) {
    const { accent, halo } = this.look, centre = this.position(mean), [u, v] = this.plane.axes;
    const product = (one, other) => one.reduce((sum, a, j) => sum + a * other[j] * std[j] ** 2, 0);
    const l11 = Math.sqrt(product(u, u)), l21 = product(u, v) / l11;  // Cholesky factor of the covariance
    const l22 = Math.sqrt(Math.max(0, product(v, v) - l21 ** 2));
    const outline = () => {
      if (this.latentDim === 1) {
        const [low] = this.pixel([centre[0] - 2 * l11, 0]), [high] = this.pixel([centre[0] + 2 * l11, 0]);
        context.rect(low, -5, high - low, this.size + 10);
        return;
      }
      for (let k = 0; k <= 72; k++) {
        const angle = (k * Math.PI) / 36, cos = 2 * Math.cos(angle), sin = 2 * Math.sin(angle);
        context.lineTo(...this.pixel([centre[0] + l11 * cos, centre[1] + l21 * cos + l22 * sin]));
      }
    };
    context.fillStyle = accent;
    context.globalAlpha = 0.2;
    context.beginPath();
    outline();
    context.fill();
    context.globalAlpha = 1;
    this.outlined(context, accent, 2, outline);
    const from = this.pixel(centre), to = this.pixel(this.position(sample));
    this.outlined(context, accent, 1, () => {
      context.moveTo(...from);
      context.lineTo(...to);
    });
    for (const [[x, y], diamond] of [[from, false], [to, true]]) {
      context.beginPath();
      if (diamond) for (const [dx, dy] of [[0, -4.5], [4.5, 0], [0, 4.5], [-4.5, 0]]) context.lineTo(x + dx, y + dy);
      else context.arc(x, y, 2.5, 0, 2 * Math.PI);
      context.closePath();
      context.fillStyle = accent;
      context.strokeStyle = halo;
      context.lineWidth = 2;
      context.stroke();
      context.fill();
    }
  }

  drawPath(context, ends) {
    const places = ends.map((end) => this.pixel(this.position(end)));
    if (places.length === 2) {
      this.outlined(context, this.look.ink, 2, () => places.forEach((place) => context.lineTo(...place)));
    }
    context.font = `600 12px ${this.look.sans}`;
    context.textAlign = "center";
    context.fillStyle = this.look.ink;
    places.forEach(([x, y], i) => {
      this.outlined(context, this.look.ink, 2, () => context.rect(x - 4, y - 4, 8, 8));
      this.haloed(context, "AB"[i], x, y - 10);
    });
  }
}
