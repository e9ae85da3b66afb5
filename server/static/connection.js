// Whether the server answers and knows the key. Views load again whenever `epoch` changes.

import { useEffect, useState } from "./vendor.js";

const KEY = "timeripple.key";
const RETRY_MS = 2000;

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
export const apiKey = () => localStorage.getItem(KEY);

/** Keep a key in this browser, or forget it, and load everything again. */
export function setApiKey(key) {
  if (key) localStorage.setItem(KEY, key);
  else localStorage.removeItem(KEY);
  change({ needsKey: false, epoch: state.epoch + 1 });
}

export const reportUnauthorized = () => change({ needsKey: true });

/** Called when a request got no answer; asks until there is one. */
export function reportUnreachable() {
  if (!state.online) return;
  change({ online: false });
  const timer = setInterval(async () => {
    const answer = await fetch("healthz", { cache: "no-store" }).catch(() => null);
    if (answer?.ok && !state.online) {
      clearInterval(timer);
      change({ online: true, epoch: state.epoch + 1 });
    }
  }, RETRY_MS);
}
