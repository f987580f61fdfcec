// Vega, Vega-Lite and vega-embed as one file for the frame. The frame's policy
// has no 'unsafe-eval': expressions are interpreted, not compiled.
import embed from "vega-embed";
import type { Libraries, Theme } from "./protocol";

function config(theme: Theme): Record<string, unknown> {
  const text = { labelColor: theme.ink, titleColor: theme.ink };
  return {
    background: "transparent",
    font: theme.font,
    title: { color: theme.ink, subtitleColor: theme.muted },
    style: { "guide-label": { fill: theme.ink }, "guide-title": { fill: theme.ink } },
    axis: { ...text, domainColor: theme.muted, tickColor: theme.muted, gridColor: theme.line },
    legend: text,
    header: text,
    view: { stroke: theme.line },
    ...(theme.dark ? { mark: { color: "#6ea8fe" }, text: { color: theme.ink }, rule: { color: theme.ink } } : {}),
  };
}

const draw: NonNullable<Libraries["caesarionVega"]> = async (el, spec, { mode, theme }) => {
  const result = await embed(el, structuredClone(spec) as Parameters<typeof embed>[1], {
    mode,
    ast: true,
    actions: false, // the page has its own download; a frame may not
    renderer: "canvas",
    config: config(theme) as never,
  });
  return { png: () => result.view.toImageURL("png", 2) };
};

(globalThis as Libraries).caesarionVega = draw;
