// Small pieces that several views show.

import { filesOf } from "./api.js";
import { useConnection } from "./connection.js";
import { hasMoved, useLoaded } from "./hooks.js";
import { html, useEffect, useRef, useState } from "./vendor.js";

/** What went wrong; the page's frame itself tells of a server that is away, and asks for a key. */
export function ErrorNote({ error }) {
  const { online } = useConnection();
  if (!error || error.status === 401 || (error.code === "unreachable" && !online)) return null;
  return html`<p class="note error" role="alert">${error.message}</p>`;
}

export const Waiting = () => html`<p class="quiet" role="status">Loading…</p>`;

/** A heading that takes the focus when its view appears later, so that keyboards and screen readers begin there. */
export function Title({ children }) {
  const heading = useRef();
  useEffect(() => hasMoved() && heading.current.focus(), []);
  return html`<h1 ref=${heading} tabindex="-1">${children}</h1>`;
}

export const Status = ({ job }) => html`<span class=${`status ${job.status}`}>${job.status}</span>`;

/** A thumbnail, or a plain area while there is none. */
export function Thumbnail({ job }) {
  const [gone, setGone] = useState(false);
  const { value } = useLoaded(() => (job.links.thumbnail ? filesOf(job.id) : null), [job.id, job.links.thumbnail]);
  return value && !gone
    ? html`<img class="thumbnail" src=${value.thumbnail} alt="" loading="lazy" onError=${() => setGone(true)} />`
    : html`<div class="thumbnail empty" aria-hidden="true">${gone ? "expired" : job.status}</div>`;
}

/** Names with their values: `rows` holds pairs. */
export const Facts = ({ rows }) =>
  html`<dl>${rows.map(([name, value]) => html`<div><dt>${name}</dt><dd>${value}</dd></div>`)}</dl>`;

/**
 * A row of bars from 0 to 1.
 * @param {{title: string, bars: {label: string, share: number}[], ends: [string, string], note: string}} properties
 */
export function Bars({ title, bars, ends, note }) {
  const width = 100 / bars.length;
  return html`<figure class="bars">
    <figcaption>${title}</figcaption>
    <svg viewBox="0 0 100 40" preserveAspectRatio="none" role="img" aria-label=${`${title}. ${bars.map(({ label }) => label).join(", ")}.`}>
      <line x1="0" y1="39.75" x2="100" y2="39.75" />
      ${bars.map(
        ({ label, share }, index) => html`<rect
          x=${index * width + width * 0.12}
          width=${width * 0.76}
          y=${39.5 * (1 - share)}
          height=${Math.max(39.5 * share, 0.5)}
        ><title>${label}</title></rect>`,
      )}
    </svg>
    <div class="ends" aria-hidden="true"><span>${ends[0]}</span><span>${ends[1]}</span></div>
    <p class="quiet">${note}</p>
  </figure>`;
}
