// Two video elements that always show the same frame.

import { frameAt, showFrame } from "./frames.js";

export class Lockstep {
  #shown = [0, 0];
  #playing = false;
  #rate = 1;
  #disposed = new AbortController();

  /**
   * @param {[HTMLVideoElement, HTMLVideoElement]} videos of the same length
   * @param {{frames: number, fps: number}} output of both
   * @param {(frame: number) => void} onFrame told the frame that both show
   */
  constructor(videos, { frames, fps }, onFrame) {
    Object.assign(this, { videos, frames, fps, onFrame });
    videos.forEach((video, index) => this.#watch(video, index));
    for (const video of videos) video.addEventListener("ended", () => this.#restart(), { signal: this.#disposed.signal });
  }

  /** Tell of a frame once both show it: in between they may be one apart. */
  #watch(video, index) {
    const tell = (_, { mediaTime }) => {
      if (this.#disposed.signal.aborted) return;
      this.#shown[index] = frameAt(mediaTime, this.fps);
      if (this.#shown[0] === this.#shown[1]) this.onFrame(this.#shown[0]);
      if (this.#playing && index === 0) this.#catchUp();
      video.requestVideoFrameCallback(tell);
    };
    video.requestVideoFrameCallback(tell);
  }

  #catchUp() {
    const [first, second] = this.videos;
    if (Math.abs(first.currentTime - second.currentTime) > 0.75 / this.fps) second.currentTime = first.currentTime;
  }

  /** Both begin again together, whichever came to its end first. */
  async #restart() {
    if (this.#playing) await this.play(0).catch(() => {});
  }

  /** Play on, or from a frame. */
  async play(from = this.videos.some((video) => video.ended) ? 0 : null) {
    if (from !== null) await this.show(from);
    this.#playing = true;
    this.setRate(this.#rate);
    await Promise.all(this.videos.map((video) => video.play()));
  }

  setRate(rate) {
    this.#rate = rate;
    for (const video of this.videos) video.playbackRate = rate;
  }

  /** Stop, and show one frame on both. */
  async show(frame) {
    this.#playing = false;
    for (const video of this.videos) video.pause();
    const wanted = Math.min(Math.max(frame, 0), this.frames - 1);
    await Promise.all(this.videos.map((video) => showFrame(video, wanted, this.fps, this.#disposed.signal)));
  }

  dispose() {
    this.#playing = false;
    for (const video of this.videos) video.pause();
    this.#disposed.abort(new Error("No longer shown."));
  }
}
