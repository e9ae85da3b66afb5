// Two videos in lock-step: wiped over one another, side by side, or their amplified difference.

import { prefersStillness } from "./hooks.js";
import { Lockstep } from "./lockstep.js";
import { html, useEffect, useRef, useState } from "./vendor.js";

const VIEWS = { wipe: "Wipe", side: "Side by side", difference: "Difference" };
const GAINS = [1, 2, 4, 8, 16];
const RATES = [0.25, 0.5, 1];

export function Players({ urls, output, labels }) {
  const [view, setView] = useState("wipe");
  const [wipe, setWipe] = useState(50);
  const [gain, setGain] = useState(4);
  const [frame, setFrame] = useState(0);
  const [playing, setPlaying] = useState(false);
  const [broken, setBroken] = useState(false);
  const videos = [useRef(), useRef()];
  const canvas = useRef();
  const lockstep = useRef();
  const viewing = useRef();
  viewing.current = view;

  useEffect(() => {
    const elements = videos.map(({ current }) => current);
    // The elements themselves: a frame may still come when they have left the page.
    const picture = canvas.current;
    const both = new Lockstep(elements, output, (shown) => {
      setFrame(shown);
      if (viewing.current === "difference") drawDifference(picture, elements);
    });
    lockstep.current = both;
    if (!prefersStillness()) start();
    return () => both.dispose();
  }, []);

  useEffect(() => {
    if (view === "difference") drawDifference(canvas.current, videos.map(({ current }) => current));
  }, [view]);

  // What fails here is told by the elements themselves.
  const start = () => lockstep.current.play().then(() => setPlaying(true), () => setPlaying(false));
  function show(wanted) {
    setPlaying(false);
    setFrame(wanted);
    lockstep.current.show(wanted).catch(() => {});
  }
  const toggle = () => (playing ? show(frame) : start());
  const video = (index) => html`<video ref=${videos[index]} src=${urls[index]} muted playsinline preload="auto"
    aria-label=${labels[index]} onError=${() => setBroken(true)}></video>`;

  return html`<section class="card" aria-label="The two videos">
    ${broken && html`<p class="note error" role="alert">One of the videos cannot be played; it may have been deleted.</p>`}
    <div class=${`stage ${view}`} style=${{ "--wipe": `${wipe}%`, "--ratio": output.width / output.height, "--gain": gain }}>
      ${video(0)}${video(1)}
      <canvas ref=${canvas} width=${output.width} height=${output.height} role="img"
        aria-label=${`Difference of the two, ${gain} times as strong`}></canvas>
      ${view !== "difference" && html`<span class="label first">${labels[0]}</span><span class="label second">${labels[1]}</span>`}
      ${view === "wipe" &&
      html`<span class="edge"></span><input class="wiper" type="range" min="0" max="100" value=${wipe}
        aria-label="Where one video ends and the other begins" onInput=${(event) => setWipe(event.currentTarget.value)} />`}
    </div>
    <div class="controls">
      <button onClick=${toggle}>${playing ? "Pause" : "Play"}</button>
      <button onClick=${() => show(frame - 1)} disabled=${frame === 0} aria-label="Frame back">◀</button>
      <button onClick=${() => show(frame + 1)} disabled=${frame === output.frames - 1} aria-label="Frame forward">▶</button>
      <div class="grow">
        <label for="frame">Frame</label> <span>${frame + 1} of ${output.frames}</span>
        <input id="frame" type="range" aria-valuetext=${`frame ${frame + 1} of ${output.frames}`} min="0" max=${output.frames - 1} value=${frame}
          onInput=${(event) => show(Number(event.currentTarget.value))} />
      </div>
      <label>Speed
        <select onChange=${(event) => lockstep.current.setRate(Number(event.currentTarget.value))}>
          ${RATES.map((rate) => html`<option value=${rate} selected=${rate === 1}>${rate} ×</option>`)}
        </select>
      </label>
    </div>
    <fieldset class="views">
      <legend class="visually-hidden">How to compare</legend>
      ${Object.entries(VIEWS).map(
        ([name, label]) => html`<label class="check">
          <input type="radio" name="view" checked=${view === name} onChange=${() => setView(name)} />${label}
        </label>`,
      )}
      ${view === "difference" &&
      html`<label>Amplified
        <select value=${gain} onChange=${(event) => setGain(Number(event.currentTarget.value))}>
          ${GAINS.map((one) => html`<option value=${one}>${one} ×</option>`)}
        </select>
      </label>`}
    </fieldset>
  </section>`;
}

/** |one - other| of what both show; the style sheet makes it stronger. */
function drawDifference(canvas, [one, other]) {
  const context = canvas.getContext("2d");
  context.globalCompositeOperation = "source-over";
  context.drawImage(one, 0, 0, canvas.width, canvas.height);
  context.globalCompositeOperation = "difference";
  context.drawImage(other, 0, 0, canvas.width, canvas.height);
}
