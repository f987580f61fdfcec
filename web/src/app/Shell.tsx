import { PanelLeft, X } from "lucide-react";
import { Dialog } from "radix-ui";
import { lazy, type ReactNode, Suspense, useEffect } from "react";
import { Link } from "wouter";
import { useSession } from "@/features/session";
import { Sidebar } from "@/features/session/Sidebar";
import { cx } from "@/lib/cx";
import { usePhone } from "@/lib/hooks";
import { IconButton, Splitter } from "@/ui";
import { useReturnFocus } from "@/ui/returnFocus";
import { useGlobalKeys } from "./keys";
import { closeDrawer, panelBounds, sidebarBounds, togglePanel, toggleSidebar, useLayout } from "./layout";
import { Main } from "./Main";
import { Wordmark } from "./Mark";
import { Panel } from "./Panel";
import { useStrings } from "./strings";

const Palette = lazy(() => import("./Palette"));
const Shortcuts = lazy(() => import("./Shortcuts"));

/** The three areas: sessions, thread, files and variables. */
export function Shell({ onNew }: { onNew: () => void }) {
  const s = useStrings();
  const phone = usePhone();
  const layout = useLayout();
  const failed = useSession((state) => state.status === "failed");
  useGlobalKeys(onNew);
  useDocumentTitle();

  const sidebar = (
    <div className="flex h-full flex-col">
      <div className="flex h-12 shrink-0 items-center justify-between pr-2 pl-4">
        <Link href="/" onClick={closeDrawer} className="rounded-md py-1 pr-1.5">
          <Wordmark />
        </Link>
        {phone ? (
          <IconButton label={s.close} onClick={closeDrawer} tip={false}>
            <X />
          </IconButton>
        ) : (
          <IconButton label={s.closeSidebar} keys="Mod+B" aria-expanded onClick={toggleSidebar}>
            <PanelLeft />
          </IconButton>
        )}
      </div>
      <div className="min-h-0 flex-1">
        <Sidebar
          onNew={() => {
            onNew();
            closeDrawer();
          }}
          onChosen={closeDrawer}
        />
      </div>
    </div>
  );

  return (
    <div className="flex h-dvh w-screen overflow-hidden bg-surface">
      <a
        href="#main"
        className="fixed top-2 left-2 z-50 -translate-y-16 rounded-md bg-accent px-3 py-2 text-on-accent text-sm focus:translate-y-0"
      >
        {s.skip}
      </a>
      {phone ? (
        <>
          <Drawer side="left" open={layout.drawer === "sidebar"} label={s.sessions}>
            {sidebar}
          </Drawer>
          <div className="h-full w-full min-w-0">
            <Main onNew={onNew} />
          </div>
          <Drawer side="right" open={layout.drawer === "panel"} label={s.panel}>
            <Panel />
          </Drawer>
        </>
      ) : (
        <>
          {layout.sidebar && (
            <aside aria-label={s.sessions} className="flex h-full shrink-0 bg-sunken">
              <div className="h-full min-w-0" style={{ width: layout.sidebarWidth }}>
                {sidebar}
              </div>
              <Splitter
                label={s.resizeSidebar}
                side="left"
                value={layout.sidebarWidth}
                {...sidebarBounds}
                onChange={(sidebarWidth) => useLayout.setState({ sidebarWidth })}
                onCollapse={toggleSidebar}
              />
            </aside>
          )}
          <div className="h-full min-w-0 flex-1">
            <Main onNew={onNew} />
          </div>
          {layout.panel && !failed && (
            <aside aria-label={s.panel} className="flex h-full max-w-[55vw] min-w-0 bg-surface">
              <Splitter
                label={s.resizePanel}
                side="right"
                value={layout.panelWidth}
                {...panelBounds}
                onChange={(panelWidth) => useLayout.setState({ panelWidth })}
                onCollapse={togglePanel}
              />
              <div className="h-full min-w-0" style={{ width: layout.panelWidth }}>
                <Panel />
              </div>
            </aside>
          )}
        </>
      )}
      <Suspense fallback={null}>
        {layout.dialog === "palette" && <Palette onNew={onNew} />}
        {layout.dialog === "shortcuts" && <Shortcuts />}
      </Suspense>
    </div>
  );
}

/** On phones an area lies over the thread, and takes the focus until it is closed. */
function Drawer({
  side,
  open,
  label,
  children,
}: {
  side: "left" | "right";
  open: boolean;
  label: string;
  children: ReactNode;
}) {
  const focus = useReturnFocus();
  return (
    <Dialog.Root open={open} onOpenChange={(next) => !next && closeDrawer()}>
      <Dialog.Portal>
        <Dialog.Overlay className="fixed inset-0 z-30 bg-black/40" />
        <Dialog.Content
          aria-describedby={undefined}
          {...focus}
          className={cx(
            "fixed inset-y-0 z-30 w-[min(22rem,88vw)] bg-sunken pb-[env(safe-area-inset-bottom)] shadow-pop outline-none",
            side === "left"
              ? "left-0 animate-[slide-left_160ms_ease-out]"
              : "right-0 animate-[slide-right_160ms_ease-out]",
          )}
        >
          <Dialog.Title className="sr-only">{label}</Dialog.Title>
          {children}
        </Dialog.Content>
      </Dialog.Portal>
    </Dialog.Root>
  );
}

function useDocumentTitle(): void {
  const title = useSession((state) => state.session?.title ?? "");
  const busy = useSession((state) => state.session?.turn !== undefined || state.session?.sandbox.state === "busy");
  useEffect(() => {
    document.title = `${busy ? "● " : ""}${title ? `${title} · ` : ""}Caesarion`;
  }, [title, busy]);
}
