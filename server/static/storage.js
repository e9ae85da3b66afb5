// What this browser keeps. Where it may keep nothing, the page works all the same, for as long as it is open.

const kept = new Map();

export function read(name) {
  try {
    return localStorage.getItem(name) ?? kept.get(name) ?? null;
  } catch {
    return kept.get(name) ?? null;
  }
}

export function keep(name, text) {
  kept.set(name, text);
  try {
    localStorage.setItem(name, text);
  } catch {
    // Full or forbidden.
  }
}

export function forget(name) {
  kept.delete(name);
  try {
    localStorage.removeItem(name);
  } catch {
    // It never was there.
  }
}
