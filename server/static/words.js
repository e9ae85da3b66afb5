// Figures in plain words. A number stays on one line with its unit.

const NBSP = "\u00a0";

const STAGES = {
  queued: "Waiting for a worker",
  load: "Loading the model",
  text_encode: "Reading the prompt",
  denoise: "Denoising",
  vae_decode: "Decoding frames",
  quality_check: "Rendering the dense twin",
  mp4_encode: "Writing the video",
  store: "Storing the video",
  done: "Done",
};
const LATENCIES = { ...STAGES, queue: "Waiting", preview: "Previews", quality_check: "Dense twin" };
const FALLBACKS = {
  short_sequence: "the video is so short that reuse cannot pay",
  compiled: "the model is compiled for dense attention",
};

export const stage = (name) => STAGES[name] ?? name;
export const latencyName = (name) => LATENCIES[name] ?? name;

/** 0.618 -> "62 %" */
export const percent = (share) => `${Math.round(share * 100)}${NBSP}%`;

/** 75.2 -> "1 min 15 s" */
export function seconds(value) {
  if (value < 9.95) return `${value.toFixed(1)}${NBSP}s`;
  const whole = Math.round(value);
  if (whole < 60) return `${whole}${NBSP}s`;
  if (whole < 3600) return [Math.floor(whole / 60), "min", whole % 60, "s"].join(NBSP);
  return [Math.floor(whole / 3600), "h", Math.floor((whole % 3600) / 60), "min"].join(NBSP);
}

export function bytes(value) {
  const units = ["B", "kB", "MB", "GB"];
  let unit = 0;
  for (; value >= 999.95 && unit < 3; unit += 1) value /= 1000;
  return `${unit ? value.toFixed(1) : value}${NBSP}${units[unit]}`;
}

export function flops(value) {
  const units = ["", "k", "M", "G", "T", "P", "E"];
  let unit = 0;
  for (; value >= 999.5 && unit < 6; unit += 1) value /= 1000;
  return `${value.toPrecision(3)}${NBSP}${units[unit]}FLOP`;
}

export const decibels = (value) => (value === null ? "equal" : `${value.toFixed(1)}${NBSP}dB`);

/** What a second try within an attempt was made for, and with. */
export const retry = ({ reason, remedy }) => `${remedy.replaceAll("_", " ")} after ${reason.replaceAll("_", " ")}`;

export const time = (iso) =>
  new Date(iso).toLocaleString(undefined, { dateStyle: "medium", timeStyle: "short" });

/** What the dial says of a job: "dense" or "aggressiveness 0.5". */
export function dial({ reuse }) {
  return reuse.mode === "dense" || reuse.aggressiveness === 0 ? "dense" : `aggressiveness ${reuse.aggressiveness}`;
}

/** Seconds that the video itself took: no queue, no loading, no previews, no twin, no earlier attempt. */
export function ownSeconds({ latency_s: latency }) {
  return latency.text_encode + latency.denoise + latency.vae_decode + latency.mp4_encode + latency.store;
}

function saved({ attention, retries }) {
  if (attention.savings > 0) return `${percent(attention.savings)} of attention work saved`;
  if (retries.some(({ remedy }) => remedy === "dense_attention"))
    return "No attention work saved: with reuse it gave no valid frames, so it was made again without";
  const why = attention.fallbacks.map(({ reason }) => FALLBACKS[reason] ?? reason.replaceAll("_", " "));
  return `No attention work saved${why.length ? `: ${why.join("; ")}` : ""}`;
}

/** "62 % of attention work saved; made in 18 s instead of about 31 s" */
export function summary(metrics) {
  const took = ownSeconds(metrics);
  const dense = metrics.dense_denoise_estimate_s;
  if (dense === null || metrics.attention.savings <= 0) return `${saved(metrics)}; made in ${seconds(took)}`;
  const without = took - metrics.latency_s.denoise + dense;
  const word = without > took ? "instead of about" : "where dense would have taken about";
  return `${saved(metrics)}; made in ${seconds(took)} ${word} ${seconds(without)}`;
}

/** "About 57 % of attention work saved; takes about 5 s." from the estimate of a request. */
export function expectation({ estimate, queue_wait_s: wait }) {
  if (!estimate) return "What this model costs is not known.";
  const { dense_flops: dense, executed_flops: executed, seconds: time } = estimate;
  if (executed === null && time === null) return "Not known yet: no job of this model has finished here. The first one will tell.";
  const savings = executed === null ? "Savings not known yet" : `About ${percent(1 - executed / dense)} of attention work saved`;
  // Unknown savings count as none in the time.
  const duration = time === null ? "time not known yet" : `takes ${executed === null ? "at most " : ""}about ${seconds(time)}`;
  const start = wait >= 0.5 ? `, starts in about ${seconds(wait)}` : "";
  return `${savings}; ${duration}${start}.`;
}
