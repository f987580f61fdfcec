import { create } from "zustand";
import { remember, remembered } from "@/lib/storage";

export type PanelTab = "files" | "variables";

interface Layout {
  sidebar: boolean;
  sidebarWidth: number;
  panel: boolean;
  panelWidth: number;
  tab: PanelTab;
  /** On phones one of them lies over the thread. */
  drawer: "none" | "sidebar" | "panel";
  dialog: "none" | "palette" | "shortcuts";
}

export const sidebarBounds = { min: 200, max: 420, normal: 264 };
export const panelBounds = { min: 260, max: 900, normal: 360 };

function first(): Layout {
  const wide = typeof innerWidth === "number" && innerWidth >= 1200;
  const layout: Layout = {
    sidebar: typeof innerWidth === "number" && innerWidth >= 900,
    sidebarWidth: sidebarBounds.normal,
    panel: wide,
    panelWidth: panelBounds.normal,
    tab: "files",
    drawer: "none",
    dialog: "none",
  };
  try {
    const kept = JSON.parse(remembered("layout") ?? "{}") as Partial<Layout>;
    for (const key of ["sidebar", "panel"] as const) if (typeof kept[key] === "boolean") layout[key] = kept[key];
    for (const key of ["sidebarWidth", "panelWidth"] as const) {
      const { min, max } = key === "sidebarWidth" ? sidebarBounds : panelBounds;
      const value = kept[key];
      if (typeof value === "number" && value >= min && value <= max) layout[key] = value;
    }
    if (kept.tab === "variables") layout.tab = kept.tab;
  } catch {
    // Somebody else's words under our name: begin anew.
  }
  return layout;
}

/** What is open and how wide, kept in this browser. */
export const useLayout = create<Layout>(first);

useLayout.subscribe(({ sidebar, sidebarWidth, panel, panelWidth, tab }) =>
  remember("layout", JSON.stringify({ sidebar, sidebarWidth, panel, panelWidth, tab })),
);

const phone = () => matchMedia("(max-width: 767px)").matches;

export function toggleSidebar(): void {
  const { sidebar, drawer } = useLayout.getState();
  useLayout.setState(phone() ? { drawer: drawer === "sidebar" ? "none" : "sidebar" } : { sidebar: !sidebar });
}

export function togglePanel(): void {
  const { panel, drawer } = useLayout.getState();
  useLayout.setState(phone() ? { drawer: drawer === "panel" ? "none" : "panel" } : { panel: !panel });
}

/** Opens the right area at one of its tabs. */
export function showPanel(tab: PanelTab): void {
  useLayout.setState(phone() ? { tab, drawer: "panel" } : { tab, panel: true });
}

export function closeDrawer(): void {
  useLayout.setState({ drawer: "none" });
}

export function openDialog(dialog: Layout["dialog"]): void {
  useLayout.setState({ dialog, drawer: "none" });
}
