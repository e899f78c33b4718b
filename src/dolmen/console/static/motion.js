// Dots that run along the arrows: as many each second as the events they stand for. Still where motion is unwanted.

import { svg, wantsCalm } from "./dom.js";

const MOST_PER_SECOND = 8;
const SPEED = 95; // drawing units a second
const FRAME_MS = 33; // thirty pictures a second are smooth enough, and leave the processor to the loop itself

/** How many events one dot stands for: 1, 2, 5, 10, 20, …, so that the busiest arrow stays calm. */
export function eventsPerDot(rates) {
  const most = Math.max(0, ...rates.filter(Number.isFinite));
  const least = most / MOST_PER_SECOND;
  if (least <= 1) return 1;
  const power = 10 ** Math.floor(Math.log10(least));
  return [1, 2, 5, 10].map((factor) => factor * power).find((size) => size >= least);
}

export class Motion {
  /** `layer`: an SVG group for the dots; `paths`: arrow name to path element. */
  constructor(layer, paths) {
    this.layer = layer;
    this.paths = new Map(Object.entries(paths).map(([name, node]) => [name, { node, length: node.getTotalLength() }]));
    this.rates = {};
    this.due = {};
    this.dots = [];
    this.visible = true;
    this.then = 0;
    this.watcher = new IntersectionObserver(([entry]) => { this.visible = entry.isIntersecting; this.wake(); });
    this.watcher.observe(layer.ownerSVGElement);
    this.wake = this.wake.bind(this);
    document.addEventListener("visibilitychange", this.wake);
    wantsCalm.addEventListener("change", this.wake);
  }

  stop() {
    this.stopped = true;
    this.watcher.disconnect();
    document.removeEventListener("visibilitychange", this.wake);
    wantsCalm.removeEventListener("change", this.wake);
  }

  /** `rates`: arrow name to dots each second. */
  flow(rates) {
    this.rates = rates;
    this.wake();
  }

  /** One marked dot along one arrow, at once: somebody's own click. */
  send(name) {
    if (!wantsCalm.matches) { this.launch(name, "dot mine", 6); this.wake(); }
  }

  get idle() {
    return this.stopped || document.hidden || !this.visible || wantsCalm.matches;
  }

  wake() {
    if (this.idle) { this.layer.replaceChildren(); this.dots = []; return; }
    if (!this.running) { this.running = true; this.then = performance.now(); requestAnimationFrame((now) => this.frame(now)); }
  }

  launch(name, style, radius) {
    const path = this.paths.get(name);
    if (!path) return;
    const node = name === "learned" || name === "delta"
      ? svg("rect", { class: style, width: radius * 1.6, height: radius * 1.6, x: -radius * 0.8, y: -radius * 0.8, rx: 1 })
      : svg("circle", { class: style, r: radius });
    this.layer.append(node);
    this.dots.push({ node, path, gone: 0 });
    this.move(this.dots.at(-1));
  }

  move({ node, path, gone }) {
    const { x, y } = path.node.getPointAtLength(gone);
    node.setAttribute("transform", `translate(${x.toFixed(1)} ${y.toFixed(1)})`);
  }

  frame(now) {
    if (this.idle) { this.running = false; return; }
    const passed = Math.min(now - this.then, 250);
    if (passed >= FRAME_MS) {
      this.then = now;
      for (const [name, rate] of Object.entries(this.rates)) {
        // Starting half-way means that slow arrows show their first dot soon.
        this.due[name] = (this.due[name] ?? 0.5) + (rate * passed) / 1000;
        if (this.due[name] >= 1) { this.due[name] %= 1; this.launch(name, `dot on-${name}`, 3.4); }
      }
      for (const dot of this.dots) {
        dot.gone += (SPEED * passed) / 1000;
        if (dot.gone >= dot.path.length) dot.node.remove(); else this.move(dot);
      }
      this.dots = this.dots.filter((dot) => dot.gone < dot.path.length);
    }
    if (this.dots.length === 0 && !Object.values(this.rates).some((rate) => rate > 0)) { this.running = false; return; }
    requestAnimationFrame((next) => this.frame(next));
  }
}
