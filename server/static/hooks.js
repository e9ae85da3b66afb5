// What views share: loading, following a job, the place in the page.

import { follow, get, isActive } from "./api.js";
import { useConnection } from "./connection.js";
import { useEffect, useRef, useState } from "./vendor.js";

const RETRY_MS = 3000;
// Of what no event tells, such as the place in the queue.
const REFRESH_MS = 2000;

/**
 * Load something, again when the server has come back, and every `everyMs` if given.
 * @returns {{value?: any, error?: Error, reload: () => void}}
 */
export function useLoaded(load, deps, everyMs) {
  const { epoch } = useConnection();
  const [state, setState] = useState({});
  const [turn, setTurn] = useState(0);
  useEffect(() => {
    const controller = new AbortController();
    let timer;
    async function run() {
      // Nobody looks; the next turn will see.
      if (everyMs && document.hidden) {
        timer = setTimeout(run, everyMs);
        return;
      }
      try {
        const value = await load(controller.signal);
        if (controller.signal.aborted) return;
        setState({ value });
        if (everyMs) timer = setTimeout(run, everyMs);
      } catch (error) {
        if (controller.signal.aborted) return;
        setState((before) => ({ ...before, error }));
        if (everyMs || error.status >= 500) timer = setTimeout(run, everyMs ?? RETRY_MS);
      }
    }
    run();
    return () => {
      controller.abort();
      clearTimeout(timer);
    };
  }, [epoch, turn, ...deps]);
  return { ...state, reload: () => setTurn((before) => before + 1) };
}

/**
 * A job as it goes on. `preview` is of its newest one: an object for each, with its step.
 * @param {boolean} streaming whether every step is told; else it is asked for, which takes no connection of its own
 * @returns {{job?: object, error?: Error, preview?: {step: number}}}
 */
export function useJob(id, streaming = true) {
  const { epoch } = useConnection();
  const [state, setState] = useState({});
  useEffect(() => {
    const controller = new AbortController();
    let timer;
    let stop = null;
    let ended = false;
    const set = (change) => controller.signal.aborted || setState(change);

    async function refresh() {
      clearTimeout(timer);
      const again = (after) => {
        clearTimeout(timer);
        if (!controller.signal.aborted) timer = setTimeout(refresh, after);
      };
      try {
        const job = await get(`jobs/${id}`, controller.signal);
        // Answers may come in another order than they were asked for.
        if (ended) return;
        ended = !isActive(job);
        set((before) => ({ ...before, job, error: undefined }));
        if (isActive(job)) {
          listen();
          again(REFRESH_MS);
        } else leave();
      } catch (error) {
        if (ended) return;
        set((before) => ({ ...before, error }));
        // 404 and 410 stay what they are.
        if (error.status >= 400 && error.status < 500 && error.status !== 429) leave();
        else again(RETRY_MS);
      }
    }
    // Browsers open six connections to a server for all of their tabs together: those that nobody sees wait.
    function listen() {
      if (streaming && !document.hidden && stop === null) stop = follow(id, onEvent, refresh);
    }
    function leave() {
      stop?.();
      stop = null;
    }
    function onVisibility() {
      if (document.hidden) leave();
      else refresh();
    }
    function onEvent(name, data) {
      if (name === "preview") set((before) => ({ ...before, preview: data }));
      if (name === "progress")
        set((before) =>
          before.job && isActive(before.job) ? { ...before, job: { ...before.job, progress: data } } : before,
        );
      if (name === "state") {
        set((before) => ({ ...before, preview: undefined }));
        // Places in the queue, attempts and errors are in the record alone.
        refresh();
      }
    }
    document.addEventListener("visibilitychange", onVisibility);
    refresh();
    return () => {
      controller.abort();
      clearTimeout(timer);
      leave();
      document.removeEventListener("visibilitychange", onVisibility);
    };
  }, [id, epoch]);
  return state;
}

/**
 * Run actions one at a time: a second click while one runs does nothing.
 * @returns {{busy: boolean, error: Error|null, run: (action: () => Promise<void>) => Promise<void>}}
 */
export function useAction() {
  const [state, setState] = useState({ busy: false, error: null });
  const busy = useRef(false);
  async function run(action) {
    if (busy.current) return;
    busy.current = true;
    setState({ busy: true, error: null });
    let error = null;
    await action().catch((problem) => {
      error = problem;
    });
    busy.current = false;
    setState({ busy: false, error });
  }
  return { ...state, run };
}

/** Whether nothing shall move by itself. */
export const prefersStillness = () => matchMedia("(prefers-reduced-motion: reduce)").matches;

let moved = false;
addEventListener("hashchange", () => {
  moved = true;
});

/** Whether this is no longer the view that the page was opened with. */
export const hasMoved = () => moved;

/** The part of the address after "#/", such as ["jobs", "0123"]. */
export function usePlace() {
  const read = () => location.hash.replace(/^#\/?/, "").split("/");
  const [place, setPlace] = useState(read());
  useEffect(() => {
    const update = () => setPlace(read());
    addEventListener("hashchange", update);
    return () => removeEventListener("hashchange", update);
  }, []);
  return place;
}

export const go = (...place) => {
  location.hash = `/${place.join("/")}`;
};
