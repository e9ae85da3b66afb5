// The page: its frame, and the view that the address names.

import { Compare, MOST_COMPARED } from "./compare.js";
import { apiKey, setApiKey, useConnection } from "./connection.js";
import { Create } from "./create.js";
import { Gallery } from "./gallery.js";
import { usePlace } from "./hooks.js";
import { JobView } from "./job.js";
import { Title } from "./parts.js";
import { System } from "./system.js";
import { html, render, useEffect, useRef, useState } from "./vendor.js";

const TABS = [
  ["", "Create"],
  ["gallery", "Gallery"],
  ["system", "System"],
];
const TITLES = { "": "Create", jobs: "Video", compare: "Compare", gallery: "Gallery", system: "System" };

function KeyForm() {
  const { needsKey } = useConnection();
  const [open, setOpen] = useState(false);
  const input = useRef();
  const known = apiKey();
  useEffect(() => {
    if (open) input.current?.focus();
  }, [open]);
  function save(event) {
    event.preventDefault();
    setApiKey(input.current.value.trim());
    setOpen(false);
  }
  function forget() {
    setApiKey(null);
    setOpen(false);
  }
  if (!needsKey && !open)
    return html`<button class="plain" onClick=${() => setOpen(true)}>${known ? "API key ✓" : "API key"}</button>`;
  const why = known
    ? "This server does not know the key that this browser keeps. Enter another one."
    : "This server asks for an API key. The operator makes one with “ripple keys create NAME”.";
  return html`<form class="key" onSubmit=${save} onKeyDown=${({ key }) => key === "Escape" && setOpen(false)}>
    ${needsKey && html`<p role="alert">${why}</p>`}
    <label>API key <input ref=${input} type="password" autocomplete="off" required pattern="[!-~]+"
      title="Letters, digits and signs without spaces, as the command printed it" /></label>
    <button>Keep in this browser</button>
    ${known && html`<button type="button" class="plain" onClick=${forget}>Forget it</button>`}
    ${!needsKey && html`<button type="button" class="plain" onClick=${() => setOpen(false)}>Close</button>`}
  </form>`;
}

function Frame({ view, children }) {
  const { online } = useConnection();
  return html`
    <a class="skip" href="#main" onClick=${skip}>Skip to the content</a>
    <header>
      <a class="brand" href="#/"><img src="studio/icon.svg" alt="" width="28" height="28" />TimeRipple</a>
      <nav aria-label="Views">
        ${TABS.map(
          ([name, label]) =>
            html`<a href=${`#/${name}`} aria-current=${name === view ? "page" : undefined}>${label}</a>`,
        )}
      </nav>
      <${KeyForm} />
    </header>
    ${!online &&
    html`<p class="banner" role="alert">
      The server cannot be reached. Queued and finished videos are kept; this page goes on when it is back.
    </p>`}
    <main id="main" tabindex="-1">${children}</main>
  `;
}

// A link with a hash would be taken for a view.
function skip(event) {
  event.preventDefault();
  document.getElementById("main").focus();
}

// They become parts of paths.
const ID = /^[0-9a-f]{28}$/;

function viewOf([name, ids]) {
  const wanted = (ids ?? "").split(",");
  const known = wanted.every((id) => ID.test(id)) && wanted.length <= MOST_COMPARED;
  if (name === "") return html`<${Create} />`;
  if (name === "jobs" && known) return html`<${JobView} key=${ids} id=${ids} />`;
  if (name === "compare" && known) return html`<${Compare} key=${ids} ids=${wanted} />`;
  if (name === "gallery") return html`<${Gallery} />`;
  if (name === "system") return html`<${System} />`;
  return html`<${Title}>No such page</${Title}><p><a href="#/">Create a video</a> instead.</p>`;
}

function App() {
  const place = usePlace();
  useEffect(() => {
    document.title = `${TITLES[place[0]] ?? "Not found"} · TimeRipple studio`;
  }, [place[0]]);
  return html`<${Frame} view=${place[0]}>${viewOf(place)}</${Frame}>`;
}

render(html`<${App} />`, document.getElementById("app"));
