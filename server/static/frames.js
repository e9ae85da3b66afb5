// Frames of video elements: reaching one exactly, and how far two of them are apart.

// Of longer videos so many frames are compared, evenly spaced.
const MOST_FRAMES = 33;
const PRESENTED_MS = 1000;
const MOST_ATTEMPTS = 3;

// A policy of its own: the page's headers let no other text become the address of a script.
const policy = globalThis.trustedTypes?.createPolicy("studio", { createScriptURL: (url) => url });
const WORKER = new URL("measure.js", import.meta.url).href;
const workerUrl = policy ? policy.createScriptURL(WORKER) : WORKER;

/** The next event of this kind; rejects on an error of a video or worker, or with the signal. */
function nextEvent(target, name, signal) {
  return new Promise((resolve, reject) => {
    if (signal.aborted) reject(signal.reason);
    const done = new AbortController();
    const listen = (from, type, then) =>
      from.addEventListener(type, (event) => (done.abort(), then(event)), { signal: done.signal });
    listen(target, name, resolve);
    listen(target, "error", () => reject(new Error("The videos cannot be compared: one does not play.")));
    listen(signal, "abort", () => reject(signal.reason));
  });
}

/** Time of the next frame that the video presents; null where none comes soon, since it shows that frame already. */
function nextPresented(video) {
  return new Promise((resolve) => {
    const handle = video.requestVideoFrameCallback((_, { mediaTime }) => finish(mediaTime));
    const timer = setTimeout(() => finish(null), PRESENTED_MS);
    function finish(mediaTime) {
      clearTimeout(timer);
      video.cancelVideoFrameCallback(handle);
      resolve(mediaTime);
    }
  });
}

/**
 * Show the frame with this number, counted from 0; resolves once it is there to be drawn.
 *
 * "seeked" is not enough: on a busy machine the frame before may still be the one that is drawn.
 */
export async function showFrame(video, frame, fps, signal) {
  for (let attempt = 0; attempt < MOST_ATTEMPTS; attempt += 1) {
    const both = [nextPresented(video), nextEvent(video, "seeked", signal)];
    // The middle of its time, so that rounding cannot reach a neighbour.
    video.currentTime = (frame + 0.5) / fps;
    const [mediaTime] = await Promise.all(both);
    if (mediaTime === null || frameAt(mediaTime, fps) === frame) return;
  }
}

/** The number of the frame shown at a time of the video. */
export const frameAt = (seconds, fps) => Math.max(Math.floor(seconds * fps + 0.01), 0);

function pixelsOf(video, canvas) {
  const context = canvas.getContext("2d", { willReadFrequently: true });
  context.drawImage(video, 0, 0, canvas.width, canvas.height);
  return context.getImageData(0, 0, canvas.width, canvas.height);
}

/** Peak signal-to-noise ratio in decibels; null where nothing differs. */
const psnr = (error) => (error === 0 ? null : 10 * Math.log10(255 ** 2 / error));

/**
 * Compare two videos frame by frame, as this browser decodes them.
 * @param {[string, string]} urls the reference and the other one
 * @param {{frames: number, fps: number, width: number, height: number}} output of both
 * @param {(done: number, all: number) => void} onFrame told after each
 * @param {AbortSignal} signal ends it
 * @returns {Promise<{psnr: number|null, ssim: number, frames: {frame: number, psnr: number|null}[], of: number}>}
 */
export async function compareVideos(urls, output, onFrame, signal) {
  const videos = urls.map((src) => Object.assign(document.createElement("video"), { muted: true, preload: "auto", src }));
  const worker = new Worker(workerUrl, { type: "module" });
  try {
    await Promise.all(videos.map((video) => nextEvent(video, "loadeddata", signal)));
    return await measure(videos, worker, output, onFrame, signal);
  } finally {
    worker.terminate();
    // A decoder and what it has read would stay until the garbage is collected.
    for (const video of videos) {
      video.removeAttribute("src");
      video.load();
    }
  }
}

async function measure(videos, worker, { frames: count, fps, width, height }, onFrame, signal) {
  const canvases = videos.map(() => Object.assign(document.createElement("canvas"), { width, height }));
  const most = Math.min(count, MOST_FRAMES);
  const numbers = Array.from({ length: most }, (_, index) => Math.round((index * (count - 1)) / Math.max(most - 1, 1)));
  const measured = [];
  for (const frame of numbers) {
    // Hidden pages present no frames.
    if (document.hidden) await nextEvent(document, "visibilitychange", signal);
    await Promise.all(videos.map((video) => showFrame(video, frame, fps, signal)));
    const pixels = videos.map((video, index) => pixelsOf(video, canvases[index]));
    worker.postMessage(pixels, pixels.map(({ data }) => data.buffer));
    measured.push((await nextEvent(worker, "message", signal)).data);
    onFrame(measured.length, most);
  }
  const mean = (name) => measured.reduce((sum, one) => sum + one[name], 0) / most;
  return {
    psnr: psnr(mean("error")),
    ssim: mean("similarity"),
    frames: numbers.map((frame, index) => ({ frame, psnr: psnr(measured[index].error) })),
    of: count,
  };
}
