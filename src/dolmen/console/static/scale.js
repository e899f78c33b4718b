// Axes: round steps for numbers, and a window of time that ends now.

/** Steps of 1, 2 or 5 times a power of ten: ticks from at or below `low` to at or above `high`. */
export function niceTicks(low, high, wanted = 3) {
  if (!(high > low)) {
    const room = Math.abs(high) * 0.1 || 1;
    [low, high] = [low - (low > 0 ? Math.min(room, low) : 0), high + room];
  }
  const rough = (high - low) / wanted;
  const power = 10 ** Math.floor(Math.log10(rough));
  const step = [1, 2, 5, 10].map((factor) => factor * power).find((candidate) => candidate >= rough * 0.999);
  const first = Math.floor(low / step + 1e-9);
  const last = Math.ceil(high / step - 1e-9);
  return Array.from({ length: last - first + 1 }, (_, index) => Number(((first + index) * step).toPrecision(12)));
}

/** How much of the past to show, in seconds: what there is, rounded up to a length that has plain ticks. */
export function windowSeconds(available) {
  return [60, 120, 300, 600].find((length) => available <= length) ?? 600;
}

/** Labels for a window: [seconds ago, words], oldest first. */
export function timeTicks(length) {
  const words = (ago) => (ago === 0 ? "now" : ago >= 60 ? `−${ago / 60} min` : `−${ago} s`);
  return [length, length / 2, 0].map((ago) => [ago, words(ago)]);
}

/** The index of the point nearest in time (times ascend). */
export function nearest(times, wanted) {
  let low = 0;
  let high = times.length - 1;
  while (low < high) {
    const middle = (low + high) >> 1;
    if (times[middle] < wanted) low = middle + 1; else high = middle;
  }
  return low > 0 && wanted - times[low - 1] <= times[low] - wanted ? low - 1 : low;
}
