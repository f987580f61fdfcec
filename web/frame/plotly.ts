// Drawing a Plotly figure, in the page's colours where the figure chose none.
import type { Libraries, Theme } from "./protocol";

interface Figure {
  data?: { type?: string }[];
  layout?: { [key: string]: unknown; template?: { layout?: Record<string, unknown> } };
  config?: Record<string, unknown>;
  frames?: unknown[];
}

const globals = globalThis as Libraries;

export async function drawPlotly(el: HTMLElement, raw: unknown, theme: Theme): Promise<() => Promise<string>> {
  const plotly = globals.Plotly;
  if (!plotly) throw new Error("Plotly could not be loaded.");
  const figure = (raw ?? {}) as Figure;
  const known = plotly.PlotSchema.get().traces;
  const unknown = (figure.data ?? []).map((trace) => trace.type ?? "scatter").find((type) => !(type in known));
  if (unknown !== undefined) throw new Error(`unsupported-trace:${unknown}`);
  const layout = structuredClone(figure.layout ?? {});
  el.style.height = typeof layout.height === "number" ? `${layout.height}px` : "430px";
  tint(layout, theme);
  // Plotly's own margins are those of a poster.
  if (!layout.margin && !layout.template?.layout?.margin)
    layout.margin = { t: layout.title ? 64 : 32, r: 24, b: 56, l: 64 };
  await plotly.newPlot(el, structuredClone(figure.data ?? []), layout, {
    responsive: true,
    displaylogo: false,
    ...figure.config,
    modeBarButtonsToRemove: ["toImage", "sendDataToCloud"], // the page has its own download; a frame may not
    showSendToCloud: false,
    showEditInChartStudio: false,
  });
  if (figure.frames?.length) await plotly.addFrames(el, structuredClone(figure.frames));
  return () => plotly.toImage(el, { format: "png", scale: 2 });
}

export function retintPlotly(el: HTMLElement, raw: unknown, theme: Theme): void {
  void drawPlotly(el, raw, theme);
}

/** Plotly's own template paints a white sheet. Other templates were chosen by somebody, and stay. */
function tint(layout: NonNullable<Figure["layout"]>, theme: Theme): void {
  const template = layout.template?.layout ?? {};
  const untouched =
    template.paper_bgcolor === undefined || (template.paper_bgcolor === "white" && template.plot_bgcolor === "#E5ECF6");
  if (!untouched) return;
  layout.paper_bgcolor ??= "rgba(0,0,0,0)";
  if (!theme.dark) {
    if (template.paper_bgcolor === undefined) layout.plot_bgcolor ??= "rgba(0,0,0,0)";
    return;
  }
  layout.plot_bgcolor ??= "rgba(255,255,255,0.04)";
  const font = (layout.font ?? {}) as Record<string, unknown>;
  layout.font = { ...font, color: font.color ?? theme.ink };
  layout.template ??= {};
  const grid = {
    gridcolor: "rgba(255,255,255,0.12)",
    linecolor: "rgba(255,255,255,0.25)",
    zerolinecolor: "rgba(255,255,255,0.25)",
  };
  layout.template.layout = {
    ...template,
    xaxis: { ...(template.xaxis as object), ...grid },
    yaxis: { ...(template.yaxis as object), ...grid },
  };
}
