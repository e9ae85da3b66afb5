// Two video elements that always show the same frame.

import { frameAt, showFrame } from "./frames.js";

export class Lockstep {
  /**
   * @param {[HTMLVideoElement, HTMLVideoElement]} videos of the same length
   * @param {{frames: number, fps: number}} output of both
   * @param {(frame: number) => void} onFrame told the frame that both show
   */
  constructor(videos, { frames, fps }, onFrame) {
    Object.assign(this, { videos, frames, fps, onFrame, playing: false, rate: 1, ended: false });
    this.shown = [0, 0];
    this.handles = videos.map((video, index) => this.#watch(video, index));
    this.restart = () => this.#restart();
    for (const video of videos) video.addEventListener("ended", this.restart);
  }

  /** Tell of a frame once both show it: in between they may be one apart. */
  #watch(video, index) {
    const handle = { id: 0 };
    const tell = (_, { mediaTime }) => {
      this.shown[index] = frameAt(mediaTime, this.fps);
      if (this.shown[0] === this.shown[1]) this.onFrame(this.shown[0]);
      if (this.playing && index === 0) this.#catchUp();
      handle.id = video.requestVideoFrameCallback(tell);
    };
    handle.id = video.requestVideoFrameCallback(tell);
    return handle;
  }

  #catchUp() {
    const [first, second] = this.videos;
    if (Math.abs(first.currentTime - second.currentTime) > 0.75 / this.fps) second.currentTime = first.currentTime;
  }

  async #restart() {
    if (!this.playing) return;
    await this.show(0);
    await this.play();
  }

  async play() {
    this.playing = true;
    if (this.videos.some((video) => video.ended)) await this.show(0, true);
    for (const video of this.videos) video.playbackRate = this.rate;
    await Promise.all(this.videos.map((video) => video.play()));
  }

  pause() {
    this.playing = false;
    for (const video of this.videos) video.pause();
  }

  setRate(rate) {
    this.rate = rate;
    for (const video of this.videos) video.playbackRate = rate;
  }

  /** Show one frame on both; goes on playing only if `playing` says so. */
  async show(frame, playing = this.playing) {
    for (const video of this.videos) video.pause();
    const last = this.frames - 1;
    await Promise.all(this.videos.map((video) => showFrame(video, Math.min(Math.max(frame, 0), last), this.fps)));
    this.playing = playing;
  }

  dispose() {
    this.pause();
    this.videos.forEach((video, index) => {
      video.cancelVideoFrameCallback(this.handles[index].id);
      video.removeEventListener("ended", this.restart);
    });
  }
}
