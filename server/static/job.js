// Watch a job: its progress, then its video and what it saved.

import {
  bodyLike, cancel, dataUrl, filesOf, isActive, newIdempotencyKey, problemWith, remove, submit, submitDense,
} from "./api.js";
import { editLike } from "./create.js";
import { go, prefersStillness, useAction, useJob, useLoaded } from "./hooks.js";
import { Bars, ErrorNote, Facts, Status, Title, Waiting } from "./parts.js";
import { html, useEffect, useState } from "./vendor.js";
import { bytes, decibels, dial, flops, latencyName, ownSeconds, percent, retry, seconds, stage, summary, time } from "./words.js";

export function JobView({ id }) {
  const { job, error, preview } = useJob(id);
  useEffect(() => {
    if (job) document.title = titleOf(job);
  }, [job]);
  if (!job) return error ? html`<${Missing} error=${error} />` : html`<${Waiting} />`;
  return html`
    <${Title}>${job.request.prompt}</${Title}>
    <p class="quiet">
      <${Status} job=${job} /> ${dial(job.request)} · seed ${job.request.seed} · ${time(job.created_at)}
    </p>
    <${ErrorNote} error=${error} />
    ${isActive(job) ? html`<${Progress} ...${{ job, preview }} />` : html`<${Ended} job=${job} />`}
    <${Settings} request=${job.request} />
    <details><summary>All of it as JSON</summary><pre tabindex="0">${JSON.stringify(job, null, 2)}</pre></details>
  `;
}

/** People keep several tabs. */
function titleOf({ status, progress, request: { prompt } }) {
  const short = prompt.length > 60 ? `${prompt.slice(0, 59)}…` : prompt;
  return `${status === "running" ? percent(progress.fraction) : status} · ${short}`;
}

const Missing = ({ error }) => html`
  <${Title}>No video here</${Title}><${ErrorNote} error=${error} />
  <p><a href="#/gallery">See the videos that are kept</a> or <a href="#/">create one</a>.</p>`;

/** Where a job is, in words and as a bar; also in comparisons. */
export function ProgressBar({ job }) {
  const { progress, queue } = job;
  const steps = progress.stage === "denoise" ? `, step ${progress.step} of ${progress.total_steps}` : "";
  const place = queue ? (queue.position === 0 ? ", next in line" : `, ${queue.position} before it`) : "";
  const left = progress.eta_s === null ? "" : `, about ${seconds(progress.eta_s)} left`;
  const name = job.status === "running" && progress.stage === "queued" ? "Starting" : stage(progress.stage);
  return html`<div class="progress">
    <progress max="1" value=${progress.fraction} aria-label="Progress"></progress>
    <p>${name}${steps}${place}${left}</p>
  </div>`;
}

function Progress({ job, preview }) {
  const { busy, error, run } = useAction();
  const [stopping, setStopping] = useState(false);
  const stop = () => run(() => cancel(job.id).then(() => setStopping(true)));
  return html`<section class="card result">
    <${Preview} ...${{ job, preview }} />
    <div>
      <p class="visually-hidden" role="status">${stage(job.progress.stage)}</p>
      <${ProgressBar} job=${job} />
      ${job.last_failure &&
      html`<p class="note">An attempt was cut short (${job.last_failure.message}) and it runs again by itself.</p>`}
      <button onClick=${stop} disabled=${busy || stopping}>${stopping ? "Stopping after this step…" : "Cancel"}</button>
      <${ErrorNote} error=${error} />
    </div>
  </section>`;
}

/** The place of the video, with its estimate so far. */
function Preview({ job, preview }) {
  const [shown, setShown] = useState(null);
  useEffect(() => {
    let live = true;
    // One that has gone meanwhile is no trouble: a newer one comes, or the video.
    if (preview) dataUrl(`jobs/${job.id}/preview`).then((url) => live && setShown(url), () => {});
    else setShown(null);
    return () => {
      live = false;
    };
  }, [preview]);
  const words = job.request.preview ? "A small preview appears after the first steps." : "No preview was asked for.";
  return html`<div class="preview" style=${{ "--ratio": job.request.width / job.request.height }}>
    ${shown ? html`<img src=${shown} alt="Small preview of the video as it is estimated so far" />` : html`<p>${words}</p>`}
  </div>`;
}

function Ended({ job }) {
  if (job.status === "succeeded") return html`<${Result} job=${job} />`;
  const reason = job.status === "failed" ? job.error.message : "It was cancelled.";
  return html`<section class="card">
    <p class=${`note ${job.status === "failed" ? "error" : ""}`} role="status">${reason}</p>
    <${Actions} job=${job} />
  </section>`;
}

function Result({ job }) {
  const { value: files, error, reload } = useLoaded(() => filesOf(job.id), [job.id]);
  const { metrics } = job;
  return html`<section class="card result">
      <div class="player">
        ${files ? html`<${Player} key=${files.video} ...${{ job, files, reload }} />` : html`<${ErrorNote} error=${error} />`}
      </div>
      <div>
        <p class="summary" role="status">${summary(metrics)}.</p>
        <${Quality} metrics=${metrics} />
        <${Figures} job=${job} />
        <${Actions} job=${job} files=${files} />
      </div>
    </section>
    <${Charts} metrics=${metrics} />`;
}

function Player({ job, files, reload }) {
  const [problem, setProblem] = useState(null);
  const { format } = job.request.output;
  const onError = async () =>
    setProblem((await problemWith(files.video)) ?? new Error("This browser cannot play the video; it can be downloaded."));
  function again() {
    setProblem(null);
    reload();
  }
  if (problem) return html`<${ErrorNote} error=${problem} /><button onClick=${again}>Try again</button>`;
  if (format === "gif") return html`<img src=${files.video} alt=${job.request.prompt} onError=${onError} />`;
  if (format === "zip") return html`<p class="note">The frames are in a ZIP file: download it.</p>`;
  return html`<video src=${files.video} controls loop autoplay=${!prefersStillness()} muted playsinline
    aria-label=${job.request.prompt} onError=${onError}></video>`;
}

function Quality({ metrics: { quality } }) {
  if (!quality) return null;
  const words = quality.identical
    ? "No pixel differs from the dense video."
    : `PSNR ${decibels(quality.psnr_db)} and SSIM ${quality.ssim.toFixed(3)} against the dense video, before compression;
       its denoising took ${seconds(quality.dense_denoise_s)}.`;
  return html`<p>${words}</p>`;
}

function Figures({ job: { metrics, expires_at: expires } }) {
  const { attention, device, output } = metrics;
  const rows = [
    ["Attention work", `${flops(attention.executed_flops)} of ${flops(attention.dense_flops)}`],
    ["Mode", `${attention.mode}${attention.backend ? `, computed by ${attention.backend}` : ""}`],
    ["Made in", seconds(ownSeconds(metrics))],
    ["Video", `${output.width} × ${output.height}, ${output.frames} frames, ${output.duration_s.toFixed(1)} s, ${bytes(output.bytes)}`],
    ["Device", `${device.name}, ${device.dtype}; ${bytes(device.peak_memory_bytes)} of memory at the most`],
    ...(metrics.batch_size > 1 ? [["Made together", `${metrics.batch_size} videos, which share these seconds`]] : []),
    ...(metrics.retries.length ? [["Second try", metrics.retries.map(retry).join(", ")]] : []),
    ...(expires ? [["Kept until", time(expires)]] : []),
  ];
  return html`<${Facts} rows=${rows} />`;
}

function Actions({ job, files }) {
  const { busy, error, run } = useAction();
  const compare = () =>
    run(async () => {
      const dense = await submitDense(job);
      go("compare", `${dense.id},${job.id}`);
    });
  const again = () => run(async () => go("jobs", (await submit(await bodyLike(job), newIdempotencyKey())).id));
  const forget = () =>
    run(async () => {
      if (!confirm("Delete this video and all that is known of it?")) return;
      await remove(job.id);
      go("gallery");
    });
  const canCompare = job.status === "succeeded" && dial(job.request) !== "dense" && ["mp4", "webm"].includes(job.request.output.format);
  return html`<div class="actions">
      ${files && html`<a class="button primary" href=${files.download} download>Download</a>`}
      ${canCompare && html`<button onClick=${compare} disabled=${busy}>Compare with dense</button>`}
      <button onClick=${() => run(() => editLike(job))} disabled=${busy}>Run again with changes</button>
      ${job.status !== "succeeded" && html`<button onClick=${again} disabled=${busy}>Run again</button>`}
      <button class="plain" onClick=${forget} disabled=${busy}>Delete</button>
    </div>
    <${ErrorNote} error=${error} />`;
}

function Charts({ metrics: { attention, latency_s: latency } }) {
  const total = latency.total || 1;
  const stages = Object.entries(latency).filter(([name, value]) => name !== "total" && value >= 0.005);
  const bars = (counts, name) =>
    counts.map((one) => ({ label: `${name} ${one[name] + 1}: ${percent(one.savings)}`, share: Math.max(one.savings, 0) }));
  const ends = (counts, name) => [`${name} 1`, `${name} ${counts.length}`];
  const dense = attention.dense_steps && attention.savings > 0 ? ` ${attention.dense_steps} of ${attention.by_step.length} steps ran without reuse, as the schedule wants.` : "";
  return html`<section class="charts">
    <${Bars} title="Saved by denoising step" bars=${bars(attention.by_step, "step")}
      ends=${ends(attention.by_step, "step")} note=${`From 0 to 100 %.${dense}`} />
    <${Bars} title="Saved by layer" bars=${bars(attention.by_layer, "layer")}
      ends=${ends(attention.by_layer, "layer")} note="From 0 to 100 %." />
    <figure class="stages">
      <figcaption>Where the ${seconds(latency.total)} went</figcaption>
      <ul>${stages.map(
        ([name, value]) => html`<li>
          <span>${latencyName(name)}</span><span>${seconds(value)} (${percent(value / total)})</span>
          <progress max=${total} value=${value} aria-label=${latencyName(name)}></progress>
        </li>`,
      )}</ul>
    </figure>
  </section>`;
}

function Settings({ request }) {
  const rows = [
    ["Prompt", request.prompt],
    ["Negative prompt", request.negative_prompt || "none"],
    ["Model", request.model],
    ["Size", `${request.width} × ${request.height}, ${request.num_frames} frames at ${request.fps} per second`],
    ["Steps", request.num_inference_steps],
    ["Guidance scale", request.guidance_scale],
    ["Seed", request.seed],
    ["Reuse", `${request.reuse.mode}, aggressiveness ${request.reuse.aggressiveness}`],
    ...(request.loras.length ? [["LoRAs", request.loras.map(({ name, scale }) => `${name} × ${scale}`).join(", ")]] : []),
  ];
  return html`<details><summary>Settings</summary><${Facts} rows=${rows} /></details>`;
}
