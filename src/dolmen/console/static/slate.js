// The slate on the page: items keep their node from one slate to the next, so that they can be seen to move.

import { changesOf, genresOf, titleOf, yearOf } from "./catalogue.js";
import { el, unseen, wantsCalm } from "./dom.js";
import { percent } from "./format.js";

const CHANGES = {
  in: () => ["in", "just in", "just in"],
  up: (by) => [`▲ ${by}`, `up ${by}`, `moved up ${by}`],
  down: (by) => [`▼ ${by}`, `down ${by}`, `moved down ${by}`],
};
const SETTLE_MS = 300; // A press so soon after a change was meant for what stood there before.

export class Slate {
  /** `onPick(item, place)`: the person takes this one. */
  constructor(list, onPick) {
    this.list = list;
    this.onPick = onPick;
    this.items = [];
    this.nodes = new Map();
    this.changedAt = -Infinity;
  }

  clear() {
    this.items = [];
    this.nodes.clear();
    this.list.replaceChildren();
  }

  /**
   * Show `items`; mark what changed since `since` (a list of items, empty: nothing to compare with).
   * A focus inside stays on the same item (`hold`), else on the same place in the list.
   */
  show(items, since, { hold = false } = {}) {
    const focused = [...this.list.children].findIndex((node) => node.contains(document.activeElement));
    const focusedItem = this.items[focused]?.item;
    const before = new Map([...this.nodes].map(([key, node]) => [key, node.getBoundingClientRect().top]));
    const changes = changesOf(since, items);
    const nodes = new Map(items.map((one, index) => {
      const key = String(one.item);
      const node = this.nodes.get(key) ?? el("li", { "data-item": key });
      this.fill(node, one, index, changes[index]);
      return [key, node];
    }));
    const moved = items.some((one, index) => String(this.items[index]?.item) !== String(one.item));
    if (moved) {
      this.list.replaceChildren(...nodes.values());
      if (this.items.length > 0) this.changedAt = performance.now();
    }
    this.items = items;
    this.nodes = nodes;
    if (focused >= 0) {
      const same = hold ? items.findIndex(({ item }) => item === focusedItem) : -1;
      this.list.children[same >= 0 ? same : Math.min(focused, items.length - 1)]?.querySelector("button").focus({ preventScroll: true });
    }
    if (moved && before.size > 0 && !wantsCalm.matches) this.glide(before);
    return changes;
  }

  glide(before) {
    for (const [key, node] of this.nodes) {
      const was = before.get(key);
      const by = was === undefined ? 0 : was - node.getBoundingClientRect().top;
      if (was === undefined) node.animate([{ opacity: 0 }, { opacity: 1 }], { duration: 400, easing: "ease-out" });
      else if (by !== 0) node.animate([{ transform: `translateY(${by}px)` }, { transform: "none" }], { duration: 380, easing: "cubic-bezier(.2,.7,.2,1)" });
    }
  }

  fill(node, one, index, change) {
    const title = titleOf(one.item, one.attributes);
    const genres = genresOf(one.attributes);
    const [sign, short, words] = CHANGES[change.kind]?.(change.by) ?? [];
    const part = Math.max(0, Math.min(1, one.probability));
    node.dataset.change = change.kind;
    const meter = el("span", { class: "meter", "aria-hidden": "true" }, el("span"));
    meter.firstChild.style.width = `${(part * 100).toFixed(1)}%`;
    const button = el("button", { type: "button", onclick: (event) => this.pick(event, one, index) },
      el("span", { class: "place", "aria-hidden": "true" }, String(index + 1)),
      el("span", { class: "what" },
        unseen(`${index + 1}. `), el("span", { class: "title" }, title, el("span", { class: "year" }, yearOf(one.item, one.attributes))), unseen(". "),
        el("span", { class: "chips" },
          genres.map((genre) => [el("span", { class: "chip" }, genre), unseen(", ")]),
          isExplored(one) ? [el("span", { class: "chip fresh", title: "Shown to learn about it: little is known yet" }, "new"), unseen(", shown to learn about it, ")] : null)),
      el("span", { class: "odds" }, unseen("Probability "), el("span", {}, percent(one.probability)), meter),
      sign ? el("span", { class: `change ${change.kind}` }, el("span", { "aria-hidden": "true", title: words }, change.kind === "in" ? short : sign), unseen(`, ${words}`))
        : el("span", { class: "change" }));
    const old = node.querySelector("button");
    const hadFocus = old !== null && old === document.activeElement;
    node.replaceChildren(button);
    if (hadFocus) button.focus({ preventScroll: true });
  }

  pick(event, one, index) {
    // `detail` is 0 for the keyboard, which presses what has the focus and so never hits a stranger.
    if (event.detail > 0 && performance.now() - this.changedAt < SETTLE_MS) return;
    this.onPick(one, index);
  }

  /** Mark an item as taken until the next slate comes. */
  taken(item) {
    this.nodes.get(String(item))?.classList.add("taken");
  }

  untake() {
    for (const node of this.nodes.values()) node.classList.remove("taken");
  }
}

/** Was this one shown to explore? The server says so, or its odds of being shown here were below certain. */
export const isExplored = (one) => one.explored === true;
