// A line chart over the last minutes: axes, a legend that is also the read-out, and one crosshair for all charts.

import { el, say, svg } from "./dom.js";
import { clock, isKnown } from "./format.js";
import { nearest, niceTicks, timeTicks, windowSeconds } from "./scale.js";

const HEIGHT = 132;
const MARGIN = { top: 10, right: 10, bottom: 22, left: 12 }; // left: besides the labels
const LETTER = 6.9; // width of a digit of the axis, generously

/**
 * `options.series`: [{key, label, line}], where `line` (1, 2) is a style that differs in colour and in dashes.
 * `options.format`: number to words; `options.axis`: shorter words for the axis; `options.floor`: lowest value of the axis, or null to fit
 * the data; `options.mark`: {value, label}, a level worth a line; `onInstant(time | null)`: the reader points here.
 */
export class LineChart {
  constructor(options, onInstant) {
    this.options = { floor: 0, axis: options.format, ...options };
    this.onInstant = onInstant;
    this.points = [];
    this.instant = null;
    this.width = 0;
    this.build();
  }

  build() {
    const { title, series, note, mark } = this.options;
    this.values = series.map(() => el("span", { class: "value" }, "–"));
    this.when = el("span", { class: "when" });
    const entry = (kind, ...words) => el("li", {},
      svg("svg", { class: "swatch", viewBox: "0 0 18 8", width: 18, height: 8, "aria-hidden": "true" },
        svg("path", { class: kind, d: "M0 4H18" })), ...words);
    const legend = el("ul", { class: "legend" },
      series.map((one, index) => entry(`line line-${one.line}`, el("span", { class: "name" }, one.label), this.values[index])),
      mark ? entry("mark", el("span", { class: "name" }, mark.label)) : null); // In the plot the words would lie on the data.
    this.picture = svg("svg", {
      class: "plot", role: "slider", tabindex: 0, "aria-orientation": "horizontal",
      "aria-label": `${title}, over time`, "aria-valuemin": 0, "aria-valuemax": 0, "aria-valuenow": 0,
      onkeydown: (event) => this.key(event), onblur: () => this.onInstant(null),
      onpointermove: (event) => this.point(event), onpointerdown: (event) => this.point(event),
      onpointerleave: () => this.onInstant(null),
    });
    this.node = el("figure", { class: "chart" },
      el("figcaption", {}, el("span", { class: "title" }, title), this.when), legend, this.picture,
      note ? el("p", { class: "note" }, note) : null);
    new ResizeObserver(([entry]) => {
      const width = Math.round(entry.contentRect.width);
      if (width !== this.width) { this.width = width; this.draw(); }
    }).observe(this.picture);
  }

  /** `points`: [{time (ms), ...figures}], ascending in time. */
  update(points) {
    this.points = points;
    this.times = points.map((one) => one.time);
    this.draw();
  }

  /** Read the moment `time`, or the newest one where it is null. */
  show(time) {
    this.instant = time;
    this.readOut();
  }

  key(event) {
    const last = this.points.length - 1;
    if (last < 0) return;
    const at = this.instant === null ? last : nearest(this.times, this.instant);
    const steps = { ArrowLeft: -1, ArrowDown: -1, ArrowRight: 1, ArrowUp: 1, PageDown: -30, PageUp: 30 };
    let to;
    if (event.key in steps) to = at + steps[event.key];
    else if (event.key === "Home") to = nearest(this.times, this.times[last] - this.span * 1000);
    else if (event.key === "End") to = last;
    else if (event.key === "Escape") { this.onInstant(null); return; }
    else return;
    event.preventDefault();
    this.onInstant(this.times[Math.max(0, Math.min(last, to))]);
  }

  point(event) {
    if (this.points.length === 0) return;
    const box = this.picture.getBoundingClientRect();
    const share = (event.clientX - box.left - this.left) / Math.max(1, this.width - this.left - MARGIN.right);
    const newest = this.times.at(-1);
    this.onInstant(newest - (1 - Math.max(0, Math.min(1, share))) * this.span * 1000);
  }

  draw() {
    if (this.width < 60 || this.points.length === 0) return;
    const { series, floor, axis, mark } = this.options;
    const newest = this.times.at(-1);
    this.span = windowSeconds((newest - this.times[0]) / 1000);
    const oldest = newest - this.span * 1000;
    const shown = this.points.filter((one) => one.time >= oldest);
    const known = shown.flatMap((one) => series.map(({ key }) => one[key])).filter(isKnown);
    const low = floor ?? Math.min(...known);
    const high = Math.max(...known, mark && known.length && Math.max(...known) > mark.value * 0.5 ? mark.value : -Infinity);
    const ticks = known.length ? niceTicks(low, Math.max(high, low)) : [0, 1];
    const [bottom, top] = [ticks[0], ticks.at(-1)];
    this.left = MARGIN.left + LETTER * Math.max(3, ...ticks.map((tick) => axis(tick).length));
    const { left } = this;
    const right = this.width - MARGIN.right;
    const base = HEIGHT - MARGIN.bottom;
    this.x = (time) => left + ((time - oldest) / (newest - oldest)) * (right - left);
    this.y = (value) => base - ((value - bottom) / (top - bottom)) * (base - MARGIN.top);

    const parts = [];
    for (const tick of ticks) {
      parts.push(svg("line", { class: tick === bottom ? "axis" : "grid", x1: left, x2: right, y1: this.y(tick), y2: this.y(tick) }));
      if (known.length) parts.push(svg("text", { class: "tick", x: left - 7, y: this.y(tick) + 4, "text-anchor": "end" }, axis(tick)));
    }
    timeTicks(this.span).forEach(([ago, words], index) => parts.push(svg("text", {
      class: "tick", x: this.x(newest - ago * 1000), y: HEIGHT - 5, "text-anchor": ["start", "middle", "end"][index],
    }, words)));
    if (mark && mark.value > bottom && mark.value <= top) {
      parts.push(svg("line", { class: "mark", x1: left, x2: right, y1: this.y(mark.value), y2: this.y(mark.value) }));
    }
    for (const { key, line } of [...series].reverse()) {
      parts.push(svg("path", { class: `line line-${line}`, d: path(shown, key, this.x, this.y) }));
    }
    if (!known.length) {
      parts.push(svg("text", { class: "nothing", x: (left + right) / 2, y: (MARGIN.top + base) / 2, "text-anchor": "middle" }, "nothing yet"));
    }
    this.cross = svg("line", { class: "cross", y1: MARGIN.top, y2: base });
    this.dots = series.map(({ line }) => svg("circle", { class: `at at-${line}`, r: 3.5 }));
    this.picture.setAttribute("viewBox", `0 0 ${this.width} ${HEIGHT}`);
    this.picture.replaceChildren(...parts, this.cross, ...this.dots);
    this.readOut();
  }

  readOut() {
    if (!this.cross) return;
    const { series, format } = this.options;
    const last = this.points.length - 1;
    const at = this.instant === null ? last : nearest(this.times, this.instant);
    const one = this.points[at];
    series.forEach(({ key }, index) => {
      say(this.values[index], format(one[key]));
      const dot = this.dots[index];
      const visible = isKnown(one[key]) && one.time >= this.times[last] - this.span * 1000;
      dot.toggleAttribute("hidden", !visible);
      if (visible) { dot.setAttribute("cx", this.x(one.time)); dot.setAttribute("cy", this.y(one[key])); }
    });
    this.cross.toggleAttribute("hidden", this.instant === null);
    this.cross.setAttribute("x1", this.x(one.time));
    this.cross.setAttribute("x2", this.x(one.time));
    say(this.when, this.instant === null ? "" : clock(one.time));
    const words = series.map(({ key, label }) => `${label} ${format(one[key])}`).join(", ");
    // While the reader stands on "now" only the number moves on; the words are for whoever asks.
    this.picture.setAttribute("aria-valuemax", last);
    this.picture.setAttribute("aria-valuenow", at);
    this.picture.setAttribute("aria-valuetext", `${this.instant === null ? "now" : clock(one.time)}: ${words}`);
  }
}

/** A path that breaks where a figure is not known, and draws a lone point as a dot. */
function path(points, key, x, y) {
  let d = "";
  let pen = false;
  points.forEach((one, index) => {
    if (!isKnown(one[key])) { pen = false; return; }
    const place = `${x(one.time).toFixed(1)} ${y(one[key]).toFixed(1)}`;
    d += `${pen ? "L" : "M"}${place}`;
    if (!pen && !isKnown(points[index + 1]?.[key])) d += "h0.01";
    pen = true;
  });
  return d;
}
