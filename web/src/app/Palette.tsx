import { Command } from "cmdk";
import { Dialog } from "radix-ui";
import { useState } from "react";
import { navigate } from "wouter/use-browser-location";
import { may, useMe } from "@/features/account/me";
import { openSection } from "@/features/account/place";
import { useActions, useSession } from "@/features/session";
import {
  duplicateSession,
  pathOf,
  pickNotebook,
  removeSession,
  updateSession,
  useSessions,
} from "@/features/session/sessions";
import { languages, setLanguage, useLanguage } from "@/lib/i18n";
import { setTheme } from "@/lib/theme";
import { Kbd } from "@/ui";
import { useReturnFocus } from "@/ui/returnFocus";
import { openDialog, showPanel, togglePanel, toggleSidebar } from "./layout";
import { useStrings } from "./strings";

interface Entry {
  label: string;
  keys?: string;
  run: () => unknown;
}

/** Everything the page can do, by name. */
export default function Palette({ onNew }: { onNew: () => void }) {
  const s = useStrings();
  const actions = useActions();
  const session = useSession((state) => state.session);
  const running = useSession((state) => state.session?.turn !== undefined);
  const hasCells = useSession((state) => state.order.some((id) => state.items.get(id)?.kind === "cell"));
  const me = useMe();
  const language = useLanguage();
  const focus = useReturnFocus();
  const [query, setQuery] = useState("");
  const sessions = useSessions(query.trim()).data?.pages[0]?.sessions ?? [];

  const here: Entry[] = [
    { label: s.addCell, run: () => actions.addItem({ kind: "cell" }) },
    { label: s.addNote, run: () => actions.addItem({ kind: "note" }) },
  ];
  if (hasCells) {
    here.push({ label: s.runAll, run: () => actions.runAll() }, { label: s.clearAll, run: () => actions.clearAll() });
  }
  if (running) here.unshift({ label: s.stop, run: () => actions.stop() });
  if (session) {
    here.push(
      { label: s.interrupt, run: () => actions.interrupt() },
      { label: s.restartKernel, run: () => actions.restartKernel() },
      { label: s.newSandbox, run: () => actions.resetSandbox() },
      { label: session.pinned ? s.unpin : s.pin, run: () => updateSession(session.id, { pinned: !session.pinned }) },
      { label: s.duplicate, run: () => duplicateSession(session.id) },
      { label: s.remove, run: () => removeSession(session) },
    );
  }
  const page: Entry[] = [
    { label: s.newSession, keys: "Mod+Shift+O", run: onNew },
    { label: s.importNotebook, run: pickNotebook },
    { label: s.showFiles, run: () => showPanel("files") },
    { label: s.showVariables, run: () => showPanel("variables") },
    { label: s.toggleSidebar, keys: "Mod+B", run: toggleSidebar },
    { label: s.togglePanel, keys: "Mod+J", run: togglePanel },
    { label: s.shortcuts, keys: "?", run: () => openDialog("shortcuts") },
    { label: `${s.theme}: ${s.themeLight}`, run: () => setTheme("light") },
    { label: `${s.theme}: ${s.themeDark}`, run: () => setTheme("dark") },
    { label: `${s.theme}: ${s.themeSystem}`, run: () => setTheme("system") },
    ...(["en", "de"] as const)
      .filter((other) => other !== language)
      .map((other) => ({ label: `${s.language}: ${languages[other]}`, run: () => setLanguage(other) })),
  ];

  if (me) page.push({ label: s.account, run: () => openSection("profile") });
  if (!may(me, "write")) {
    // Rights to look only: what changes anything is not offered.
    here.length = 0;
    page.splice(0, 2);
  }
  if (me && may(me, "administer")) page.push({ label: s.administration, run: () => openSection("users") });

  const choose = (entry: Entry) => {
    openDialog("none");
    // After the dialog has given the focus back, which some commands take.
    setTimeout(() => void entry.run());
  };
  const group = (heading: string, entries: Entry[]) => (
    <Command.Group
      heading={heading}
      className="[&_[cmdk-group-heading]]:px-3 [&_[cmdk-group-heading]]:pt-2.5 [&_[cmdk-group-heading]]:pb-1 [&_[cmdk-group-heading]]:text-2xs [&_[cmdk-group-heading]]:text-muted"
    >
      {entries.map((entry) => (
        <Command.Item
          key={entry.label}
          value={`${heading} ${entry.label}`}
          onSelect={() => choose(entry)}
          className={row}
        >
          <span className="min-w-0 flex-1 truncate">{entry.label}</span>
          {entry.keys && <Kbd keys={entry.keys} />}
        </Command.Item>
      ))}
    </Command.Group>
  );

  return (
    <Dialog.Root open onOpenChange={(open) => !open && openDialog("none")}>
      <Dialog.Portal>
        <Dialog.Overlay className="fixed inset-0 z-40 bg-black/30" />
        <Dialog.Content
          aria-describedby={undefined}
          {...focus}
          className="appear -translate-x-1/2 fixed top-[12vh] left-1/2 z-40 w-[calc(100vw-2rem)] max-w-144 overflow-hidden rounded-xl border bg-raised shadow-pop"
        >
          <Dialog.Title className="sr-only">{s.commands}</Dialog.Title>
          <Command label={s.commands} loop>
            <Command.Input
              value={query}
              onValueChange={setQuery}
              placeholder={s.searchCommands}
              className="h-12 w-full border-b bg-transparent px-4 outline-none"
            />
            <Command.List className="max-h-[min(26rem,60vh)] overflow-y-auto overscroll-contain p-1.5">
              <Command.Empty className="px-3 py-6 text-center text-muted text-sm">{s.noCommand}</Command.Empty>
              {group(s.groupHere, here)}
              {group(s.groupPage, page)}
              {sessions.length > 0 && (
                <Command.Group
                  heading={s.groupGo}
                  className="[&_[cmdk-group-heading]]:px-3 [&_[cmdk-group-heading]]:pt-2.5 [&_[cmdk-group-heading]]:pb-1 [&_[cmdk-group-heading]]:text-2xs [&_[cmdk-group-heading]]:text-muted"
                >
                  {sessions.slice(0, 12).map((other) => (
                    <Command.Item
                      key={other.id}
                      value={other.id}
                      keywords={[other.title || s.untitled, query]}
                      onSelect={() => choose({ label: "", run: () => navigate(pathOf(other.id)) })}
                      className={row}
                    >
                      <span className="min-w-0 flex-1 truncate">{other.title || s.untitled}</span>
                    </Command.Item>
                  ))}
                </Command.Group>
              )}
            </Command.List>
          </Command>
        </Dialog.Content>
      </Dialog.Portal>
    </Dialog.Root>
  );
}

const row =
  "flex min-h-9 cursor-default select-none items-center gap-3 rounded-md px-3 text-sm outline-none data-[selected=true]:bg-hover";
