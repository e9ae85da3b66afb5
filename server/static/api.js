// Calls of the API. Paths are relative, so that the page also works below a path of a reverse proxy.

import { apiKey, reportUnauthorized, reportUnreachable } from "./connection.js";
import { EventSource } from "./vendor.js";

const RECONNECT_MS = 3000;
export const ENDED = ["succeeded", "failed", "cancelled"];
// Links hold for a minute at least; one that is older is asked for again.
const LINK_MS = 50_000;

export const isActive = (job) => !ENDED.includes(job.status);

/** An answer that is no success, in words for people; `errors` names wrong fields. */
export class ApiError extends Error {
  constructor(status, code, message, errors = []) {
    super(message);
    Object.assign(this, { status, code, errors });
  }
}

function withKey(headers = {}) {
  const key = apiKey();
  return key ? { ...headers, Authorization: `Bearer ${key}` } : headers;
}

async function problem(answer) {
  const body = await answer.json().catch(() => null);
  const detail = body?.detail ?? `The server answered with status ${answer.status}; try again soon.`;
  return new ApiError(answer.status, body?.code ?? "unknown", detail, body?.errors);
}

/** fetch with the key; throws ApiError for everything but a success. */
export async function request(method, path, { json, headers, signal } = {}) {
  const type = json === undefined ? {} : { "Content-Type": "application/json" };
  const options = { method, signal, cache: "no-store", headers: withKey({ ...type, ...headers }) };
  if (json !== undefined) options.body = JSON.stringify(json);
  let answer;
  try {
    answer = await fetch(path, options);
  } catch (error) {
    if (error.name === "AbortError") throw error;
    reportUnreachable();
    throw new ApiError(0, "unreachable", "The server cannot be reached. Nothing is lost: try again once it is back.");
  }
  if (answer.status === 401) reportUnauthorized();
  if (!answer.ok) throw await problem(answer);
  return answer;
}

export const get = async (path, signal) => (await request("GET", path, { signal })).json();

/** Queue a job; the same `idempotencyKey` sent again gives the same job. */
export async function submit(body, idempotencyKey) {
  const headers = { "Idempotency-Key": idempotencyKey };
  return (await request("POST", "generate", { json: body, headers })).json();
}

/** Queue what may have been asked for before: a job of the same `name` serves again unless it came to nothing. */
export async function submitOnce(body, name) {
  const job = await submit(body, name);
  return ["failed", "cancelled"].includes(job.status) ? submit(body, newIdempotencyKey()) : job;
}

export const estimate = async (body, signal) =>
  (await request("POST", "generate/estimate", { json: body, signal })).json();

/** Stop a job; one that has ended meanwhile stays as it is. */
export const cancel = (id) => request("POST", `jobs/${id}/cancel`);

/** Delete a job that has ended, with its files. */
export const remove = (id) => request("DELETE", `jobs/${id}`);

/** A name for a submission that nobody else has; also where the page is not served by https. */
export const newIdempotencyKey = () =>
  Array.from(crypto.getRandomValues(new Uint8Array(16)), (byte) => byte.toString(16).padStart(2, "0")).join("");

/** Content of a route as a data URL, for images in requests and previews. */
export async function dataUrl(path) {
  const blob = await (await request("GET", path)).blob();
  return readAsDataUrl(blob);
}

export function readAsDataUrl(blob) {
  return new Promise((resolve, reject) => {
    const reader = new FileReader();
    reader.onload = () => resolve(reader.result);
    reader.onerror = () => reject(reader.error);
    reader.readAsDataURL(blob);
  });
}

/**
 * What a new job like this one is asked for by.
 * @param {object} job of the API
 * @param {object} changes fields to change
 */
export async function bodyLike(job, changes = {}) {
  const { image_sha256: hasImage, ...settings } = job.request;
  const image = hasImage ? { image: await dataUrl(`jobs/${job.id}/image`) } : {};
  return { ...settings, ...image, priority: job.priority, ...changes };
}

/** Queue the same video without any reuse, or find the one that was. */
export const submitDense = async (job) =>
  submitOnce(
    await bodyLike(job, { reuse: { ...job.request.reuse, mode: "dense" }, quality_check: false }),
    `dense twin of ${job.id}`,
  );

/** Why an element of the page cannot load a file; null when it can. It asks as they do: without the key. */
export async function problemWith(path) {
  const answer = await fetch(path, { headers: { Range: "bytes=0-0" } }).catch(() => null);
  if (answer === null) return new ApiError(0, "unreachable", "The server cannot be reached.");
  return answer.ok ? null : problem(answer);
}

/** Paths of a job's files; with a token where a key is in use, which elements of a page cannot send. */
export async function filesOf(id) {
  const token = apiKey() ? await linkToken(id) : null;
  const query = token ? `token=${encodeURIComponent(token)}` : "";
  const path = (name, more = "") => {
    const all = [more, query].filter(Boolean).join("&");
    return `jobs/${id}/${name}${all ? `?${all}` : ""}`;
  };
  return { video: path("video"), download: path("video", "download=true"), thumbnail: path("thumbnail") };
}

const tokens = new Map();

async function linkToken(id) {
  const known = tokens.get(id);
  if (known && known.key === apiKey() && Date.now() < known.until) return known.token;
  const { url } = await (await request("POST", `jobs/${id}/link`)).json();
  const token = new URL(url, location.href).searchParams.get("token");
  tokens.set(id, { token, key: apiKey(), until: Date.now() + LINK_MS });
  return token;
}

/**
 * Follow a job's events from the first on, over outages.
 * @param {(name: string, data: object) => void} onEvent for `state`, `progress` and `preview`
 * @param {() => void} onTrouble told when the stream has ended early; it is opened again
 * @returns {() => void} stops following
 */
export function follow(id, onEvent, onTrouble) {
  let source;
  let timer;
  function open() {
    source = new EventSource(`jobs/${id}/events`, {
      fetch: (url, init) => fetch(url, { ...init, headers: withKey(init.headers) }),
    });
    for (const name of ["state", "progress", "preview"])
      source.addEventListener(name, (event) => onEvent(name, JSON.parse(event.data)));
    source.addEventListener("error", () => {
      // It gives up by itself after answers that are none, such as 503.
      if (source.readyState === source.CLOSED) timer = setTimeout(open, RECONNECT_MS);
      onTrouble();
    });
  }
  open();
  return () => {
    clearTimeout(timer);
    source.close();
  };
}
