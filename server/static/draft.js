// What is being asked for, as the form holds it: numbers as their text. Kept in the browser, so a reload loses nothing.

import { keep, read } from "./storage.js";

const NAME = "timeripple.draft";
const KEEP_AFTER_MS = 200;
const NUMBERS = ["width", "height", "num_frames", "fps", "num_inference_steps", "guidance_scale"];

export function emptyDraft(model) {
  return {
    prompt: model.example_prompts[0] ?? "",
    negative_prompt: "",
    image: null,
    seed: "",
    lock_seed: false,
    quality_check: false,
    preview: true,
    loras: {},
    output: { format: "mp4" },
    priority: "normal",
    aggressiveness: String(model.defaults.reuse.aggressiveness),
    mode: model.defaults.reuse.mode,
    ...withModel(model),
  };
}

/** The fields that a change of model sets anew. */
export function withModel(model) {
  const sizes = NUMBERS.map((name) => [name, String(model.defaults[name])]);
  return { model: model.id, loras: {}, ...Object.fromEntries(sizes) };
}

/** The draft of a request as `bodyLike` makes it. */
export function draftOf(request) {
  const sizes = NUMBERS.map((name) => [name, String(request[name])]);
  return {
    prompt: request.prompt,
    negative_prompt: request.negative_prompt,
    model: request.model,
    image: request.image ?? null,
    seed: String(request.seed),
    lock_seed: true,
    quality_check: request.quality_check,
    preview: true,
    loras: Object.fromEntries(request.loras.map(({ name, scale }) => [name, String(scale)])),
    output: request.output,
    priority: request.priority,
    aggressiveness: String(request.reuse.aggressiveness),
    mode: request.reuse.mode,
    ...Object.fromEntries(sizes),
  };
}

/** The body of POST /generate. */
export function toBody(draft, model) {
  const body = {
    prompt: draft.prompt,
    negative_prompt: draft.negative_prompt,
    model: model.id,
    quality_check: draft.quality_check,
    preview: draft.preview,
    output: draft.output,
    priority: draft.priority,
    reuse: { aggressiveness: Number(draft.aggressiveness), mode: draft.mode },
    loras: Object.entries(draft.loras)
      .filter(([, scale]) => scale !== "")
      .map(([name, scale]) => ({ name, scale: Number(scale) })),
  };
  for (const name of NUMBERS) if (draft[name] !== "") body[name] = Number(draft[name]);
  if (draft.lock_seed && draft.seed !== "") body.seed = Number(draft.seed);
  if (model.takes_image && draft.image) body.image = draft.image;
  return body;
}

let current = null;
let timer;

/** Keep the draft for as long as the page is open, and without its image for longer. */
export function keepDraft(draft) {
  current = draft;
  clearTimeout(timer);
  timer = setTimeout(write, KEEP_AFTER_MS);
}

const write = () => current && keep(NAME, JSON.stringify({ ...current, image: null }));
addEventListener("pagehide", write);

/** The draft of last time, if its model is still here. */
export function keptDraft(models) {
  const kept = current ?? parsed(read(NAME));
  const model = models.find(({ id }) => id === kept?.model);
  return model ? { ...emptyDraft(model), ...kept } : null;
}

function parsed(text) {
  try {
    return JSON.parse(text);
  } catch {
    return null;
  }
}
