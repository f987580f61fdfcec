import { CornerDownLeft } from "lucide-react";
import { useEffect, useRef, useState } from "react";
import type { InputRequest, Item } from "@/api/types";
import { useActions } from "@/features/session";
import { Button } from "@/ui";
import { useStrings } from "./strings";

// Whether an element holds text that was begun, outside of the entry that asks.
function isWriting(element: Element | null, entry: Element | null | undefined): boolean {
  if (!element || entry?.contains(element)) return false;
  if (element instanceof HTMLTextAreaElement || element instanceof HTMLInputElement) return element.value !== "";
  const editor = element.closest(".cm-editor");
  return editor !== null && !editor.querySelector(".cm-placeholder");
}

/** Where code that called input() gets its answer. */
export function InputPrompt({ item, request }: { item: Item; request: InputRequest }) {
  const s = useStrings();
  const actions = useActions();
  const [value, setValue] = useState("");
  const [sending, setSending] = useState(false);
  const field = useRef<HTMLInputElement>(null);
  useEffect(() => {
    // Takes the focus unless somebody is writing elsewhere, and gives it back.
    const before = document.activeElement;
    const own = field.current;
    if (isWriting(before, own?.closest("[data-entry]"))) return;
    own?.focus();
    return () => {
      if (document.activeElement === own || document.activeElement === document.body) {
        if (before instanceof HTMLElement)
          setTimeout(() => before.isConnected && before.focus({ preventScroll: true }));
      }
    };
  }, []);
  const label = request.password ? s.inputPassword : s.input;
  return (
    <form
      className="flex flex-wrap items-center gap-2 border-line border-t bg-accent-soft/60 px-3 py-2"
      onSubmit={async (event) => {
        event.preventDefault();
        setSending(true);
        const ok = await actions.input(item.id, value);
        setSending(false);
        if (ok) setValue("");
      }}
    >
      <label htmlFor={`input-${item.id}`} className="max-w-full whitespace-pre-wrap break-words font-mono text-[13px]">
        {request.prompt === "" ? label : request.prompt}
      </label>
      <input
        ref={field}
        id={`input-${item.id}`}
        type={request.password ? "password" : "text"}
        autoComplete="off"
        autoCapitalize="off"
        spellCheck={false}
        value={value}
        title={label}
        onChange={(event) => setValue(event.target.value)}
        className="h-8 min-w-40 flex-1 rounded-md border border-line-strong bg-raised px-2 font-mono text-[13px]"
      />
      <Button type="submit" size="sm" variant="primary" busy={sending}>
        <CornerDownLeft className="size-3.5" aria-hidden />
        {s.inputSend}
      </Button>
    </form>
  );
}
