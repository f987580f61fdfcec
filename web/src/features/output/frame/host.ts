import type { Content, FromFrame, Hello, Theme, ToFrame } from "../../../../frame/protocol";
import { hostOf, linkTarget, parseMessage } from "./message";

/** What happened to an output in its frame. */
export interface FrameEvents {
  rendered(): void;
  height(height: number): void;
  /** directive and whose it was, e.g. script-src-elem, cdn.example.org. */
  blocked(directive: string, from: string): void;
  link(href: string): void;
  failed(message: string): void;
  /** It went somewhere else; the frame is gone. */
  left(): void;
  /** It kept taking the keyboard; the frame is gone. */
  focusTaken(): void;
  /** No answer for a while; it may still come. */
  stuck(): void;
}

// How long a frame may be silent before the person is told. Charts with much
// data take seconds.
const patience = 10_000;

// Within this time after a load a document that is still ours answers. While
// it draws, that may be something large.
const grace = 1_500;
const graceDrawing = 6_000;

// A frame that takes the focus this often within the window is stopped.
const focusTimes = 3;
const focusWindow = 10_000;

/** One iframe with one output. */
export class Frame {
  readonly element: HTMLIFrameElement;
  private port: MessagePort | undefined;
  private readonly events: FrameEvents;
  private theme: Theme;
  private readonly nonce = crypto.randomUUID?.() ?? String(Math.random());
  private content: Content | undefined;
  private ready = false;
  private drawing = false;
  private loads = 0;
  private closed = false;
  private silence: ReturnType<typeof setTimeout> | undefined;
  private away: ReturnType<typeof setTimeout> | undefined;
  private snapshots = new Map<number, (png: ArrayBuffer | null) => void>();
  private snapshotID = 0;
  private thefts: number[] = [];

  constructor(parent: HTMLElement, title: string, theme: Theme, events: FrameEvents) {
    this.events = events;
    this.theme = theme;
    const el = document.createElement("iframe");
    // Scripts, and nothing else: no origin, no windows, no forms, no dialogs,
    // no downloads, no way to the page around. docs/adr/0007.
    el.setAttribute("sandbox", "allow-scripts");
    el.setAttribute("credentialless", "");
    el.setAttribute("allow", "");
    el.referrerPolicy = "no-referrer";
    el.title = title;
    el.className = "block h-full w-full border-0";
    el.addEventListener("load", () => this.loaded());
    el.src = "/frame/";
    this.element = el;
    watchFocus(this);
    parent.append(el);
  }

  show(content: Content): void {
    this.content = content;
    if (this.ready) this.render();
  }

  setTheme(theme: Theme): void {
    this.theme = theme;
    if (this.ready) this.send({ type: "theme", theme });
  }

  /** What it shows as PNG, if it can say so. */
  snapshot(): Promise<ArrayBuffer | null> {
    const id = ++this.snapshotID;
    return new Promise((done) => {
      const timer = setTimeout(() => this.answer(id, null), patience);
      this.snapshots.set(id, (png) => {
        clearTimeout(timer);
        done(png);
      });
      this.send({ type: "snapshot", id });
    });
  }

  close(): void {
    if (this.closed) return;
    this.closed = true;
    clearTimeout(this.silence);
    clearTimeout(this.away);
    for (const id of this.snapshots.keys()) this.answer(id, null);
    this.port?.close();
    unwatchFocus(this);
    this.element.remove();
  }

  get tookFocus(): boolean {
    return this.thefts.length > 0;
  }

  /** Somebody, not the person, put the focus into the frame. */
  focusWasTaken(): void {
    const now = performance.now();
    this.thefts = [...this.thefts.filter((at) => now - at < focusWindow), now];
    if (this.thefts.length >= focusTimes) this.end(() => this.events.focusTaken());
  }

  private end(tell: () => void): void {
    if (this.closed) return;
    this.close();
    tell();
  }

  private loaded(): void {
    if (this.closed) return;
    if (this.loads++ === 0) {
      this.greet();
      return;
    }
    // The output was written, which is a load too, or the frame has gone elsewhere.
    this.send({ type: "ping", load: this.loads });
    clearTimeout(this.away);
    this.away = setTimeout(() => this.end(() => this.events.left()), this.drawing ? graceDrawing : grace);
  }

  private greet(): void {
    const channel = new MessageChannel();
    this.port = channel.port1;
    this.port.onmessage = (event) => this.receive(event.data);
    // Where browsers tell it, the end of the document at the other side is known at once.
    this.port.addEventListener("close", () => this.end(() => this.events.left()));
    const hello: Hello = { caesarion: "frame", nonce: this.nonce, theme: this.theme };
    // The document has nobody's origin, so no other target can be named. It is
    // ours: nothing of the output has been in it yet.
    this.element.contentWindow?.postMessage(hello, "*", [channel.port2]);
    this.listen();
  }

  private listen(): void {
    clearTimeout(this.silence);
    this.silence = setTimeout(() => this.events.stuck(), patience);
  }

  private render(): void {
    if (!this.content) return;
    this.drawing = true;
    this.send({ type: "render", content: this.content });
    this.listen();
  }

  private send(message: ToFrame): void {
    if (!this.closed) this.port?.postMessage(message);
  }

  private answer(id: number, png: ArrayBuffer | null): void {
    this.snapshots.get(id)?.(png);
    this.snapshots.delete(id);
  }

  private receive(data: unknown): void {
    const message: FromFrame | undefined = this.closed ? undefined : parseMessage(data);
    if (!message) return;
    switch (message.type) {
      case "ready":
        if (this.ready || message.nonce !== this.nonce) return;
        this.ready = true;
        clearTimeout(this.silence);
        this.render();
        break;
      case "rendered":
        clearTimeout(this.silence);
        this.drawing = false;
        this.events.rendered();
        break;
      case "pong":
        // An answer to an earlier load says nothing of what is there now.
        if (message.load === this.loads) clearTimeout(this.away);
        break;
      case "height":
        this.events.height(message.height);
        break;
      case "blocked":
        this.events.blocked(message.directive, hostOf(message.what));
        break;
      case "link": {
        const target = linkTarget(message.href);
        if (target) this.events.link(target);
        break;
      }
      case "failed":
        clearTimeout(this.silence);
        this.events.failed(message.message);
        break;
      case "snapshot":
        this.answer(message.id, message.png);
    }
  }
}

// Who has the keyboard: a script in a frame can focus itself, and what a person
// types would go there. No browser lets a page forbid that (Chromium's
// focus-without-user-activation is an experiment), so the focus goes back unless
// a person can have moved it; a frame that goes on is ended. A letter or two
// typed in the first moment are lost.
const frames = new Map<HTMLIFrameElement, Frame>();
let lastFocus: Element | null = null;
let lastKey = Number.NEGATIVE_INFINITY;
let lastTab = Number.NEGATIVE_INFINITY;
let lastPress = Number.NEGATIVE_INFINITY;
let hovered = false;

const typing = 700; // ms after a key in which a person is not clicking
const tabbing = 500;
const activation = 5_000; // how long a browser calls a person active after a click

function onKey(event: KeyboardEvent): void {
  if (event.key === "Tab" || event.key === "F6") lastTab = performance.now();
  else lastKey = performance.now();
}

function onPointer(event: Event): void {
  if (event.type === "pointerdown") lastPress = performance.now();
  hovered = event.target instanceof HTMLIFrameElement;
}

function onFocus(event: FocusEvent): void {
  if (event.target instanceof Element && !(event.target instanceof HTMLIFrameElement)) lastFocus = event.target;
}

function onBlur(): void {
  // Where the focus went is known a moment later.
  setTimeout(() => check(true));
}

// Not every way into a frame blurs the window.
function onFocusOut(): void {
  setTimeout(() => check(false));
}

/** Whether a person can have moved the focus into a frame just now. */
function byPerson(): boolean {
  const now = performance.now();
  if (now - lastTab < tabbing) return true;
  if (now - lastKey < typing) return false;
  if (hovered || (typeof matchMedia === "function" && matchMedia("(pointer: coarse)").matches)) return true;
  // A click into a frame makes the page active too; if nothing was clicked or typed here, it was there.
  return navigator.userActivation?.isActive === true && now - Math.max(lastKey, lastPress) > activation;
}

function check(blurred: boolean): void {
  const active = document.activeElement;
  const taker = active instanceof HTMLIFrameElement ? frames.get(active) : undefined;
  // A window that lost the focus and has it still: a frame has it, without being the active element.
  const hidden = !taker && blurred && document.hasFocus() && !(active instanceof HTMLIFrameElement);
  if ((!taker && !hidden) || byPerson()) return;
  const takers = taker ? [taker] : [...frames.values()].filter((frame) => frame.tookFocus);
  if (active instanceof HTMLElement) active.blur();
  window.focus();
  if (lastFocus instanceof HTMLElement && lastFocus.isConnected) lastFocus.focus({ preventScroll: true });
  for (const frame of takers) frame.focusWasTaken();
}

const watched = [
  ["keydown", onKey],
  ["pointerover", onPointer],
  ["pointerdown", onPointer],
  ["focusin", onFocus],
  ["focusout", onFocusOut],
] as [string, EventListener][];

function watchFocus(frame: Frame): void {
  if (frames.size === 0) {
    lastFocus = document.activeElement;
    for (const [type, listener] of watched) document.addEventListener(type, listener, true);
    window.addEventListener("blur", onBlur);
  }
  frames.set(frame.element, frame);
}

function unwatchFocus(frame: Frame): void {
  frames.delete(frame.element);
  if (frames.size > 0) return;
  for (const [type, listener] of watched) document.removeEventListener(type, listener, true);
  window.removeEventListener("blur", onBlur);
}
