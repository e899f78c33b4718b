// How an item of any catalogue is shown: its title, its genres, and a line for whatever else it has.

const TITLES = ["title", "name", "label"];
const YEARS = ["release_year", "year"];
const GENRES = ["genres", "genre", "tags", "categories", "category", "topics", "interests"];

const asList = (value) => (Array.isArray(value) ? value : String(value).split("|")).map(String).map((one) => one.trim()).filter(Boolean);

const key = (attributes, names) => names.find((name) => attributes?.[name] !== undefined && attributes[name] !== null && attributes[name] !== "");

export function titleOf(id, attributes) {
  const name = key(attributes, TITLES);
  return name ? String(attributes[name]) : `Item ${id}`;
}

/** " (1979)" where the catalogue knows the year and the title does not say it, else nothing. */
export function yearOf(id, attributes) {
  const name = key(attributes, YEARS);
  return name && !titleOf(id, attributes).includes(String(attributes[name])) ? ` (${attributes[name]})` : "";
}

/** Genres, or the nearest thing that the catalogue has: the first attribute that is a list. */
export function genresOf(attributes) {
  const name = key(attributes, GENRES) ?? Object.keys(attributes ?? {}).find((one) => Array.isArray(attributes[one]));
  return name ? asList(attributes[name]) : [];
}

/** Short attributes of a person: [[name, words], …]. */
export function traitsOf(attributes) {
  return Object.entries(attributes ?? {})
    .filter(([, value]) => value !== null && value !== "" && typeof value !== "object" || Array.isArray(value))
    .map(([name, value]) => [name.replaceAll("_", " "), Array.isArray(value) ? value.join(", ") : String(value)])
    .slice(0, 8);
}

/** The part of a slate that carries each genre: Map genre → 0..1. An item with two genres counts for both. */
export function sharesOf(items) {
  const shares = new Map();
  for (const { attributes } of items) {
    for (const genre of new Set(genresOf(attributes))) shares.set(genre, (shares.get(genre) ?? 0) + 1 / items.length);
  }
  return shares;
}

/** What became of each item of `after` since `before`: "same", "up", "down" (with by how much) or "in". Nothing before: "first". */
export function changesOf(before, after) {
  const places = new Map(before.map(({ item }, index) => [String(item), index]));
  return after.map(({ item }, index) => {
    if (before.length === 0) return { kind: "first", by: 0 };
    const was = places.get(String(item));
    if (was === undefined) return { kind: "in", by: 0 };
    return { kind: was === index ? "same" : was > index ? "up" : "down", by: Math.abs(was - index) };
  });
}
