// The server's public API, and the one question asked each second.

const PATIENCE_MS = 8000;
const TOKEN_KEY = "dolmen-token";

let token = null;
try { token = sessionStorage.getItem(TOKEN_KEY); } catch { /* Kept for this page only. */ }

export function useToken(value) {
  token = value || null;
  try { sessionStorage.setItem(TOKEN_KEY, value); } catch { /* Kept for this page only. */ }
}

/** Why a request brought nothing. `away`: nobody answered; `status`: HTTP status otherwise; `retryAfter`: seconds. */
export class ApiError extends Error {
  constructor(message, { away = false, status = 0, code = "", retryAfter = 0 } = {}) {
    super(message);
    this.away = away;
    this.status = status;
    this.code = code;
    this.retryAfter = retryAfter;
  }
}

/**
 * Ids may have 64 bits, numbers of JavaScript keep 53: larger integers stay as the text they came as, and go back as
 * such; the server knows which id is meant.
 */
const exactly = (_key, value, context) => (Number.isInteger(value) && !Number.isSafeInteger(value) && context?.source ? context.source : value);

async function ask(path, { method = "GET", body, signal } = {}) {
  const patience = AbortSignal.timeout(PATIENCE_MS);
  const headers = {};
  if (body !== undefined) headers["Content-Type"] = "application/json";
  if (token) headers.Authorization = `Bearer ${token}`;
  let answer;
  let text;
  try {
    answer = await fetch(path, {
      method, headers, cache: "no-store",
      body: body === undefined ? undefined : JSON.stringify(body),
      signal: signal ? AbortSignal.any([signal, patience]) : patience,
    });
    text = await answer.text();
  } catch (failure) {
    if (signal?.aborted) throw failure;
    const slow = patience.aborted;
    throw new ApiError(slow ? `No answer within ${PATIENCE_MS / 1000} s.` : "The server is not answering.", { away: true });
  }
  let value = null;
  try { value = JSON.parse(text, method === "GET" && path === "/v1/status" ? undefined : exactly); } catch { /* Not JSON: told below. */ }
  if (!answer.ok) {
    const error = value?.error ?? {};
    throw new ApiError(error.message ?? `The server answered ${answer.status}.`, {
      status: answer.status, code: error.code ?? "", retryAfter: Number(answer.headers.get("Retry-After")) || 0,
    });
  }
  if (value === null) throw new ApiError("The server's answer was not JSON.", { status: answer.status });
  return value;
}

const query = (values) => new URLSearchParams(Object.entries(values).filter(([, value]) => value !== undefined)).toString();

export const status = (signal) => ask("/v1/status", { signal });
export const recommend = (user, count, signal) => ask(`/v1/recommend?${query({ user, count })}`, { signal });
/** Near items. Nothing counts as shown, so this is also how to ask, often, what the parameters include. */
export const similar = (item, count) => ask(`/v1/items/${encodeURIComponent(item)}/similar?${query({ count })}`);
export const sendEvents = (events) => ask("/v1/events", { method: "POST", body: { events } });
export const person = (id, signal) => ask(`/v1/users/${encodeURIComponent(id)}`, { signal });
export const people = (prefix, limit, signal) => ask(`/v1/users?${query({ prefix, limit })}`, { signal });

/**
 * Ask for the status each second; when nobody answers, wait a little longer each time, up to five seconds.
 * A hidden page asks seldom. `onStatus(status)`, `onAway(error, secondsToWait)`.
 */
export class Pulse {
  constructor({ onStatus, onAway }) {
    this.onStatus = onStatus;
    this.onAway = onAway;
    this.failures = 0;
    this.timer = 0;
    this.asking = false;
    document.addEventListener("visibilitychange", () => { if (!document.hidden) this.now(); });
    addEventListener("online", () => this.now());
  }

  /** Ask at once. */
  async now() {
    clearTimeout(this.timer);
    if (this.asking) return;
    this.asking = true;
    let wait = document.hidden ? 10 : 1;
    try {
      const answer = await status();
      this.failures = 0;
      this.onStatus(answer);
    } catch (failure) {
      this.failures += 1;
      wait = Math.min(5, 2 ** (this.failures - 1) / 2);
      this.onAway(failure, wait);
      if (!(failure instanceof ApiError)) console.error(failure);
    } finally {
      this.asking = false;
    }
    this.timer = setTimeout(() => this.now(), wait * 1000);
  }
}
