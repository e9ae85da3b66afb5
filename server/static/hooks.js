// What views share: loading, following a job, the place in the page.

import { follow, get, isActive } from "./api.js";
import { useConnection } from "./connection.js";
import { useEffect, useState } from "./vendor.js";

const RETRY_MS = 3000;

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
        if (!controller.signal.aborted) setState({ value });
      } catch (error) {
        if (!controller.signal.aborted) setState((before) => ({ ...before, error }));
      }
      if (everyMs && !controller.signal.aborted) timer = setTimeout(run, everyMs);
    }
    run();
    return () => {
      controller.abort();
      clearTimeout(timer);
    };
  }, [epoch, turn, ...deps]);
  return { ...state, reload: () => setTurn((before) => before + 1) };
}

/** A job as it goes on, and the step of its newest preview. */
export function useJob(id) {
  const { epoch } = useConnection();
  const [state, setState] = useState({});
  useEffect(() => {
    let live = true;
    let timer;
    let stop = () => {};
    const set = (change) => live && setState(change);
    async function load() {
      try {
        const job = await get(`jobs/${id}`);
        // Answers may come in another order than they were asked for; an ended job stays as it is.
        set((before) => (before.job && !isActive(before.job) ? before : { ...before, job, error: undefined }));
        return job;
      } catch (error) {
        set((before) => ({ ...before, error }));
        return null;
      }
    }
    async function begin() {
      const job = await load();
      if (!live) return;
      if (job === null) timer = setTimeout(begin, RETRY_MS);
      else if (isActive(job)) stop = follow(id, onEvent);
    }
    function onEvent(name, data) {
      // Places in the queue, attempts and errors are in the record alone.
      if (name === "state") load();
      if (name === "preview") set((before) => ({ ...before, previewStep: data.step }));
      if (name === "progress")
        set((before) =>
          before.job && isActive(before.job) ? { ...before, job: { ...before.job, progress: data } } : before,
        );
    }
    setState({});
    begin();
    return () => {
      live = false;
      clearTimeout(timer);
      stop();
    };
  }, [id, epoch]);
  return state;
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
  const read = () => location.hash.replace(/^#\/?/, "").split("/").map(decodeURIComponent);
  const [place, setPlace] = useState(read());
  useEffect(() => {
    const update = () => setPlace(read());
    addEventListener("hashchange", update);
    return () => removeEventListener("hashchange", update);
  }, []);
  return place;
}

export const go = (...place) => {
  location.hash = `/${place.map(encodeURIComponent).join("/")}`;
};
