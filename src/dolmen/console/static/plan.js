// Where the stages stand and how the arrows run: one plan for wide pages, one for phones.
// Time runs clockwise, and people close the ring.

const stone = (x, y) => ({ x, y });

export const WIDE = {
  name: "wide", width: 760, height: 446, stoneWidth: 166, stoneHeight: 96, centre: stone(380, 228),
  people: stone(380, 50),
  stones: { serve: stone(136, 138), log: stone(624, 138), join: stone(624, 306), learn: stone(380, 394), sync: stone(136, 306) },
  arrows: {
    slate: { d: "M170 87 C196 54 252 44 318 45", label: [226, 36, "middle"] },
    action: { d: "M442 45 C508 44 564 54 590 87", label: [536, 36, "middle"] },
    impression: { d: "M222 138 H535", label: [380, 129, "middle"] },
    event: { d: "M640 189 C646 208 646 236 640 255", label: [654, 226, "start"] },
    example: { d: "M606 357 C584 386 528 398 468 398", label: [560, 412, "middle"] },
    learned: { d: "M294 398 C232 398 176 386 154 357", label: [214, 412, "middle"] },
    delta: { d: "M120 255 C114 236 114 208 120 189", label: [106, 226, "end"] },
  },
};

export const NARROW = {
  name: "narrow", width: 336, height: 500, stoneWidth: 136, stoneHeight: 84, centre: stone(168, 228),
  people: stone(168, 36),
  stones: { serve: stone(72, 146), log: stone(264, 146), join: stone(264, 326), learn: stone(168, 454), sync: stone(72, 326) },
  arrows: {
    slate: { d: "M66 101 C66 62 84 40 112 36", label: [60, 52, "middle"] },
    action: { d: "M224 36 C252 40 270 62 270 97", label: [278, 52, "middle"] },
    impression: { d: "M143 146 H189", label: null },
    event: { d: "M272 191 C276 222 276 250 272 278", label: [282, 240, "start"] },
    example: { d: "M270 371 C268 420 256 448 242 452", label: [262, 438, "start"] },
    learned: { d: "M94 452 C78 446 68 420 66 375", label: [74, 438, "end"] },
    delta: { d: "M64 281 C60 250 60 222 64 195", label: [54, 240, "end"] },
  },
};

/** From where to where each arrow leads, and what runs along it. */
export const ARROWS = {
  slate: { from: "serve", to: "people", words: "slate" },
  action: { from: "people", to: "log", words: "action" },
  impression: { from: "serve", to: "log", words: "impression" },
  event: { from: "log", to: "join", words: "event" },
  example: { from: "join", to: "learn", words: "example" },
  learned: { from: "learn", to: "sync", words: "rows" },
  delta: { from: "sync", to: "serve", words: "delta" },
};

/** A standing stone: four corners that are not quite square, each stage's own, always the same. */
export function outline(name, { x, y }, width, height) {
  let seed = [...name].reduce((sum, letter) => (sum * 31 + letter.codePointAt(0)) % 997, 7);
  const lean = (most) => { seed = (seed * 197 + 71) % 997; return (seed / 997 - 0.5) * 2 * most; };
  const [w, h] = [width / 2, height / 2];
  const corners = [[-w, -h], [w, -h], [w, h], [-w, h]].map(([dx, dy]) => [x + dx + lean(4), y + dy + lean(3.5)]);
  const along = (from, to, part) => [from[0] + (to[0] - from[0]) * part, from[1] + (to[1] - from[1]) * part];
  const show = (point) => point.map((value) => value.toFixed(1)).join(" ");
  return corners.map((corner, index) => {
    const before = corners[(index + 3) % 4];
    const after = corners[(index + 1) % 4];
    const radius = 13 + lean(4);
    const start = along(corner, before, radius / Math.hypot(before[0] - corner[0], before[1] - corner[1]));
    const end = along(corner, after, radius / Math.hypot(after[0] - corner[0], after[1] - corner[1]));
    return `${index === 0 ? "M" : "L"}${show(start)} Q${show(corner)} ${show(end)}`;
  }).join(" ") + "Z";
}
