// The loader of a frame: takes the channel from the page, writes one output as
// this document and tells how high it became. From the moment the output runs,
// it owns all that is here; nothing in this file protects the page. That is
// done by the sandbox attribute, the policy of this document and by the page,
// which trusts no word of a frame.
import css from "./frame.css?inline";
import { drawPlotly, retintPlotly } from "./plotly";
import type { Content, FromFrame, Hello, Libraries, Theme, ToFrame } from "./protocol";

// These connect past the policy in browsers that don't know Connection-Allowlist.
for (const name of ["RTCPeerConnection", "webkitRTCPeerConnection"]) Reflect.deleteProperty(globalThis, name);

let port: MessagePort | undefined;
let theme: Theme;
let snapshot: (() => Promise<string>) | undefined; // a PNG as data: URL
let retint: (() => void) | undefined;

function tell(message: FromFrame): void {
  port?.postMessage(message);
}

window.addEventListener("message", function hello(event: MessageEvent) {
  const data = event.data as Partial<Hello> | null;
  // Another frame of the page can reach this window too; only the page itself is listened to.
  if (event.source !== window.parent || data?.caesarion !== "frame" || event.ports.length !== 1) return;
  window.removeEventListener("message", hello);
  port = event.ports[0] as MessagePort;
  theme = data.theme as Theme;
  port.onmessage = (message: MessageEvent<ToFrame>) => receive(message.data);
  tell({ type: "ready", nonce: String(data.nonce) });
});

function receive(message: ToFrame): void {
  switch (message.type) {
    case "render":
      render(message.content).then(
        () => tell({ type: "rendered" }),
        (err: unknown) => tell({ type: "failed", message: err instanceof Error ? err.message : String(err) }),
      );
      break;
    case "theme":
      theme = message.theme;
      applyTheme();
      retint?.();
      break;
    case "snapshot":
      void sendSnapshot(message.id);
      break;
    case "ping":
      tell({ type: "pong", load: message.load });
  }
}

function applyTheme(): void {
  const style = document.documentElement.style;
  style.colorScheme = theme.dark ? "dark" : "light";
  for (const name of ["ink", "muted", "line", "surface", "raised", "accent", "font", "mono"] as const) {
    style.setProperty(`--${name}`, theme[name]);
  }
}

async function render(content: Content): Promise<void> {
  snapshot = undefined;
  retint = undefined;
  const plain = content.kind === "html" || content.kind === "svg";
  // Written, not set by innerHTML: scripts run in order while the rest is read,
  // as they would in a page of their own.
  document.open();
  watchViolations();
  document.write(
    `<!doctype html><meta charset="utf-8"><meta name="color-scheme" content="light dark"><style>${css}</style>`,
  );
  applyTheme();
  if (content.kind === "html") document.write(content.html);
  if (content.kind === "svg") document.write(content.svg);
  if (!plain) document.write('<div id="caesarion-chart"></div>');
  document.close();
  watchHeight();
  watchLinks();
  reportNested();
  if (plain) return;
  const el = document.getElementById("caesarion-chart") as HTMLElement;
  const globals = globalThis as Libraries;
  switch (content.kind) {
    case "javascript":
      // Jupyter gives scripts the element their output goes to.
      Object.assign(globalThis, { element: el });
      runScript(content.code);
      break;
    case "plotly":
      if (!globals.Plotly) runScript(content.library);
      snapshot = await drawPlotly(el, content.figure, theme);
      retint = () => retintPlotly(el, content.figure, theme);
      break;
    default: {
      if (!globals.caesarionVega) runScript(content.library);
      const draw = async () => {
        const view = await globals.caesarionVega?.(el, content.spec, { mode: content.kind as "vega", theme });
        snapshot = () => view?.png() ?? Promise.reject(new Error("no view"));
      };
      retint = () => void draw();
      await draw();
    }
  }
  measure();
}

function runScript(code: string): void {
  const script = document.createElement("script");
  script.textContent = code;
  document.body.append(script);
  script.remove();
}

let last = -1;

function measure(): void {
  const body = document.body;
  if (!body) return;
  const height = Math.ceil(Math.max(document.documentElement.getBoundingClientRect().height, body.scrollHeight));
  if (height !== last) {
    last = height;
    tell({ type: "height", height });
  }
}

function watchHeight(): void {
  last = -1;
  const observer = new ResizeObserver(measure);
  observer.observe(document.documentElement);
  if (document.body) observer.observe(document.body);
  window.addEventListener("load", measure);
  // Pictures and content that is positioned change no size that an observer of the body sees.
  document.addEventListener("load", measure, true);
  measure();
}

/** Links go through the page, which asks: a frame may open nothing itself. */
function watchLinks(): void {
  document.addEventListener("click", (event) => {
    const link = event.target instanceof Element ? event.target.closest("a[href]") : null;
    if (!link || event.defaultPrevented) return;
    const href = link.getAttribute("href") ?? "";
    if (href.startsWith("#")) return;
    event.preventDefault();
    tell({ type: "link", href: link instanceof HTMLAnchorElement ? link.href : href });
  });
}

function watchViolations(): void {
  document.addEventListener("securitypolicyviolation", (event) => {
    tell({ type: "blocked", directive: event.effectiveDirective, what: event.blockedURI.slice(0, 300) });
  });
}

/** A document inside of this one keeps its violations to itself; maps come this way. */
function reportNested(): void {
  for (const frame of document.querySelectorAll("iframe")) {
    const inner = frame.getAttribute("srcdoc") ?? "";
    const url = /\b(?:src|href)\s*=\s*["']?(https?:\/\/[^"'\s>]+)/i.exec(inner) ?? /^(https?:\/\/.*)/i.exec(frame.src);
    if (url?.[1]) tell({ type: "blocked", directive: "frame-src", what: url[1].slice(0, 300) });
  }
}

async function sendSnapshot(id: number): Promise<void> {
  let png: ArrayBuffer | null = null;
  try {
    const url = await snapshot?.();
    const base64 = url?.split(",")[1];
    if (base64) png = Uint8Array.from(atob(base64), (c) => c.charCodeAt(0)).buffer;
  } catch {
    // Told as null.
  }
  tell({ type: "snapshot", id, png });
}
