// Choosing a person: a text field that suggests ids, in the pattern that screen readers know as a combo box.

import * as api from "./api.js";
import { traitsOf } from "./catalogue.js";
import { byId, el } from "./dom.js";

const SUGGESTIONS = 8;
const PAUSE_MS = 120;

const ALPHABET = "bcdfghjkmnpqrstvwxz23456789"; // Nothing that can be misread, or read as a word.

/** An id that nobody has yet, nearly surely. */
export function newcomerId() {
  return `guest-${[...crypto.getRandomValues(new Uint8Array(6))].map((byte) => ALPHABET[byte % ALPHABET.length]).join("")}`;
}

export class Picker {
  /** `onPerson(id, isNew)`. */
  constructor(onPerson) {
    this.onPerson = onPerson;
    this.input = byId("person-id");
    this.list = byId("people");
    this.active = -1;
    this.input.addEventListener("input", () => this.later());
    this.input.addEventListener("focus", () => this.later(0));
    this.input.addEventListener("blur", () => this.close());
    this.input.addEventListener("keydown", (event) => this.key(event));
    this.list.addEventListener("pointerdown", (event) => {
      event.preventDefault(); // The focus stays in the field.
      const option = event.target.closest("[role=option]");
      if (option) this.take(option.dataset.id);
    });
    byId("pick").addEventListener("submit", (event) => { event.preventDefault(); this.take(this.input.value.trim()); });
    byId("newcomer").addEventListener("click", () => { this.input.value = ""; this.problem(""); this.onPerson(newcomerId(), true); });
  }

  problem(words) {
    byId("pick-problem").textContent = words;
    byId("pick-problem").hidden = words === "";
    this.input.toggleAttribute("aria-invalid", words !== "");
  }

  take(id) {
    this.close();
    if (id === "") { this.problem("Type an id first, or choose one from the list (arrow down)."); this.input.focus(); return; }
    this.problem("");
    this.input.value = id;
    this.onPerson(id, false);
  }

  later(pause = PAUSE_MS) {
    clearTimeout(this.timer);
    this.timer = setTimeout(() => this.suggest(), pause);
  }

  async suggest() {
    this.request?.abort();
    const request = new AbortController();
    this.request = request;
    let found;
    try {
      found = await api.people(this.input.value.trim(), SUGGESTIONS, request.signal);
    } catch {
      if (!request.signal.aborted) this.close(); // Without suggestions an id can still be typed.
      return;
    }
    if (request.signal.aborted) return;
    if (document.activeElement !== this.input) { this.close(); return; }
    const people = (found.users ?? []).slice(0, SUGGESTIONS);
    // A list that comes while somebody is choosing keeps the choice, where it still holds it.
    const chosen = this.list.children[this.active]?.dataset.id;
    this.list.replaceChildren(...people.map((person, index) => {
      const id = String(person.id);
      return el("li", { role: "option", id: `option-${index}`, "aria-selected": "false", "data-id": id },
        el("span", { class: "id" }, id), " ", el("span", { class: "traits" }, traitsOf(person.attributes).map(([, words]) => words).join(" · ")));
    }));
    this.list.hidden = people.length === 0;
    this.input.setAttribute("aria-expanded", String(people.length > 0));
    this.choose(chosen === undefined ? -1 : people.findIndex(({ id }) => String(id) === chosen));
  }

  choose(index) {
    this.active = index;
    [...this.list.children].forEach((option, at) => option.setAttribute("aria-selected", String(at === index)));
    const option = this.list.children[index];
    if (option) this.input.setAttribute("aria-activedescendant", option.id);
    else this.input.removeAttribute("aria-activedescendant");
    option?.scrollIntoView({ block: "nearest" });
  }

  close() {
    clearTimeout(this.timer);
    this.request?.abort();
    this.list.hidden = true;
    this.input.setAttribute("aria-expanded", "false");
    this.choose(-1);
  }

  key(event) {
    const options = [...this.list.children];
    if (event.key === "Escape") this.close();
    else if (event.key === "Enter" && this.active >= 0 && !this.list.hidden) {
      event.preventDefault();
      this.take(options[this.active].dataset.id);
    } else if (event.key === "ArrowDown" || event.key === "ArrowUp") {
      event.preventDefault();
      if (this.list.hidden) { this.later(0); return; }
      const step = event.key === "ArrowDown" ? 1 : -1;
      this.choose(this.active < 0 && step < 0 ? options.length - 1 : (this.active + step + options.length) % options.length);
    }
  }
}
