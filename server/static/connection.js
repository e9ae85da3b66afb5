// Whether the server answers and knows the key. Views load again whenever `epoch` changes.

import { forget, keep, read } from "./storage.js";
import { useEffect, useState } from "./vendor.js";

const KEY = "timeripple.key";
const RETRY_MS = 2000;
const PATIENCE_MS = 10_000;

let state = { online: true, needsKey: false, epoch: 0 };
const listeners = new Set();

function change(changes) {
  state = { ...state, ...changes };
  for (const listener of listeners) listener(state);
}

/** @returns {{online: boolean, needsKey: boolean, epoch: number}} */
export function useConnection() {
  const [seen, setSeen] = useState(state);
  useEffect(() => {
    listeners.add(setSeen);
    setSeen(state);
    return () => listeners.delete(setSeen);
  }, []);
  return seen;
}

/** The API key of this browser, or null. */
export const apiKey = () => read(KEY);

/** Keep a key in this browser, or forget it, and load everything again. */
export function setApiKey(key) {
  if (key) keep(KEY, key);
  else forget(KEY);
  change({ needsKey: false, epoch: state.epoch + 1 });
}

// Another tab has got a key, or lost it.
addEventListener("storage", ({ key }) => {
  if (key === KEY) change({ needsKey: false, epoch: state.epoch + 1 });
});

export const reportUnauthorized = () => change({ needsKey: true });

/** Called when a request got no answer; asks until there is one. */
export async function reportUnreachable() {
  if (!state.online) return;
  change({ online: false });
  for (let isBack = false; !isBack; ) {
    await new Promise((resolve) => setTimeout(resolve, RETRY_MS));
    isBack = await fetch("healthz", { cache: "no-store", signal: AbortSignal.timeout(PATIENCE_MS) })
      .then(({ ok }) => ok)
      .catch(() => false);
  }
  change({ online: true, epoch: state.epoch + 1 });
}
