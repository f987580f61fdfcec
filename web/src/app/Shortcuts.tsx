import { Dialog, Kbd } from "@/ui";
import { openDialog } from "./layout";
import { useStrings } from "./strings";

/** All keys on one page. */
export default function Shortcuts() {
  const s = useStrings();
  const groups: [string, [string, ...string[]][]][] = [
    [
      s.keysPage,
      [
        [s.commands, "Mod+K"],
        [s.newSession, "Mod+Shift+O"],
        [s.toggleSidebar, "Mod+B"],
        [s.togglePanel, "Mod+J"],
        [s.shortcuts, "?"],
      ],
    ],
    [
      s.keysChat,
      [
        [s.keySend, "Enter"],
        [s.keyNewline, "Shift+Enter"],
        [s.keyStop, "Esc"],
      ],
    ],
    [
      s.keysEditor,
      [
        [s.keyRun, "Mod+Enter"],
        [s.keyRunNext, "Shift+Enter"],
        [s.keyRunInsert, "Alt+Enter"],
        [s.keyComplete, "Tab"],
        [s.keyDocs, "Shift+Tab"],
        [s.keyComment, "Mod+/"],
        [s.keyLeave, "Esc"],
      ],
    ],
    [
      s.keysCells,
      [
        [s.keyEdit, "Enter"],
        [s.keyUpDown, "K", "J"],
        [s.keyAbove, "A"],
        [s.keyBelow, "B"],
        [s.keyDelete, "D D"],
        [s.keyUndo, "Z"],
        [s.keyToNote, "M"],
        [s.keyToCode, "Y"],
        [s.keyInterrupt, "I I"],
        [s.keyRestart, "0 0"],
      ],
    ],
  ];
  return (
    <Dialog open onOpenChange={(open) => !open && openDialog("none")} title={s.shortcuts} size="lg">
      <div className="columns-1 gap-10 pt-1 sm:columns-2">
        {groups.map(([title, rows]) => (
          <section key={title} className="mb-5 break-inside-avoid">
            <h3 className="mb-1 font-medium text-muted text-xs">{title}</h3>
            <dl>
              {rows.map(([label, ...keys]) => (
                <div
                  key={label}
                  className="flex items-center justify-between gap-4 border-b py-1.5 text-sm last:border-b-0"
                >
                  <dt>{label}</dt>
                  <dd className="flex gap-1">
                    {keys
                      .flatMap((key) => key.split(" "))
                      .map((key, i) => (
                        // biome-ignore lint/suspicious/noArrayIndexKey: the same key twice, in a list that never changes
                        <Kbd key={i} keys={key} />
                      ))}
                  </dd>
                </div>
              ))}
            </dl>
          </section>
        ))}
      </div>
    </Dialog>
  );
}
