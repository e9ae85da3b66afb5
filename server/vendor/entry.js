// What the page takes from npm, in one file that needs no build to run; `make studio` writes vendor.js from it.
export { EventSource } from "eventsource";
export { html } from "htm/preact";
export { render } from "preact";
export { useEffect, useId, useRef, useState } from "preact/hooks";
export { ssim } from "ssim.js";
