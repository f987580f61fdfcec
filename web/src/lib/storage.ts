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
