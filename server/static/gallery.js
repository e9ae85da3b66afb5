// Past videos, and what waits.

import { cancel, ENDED, get, isActive, remove } from "./api.js";
import { apiKey } from "./connection.js";
import { editLike } from "./create.js";
import { useAction, useLoaded } from "./hooks.js";
import { ProgressBar } from "./job.js";
import { ErrorNote, Status, Thumbnail, Title, Waiting } from "./parts.js";
import { html, useEffect, useState } from "./vendor.js";
import { dial, ownSeconds, percent, seconds, time } from "./words.js";

const QUEUE_MS = 2000;
const PAST_MS = 6000;
const PAGE = 24;

export function Gallery() {
  return html`<${Title}>Gallery</${Title}><${QueueView} /><${Past} />`;
}

/** Active jobs, the next ones first. */
function QueueView() {
  const { value, error, reload } = useLoaded(loadActive, [], QUEUE_MS);
  if (!value?.jobs.length) return html`<${ErrorNote} error=${error} />`;
  return html`<section aria-labelledby="queue-title">
    <h2 id="queue-title">In the queue</h2>
    <ul class="queue">${value.jobs.map((job) => html`<${Active} key=${job.id} ...${{ job, reload }} />`)}</ul>
    ${value.more && html`<p class="quiet">More are waiting than are shown here.</p>`}
  </section>`;
}

async function loadActive(signal) {
  const pages = await Promise.all(["running", "queued"].map((status) => get(`jobs?status=${status}&limit=100`, signal)));
  const [running, queued] = pages.map(({ jobs }) => jobs);
  const place = (job) => job.queue?.position ?? 0;
  const jobs = [...running, ...queued.toSorted((one, other) => place(one) - place(other))];
  return { jobs, more: pages.some((page) => page.next_cursor !== null) };
}

function Active({ job, reload }) {
  const { busy, error, run } = useAction();
  return html`<li class="card">
    <a href=${`#/jobs/${job.id}`}>${job.request.prompt}</a> <span class="quiet">${dial(job.request)}</span>
    <${ProgressBar} job=${job} />
    <button onClick=${() => run(() => cancel(job.id).then(reload))} disabled=${busy} aria-label=${`Cancel: ${job.request.prompt}`}>Cancel</button>
    <${ErrorNote} error=${error} />
  </li>`;
}

function Past() {
  const [status, setStatus] = useState("");
  const [words, setWords] = useState("");
  const [pages, setPages] = useState(1);
  const { value, error, reload } = useLoaded((signal) => loadPast(status, pages, signal), [status, pages], PAST_MS);
  useEffect(() => setPages(1), [status]);
  if (!value) return error ? html`<${ErrorNote} error=${error} />` : html`<${Waiting} />`;
  const jobs = value.jobs.filter((job) => matches(job, words));
  const empty = words ? "None of the videos shown so far has these words." : `There are no ${status || "past"} videos here.`;
  const others = apiKey() ? " Those made without this key are not shown." : "";
  return html`<section aria-label="Past videos">
    <form class="filter" role="search" onSubmit=${(event) => event.preventDefault()}>
      <label>Search <input type="search" value=${words} onInput=${(event) => setWords(event.currentTarget.value)} /></label>
      <label>Status
        <select value=${status} onChange=${(event) => setStatus(event.currentTarget.value)}>
          <option value="">all</option>
          ${ENDED.map((one) => html`<option>${one}</option>`)}
        </select>
      </label>
    </form>
    <${ErrorNote} error=${error} />
    ${jobs.length === 0 && !(value.more && !words) && html`<p>${empty}${others} <a href="#/">Create one.</a></p>`}
    <ul class="gallery">${jobs.map((job) => html`<${Card} key=${job.id} ...${{ job, reload }} />`)}</ul>
    ${value.more && html`<button onClick=${() => setPages(pages + 1)}>Show more</button>`}
  </section>`;
}

async function loadPast(status, pages, signal) {
  let jobs = [];
  let cursor = null;
  for (let page = 0; page < pages; page += 1) {
    const query = new URLSearchParams({ limit: PAGE, ...(status && { status }), ...(cursor && { cursor }) });
    const answer = await get(`jobs?${query}`, signal);
    jobs = jobs.concat(answer.jobs);
    cursor = answer.next_cursor;
    if (!cursor) break;
  }
  return { jobs: jobs.filter((job) => !isActive(job)), more: cursor !== null };
}

function matches(job, words) {
  const text = `${job.request.prompt} ${job.request.model} ${dial(job.request)} seed ${job.request.seed}`.toLowerCase();
  return words.toLowerCase().split(/\s+/).every((word) => text.includes(word));
}

function Card({ job, reload }) {
  const { busy, error, run } = useAction();
  const { metrics } = job;
  const forget = () => confirm(`Delete “${job.request.prompt.slice(0, 200)}”?`) && run(() => remove(job.id).then(reload));
  return html`<li class="card">
    <a href=${`#/jobs/${job.id}`}><${Thumbnail} job=${job} /><span class="prompt">${job.request.prompt}</span></a>
    <p class="quiet">
      ${metrics
        ? html`<strong>${percent(metrics.attention.savings)} saved</strong> · ${seconds(ownSeconds(metrics))} · `
        : html`<${Status} job=${job} /> · `}
      ${dial(job.request)} · ${time(job.created_at)}
    </p>
    <button class="plain" onClick=${() => run(() => editLike(job))} disabled=${busy}
      aria-label=${`Run again with changes: ${job.request.prompt}`}>Run again…</button>
    <button class="plain" onClick=${forget} disabled=${busy} aria-label=${`Delete: ${job.request.prompt}`}>Delete</button>
    <${ErrorNote} error=${error} />
  </li>`;
}
