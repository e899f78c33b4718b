// What each stage of the loop says for itself, read from the server's status. Plain data in, plain data out.

import { count, isKnown, milliseconds, score, seconds, UNKNOWN } from "./format.js";

const STALE_SECONDS = 5; // The promise for p99.

/**
 * `death`: what the supervisor says of a stage that died, {count, time_us}: how often in a row, and when last. Of one
 * that has told of itself since, and is silent again, it says nothing.
 */
const health = (stage, death, nowUs) => {
  if (stage?.alive) return { alive: true, state: "up" };
  const toldUs = isKnown(stage?.age_seconds) ? nowUs - stage.age_seconds * 1e6 : -Infinity;
  if (death?.count > 1 && death.time_us > toldUs) return { alive: false, state: `died ${death.count} times` };
  if (!stage) return { alive: false, state: "not seen yet" };
  return { alive: false, state: isKnown(stage.age_seconds) ? `down for ${seconds(stage.age_seconds)}` : "down" };
};

/** Whether nothing comes in and nothing is owed: what is served then ages, and nobody waits for anything newer. */
export function isIdle(status) {
  const { stages = {}, now = {} } = status;
  const join = stages.join?.figures ?? {};
  const learn = stages.train?.figures ?? {};
  return now.events_per_second === 0 && [join.slates_unread, join.actions_unread, learn.backlog_records].every((owed) => owed === 0);
}

/** One entry a stage: {name, title, alive, state, figure, unit, more}. `state` is words; `more` is a second line. */
export function readStages(status) {
  const { stages = {}, now = {}, time_us: nowUs } = status;
  const deaths = stages.up?.figures?.deaths ?? {};
  const [serve, join, learn] = ["serve", "join", "train"].map((name) => health(stages[name], deaths[name], nowUs));
  const fresh = isKnown(now.staleness_seconds) && now.staleness_seconds <= STALE_SECONDS;
  const sync = !serve.alive ? serve
    : !learn.alive ? { alive: true, state: "nothing new to bring", late: true }
    : !isKnown(now.staleness_seconds) ? { alive: true, state: "waiting for a delta" }
    : fresh ? { alive: true, state: "up" }
    : isIdle(status) ? { alive: true, state: "nothing new came" }
    : { alive: true, state: `behind by ${seconds(now.staleness_seconds)}`, late: true };
  return [
    { name: "serve", title: "Serve", ...serve, figure: milliseconds(now.recommend_p99_ms), unit: "recommend p99" },
    // The log lives inside whoever answers here: an answer is its sign of life.
    { name: "log", title: "Log", alive: true, state: "up", figure: count(now.events_total), unit: "events kept" },
    { name: "join", title: "Join", ...join, figure: perSecond(now.joined_per_second, join.alive), unit: "examples a second" },
    { name: "learn", title: "Learn", ...learn, figure: score(now.auc_online), unit: "AUC, online" },
    { name: "sync", title: "Sync", ...sync, figure: count(now.version), unit: "served version" },
  ];
}

const perSecond = (value, alive) => (alive ? count(value) : UNKNOWN);

/** Events each second along each arrow. An arrow from or to a stage that is down is still. */
export function readRates(status) {
  const { stages = {}, now = {} } = status;
  const figures = stages.serve?.figures ?? {};
  const known = (...values) => values.find(isKnown) ?? 0;
  const alive = (name) => (stages[name]?.alive ? 1 : 0);
  const slates = known(figures.slates_per_second) * alive("serve");
  const impressions = known(figures.impressions_per_second) * alive("serve");
  const actions = known(figures.actions_per_second) * alive("serve");
  return {
    slate: slates, impression: impressions, action: actions,
    event: known(now.events_per_second) * alive("serve") * alive("join"),
    example: known(now.joined_per_second) * alive("join") * alive("train"),
  };
}
