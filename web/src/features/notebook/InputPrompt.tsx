import { CornerDownLeft } from "lucide-react";
import { useEffect, useRef, useState } from "react";
import type { InputRequest, Item } from "@/api/types";
import { useActions } from "@/features/session";
import { Button } from "@/ui";
import { useStrings } from "./strings";

/** Where code that called input() gets its answer. */
export function InputPrompt({ item, request }: { item: Item; request: InputRequest }) {
  const s = useStrings();
  const actions = useActions();
  const [value, setValue] = useState("");
  const [sending, setSending] = useState(false);
  const field = useRef<HTMLInputElement>(null);
  useEffect(() => {
    // Takes the focus unless somebody is writing elsewhere.
    const busy = document.activeElement;
    const own = field.current?.closest("[data-entry]");
    const typing = busy instanceof HTMLElement && busy.closest("textarea, input, .cm-editor") && !own?.contains(busy);
    if (!typing) field.current?.focus();
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
