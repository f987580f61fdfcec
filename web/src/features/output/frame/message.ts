import type { FromFrame } from "../../../../frame/protocol";

// Bounds of what a frame may ask for. What is beyond them is cut, not refused:
// an honest output with a long text should still be seen.
export const maxText = 300;
export const maxHeight = 100_000;
const maxSnapshot = 32 << 20;

/** Reads a message of a frame. Whoever wrote the output can have written it too. */
export function parseMessage(data: unknown): FromFrame | undefined {
  if (typeof data !== "object" || data === null) return undefined;
  const message = data as Record<string, unknown>;
  const text = (value: unknown, length = maxText) => (typeof value === "string" ? value.slice(0, length) : "");
  switch (message.type) {
    case "ready":
      return { type: "ready", nonce: text(message.nonce) };
    case "rendered":
      return { type: "rendered" };
    case "pong":
      if (typeof message.load !== "number") return undefined;
      return { type: "pong", load: message.load };
    case "height":
      if (typeof message.height !== "number" || !Number.isFinite(message.height)) return undefined;
      return { type: "height", height: Math.min(Math.max(0, Math.ceil(message.height)), maxHeight) };
    case "blocked":
      return { type: "blocked", directive: text(message.directive, 40), what: text(message.what) };
    case "link":
      return { type: "link", href: text(message.href, 4096) };
    case "failed":
      return { type: "failed", message: text(message.message) };
    case "snapshot":
      if (typeof message.id !== "number") return undefined;
      return { type: "snapshot", id: message.id, png: isPNG(message.png) ? message.png : null };
    default:
      return undefined;
  }
}

function isPNG(value: unknown): value is ArrayBuffer {
  if (!(value instanceof ArrayBuffer) || value.byteLength < 8 || value.byteLength > maxSnapshot) return false;
  const view = new DataView(value);
  return view.getUint32(0) === 0x89504e47 && view.getUint32(4) === 0x0d0a1a0a;
}

/** An address that a link may lead to, or undefined. */
export function linkTarget(href: string): string | undefined {
  let url: URL;
  try {
    url = new URL(href);
  } catch {
    return undefined;
  }
  // The page's own origin: a link there would act with the person's cookie.
  if (url.origin === location.origin) return undefined;
  return ["http:", "https:", "mailto:"].includes(url.protocol) && url.username === "" && url.password === ""
    ? url.href
    : undefined;
}

/** Whom an address belongs to, for a note. */
export function hostOf(address: string): string {
  try {
    const url = new URL(address);
    return url.host || url.protocol.replace(":", "");
  } catch {
    return address.slice(0, 60);
  }
}

/** Applies heights as a frame tells them, but not as often and not for ever. */
export class HeightGate {
  private applied: number[] = []; // when, within the window
  private timer: ReturnType<typeof setTimeout> | undefined;
  private wanted = -1;
  private current = -1;
  private readonly apply: (height: number) => void;
  private readonly every: number;
  private readonly most: number;
  private readonly within: number;

  constructor(apply: (height: number) => void, { every = 80, most = 40, within = 10_000 } = {}) {
    this.apply = apply;
    this.every = every;
    this.most = most;
    this.within = within;
  }

  offer(height: number): void {
    this.wanted = height;
    this.schedule();
  }

  stop(): void {
    clearTimeout(this.timer);
    this.timer = undefined;
  }

  private schedule(): void {
    if (this.timer !== undefined || this.wanted === this.current) return;
    const now = performance.now();
    this.applied = this.applied.filter((at) => now - at < this.within);
    const last = this.applied.at(-1);
    let wait = last === undefined ? 0 : Math.max(0, last + this.every - now);
    // Too many in the window: the next one when the oldest has left it.
    if (this.applied.length >= this.most) wait = Math.max(wait, (this.applied[0] as number) + this.within - now);
    if (wait === 0) this.now();
    else
      this.timer = setTimeout(() => {
        this.timer = undefined;
        this.now();
      }, wait);
  }

  private now(): void {
    if (this.wanted === this.current) return;
    this.applied.push(performance.now());
    this.current = this.wanted;
    this.apply(this.wanted);
  }
}
