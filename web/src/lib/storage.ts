// What the page remembers in this browser. Storage may be refused (private
// windows, policies); then nothing is remembered, and nothing else happens.

const prefix = "caesarion.";

export function remembered(key: string): string | null {
  try {
    return localStorage.getItem(prefix + key);
  } catch {
    return null;
  }
}

export function remember(key: string, value: string): void {
  try {
    localStorage.setItem(prefix + key, value);
  } catch {
    // Not remembered, see above.
  }
}

// How the page looks is the browser's; drafts, uploads and marks are a person's.
const lasting = ["language", "theme", "layout"];

/** Forgets what a person did, when the next one may be another. */
export function forgetPersonal(): void {
  try {
    for (const key of Object.keys(localStorage)) {
      if (key.startsWith(prefix) && !lasting.includes(key.slice(prefix.length))) localStorage.removeItem(key);
    }
  } catch {
    // Nothing was remembered, see above.
  }
}
