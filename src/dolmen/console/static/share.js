// Genres of the slate: the first slate of this person against the one on the page; what they took stands on top.

import { sharesOf } from "./catalogue.js";
import { el, unseen } from "./dom.js";
import { percent } from "./format.js";

const MOST = 7;

export function showShares(host, first, now, taken) {
  const [before, after, liked] = [sharesOf(first), sharesOf(now), sharesOf(taken)];
  const weight = (genre) => Math.max(before.get(genre) ?? 0, after.get(genre) ?? 0);
  const genres = [...new Set([...liked.keys(), ...before.keys(), ...after.keys()])]
    .sort((one, other) => (liked.get(other) ?? 0) - (liked.get(one) ?? 0) || (after.get(other) ?? 0) - (after.get(one) ?? 0) || weight(other) - weight(one) || one.localeCompare(other)).slice(0, MOST);
  host.hidden = genres.length === 0;
  if (host.hidden) return;
  host.replaceChildren(
    el("h3", {}, "Genres of the slate"),
    el("p", { class: "keys" }, el("span", { class: "key before" }, "first slate"), " ", el("span", { class: "key after" }, "this slate")),
    el("dl", {}, genres.map((genre) => {
      const [was, is] = [before.get(genre) ?? 0, after.get(genre) ?? 0];
      const bar = (kind, part) => {
        const node = el("span", { class: `bar ${kind}`, "aria-hidden": "true" });
        node.style.width = `${part * 100}%`;
        return node;
      };
      const direction = is > was + 1e-9 ? "more" : is < was - 1e-9 ? "less" : "same";
      return el("div", { class: `row ${direction}` }, el("dt", {}, genre),
        el("dd", {}, el("span", { class: "bars" }, bar("before", was), bar("after", is)),
          el("span", { class: "was" }, unseen("first slate "), percent(was)), el("span", { class: "arrow", "aria-hidden": "true" }, "→"),
          el("span", { class: "is" }, unseen(", this slate "), percent(is))));
    })));
}

/** The genre whose share grew most, in words, or null. */
export function grown(first, now) {
  const before = sharesOf(first);
  const [genre, is] = [...sharesOf(now)].sort(([one, a], [other, b]) => (b - (before.get(other) ?? 0)) - (a - (before.get(one) ?? 0)))[0] ?? [];
  const was = before.get(genre) ?? 0;
  return is > was + 1e-9 ? `${genre} went from ${percent(was)} to ${percent(is)} of the slate` : null;
}
