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

/** Calls listener when another tab changes one of these; value: what it is now. */
export function onRemembered(
  keys: readonly string[],
  listener: (key: string, value: string | null) => void,
): () => void {
  const changed = (event: StorageEvent) => {
    const key = event.key?.startsWith(prefix) ? event.key.slice(prefix.length) : "";
    if (keys.includes(key)) listener(key, event.newValue);
  };
  window.addEventListener("storage", changed);
  return () => window.removeEventListener("storage", changed);
}

// How the page looks is the browser's; drafts, uploads and marks are a person's.
const lasting = ["language", "theme", "layout"];

/** Forgets what a person did, when the next one may be another; tells whether there was anything. */
export function forgetPersonal(): boolean {
  let any = false;
  try {
    for (const key of Object.keys(localStorage)) {
      if (!key.startsWith(prefix) || lasting.includes(key.slice(prefix.length))) continue;
      any ||= localStorage.getItem(key) !== ""; // an empty draft is none
      localStorage.removeItem(key);
    }
  } catch {
    // Nothing was remembered, see above.
  }
  return any;
}
