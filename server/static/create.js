// Ask for a video, with the dial and what it is expected to save beside it.

import { bodyLike, estimate, get, newIdempotencyKey, readAsDataUrl, submit, submitDense } from "./api.js";
import { useConnection } from "./connection.js";
import { draftOf, emptyDraft, keepDraft, keptDraft, toBody, withModel } from "./draft.js";
import { go, useLoaded } from "./hooks.js";
import { ErrorNote, Title, Waiting } from "./parts.js";
import { html, useEffect, useId, useRef, useState } from "./vendor.js";
import { expectation } from "./words.js";

const ESTIMATE_AFTER_MS = 300;
const MODES = {
  auto: "Reuses where it can pay; short videos stay dense.",
  ripple: "Reuses in tiles, each as far as an estimate of the error allows.",
  channel: "The published form, for comparison; it runs no faster.",
  dense: "Never reuses.",
};
const FORMATS = [["mp4", "MP4 (H.264)"], ["webm", "WebM (VP9)"], ["gif", "GIF"], ["zip", "PNG frames in a ZIP"]];

export function Create() {
  const { value, error } = useLoaded((signal) => get("models", signal), []);
  if (!value) return error ? html`<${ErrorNote} error=${error} />` : html`<${Waiting} />`;
  return html`<${CreateForm} models=${value.models} />`;
}

function CreateForm({ models }) {
  const [draft, setDraft] = useState(() => keptDraft(models) ?? emptyDraft(models[0]));
  const [error, setError] = useState(null);
  const [busy, setBusy] = useState(false);
  // Kept until a submission has been answered: one whose answer got lost is not made twice.
  const sent = useRef({});
  const model = models.find(({ id }) => id === draft.model) ?? models[0];
  const { epoch } = useConnection();
  // A server that is back, or another key, makes the last refusal old.
  useEffect(() => setError(null), [epoch]);
  // At once and not after the next picture: a reload may come first.
  const latest = useRef(draft);
  function change(after) {
    latest.current = after;
    keepDraft(after);
    setDraft(after);
    setError(null);
  }
  const set = (changes) => change({ ...latest.current, ...changes });

  async function generate(withDense) {
    if (draft.prompt.trim() === "") {
      setError(Object.assign(new Error("Write a prompt first."), { errors: [{ field: "prompt", message: "Write a prompt." }] }));
      return;
    }
    setBusy(true);
    setError(null);
    try {
      const body = toBody(draft, model);
      const text = JSON.stringify([body, withDense]);
      if (sent.current.text !== text) sent.current = { text, key: newIdempotencyKey() };
      const job = await submit(body, sent.current.key);
      const dense = withDense ? await submitDense(job) : null;
      sent.current = {};
      if (dense) go("compare", `${dense.id},${job.id}`);
      else go("jobs", job.id);
    } catch (problem) {
      setError(problem);
      setBusy(false);
    }
  }

  function onSubmit(event) {
    event.preventDefault();
    generate(event.submitter?.value === "compare");
  }

  function onKeyDown(event) {
    if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) event.currentTarget.requestSubmit();
  }

  const wrong = Object.fromEntries((error?.errors ?? []).map(({ field, message }) => [field, message]));
  return html`<form class="create" onSubmit=${onSubmit} onKeyDown=${onKeyDown}>
    <${Title}>Create a video</${Title}>
    <div class="columns">
      <div>
        <${Prompts} ...${{ draft, set, model, wrong }} />
        <${Sizes} ...${{ draft, set, model, wrong, models }} />
      </div>
      <div>
        <${Dial} ...${{ draft, set, model }} />
        <${ErrorNote} error=${error} />
        <div class="actions">
          <button class="primary" disabled=${busy}>Generate</button>
          <button value="compare" disabled=${busy || draft.mode === "dense"}>Generate and compare with dense</button>
          <button type="button" class="plain" onClick=${() => change(emptyDraft(model))}>Reset</button>
        </div>
        <p class="quiet">Ctrl+Enter generates.</p>
      </div>
    </div>
  </form>`;
}

/** A labelled control; `children` makes it from the attributes that tie it to its label, hint and problem. */
function Field({ label, hint, problem, children }) {
  const id = useId();
  const attributes = { id, "aria-describedby": `${id}-hint`, "aria-invalid": problem ? "true" : undefined };
  return html`<div class=${`field ${problem ? "wrong" : ""}`}>
    <label for=${id}>${label}</label>${children(attributes)}
    <small id=${`${id}-hint`}>${problem ? html`<span class="problem">${problem}</span>` : hint}</small>
  </div>`;
}

const MOST_CHARACTERS = 2000;
const lengthHint = ({ length }) => length > 0.9 * MOST_CHARACTERS && `${length} of at most ${MOST_CHARACTERS} characters`;

function Prompts({ draft, set, model, wrong }) {
  async function chooseImage(event) {
    const [file] = event.currentTarget.files;
    set({ image: file ? await readAsDataUrl(file) : null });
  }
  return html`
    <${Field} label="Prompt" hint=${lengthHint(draft.prompt)} problem=${wrong.prompt}>${(tied) => html`
      <textarea ...${tied} rows="4" required value=${draft.prompt}
        onInput=${(event) => set({ prompt: event.currentTarget.value })}></textarea>`}
    </${Field}>
    ${model.example_prompts.length > 0 &&
    html`<div class="examples" role="group" aria-label="Example prompts">
      ${model.example_prompts.map(
        (prompt) => html`<button type="button" class="chip" onClick=${() => set({ prompt })}>${prompt}</button>`,
      )}
    </div>`}
    <${Field} label="Negative prompt" hint="What the video must not show." problem=${wrong.negative_prompt}>${(tied) => html`
      <input ...${tied} value=${draft.negative_prompt}
        onInput=${(event) => set({ negative_prompt: event.currentTarget.value })} />`}
    </${Field}>
    ${model.takes_image &&
    html`<${Field} label="First frame" hint="PNG, JPEG or WebP; this model begins from an image." problem=${wrong.image}>${(tied) => html`
      <input ...${tied} type="file" accept="image/png,image/jpeg,image/webp" required=${!draft.image} onChange=${chooseImage} />
      ${draft.image && html`<img class="first-frame" src=${draft.image} alt="The chosen first frame" />`}`}
    </${Field}>`}
  `;
}

function Sizes({ draft, set, model, wrong, models }) {
  const number = (name, label, limits, hint) =>
    html`<${Field} label=${label} hint=${hint} problem=${wrong[name]}>${(tied) => html`
      <input ...${tied} type="number" required ...${limits} value=${draft[name]}
        onInput=${(event) => set({ [name]: event.currentTarget.value })} />`}
    </${Field}>`;
  const side = { min: model.size_multiple, max: model.max_size, step: model.size_multiple };
  const length = draft.num_frames / draft.fps;
  return html`
    <${Field} label="Model" hint=${model.description} problem=${wrong.model}>${(tied) => html`
      <select ...${tied} value=${model.id} onChange=${(event) => set(withModel(models.find(({ id }) => id === event.currentTarget.value)))}>
        ${models.map(({ id }) => html`<option value=${id}>${id}</option>`)}
      </select>`}
    </${Field}>
    <div class="row">
      ${number("width", "Width", side, `Multiple of ${side.step}, to ${side.max}`)}
      ${number("height", "Height", side, `Multiple of ${side.step}, to ${side.max}`)}
    </div>
    <div class="row">
      ${number(
        "num_frames",
        "Frames",
        { min: 1, max: model.max_frames, step: model.frame_multiple },
        Number.isFinite(length) ? `${length.toFixed(1)} s of video` : "",
      )}
      ${number("fps", "Frames per second", { min: 1, max: 120, step: 1 })}
    </div>
    <div class="row">
      ${number("num_inference_steps", "Steps", { min: 1, max: 200, step: 1 }, "Denoising steps")}
      ${number("guidance_scale", "Guidance scale", { min: 0, max: 30, step: "any" }, "1 or less turns it off")}
    </div>
    <${Seed} ...${{ draft, set, wrong }} />
    <${Field} label="File" hint="Only mp4 and webm can be compared.">${(tied) => html`
      <select ...${tied} value=${draft.output.format}
        onChange=${(event) => set({ output: { format: event.currentTarget.value } })}>
        ${FORMATS.map(([format, label]) => html`<option value=${format}>${label}</option>`)}
      </select>`}
    </${Field}>
    ${model.loras.length > 0 && html`<${Loras} ...${{ draft, set, model }} />`}
  `;
}

const randomSeed = () => String(crypto.getRandomValues(new Uint32Array(1))[0]);

function Seed({ draft, set, wrong }) {
  return html`<fieldset class="seed">
    <legend>Seed</legend>
    <label class="check">
      <input type="checkbox" checked=${draft.lock_seed}
        onChange=${(event) => set({ lock_seed: event.currentTarget.checked, seed: draft.seed || randomSeed() })} />
      Keep this seed: the same request gives the same video
    </label>
    <div class="row">
      <${Field} label="Seed number" problem=${wrong.seed}>${(tied) => html`
        <input ...${tied} type="number" min="0" max="9007199254740991" step="1" required=${draft.lock_seed}
          disabled=${!draft.lock_seed} value=${draft.lock_seed ? draft.seed : ""} placeholder="new for each video"
          onInput=${(event) => set({ seed: event.currentTarget.value })} />`}
      </${Field}>
      <button type="button" disabled=${!draft.lock_seed} onClick=${() => set({ seed: randomSeed() })}>New seed</button>
    </div>
  </fieldset>`;
}

function Loras({ draft, set, model }) {
  const change = (name, scale) => set({ loras: { ...draft.loras, [name]: scale } });
  return html`<fieldset>
    <legend>LoRAs</legend>
    ${model.loras.map(
      (name) => html`<${Field} label=${name} hint="Strength, -4 to 4; empty leaves it off">${(tied) => html`
        <input ...${tied} type="number" min="-4" max="4" step="any" value=${draft.loras[name] ?? ""}
          onInput=${(event) => change(name, event.currentTarget.value)} />`}
      </${Field}>`,
    )}
  </fieldset>`;
}

function Dial({ draft, set, model }) {
  const dense = draft.mode === "dense";
  const check = (name, text) => html`<label class="check">
    <input type="checkbox" checked=${draft[name]} onChange=${(event) => set({ [name]: event.currentTarget.checked })} />
    ${text}
  </label>`;
  return html`<section class="dial card" aria-labelledby="dial-title">
    <h2 id="dial-title">How much to reuse</h2>
    <p><label for="dial">Aggressiveness</label> <output for="dial">${Number(draft.aggressiveness).toFixed(2)}</output></p>
    <input id="dial" type="range" min="0" max="1" step="0.05" disabled=${dense} value=${draft.aggressiveness}
      onInput=${(event) => set({ aggressiveness: event.currentTarget.value })} />
    <div class="ends" aria-hidden="true"><span>0: every score computed</span><span>1: most reuse</span></div>
    <${Expectation} ...${{ draft, model }} />
    <${Field} label="Mode" hint=${MODES[draft.mode]}>${(tied) => html`
      <select ...${tied} value=${draft.mode} onChange=${(event) => set({ mode: event.currentTarget.value })}>
        ${model.modes.map((mode) => html`<option>${mode}</option>`)}
      </select>`}
    </${Field}>
    ${check("preview", "Preview while denoising")}
    ${check("quality_check", "Measure PSNR and SSIM against the dense twin, before compression: renders both, about twice the time")}
  </section>`;
}

function Expectation({ draft, model }) {
  const [{ text, of }, setAnswer] = useState({ text: "…" });
  // Neither words nor image change what it costs.
  const asked = JSON.stringify({ ...toBody({ ...draft, prompt: "x", negative_prompt: "", image: null }, model), seed: 0 });
  useEffect(() => {
    const controller = new AbortController();
    const ask = () =>
      estimate(JSON.parse(asked), controller.signal)
        .then((answer) => setAnswer({ text: expectation(answer), of: asked }))
        .catch((error) => error.name !== "AbortError" && setAnswer({ text: error.message, of: asked }));
    const timer = setTimeout(ask, ESTIMATE_AFTER_MS);
    return () => {
      clearTimeout(timer);
      controller.abort();
    };
  }, [asked]);
  return html`<p class=${`expectation ${of === asked ? "" : "stale"}`} role="status">${text}</p>`;
}

/** Open the form with the settings of a job. */
export async function editLike(job) {
  const body = await bodyLike(job);
  keepDraft(draftOf(body));
  go("");
}
