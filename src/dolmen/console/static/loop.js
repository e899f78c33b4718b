// The loop as a live picture: six places, seven arrows, each stage with its own figure and its state.

import { byId, el, say, svg, wantsCalm } from "./dom.js";
import { count, isKnown, seconds } from "./format.js";
import { eventsPerDot, Motion } from "./motion.js";
import { ARROWS, NARROW, outline, WIDE } from "./plan.js";
import { isIdle, readRates, readStages } from "./stages.js";

const DELTAS_PER_SECOND = 1; // Shown so; a delta is no event, and its square is not counted in dots.

export class Loop {
  constructor() {
    this.host = byId("loop");
    this.narrow = matchMedia("(max-width: 620px)");
    this.narrow.addEventListener("change", () => this.build());
    wantsCalm.addEventListener("change", () => this.status && this.update(this.status));
    this.build();
  }

  build() {
    const plan = this.narrow.matches ? NARROW : WIDE;
    this.motion?.stop();
    this.stones = Object.fromEntries(Object.entries(plan.stones).map(([name, place]) => [name, this.stone(name, place, plan)]));
    this.arrows = Object.fromEntries(Object.keys(ARROWS).map((name) => [name, this.arrow(name, plan)]));
    this.rate = svg("text", { class: "rate", x: plan.people.x, y: plan.people.y + 22 }, "–");
    this.stale = svg("text", { class: "hero", x: plan.centre.x, y: plan.centre.y + 6 }, "–");
    this.staleWords = [0, 1].map((line) => svg("text", { class: "hero-words", x: plan.centre.x, y: plan.centre.y + 31 + line * 17 }));
    const dots = svg("g", { class: "dots" });
    this.picture = svg("svg", { class: `ring ${plan.name}`, viewBox: `0 0 ${plan.width} ${plan.height}`, role: "img", "aria-labelledby": "loop-title", "aria-describedby": "loop-words" },
      svg("defs", {},
        svg("marker", { id: "tip", viewBox: "0 0 8 8", refX: 6.5, refY: 4, markerWidth: 8, markerHeight: 8, markerUnits: "userSpaceOnUse", orient: "auto" },
          svg("path", { class: "tip", d: "M0.5 0.8 7 4 0.5 7.2Z" })),
        svg("pattern", { id: "hatch", width: 7, height: 7, patternUnits: "userSpaceOnUse", patternTransform: "rotate(40)" },
          svg("path", { class: "hatch", d: "M0 0V7" }))),
      Object.values(this.arrows).map(({ node }) => node), dots, people(plan), this.rate,
      Object.values(this.stones).map(({ node }) => node),
      svg("g", { class: "centre" }, this.stale, this.staleWords));
    this.host.replaceChildren(this.picture);
    this.motion = new Motion(dots, Object.fromEntries(Object.entries(this.arrows).map(([name, { path }]) => [name, path])));
    if (this.status) this.update(this.status);
    else this.away();
  }

  stone(name, place, plan) {
    const { x, y } = place;
    const top = y - plan.stoneHeight / 2;
    const slim = plan === NARROW;
    const left = x - plan.stoneWidth / 2 + (slim ? 13 : 18);
    const body = outline(name, place, plan.stoneWidth, plan.stoneHeight);
    const parts = {
      title: svg("text", { class: "name", x: left + 15, y: top + (slim ? 25 : 28) }),
      figure: svg("text", { class: "figure", x: left, y: top + (slim ? 51 : 59) }),
      unit: svg("text", { class: "unit", x: left, y: top + (slim ? 68 : 79) }),
    };
    const node = svg("g", { class: "stone", "data-stage": name }, svg("path", { class: "body", d: body }), svg("path", { class: "veil", d: body }),
      svg("circle", { class: "lamp", cx: left + 4, cy: top + (slim ? 20.5 : 23), r: 4.5 }), ...Object.values(parts));
    return { node, ...parts };
  }

  arrow(name, plan) {
    const { d, label } = plan.arrows[name];
    const path = svg("path", { class: "way", d, "marker-end": "url(#tip)" });
    const words = label && svg("text", { class: "noun", x: label[0], y: label[1], "text-anchor": label[2] }, ARROWS[name].words);
    return { node: svg("g", { class: "arrow", "data-arrow": name }, path, words), path };
  }

  update(status) {
    this.status = status;
    const stages = readStages(status);
    const alive = Object.fromEntries(stages.map((stage) => [stage.name, stage.alive]));
    for (const stage of stages) {
      const { node, title, figure, unit } = this.stones[stage.name];
      node.classList.toggle("is-down", !stage.alive);
      node.classList.toggle("is-late", stage.late === true);
      say(title, stage.title);
      say(figure, stage.figure);
      say(unit, stage.alive && !stage.late ? stage.unit : stage.state);
    }
    const { now = {} } = status;
    say(this.rate, `${count(now.events_per_second)} events a second`);
    say(this.stale, seconds(now.staleness_seconds));
    const words = !isKnown(now.staleness_seconds) ? ["nothing learned yet", ""]
      : isIdle(status) ? ["since anything", "happened"] : ["from what happened", "to what is served"];
    this.staleWords.forEach((place, at) => say(place, words[at]));
    for (const [name, { from, to }] of Object.entries(ARROWS)) {
      const still = [from, to].some((end) => alive[end] === false) || (name === "delta" && !alive.learn);
      this.arrows[name].node.classList.toggle("is-still", still);
    }
    this.picture.classList.remove("is-away");
    const rates = readRates(status);
    const size = eventsPerDot(Object.values(rates));
    const flow = Object.fromEntries(Object.entries(rates).map(([name, rate]) => [name, rate / size]));
    const learns = alive.learn && rates.example > 0;
    this.motion.flow({ ...flow, learned: learns ? DELTAS_PER_SECOND : 0, delta: learns && alive.serve ? DELTAS_PER_SECOND : 0 });
    say(byId("loop-hint"), wantsCalm.matches ? "Live, without motion, as your system asks."
      : `Live. ${size === 1 ? "Each dot is one event" : `One dot is ${count(size)} events`}; squares are what was learned, on its way back.`);
    this.words(stages.map(({ title, alive: up, state, figure, unit }) => `${title}: ${up ? "" : "not working, "}${state}; ${figure} ${unit}`)
      .concat(`Staleness: ${seconds(now.staleness_seconds)}`, `Events a second: ${count(now.events_per_second)}`));
  }

  /** The same for screen readers. The list is not live: whoever wants it reads it, and is not interrupted each second. */
  words(lines) {
    const list = byId("loop-words");
    while (list.children.length < lines.length) list.append(el("li"));
    lines.forEach((line, index) => say(list.children[index], line));
  }

  /** Nobody answers: what was last seen stays, but grey and still. */
  away() {
    this.picture.classList.add("is-away");
    this.motion.flow({});
    say(byId("loop-hint"), this.status ? "Last seen; the server is not answering now." : "Waiting for the server.");
  }

  /** Show somebody's own click on its way: "action", then the inner arrows, then "delta". */
  follow(step) {
    const ways = { sent: ["action"], kept: ["event"], learned: ["delta"] };
    (ways[step] ?? []).forEach((name) => this.motion.send(name));
  }
}

function people(plan) {
  const { x, y } = plan.people;
  const head = (dx, dy, size) => svg("g", { transform: `translate(${x + dx} ${y + dy}) scale(${size})` },
    svg("circle", { cx: 0, cy: -16, r: 6 }), svg("path", { d: "M-10.5 4.5c0-7 4.5-11.5 10.5-11.5s10.5 4.5 10.5 11.5z" }));
  return svg("g", { class: "people" }, head(-24, -2, 0.82), head(24, -2, 0.82), head(0, 0, 1));
}
