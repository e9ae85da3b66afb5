// Videos of one seed side by side: what they saved against how they look.

import { bodyLike, denseTwin, filesOf, isActive, newIdempotencyKey, submit } from "./api.js";
import { compareVideos } from "./frames.js";
import { go, useAction, useJob, useLoaded } from "./hooks.js";
import { ProgressBar } from "./job.js";
import { Bars, ErrorNote, Title, Waiting } from "./parts.js";
import { Players } from "./players.js";
import { html, useEffect, useState } from "./vendor.js";
import { bytes, decibels, dial, ownSeconds, percent, seconds } from "./words.js";

export const MOST_COMPARED = 8;
const DIAL = [0.1, 0.25, 0.5, 0.75, 1];
// A bar of full height stands for this; more cannot be seen.
const MOST_DECIBELS = 60;

/** The first job is the reference of the others. */
export function Compare({ ids }) {
  // The view is made anew for other ids, so their number stays.
  const states = ids.map((id) => useJob(id, false));
  const error = states.find((state) => state.error)?.error;
  if (!states.every(({ job }) => job))
    return error ? html`<${Title}>Compare</${Title}><${ErrorNote} error=${error} />` : html`<${Waiting} />`;
  const [reference, ...others] = states.map(({ job }) => job);
  return html`
    <${Title}>${reference.request.prompt}</${Title}>
    <p class="quiet">Seed ${reference.request.seed}; compared with ${dial(reference.request)}.</p>
    <${ErrorNote} error=${error} />
    <${Comparison} ...${{ reference, others }} />
    <${More} ...${{ reference, others }} />
  `;
}

function Comparison({ reference, others }) {
  const [chosen, setChosen] = useState(others[0]?.id);
  const [fidelity, setFidelity] = useState({});
  const other = others.find(({ id }) => id === chosen);
  const ready = reference.status === "succeeded" ? others.filter(({ status }) => status === "succeeded") : [];
  // One pair after the other: each takes two decoders and a core.
  const next = ready.find(({ id }) => !fidelity[id]?.ended);
  useEffect(() => {
    if (!next) return undefined;
    const controller = new AbortController();
    const set = (value) => controller.signal.aborted || setFidelity((before) => ({ ...before, [next.id]: value }));
    measure(reference, next, set, controller.signal)
      .then((value) => set({ ...value, ended: true }))
      .catch((error) => set({ problem: error.message, ended: true }));
    return () => controller.abort();
  }, [next?.id]);
  return html`
    ${[reference, ...others].filter((job) => job.status !== "succeeded").map((job) => html`<${Unready} key=${job.id} job=${job} />`)}
    ${other && ready.includes(other) && html`<${Pair} key=${other.id} ...${{ reference, other, fidelity: fidelity[other.id] }} />`}
    <${Rows} ...${{ reference, others, chosen, setChosen, fidelity }} />
  `;
}

function Unready({ job }) {
  return html`<section class="card">
    <h2><a href=${`#/jobs/${job.id}`}>${dial(job.request)}</a></h2>
    ${isActive(job)
      ? html`<${ProgressBar} job=${job} />`
      : html`<p class="note error">${job.error?.message ?? "It was cancelled."}</p>`}
  </section>`;
}

/** "aggressiveness 0.5 saved 57 % of attention work and took 5.1 s instead of 7.9 s: PSNR 35.3 dB, SSIM 0.983." */
function Verdict({ reference, other, fidelity }) {
  const [took, before] = [other, reference].map(({ metrics }) => seconds(ownSeconds(metrics)));
  const words = ownSeconds(other.metrics) < ownSeconds(reference.metrics) ? "instead of" : "where the reference took";
  const looks = !fidelity?.frames ? "" : `: PSNR ${decibels(fidelity.psnr)}, SSIM ${fidelity.ssim.toFixed(3)}`;
  return html`<p class="summary" role="status">
    ${dial(other.request)} saved ${percent(other.metrics.attention.savings)} of attention work and took ${took} ${words} ${before}${looks}.
  </p>`;
}

function Pair({ reference, other, fidelity }) {
  const { value, error } = useLoaded(() => Promise.all([filesOf(reference.id), filesOf(other.id)]), []);
  if (!value) return error ? html`<${ErrorNote} error=${error} />` : html`<${Waiting} />`;
  const labels = [dial(reference.request), dial(other.request)];
  if (!hasEqualFrames(reference, other))
    return html`<p class="note">These videos differ in size, length or frame rate and cannot be shown in lock-step.</p>`;
  return html`<${Verdict} ...${{ reference, other, fidelity }} />
    <${Players} urls=${value.map(({ video }) => video)} output=${reference.metrics.output} labels=${labels} />
    ${fidelity?.frames &&
    html`<div class="charts"><${Bars} title="PSNR of each frame"
      bars=${fidelity.frames.map(({ frame, psnr }) => ({
        label: `frame ${frame + 1}: ${decibels(psnr)}`, share: Math.min((psnr ?? MOST_DECIBELS) / MOST_DECIBELS, 1) }))}
      ends=${["frame 1", `frame ${fidelity.of}`]}
      note=${`Full height is ${MOST_DECIBELS} dB; lowest ${decibels(lowest(fidelity.frames))}.`} /></div>`}`;
}

function lowest(frames) {
  const known = frames.map(({ psnr }) => psnr).filter((value) => value !== null);
  return known.length ? Math.min(...known) : null;
}

const hasEqualFrames = (one, other) =>
  ["width", "height", "frames", "fps"].every((name) => one.metrics.output[name] === other.metrics.output[name]);

async function measure(reference, job, onPart, signal) {
  if (!hasEqualFrames(reference, job)) return { problem: "not of the same size" };
  const files = await Promise.all([filesOf(reference.id), filesOf(job.id)]);
  const onFrame = (done, all) => onPart({ part: `measured ${done} of ${all} frames` });
  return compareVideos(files.map(({ video }) => video), reference.metrics.output, onFrame, signal);
}

function Rows({ reference, others, chosen, setChosen, fidelity }) {
  const measured = Object.values(fidelity).find(({ frames }) => frames);
  const over = measured && (measured.frames.length < measured.of ? `${measured.frames.length} of ${measured.of} frames` : "all frames");
  return html`<div class="scroll" tabindex="0" role="region" aria-label="Figures"><table class="figures">
      <thead><tr>${["Shown", "Video", "Attention saved", "Made in", "PSNR", "SSIM", "File"].map((name) => html`<th scope="col">${name}</th>`)}</tr></thead>
      <tbody>
        <tr><td></td><${Cells} job=${reference} /><td colspan="2">the reference</td><td>${size(reference)}</td></tr>
        ${others.map(
          (job) => html`<tr key=${job.id}>
            <td><input type="radio" name="shown" checked=${job.id === chosen} aria-label=${`Show ${dial(job.request)}`}
              onChange=${() => setChosen(job.id)} /></td>
            <${Cells} job=${job} /><${Fidelity} value=${fidelity[job.id]} /><td>${size(job)}</td>
          </tr>`,
        )}
      </tbody>
    </table></div>
    ${over && html`<p class="quiet">PSNR and SSIM: measured in this browser on ${over} of the two files, compression included.</p>`}`;
}

const size = ({ metrics }) => (metrics ? bytes(metrics.output.bytes) : "");

const Cells = ({ job }) => html`
  <td><a href=${`#/jobs/${job.id}`}>${dial(job.request)}</a></td>
  <td>${job.metrics ? percent(job.metrics.attention.savings) : job.status}</td>
  <td>${job.metrics ? seconds(ownSeconds(job.metrics)) : ""}</td>`;

function Fidelity({ value }) {
  if (!value || value.part) return html`<td colspan="2">${value?.part ?? "…"}</td>`;
  if (value.problem) return html`<td colspan="2">${value.problem}</td>`;
  return html`<td>${decibels(value.psnr)}</td><td>${value.ssim.toFixed(3)}</td>`;
}

/** Another value of the dial, or another reference, for the same seed. */
function More({ reference, others }) {
  const [value, setValue] = useState("1");
  const { busy, error, run } = useAction();
  const ids = [reference, ...others].map(({ id }) => id);
  const like = others[0] ?? reference;
  function add(event) {
    event.preventDefault();
    run(async () => {
      const mode = like.request.reuse.mode === "dense" ? "auto" : like.request.reuse.mode;
      const body = await bodyLike(reference, { reuse: { mode, aggressiveness: Number(value) }, quality_check: false });
      const job = await submit(body, newIdempotencyKey());
      go("compare", [...ids, job.id].join(","));
    });
  }
  const addDense = () =>
    run(async () => {
      const dense = await submit(await denseTwin(reference), newIdempotencyKey());
      go("compare", [dense.id, ...ids].join(","));
    });
  return html`<form class="actions" onSubmit=${add}>
      <label>Aggressiveness
        <select value=${value} onChange=${(event) => setValue(event.currentTarget.value)}>
          ${DIAL.map((one) => html`<option>${one}</option>`)}
        </select>
      </label>
      <button disabled=${busy || ids.length === MOST_COMPARED}>Add to the comparison</button>
      ${dial(reference.request) !== "dense" &&
      html`<button type="button" onClick=${addDense} disabled=${busy || ids.length === MOST_COMPARED}>Compare with dense</button>`}
    </form>
    <${ErrorNote} error=${error} />`;
}
