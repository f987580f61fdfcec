// What the page and the frame of one output say to each other, over a channel
// that only the two have. What comes from the frame is foreign: the page reads
// it with parse (host.ts) and trusts none of it.

/** What a frame shows. */
export type Content =
  | { kind: "html"; html: string }
  | { kind: "svg"; svg: string }
  | { kind: "javascript"; code: string }
  | { kind: "plotly"; figure: unknown; library: string }
  | { kind: "vega" | "vega-lite"; spec: unknown; library: string };

/** Colours of the page, for what brings none of its own. */
export interface Theme {
  dark: boolean;
  ink: string;
  muted: string;
  line: string;
  surface: string;
  raised: string;
  accent: string;
  font: string;
  mono: string;
}

/** The first message, which hands over the channel. */
export interface Hello {
  caesarion: "frame";
  nonce: string;
  theme: Theme;
}

export type ToFrame =
  | { type: "render"; content: Content }
  | { type: "theme"; theme: Theme }
  | { type: "snapshot"; id: number }
  | { type: "ping"; load: number };

export type FromFrame =
  | { type: "ready"; nonce: string }
  | { type: "rendered" }
  | { type: "pong"; load: number }
  | { type: "height"; height: number }
  | { type: "blocked"; directive: string; what: string }
  | { type: "link"; href: string }
  | { type: "failed"; message: string }
  | { type: "snapshot"; id: number; png: ArrayBuffer | null };

/** Global names by which the libraries' files offer themselves in a frame. */
export interface Libraries {
  Plotly?: {
    newPlot(el: HTMLElement, data: unknown, layout: unknown, config: unknown): Promise<unknown>;
    addFrames(el: HTMLElement, frames: unknown): Promise<unknown>;
    relayout(el: HTMLElement, changes: unknown): Promise<unknown>;
    toImage(el: HTMLElement, options: unknown): Promise<string>;
    PlotSchema: { get(): { traces: Record<string, unknown> } };
  };
  caesarionVega?: (
    el: HTMLElement,
    spec: unknown,
    options: { mode: "vega" | "vega-lite"; theme: Theme },
  ) => Promise<{ png(): Promise<string> }>;
}
