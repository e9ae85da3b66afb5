// Videos of one seed side by side: what they saved against how they look.

import { bodyLike, cancel, filesOf, isActive, submitDense, submitOnce } from "./api.js";
import { compareVideos } from "./frames.js";
import { go, useAction, useJob, useLoaded } from "./hooks.js";
import { ProgressBar } from "./job.js";
import { Bars, ErrorNote, Title, Waiting } from "./parts.js";
import { Players } from "./players.js";
import { html, useEffect, useState } from "./vendor.js";
import { bytes, decibels, dial, ownSeconds, percent, seconds } from "./words.js";

export const MOST_COMPARED = 8;
const DIAL = [0.25, 0.5, 0.75, 1];
// What charts reach over.
const LEAST_DECIBELS = 20;
const MOST_DECIBELS = 50;
const shareOf = (psnr) => Math.min(Math.max(((psnr ?? MOST_DECIBELS) - LEAST_DECIBELS) / (MOST_DECIBELS - LEAST_DECIBELS), 0), 1);

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
    <${Curve} ...${{ jobs: ready.filter(({ id }) => fidelity[id]?.frames), chosen, fidelity }} />
  `;
}

function Unready({ job }) {
  const { busy, error, run } = useAction();
  return html`<section class="card">
    <h2><a href=${`#/jobs/${job.id}`}>${dial(job.request)}</a></h2>
    ${isActive(job)
      ? html`<${ProgressBar} job=${job} />
          <button disabled=${busy} onClick=${() => run(() => cancel(job.id))} aria-label=${`Cancel ${dial(job.request)}`}>Cancel</button>
          <${ErrorNote} error=${error} />`
      : html`<p class="note error">${job.error?.message ?? "It was cancelled."}</p>`}
  </section>`;
}

/** Of two times; those of one job made twice differ by some percent, too. */
function against(took, before) {
  if (Math.abs(took - before) <= 0.05 * before) return `about as long as the reference (${seconds(before)})`;
  return `${took < before ? "less" : "more"} than the reference (${seconds(before)})`;
}

/** "aggressiveness 0.5 saved 57 % of attention work and took 5.1 s, less than the reference (7.9 s): PSNR 35.3 dB…" */
function Verdict({ reference, other, fidelity }) {
  const [took, before] = [other, reference].map(({ metrics }) => ownSeconds(metrics));
  const looks = !fidelity?.frames ? "" : `: PSNR ${decibels(fidelity.psnr)}, SSIM ${fidelity.ssim.toFixed(3)}`;
  return html`<p class="summary" role="status">
    ${dial(other.request)} saved ${percent(other.metrics.attention.savings)} of attention work and took ${seconds(took)}, ${against(took, before)}${looks}.
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
        label: `frame ${frame + 1}: ${decibels(psnr)}`, share: shareOf(psnr) }))}
      ends=${["frame 1", `frame ${fidelity.of}`]}
      note=${`From ${LEAST_DECIBELS} to ${MOST_DECIBELS} dB; lowest ${decibels(lowest(fidelity.frames))}.`} /></div>`}`;
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
    ${over && html`<p class="quiet">PSNR and SSIM: measured in this browser on ${over} of the two files, compression included.
      Higher is closer to the reference.</p>`}`;
}

/** Fidelity against savings: what the dial buys and what it costs. */
function Curve({ jobs, chosen, fidelity }) {
  if (jobs.length < 2) return null;
  const points = jobs
    .map((job) => ({ job, x: 100 * job.metrics.attention.savings, psnr: fidelity[job.id].psnr }))
    .toSorted((one, other) => one.x - other.x);
  const label = ({ job, x, psnr }) => `${dial(job.request)}: ${x.toFixed(0)} % saved, PSNR ${decibels(psnr)}`;
  return html`<figure class="curve">
    <figcaption>PSNR against attention work saved</figcaption>
    <svg viewBox="-30 -10 260 135" role="img" aria-label=${points.map(label).join("; ")}>
      <path d="M0 0V100H200" />
      <text x="-4" y="4" text-anchor="end">${MOST_DECIBELS}</text><text x="-4" y="104" text-anchor="end">${LEAST_DECIBELS} dB</text>
      <text x="0" y="116">0</text><text x="200" y="116" text-anchor="end">100 % saved</text>
      ${points.map(
        (point) => html`<circle r="3.5" cx=${2 * point.x} cy=${100 - 100 * shareOf(point.psnr)} class=${point.job.id === chosen ? "chosen" : ""}>
            <title>${label(point)}</title></circle>
          <text x=${2 * point.x} y=${100 - 100 * shareOf(point.psnr) - 7} text-anchor="middle">${point.job.request.reuse.aggressiveness}</text>`,
      )}
    </svg>
  </figure>`;
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

/** Other values of the dial, or another reference, for the same seed. */
function More({ reference, others }) {
  const { busy, error, run } = useAction();
  const ids = [reference, ...others].map(({ id }) => id);
  const like = others[0] ?? reference;
  const mode = like.request.reuse.mode === "dense" ? "auto" : like.request.reuse.mode;
  const there = others.map(({ request: { reuse } }) => reuse.mode !== "dense" && reuse.aggressiveness);
  const values = DIAL.filter((value) => !there.includes(value));
  const [wanted, setWanted] = useState(null);
  const value = values.includes(wanted) ? wanted : values.at(-1);

  const add = (added) =>
    run(async () => {
      const jobs = [];
      for (const aggressiveness of added) {
        const body = await bodyLike(reference, { reuse: { mode, aggressiveness }, quality_check: false });
        jobs.push(await submitOnce(body, `${mode} ${aggressiveness} of ${reference.id}`));
      }
      go("compare", [...ids, ...jobs.map(({ id }) => id)].join(","));
    });
  const addDense = () =>
    run(async () => {
      const dense = await submitDense(reference);
      go("compare", [dense.id, ...ids].join(","));
    });
  const room = MOST_COMPARED - ids.length;
  return html`<div class="actions">
      ${values.length > 0 && room > 0 &&
      html`<label>Aggressiveness
          <select value=${value} onChange=${(event) => setWanted(Number(event.currentTarget.value))}>
            ${values.map((one) => html`<option value=${one}>${one}</option>`)}
          </select>
        </label>
        <button onClick=${() => add([value])} disabled=${busy}>Add to the comparison</button>
        ${values.length > 1 && values.length <= room &&
        html`<button onClick=${() => add(values)} disabled=${busy}>Add all of ${values.join(", ")}</button>`}`}
      ${dial(reference.request) !== "dense" && room > 0 &&
      html`<button onClick=${addDense} disabled=${busy}>Compare with dense</button>`}
    </div>
    <${ErrorNote} error=${error} />`;
}
