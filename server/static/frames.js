// Frames of video elements: reaching one exactly, and how far two of them are apart.

import { ssim } from "./vendor.js";

// Of longer videos so many frames are compared, evenly spaced.
const MOST_FRAMES = 33;

/** The first event of this kind; rejects when the video cannot be played, or with the signal. */
function nextEvent(video, name, signal) {
  return new Promise((resolve, reject) => {
    if (signal?.aborted) reject(signal.reason);
    const done = new AbortController();
    const listen = (target, type, then) =>
      target?.addEventListener(type, () => (done.abort(), then()), { signal: done.signal });
    listen(video, name, resolve);
    listen(video, "error", () => reject(new Error("A video cannot be played.")));
    listen(signal, "abort", () => reject(signal.reason));
  });
}

/** Show the frame with this number, counted from 0; resolves once it is there to be drawn. */
export function showFrame(video, frame, fps, signal) {
  const shown = nextEvent(video, "seeked", signal);
  // The middle of its time, so that rounding cannot reach a neighbour.
  video.currentTime = (frame + 0.5) / fps;
  return shown;
}

/** The number of the frame shown at a time of the video. */
export const frameAt = (seconds, fps) => Math.max(Math.floor(seconds * fps + 0.01), 0);

function pixelsOf(video, canvas) {
  const context = canvas.getContext("2d", { willReadFrequently: true });
  context.drawImage(video, 0, 0, canvas.width, canvas.height);
  return context.getImageData(0, 0, canvas.width, canvas.height);
}

function meanSquaredError({ data: one }, { data: other }) {
  let sum = 0;
  for (let at = 0; at < one.length; at += 4)
    for (let channel = 0; channel < 3; channel += 1) sum += (one[at + channel] - other[at + channel]) ** 2;
  return sum / ((one.length / 4) * 3);
}

/** The mean over the channels, in windows of 7 pixels, as the job's own metrics have it. */
function meanSimilarity(one, other) {
  const options = { ssim: "weber", windowSize: 7, downsample: false };
  const ofChannel = (channel) => ssim(greyOf(one, channel), greyOf(other, channel), options).mssim;
  return (ofChannel(0) + ofChannel(1) + ofChannel(2)) / 3;
}

function greyOf({ data, width, height }, channel) {
  const grey = new Uint8ClampedArray(data.length);
  for (let at = 0; at < data.length; at += 4) grey.fill(data[at + channel], at, at + 3);
  return { data: grey, width, height };
}

/** Peak signal-to-noise ratio in decibels; null where nothing differs. */
const psnr = (error) => (error === 0 ? null : 10 * Math.log10(255 ** 2 / error));

/**
 * Compare two videos frame by frame, as this browser decodes them.
 * @param {[string, string]} urls the reference and the other one
 * @param {{frames: number, fps: number, width: number, height: number}} output of both
 * @param {AbortSignal} signal ends it
 * @returns {Promise<{psnr: number|null, ssim: number, frames: {frame: number, psnr: number|null}[], of: number}>}
 */
export async function compareVideos(urls, output, signal) {
  const videos = urls.map((src) => Object.assign(document.createElement("video"), { muted: true, preload: "auto", src }));
  try {
    await Promise.all(videos.map((video) => nextEvent(video, "loadeddata", signal)));
    return await measure(videos, output, signal);
  } finally {
    // A decoder and what it has read would stay until the garbage is collected.
    for (const video of videos) {
      video.removeAttribute("src");
      video.load();
    }
  }
}

async function measure(videos, { frames: count, fps, width, height }, signal) {
  const canvases = videos.map(() => Object.assign(document.createElement("canvas"), { width, height }));
  const most = Math.min(count, MOST_FRAMES);
  const numbers = Array.from({ length: most }, (_, index) => Math.round((index * (count - 1)) / Math.max(most - 1, 1)));
  const errors = [];
  let similarity = 0;
  for (const frame of numbers) {
    await Promise.all(videos.map((video) => showFrame(video, frame, fps, signal)));
    const [one, other] = videos.map((video, index) => pixelsOf(video, canvases[index]));
    errors.push(meanSquaredError(one, other));
    similarity += meanSimilarity(one, other);
  }
  const mean = errors.reduce((sum, error) => sum + error, 0) / errors.length;
  return {
    psnr: psnr(mean),
    ssim: similarity / numbers.length,
    frames: numbers.map((frame, index) => ({ frame, psnr: psnr(errors[index]) })),
    of: count,
  };
}
