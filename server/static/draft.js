// What is being asked for, as the form holds it: numbers as their text. Kept in the browser, so a reload loses nothing.

const KEY = "timeripple.draft";
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

/** The draft that gives the same video as a request. */
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

// With its image, which may be too large for the browser to keep.
let current = null;

export function keepDraft(draft) {
  current = draft;
  try {
    localStorage.setItem(KEY, JSON.stringify(draft));
  } catch {
    localStorage.setItem(KEY, JSON.stringify({ ...draft, image: null }));
  }
}

/** The draft of last time, if its model is still here. */
export function keptDraft(models) {
  const kept = current ?? read();
  const model = models.find(({ id }) => id === kept?.model);
  return model ? { ...emptyDraft(model), ...kept } : null;
}

function read() {
  try {
    return JSON.parse(localStorage.getItem(KEY));
  } catch {
    return null;
  }
}
