// The figures over time: which charts there are, the history behind them, and the same as a table.

import { LineChart } from "./chart.js";
import { byId, el } from "./dom.js";
import { bytes, clock, count, exact, milliseconds, score, seconds } from "./format.js";

const KEEP_MS = 600_000;

const CHARTS = [
  {
    title: "Events and examples, each second", format: count,
    series: [{ key: "events_per_second", label: "events", line: 1 }, { key: "examples_per_second", label: "examples", line: 2 }],
  },
  {
    title: "Online against frozen", format: score, axis: (value) => value.toFixed(2), floor: null,
    series: [{ key: "auc_online", label: "learning on", line: 1 }, { key: "auc_frozen", label: "frozen", line: 2 }],
    note: "AUC: each example is predicted first and learned after. The frozen copy stopped learning; from then on both count anew.",
  },
  {
    title: "Staleness", format: seconds, axis: (value) => `${value} s`, mark: { value: 1, label: "promised: 1 s" },
    series: [{ key: "staleness_seconds", label: "age of what is served", line: 1 }],
  },
  {
    title: "Recommend latency", format: milliseconds, axis: (value) => `${value} ms`, mark: { value: 50, label: "promised: 50 ms" },
    series: [{ key: "recommend_p99_ms", label: "99 of 100 are faster", line: 1 }],
  },
  { title: "Rows in the tables", format: exact, axis: count, series: [{ key: "table_rows", label: "rows", line: 1 }] },
  { title: "Memory", format: bytes, series: [{ key: "memory_bytes", label: "all stages together", line: 1 }] },
];

export class Figures {
  constructor() {
    this.points = [];
    this.charts = CHARTS.map((options) => new LineChart(options, (time) => this.charts.forEach((chart) => chart.show(time))));
    byId("charts").append(...this.charts.map((chart) => chart.node));
    byId("numbers").closest("details").addEventListener("toggle", () => this.tabulate());
  }

  /** Take what the server remembers, keep what it no longer does, and draw. */
  update(status) {
    const byTime = new Map(this.points.map((one) => [one.time, one]));
    for (const one of [...(status.history ?? []), { time_us: status.time_us, ...status.now }]) {
      const time = Math.round(one.time_us / 1e6) * 1000;
      byTime.set(time, { ...one, time });
    }
    const newest = Math.max(...byTime.keys());
    this.points = [...byTime.values()].filter((one) => one.time > newest - KEEP_MS).sort((one, other) => one.time - other.time);
    this.charts.forEach((chart) => chart.update(this.points));
    this.tabulate();
  }

  tabulate() {
    const table = byId("numbers");
    if (!table.closest("details").open) return;
    const columns = CHARTS.flatMap(({ series, format, title }) => series.map(({ key, label }) => ({
      key, format, words: series.length > 1 ? label : title,
    })));
    const newest = this.points.at(-1)?.time;
    const rows = this.points.filter((one) => (newest - one.time) % 30_000 === 0).reverse();
    table.replaceChildren(
      el("thead", {}, el("tr", {}, el("th", { scope: "col" }, "time"), columns.map(({ words }) => el("th", { scope: "col" }, words)))),
      el("tbody", {}, rows.map((one) => el("tr", {}, el("th", { scope: "row" }, clock(one.time)),
        columns.map(({ key, format }) => el("td", {}, format(one[key])))))));
  }
}
