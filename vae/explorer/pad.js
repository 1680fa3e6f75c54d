"use strict";
/*
 * The drawing pad, at the data's own resolution. What it shows is what the encoder receives.
 *
 * Modes: "binary" (pixels that the brush covers by half turn white), "grey" (soft brush), "palette" (whole pixels in
 * the chosen colour), "colour" (soft brush in any colour).
 */

class Pad {
  /** shape: [C, H, W]; onChange is called after each change of `image`, [C * H * W] in [0, 1]. */
  constructor(element, { shape, mode, onChange }) {
    Object.assign(this, { element, mode, onChange });
    [this.channels, this.height, this.width] = shape;
    this.canvas = element.querySelector("canvas");
    this.cursorBox = element.querySelector("div");
    this.image = new Float64Array(this.channels * this.height * this.width);
    this.background = new Array(this.channels).fill(0);
    this.colour = new Array(this.channels).fill(1);
    this.radius = 0.5;
    this.erasing = false;
    this.history = [];
    this.cursor = [Math.floor(this.width / 2), Math.floor(this.height / 2)];
    this.pen = null;  // where the pointer was last, while it draws
    element.addEventListener("pointerdown", (event) => this.press(event));
    element.addEventListener("pointermove", (event) => this.drag(event));
    for (const end of ["pointerup", "pointercancel"]) element.addEventListener(end, () => (this.pen = null));
    element.addEventListener("contextmenu", (event) => event.preventDefault());
    element.addEventListener("keydown", (event) => this.key(event));
    element.addEventListener("focus", () => this.showCursor(element.matches(":focus-visible")));
    element.addEventListener("blur", () => this.showCursor(false));
  }

  /** Put an image on the pad. */
  load(image) {
    this.remember();
    this.image = Float64Array.from(image);
    this.onChange();
  }

  clear() {
    const area = this.height * this.width;
    this.load(Float64Array.from(this.image, (_, i) => this.background[Math.floor(i / area)]));
  }

  undo() {
    if (!this.history.length) return;
    this.image = this.history.pop();
    this.onChange();
  }

  remember() {
    this.history.push(this.image.slice());
    if (this.history.length > 100) this.history.shift();
  }

  // ---------------------------------------------------------------------------------------------- the brush

  /** Paint from one place to another; places are in pixels, [1.5, 0.5] is the middle of the second one. */
  stroke([x0, y0], [x1, y1]) {
    const area = this.height * this.width, length2 = (x1 - x0) ** 2 + (y1 - y0) ** 2;
    const colour = this.erasing ? this.background : this.colour, hard = this.mode === "palette";
    for (let row = 0; row < this.height; row++) {
      for (let column = 0; column < this.width; column++) {
        const x = column + 0.5 - x0, y = row + 0.5 - y0;
        const t = length2 ? clamp((x * (x1 - x0) + y * (y1 - y0)) / length2, 0, 1) : 0;
        const distance = Math.hypot(x - t * (x1 - x0), y - t * (y1 - y0));
        let covered = clamp(this.radius + 0.5 - distance, 0, 1);
        if (hard || this.mode === "binary") covered = covered >= 0.5 ? 1 : 0;
        if (hard && column === Math.floor(x1) && row === Math.floor(y1)) covered = 1;
        if (!covered) continue;
        for (let channel = 0; channel < this.channels; channel++) {
          const place = channel * area + row * this.width + column, before = this.image[place];
          // A grey brush never takes away what an earlier part of the stroke has put there.
          const after = this.channels > 1 || hard ? before + covered * (colour[channel] - before)
            : this.erasing ? Math.min(before, 1 - covered) : Math.max(before, covered);
          this.image[place] = Math.round(255 * after) / 255;
        }
      }
    }
    this.onChange();
  }

  place(event) {
    const box = this.element.getBoundingClientRect();
    return [((event.clientX - box.left) / box.width) * this.width, ((event.clientY - box.top) / box.height) * this.height];
  }

  press(event) {
    if (event.button > 0) {
      this.pick(this.place(event));
      return;
    }
    try {
      this.element.setPointerCapture(event.pointerId);
    } catch { /* a pointer that is gone already */ }
    this.remember();
    this.pen = this.place(event);
    this.stroke(this.pen, this.pen);
    this.showCursor(false);
  }

  drag(event) {
    if (!this.pen) return;
    const passed = event.getCoalescedEvents?.() ?? [];
    for (const moment of passed.length ? passed : [event]) {
      const place = this.place(moment);
      this.stroke(this.pen, place);
      this.pen = place;
    }
  }

  /** Take up the colour of a pixel. */
  pick([x, y]) {
    if (this.channels === 1 && this.mode !== "palette") return;
    const place = Math.floor(y) * this.width + Math.floor(x), area = this.height * this.width;
    this.colour = this.colour.map((_, channel) => this.image[channel * area + place]);
    this.element.dispatchEvent(new Event("pick"));
  }

  // ------------------------------------------------------------------------------------------- the keyboard

  key(event) {
    const steps = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] };
    const middle = () => this.cursor.map((place) => place + 0.5);
    if ((event.ctrlKey || event.metaKey) && event.key === "z") this.undo();
    else if (event.ctrlKey || event.metaKey || event.altKey) return;
    else if (event.key in steps) {
      const from = middle(), [dx, dy] = steps[event.key];
      this.cursor = [clamp(this.cursor[0] + dx, 0, this.width - 1), clamp(this.cursor[1] + dy, 0, this.height - 1)];
      if (event.shiftKey) this.write(from, middle());
    } else if (event.key === " ") this.write(middle(), middle());
    else if (event.key === "Delete" || event.key === "Backspace") {
      const erasing = this.erasing;
      this.erasing = true;
      this.write(middle(), middle());
      this.erasing = erasing;
    } else return;
    event.preventDefault();
    event.stopPropagation();
    this.showCursor(true);
  }

  write(from, to) {
    this.remember();
    this.stroke(from, to);
  }

  showCursor(shown) {
    this.cursorBox.hidden = !shown;
    const [x, y] = this.cursor, percent = (share) => `${100 * share}%`;
    Object.assign(this.cursorBox.style, {
      left: percent(x / this.width), top: percent(y / this.height),
      width: percent(1 / this.width), height: percent(1 / this.height),
    });
  }
}
