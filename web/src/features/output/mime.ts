import type { Json, Output } from "@/api/types";

export type Kind =
  | "table"
  | "plotly"
  | "vega"
  | "html"
  | "svg"
  | "image"
  | "latex"
  | "markdown"
  | "json"
  | "javascript"
  | "widget"
  | "pdf"
  | "audio"
  | "video"
  | "text"
  | "unknown";

/** One of the ways in which an output can be shown. */
export interface Representation {
  mime: string;
  kind: Kind;
  /** Absent: it was too large to come along, and has to be fetched. */
  value?: Json;
}

const kinds: [RegExp, Kind][] = [
  [/^application\/vnd\.caesarion\.table\+json$/, "table"],
  [/^application\/vnd\.plotly\.v1\+json$/, "plotly"],
  [/^application\/vnd\.vega(lite)?\.v[456](\.\d+)*\+json$/, "vega"],
  [/^application\/vnd\.jupyter\.widget-view\+json$/, "widget"],
  [/^text\/html$/, "html"],
  [/^image\/svg\+xml$/, "svg"],
  [/^image\/(png|jpeg|gif|webp|avif|bmp)$/, "image"],
  [/^video\//, "video"],
  [/^audio\//, "audio"],
  [/^application\/pdf$/, "pdf"],
  [/^text\/latex$/, "latex"],
  [/^text\/markdown$/, "markdown"],
  [/^(application\/javascript|text\/javascript)$/, "javascript"],
  [/^application\/(geo\+)?json$/, "json"],
  [/^text\/plain$/, "text"],
];

export function kindOf(mime: string): Kind {
  for (const [pattern, kind] of kinds) if (pattern.test(mime)) return kind;
  return "unknown";
}

// Best first. A widget is nothing this page can draw, so what stands beside it
// comes first; text is what is left when nothing else can be shown.
const order: Kind[] = [
  "table",
  "plotly",
  "vega",
  "html",
  "markdown",
  "svg",
  "image",
  "latex",
  "video",
  "audio",
  "pdf",
  "json",
  "javascript",
  "widget",
  "text",
  "unknown",
];

/** All ways to show an output, the best first. */
export function representations(output: Pick<Output, "data" | "refs">): Representation[] {
  const data = output.data ?? {};
  const mimes = new Set([...Object.keys(data), ...Object.keys(output.refs ?? {})]);
  const found: Representation[] = [...mimes].map((mime) => {
    const value = data[mime];
    // What came along shortened is fetched whole: half of a document is none.
    const whole = value !== undefined && !output.refs?.[mime];
    return { mime, kind: kindOf(mime), ...(whole || kindOf(mime) === "text" ? { value: value ?? "" } : {}) };
  });
  const chart = vegaOf(found.find((r) => r.kind === "html")?.value);
  if (chart !== undefined && !found.some((r) => r.kind === "vega")) {
    found.push({ mime: "application/vnd.vegalite.v6+json", kind: "vega", value: chart });
  }
  found.sort((a, b) => order.indexOf(a.kind) - order.indexOf(b.kind) || a.mime.localeCompare(b.mime));
  // Formulas by sympy come as LaTeX with a picture beside; pandas' HTML stands behind its table.
  const latex = found.findIndex((r) => r.kind === "latex");
  const image = found.findIndex((r) => r.kind === "image" || r.kind === "svg");
  if (latex > image && image >= 0) found.splice(image, 0, ...found.splice(latex, 1));
  // Bokeh, HoloViews and their like bring a mime type of their own for a script beside HTML that says so.
  const shown = found.filter(
    (r) =>
      r.kind !== "unknown" || found.every((other) => other === r || other.kind === "unknown" || other.kind === "text"),
  );
  // "<Figure size 640x480 with 1 Axes>" says nothing beside the figure.
  return shown.length > 1 ? shown.filter((r) => r.kind !== "text" || !/^<[^\n]*>$/.test(textOf(r.value))) : shown;
}

/**
 * The chart in the HTML that Altair makes. That asks a server on the internet
 * for Vega, which no output gets; we have it here.
 */
export function vegaOf(html: Json | undefined): Json | undefined {
  const text = html === undefined ? "" : textOf(html);
  if (!text.includes("vegaEmbed")) return undefined;
  const call = /\}\)\((\{[\s\S]*\}),\s*(\{[^{}]*\})\);?\s*<\/script>/.exec(text);
  if (!call || !/"mode":\s*"vega-lite"/.test(call[2] ?? "")) return undefined;
  try {
    return JSON.parse(call[1] ?? "") as Json;
  } catch {
    return undefined;
  }
}

/** nbformat allows text as a list of lines. */
export function textOf(value: Json | undefined): string {
  if (typeof value === "string") return value;
  if (Array.isArray(value))
    return value.every((v) => typeof v === "string") ? value.join("") : JSON.stringify(value, null, 2);
  return value === undefined || value === null ? "" : JSON.stringify(value, null, 2);
}

/** Bytes of base64 text; undefined if it is none. */
export function bytesOf(value: Json | undefined): Uint8Array<ArrayBuffer> | undefined {
  try {
    return Uint8Array.from(atob(textOf(value).replace(/\s/g, "")), (c) => c.charCodeAt(0));
  } catch {
    return undefined;
  }
}

/** width and height that somebody asked for, e.g. Image(…, width=300). */
export function sizeOf(metadata: Record<string, Json> | undefined, mime: string): { width?: number; height?: number } {
  const own = metadata?.[mime];
  const from = own && typeof own === "object" && !Array.isArray(own) ? own : (metadata ?? {});
  const size: { width?: number; height?: number } = {};
  for (const name of ["width", "height"] as const) {
    const n = Number(from[name]);
    if (Number.isFinite(n) && n > 0 && n <= 10_000) size[name] = n;
  }
  return size;
}

/** Pixels of a picture, read from its first bytes, so that its place is kept before it is drawn. */
export function pixelsOf(bytes: Uint8Array): { width: number; height: number } | undefined {
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  const valid = (width: number, height: number) => (width > 0 && height > 0 ? { width, height } : undefined);
  if (bytes.length >= 24 && view.getUint32(0) === 0x89504e47) return valid(view.getUint32(16), view.getUint32(20));
  if (bytes.length >= 10 && view.getUint32(0) === 0x47494638)
    return valid(view.getUint16(6, true), view.getUint16(8, true));
  if (bytes.length >= 4 && view.getUint16(0) === 0xffd8) {
    let at = 2;
    while (at + 9 < bytes.length) {
      if (bytes[at] !== 0xff) return undefined;
      const marker = bytes[at + 1] as number;
      const frame = marker >= 0xc0 && marker <= 0xcf && ![0xc4, 0xc8, 0xcc].includes(marker);
      if (frame) return valid(view.getUint16(at + 7), view.getUint16(at + 5));
      at += 2 + view.getUint16(at + 2);
    }
  }
  return undefined;
}
