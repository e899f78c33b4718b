// Try it: be a person, see a slate, click, and watch the next one change.

import * as api from "./api.js";
import { titleOf, genresOf, traitsOf } from "./catalogue.js";
import { byId, el, refill } from "./dom.js";
import { seconds } from "./format.js";
import { Journey } from "./journey.js";
import { Picker } from "./people.js";
import { grown, showShares } from "./share.js";
import { Slate } from "./slate.js";

const SLATE_LENGTH = 10;
const HISTORY_LENGTH = 5;
const LEARN_PATIENCE_MS = 20_000; // after that we say so, and ask on, but seldom
const LEARN_END_MS = 600_000;
const LEARN_ASK_MS = 100;

const wait = (milliseconds) => new Promise((resolve) => { setTimeout(resolve, milliseconds); });

export class TryIt {
  /** `onStep(step)`: a click was "sent", "kept", "learned". */
  constructor(onStep) {
    this.onStep = onStep;
    this.person = null;
    this.slate = new Slate(byId("slate"), (item) => this.click(item));
    this.journey = new Journey(byId("journey"));
    this.picker = new Picker((id, isNew) => this.become(id, isNew));
    byId("again").addEventListener("click", () => this.refresh({ since: this.slate.items }));
  }

  /** Change who we are. What is still under way for somebody else is dropped when it arrives. */
  async become(id, isNew) {
    const person = { id, isNew, first: null, taken: [] };
    this.person = person;
    this.slate.clear();
    this.journey.clear();
    this.latest = null;
    byId("share").hidden = true;
    byId("recent").hidden = true;
    for (const id of ["slate-head", "slate-foot"]) byId(id).hidden = true;
    byId("invitation").hidden = true;
    byId("slate").setAttribute("aria-busy", "true");
    if (isNew) this.introduce({ attributes: {}, history: [] });
    await Promise.all([isNew ? null : this.know(), this.refresh({ since: [] })]);
    if (person === this.person && this.slate.items.length > 0) {
      this.announce(`${id} has a slate of ${this.slate.items.length}.`);
      if (matchMedia("(max-width: 620px)").matches) byId("person").scrollIntoView({ block: "start" });
    }
  }

  async know() {
    const person = this.person;
    try {
      const known = await api.person(person.id);
      if (person === this.person) this.introduce(known);
    } catch (failure) {
      if (person !== this.person) return;
      if (failure.status === 404) this.introduce({ attributes: {}, history: [] });
      else this.trouble(failure);
    }
  }

  /** Who we are: one line of traits and one of history, so that the slate below stays where it is; the whole history comes last. */
  introduce({ attributes, history }) {
    const traits = traitsOf(attributes);
    const recent = [...(history ?? [])].reverse();
    const titles = recent.slice(0, HISTORY_LENGTH).map((one) => el("span", { class: "title" }, titleOf(one.item, one.attributes)));
    byId("person").hidden = false;
    refill(byId("person"),
      el("p", { class: "who" }, "You are ", el("strong", {}, this.person.id)),
      traits.length > 0 ? el("dl", { class: "traits" }, traits.map(([name, words]) => el("div", {}, el("dt", {}, name), el("dd", {}, words)))) : null,
      el("p", { class: "lately" }, titles.length > 0 ? "Lately: " : traits.length > 0 ? "You did nothing yet: there is no history." : "Nobody knows you yet: there is no history.", titles.map((title, index) => [index > 0 ? " · " : null, title])));
    byId("recent").hidden = recent.length === 0;
    refill(byId("recent"),
      el("h3", {}, "What you did, newest first"),
      el("ol", {}, recent.slice(0, 2 * HISTORY_LENGTH).map((one) => el("li", {},
        el("span", { class: "title" }, titleOf(one.item, one.attributes)), " ", el("span", { class: "genres" }, genresOf(one.attributes).join(", "))))));
  }

  /** Fetch a slate and show what changed since `since`. */
  async refresh({ since, hold = false }) {
    const person = this.person;
    this.asking?.abort();
    this.asking = new AbortController();
    try {
      const answer = await api.recommend(person.id, SLATE_LENGTH, this.asking.signal);
      if (person !== this.person) return null;
      this.answer = answer;
      person.first ??= answer.items;
      const changes = this.slate.show(answer.items, since, { hold });
      byId("slate").removeAttribute("aria-busy");
      for (const id of ["slate-head", "slate-foot"]) byId(id).hidden = false;
      byId("slate-basis").textContent = answer.ranked_by === "popularity" ? "by popularity, until the model has learned something" : "";
      showShares(byId("share"), person.first, answer.items, person.taken);
      if (!this.latest) this.journey.wait();
      this.trouble(answer.items.length === 0 ? { message: "The slate is empty: nothing in the catalogue is left to show." } : null);
      return { answer, changes };
    } catch (failure) {
      if (failure.name === "AbortError" || person !== this.person) return null;
      byId("slate").removeAttribute("aria-busy");
      this.trouble(failure);
      return null;
    }
  }

  /** The person takes an item: tell the server, fetch what comes next, and again once the parameters include it. */
  async click(one) {
    const person = this.person;
    const since = this.slate.items;
    const title = titleOf(one.item, one.attributes);
    const journey = this.journey.start();
    this.latest = journey;
    this.slate.taken(one.item);
    this.onStep("sent");
    let positions;
    try {
      const event = { type: "action", user: person.id, item: one.item, kind: "click", request_id: this.answer.request_id, event_id: uniqueId() };
      positions = (await api.sendEvents([event])).positions;
    } catch (failure) {
      journey.fail("kept", "not taken");
      this.slate.untake();
      this.trouble(failure);
      return;
    }
    if (person !== this.person) return;
    person.taken.push(one);
    journey.reach("kept");
    this.onStep("kept");
    this.know();
    const next = await this.refresh({ since });
    if (person !== this.person || this.latest !== journey) return;
    if (next) {
      journey.reach("read");
      const fresh = next.changes.filter(({ kind }) => kind === "in").length;
      this.announce(`You took ${title}. ${fresh} of ${next.answer.items.length} are just in. ${grown(person.first, next.answer.items) ?? ""}`);
    } else journey.fail("read", "no answer");
    if (!(await this.learned(one.item, positions, journey, next?.answer))) return;
    const took = journey.reach("learned");
    this.onStep("learned");
    await this.refresh({ since, hold: true });
    if (this.latest === journey) this.announce(`The parameters now include your click, after ${seconds(took)}.`);
  }

  /** Wait until what the server serves includes `positions`, asking in a way that shows nobody anything. False: not within our patience, or a newer click took over. */
  async learned(item, positions, journey, answer) {
    const began = performance.now();
    let seen = answer?.parameters?.positions;
    let pause = LEARN_ASK_MS;
    while (!includes(seen, positions)) {
      const waited = performance.now() - began;
      if (waited > LEARN_PATIENCE_MS) journey.fail("learned", `not yet, after ${seconds(waited / 1000)}`);
      if (waited > LEARN_END_MS) return false;
      await wait(pause);
      if (this.latest !== journey) return false;
      pause = waited > LEARN_PATIENCE_MS ? 1000 : LEARN_ASK_MS;
      try {
        seen = (await api.similar(item, 1)).parameters?.positions;
      } catch (failure) {
        pause = Math.max(1, failure.retryAfter ?? 0) * 1000; // Not ready, or away, as the page's pulse tells: ask on, but seldom.
      }
    }
    return this.latest === journey;
  }

  announce(words) {
    byId("said").textContent = words;
  }

  trouble(failure) {
    const words = failure === null ? "" : failure.away ? "The server is not answering. Your next click will be taken when it is back." : failure.message;
    byId("slate-problem").textContent = words;
    byId("slate-problem").hidden = words === "";
  }

  /** The server is back after it was away: show that it answers us, too. */
  back() {
    this.trouble(null);
    if (this.person && this.slate.items.length === 0) this.become(this.person.id, this.person.isNew);
  }
}

/** Do the parameters include all that was acknowledged? Positions are next offsets: what lies below is included. */
export function includes(seen, acknowledged) {
  const parts = Object.entries(acknowledged ?? {});
  return parts.length > 0 && parts.every(([part, next]) => (seen?.[part] ?? -1) >= next);
}

function uniqueId() {
  return [...crypto.getRandomValues(new Uint8Array(16))].map((byte) => byte.toString(16).padStart(2, "0")).join("");
}
