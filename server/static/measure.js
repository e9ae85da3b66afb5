// A worker that compares frames, so that the page goes on meanwhile: two ImageData in, error and similarity out.

import { ssim } from "./vendor.js";

addEventListener("message", ({ data: [one, other] }) => {
  postMessage({ error: meanSquaredError(one, other), similarity: meanSimilarity(one, other) });
});

/** Over all pixels and the three channels. */
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
  for (let at = 0; at < data.length; at += 4) grey[at] = grey[at + 1] = grey[at + 2] = data[at + channel];
  return { data: grey, width, height };
}
