// Small pieces that several views show.

import { filesOf } from "./api.js";
import { useLoaded } from "./hooks.js";
import { html } from "./vendor.js";
import { percent } from "./words.js";

export const ErrorNote = ({ error }) => error && html`<p class="note error" role="alert">${error.message}</p>`;

export const Waiting = () => html`<p class="quiet" role="status">Loading…</p>`;

/** A heading that takes the focus when its view appears, so that keyboards and screen readers begin there. */
export const Title = ({ children }) => html`<h1 tabindex="-1">${children}</h1>`;

export const Status = ({ job }) => html`<span class=${`status ${job.status}`}>${job.status}</span>`;

/** A thumbnail, or a plain area while there is none. */
export function Thumbnail({ job }) {
  const { value } = useLoaded(() => (job.links.thumbnail ? filesOf(job.id) : null), [job.id, job.links.thumbnail]);
  return value
    ? html`<img class="thumbnail" src=${value.thumbnail} alt="" loading="lazy" />`
    : html`<div class="thumbnail empty" aria-hidden="true"></div>`;
}

/**
 * A row of bars from 0 to 1.
 * @param {{title: string, bars: {label: string, share: number, muted?: boolean}[]}} properties
 */
export function Bars({ title, bars, note }) {
  const most = bars.reduce((best, bar) => Math.max(best, bar.share), 0);
  const width = 100 / bars.length;
  return html`<figure class="bars">
    <figcaption>${title}</figcaption>
    <svg viewBox="0 0 100 40" preserveAspectRatio="none" role="img" aria-label=${`${title}: at most ${percent(most)}`}>
      <line x1="0" y1="39.75" x2="100" y2="39.75" />
      ${bars.map(
        ({ label, share, muted }, index) => html`<rect
          class=${muted ? "muted" : ""}
          x=${index * width + width * 0.12}
          width=${width * 0.76}
          y=${39.5 * (1 - share)}
          height=${Math.max(39.5 * share, 0.5)}
        ><title>${label}: ${percent(share)}</title></rect>`,
      )}
    </svg>
    <div class="ends" aria-hidden="true"><span>${bars[0]?.label}</span><span>${bars.at(-1)?.label}</span></div>
    ${note && html`<p class="quiet">${note}</p>`}
  </figure>`;
}
