// The way of one click, with the time each step took: sent, kept, read, learned.

import { el } from "./dom.js";
import { seconds } from "./format.js";

const STEPS = [
  ["kept", "your click is kept"],
  ["read", "next slate knows it"],
  ["learned", "parameters include it"],
];

export class Journey {
  constructor(list) {
    this.list = list;
  }

  clear() {
    this.list.hidden = true;
    this.list.replaceChildren();
  }

  /** Show the way before anybody went it, so that the first click moves nothing on the page. */
  wait() {
    this.draw("");
  }

  draw(took) {
    const nodes = Object.fromEntries(STEPS.map(([name, words]) => [name, el("li", { "data-step": name },
      el("span", { class: "lamp", "aria-hidden": "true" }), el("span", { class: "words" }, words), el("span", { class: "took" }, took))]));
    this.list.replaceChildren(...Object.values(nodes));
    this.list.hidden = false;
    return nodes;
  }

  /** A new click starts; earlier ones are forgotten here. Returns a function that marks a step as reached. */
  start() {
    const began = performance.now();
    const nodes = this.draw("…");
    return {
      reach: (name) => {
        const took = (performance.now() - began) / 1000;
        nodes[name].classList.remove("failed");
        nodes[name].classList.add("reached");
        nodes[name].querySelector(".took").textContent = `after ${seconds(took)}`;
        return took;
      },
      /** Not so far; it may still be reached. */
      fail: (name, words) => {
        nodes[name].classList.add("failed");
        nodes[name].querySelector(".took").textContent = words;
      },
    };
  }
}
