// The fleet at a glance.

import { get } from "./api.js";
import { useLoaded } from "./hooks.js";
import { ErrorNote, Title, Waiting } from "./parts.js";
import { html } from "./vendor.js";
import { flops, percent, seconds, time } from "./words.js";

const REFRESH_MS = 3000;

export function System() {
  const { value, error } = useLoaded(
    (signal) => Promise.all([get("system", signal), get("models", signal)]), [], REFRESH_MS,
  );
  if (!value) return error ? html`<${ErrorNote} error=${error} />` : html`<${Waiting} />`;
  const [system, { models }] = value;
  return html`
    <${Title}>System</${Title}>
    <${ErrorNote} error=${error} />
    <div class="tiles"><${Today} today=${system.today} /><${Queue} queue=${system.queue} /><${Links} system=${system} /></div>
    <${Workers} workers=${system.workers} />
    <${Models} models=${models} />
  `;
}

const Tile = ({ title, figure, children }) => html`<section class="card tile">
  <h2>${title}</h2><p class="figure">${figure}</p>${children}
</section>`;

function Today({ today }) {
  const figure = today.savings === null ? "no video yet" : `${percent(today.savings)} saved`;
  return html`<${Tile} title="Today (UTC)" figure=${figure}>
    <p>
      ${today.num_succeeded} made, ${today.num_failed} failed, ${today.num_cancelled} cancelled.
      ${today.savings !== null &&
      ` ${flops(today.attention_executed_flops)} of attention instead of ${flops(today.attention_dense_flops)};
        ${seconds(today.denoise_s)} of denoising for ${seconds(today.video_s)} of video.`}
    </p>
  </${Tile}>`;
}

function Queue({ queue }) {
  const wait =
    queue.wait_s === null ? "How long a new one waits is not known."
    : queue.wait_s < 0.5 ? "A new one starts at once."
    : `A new one starts in about ${seconds(queue.wait_s)}.`;
  return html`<${Tile} title="Queue" figure=${`${queue.num_queued} waiting`}>
    <p>${queue.num_running} running. ${wait} <a href="#/gallery">See them.</a></p>
  </${Tile}>`;
}

function Links({ system }) {
  return html`<${Tile} title="More" figure=${`version ${system.version}`}>
    <p class="links">
      ${system.dashboards_url && html`<a href=${system.dashboards_url} rel="noreferrer">Dashboards</a>`}
      <a href="docs">API documentation</a>
      <a href="openapi.json">OpenAPI document</a>
    </p>
  </${Tile}>`;
}

function Table({ title, head, rows, empty }) {
  return html`<section>
    <h2>${title}</h2>
    ${rows.length === 0
      ? html`<p class="note">${empty}</p>`
      : html`<div class="scroll" tabindex="0" role="region" aria-label=${title}><table>
          <thead><tr>${head.map((name) => html`<th scope="col">${name}</th>`)}</tr></thead>
          <tbody>${rows.map((cells) => html`<tr>${cells.map((cell) => html`<td>${cell}</td>`)}</tr>`)}</tbody>
        </table></div>`}
  </section>`;
}

function Workers({ workers }) {
  const rows = workers.map((worker) => [
    worker.name,
    worker.device,
    worker.num_jobs ? `${worker.state} (${worker.num_jobs})` : worker.state,
    worker.loaded.join(", ") || "none",
    time(worker.started_at),
  ]);
  const empty = "No worker is alive: jobs wait until one is started with “ripple worker”.";
  return html`<${Table} title="Workers" head=${["Name", "Device", "State", "Models in memory", "Since"]} ...${{ rows, empty }} />`;
}

function Models({ models }) {
  const rows = models.map((model) => {
    const { width, height, num_frames: frames, num_inference_steps: steps } = model.defaults;
    return [model.id, model.description, `${width} × ${height}, ${frames} frames, ${steps} steps`, model.loaded_on.map(({ worker }) => worker).join(", ") || "no worker"];
  });
  return html`<${Table} title="Models" head=${["Id", "What it is", "By default", "Loaded on"]} rows=${rows} empty="None." />`;
}
