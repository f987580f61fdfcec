import { type Ref, useEffect, useImperativeHandle, useLayoutEffect, useMemo, useRef, useState } from "react";
import { CodeEditor, loadEditor } from "@/features/notebook/editor/CodeEditor";
import type { EditorContext, EditorHandle } from "@/features/notebook/editor/types";
import { useActions } from "@/features/session";
import { fitHeight } from "./fit";

export interface PythonInputHandle {
  focus(): void;
}

export interface PythonInputProps {
  id: string;
  value: string;
  hint: string;
  label: string;
  onChange: (code: string) => void;
  onRun: () => void;
  /** Escape, when it closes nothing. */
  onLeave: () => void;
  /** Arrow up in an empty input. Returns whether there was something to bring back. */
  onHistory: () => boolean;
  ref?: Ref<PythonInputHandle>;
}

/** One cell to type into. A plain text field takes the keys until the editor is loaded. */
export function PythonInput({ id, value, hint, label, onChange, onRun, onLeave, onHistory, ref }: PythonInputProps) {
  const actions = useActions();
  const [ready, setReady] = useState(false);
  const area = useRef<HTMLTextAreaElement>(null);
  const editor = useRef<EditorHandle>(null);
  const hadFocus = useRef(false);
  const now = useRef({ value, onChange, onRun, onLeave, onHistory });
  now.current = { value, onChange, onRun, onLeave, onHistory };

  useEffect(() => {
    let gone = false;
    loadEditor().then(() => {
      if (gone) return;
      hadFocus.current = document.activeElement === area.current;
      setReady(true);
    });
    return () => {
      gone = true;
    };
  }, []);
  useEffect(() => {
    if (ready && hadFocus.current) editor.current?.focus("end");
  }, [ready]);
  // biome-ignore lint/correctness/useExhaustiveDependencies: the text decides the height
  useLayoutEffect(() => fitHeight(area.current, 320), [value, ready]);
  useImperativeHandle(ref, () => ({ focus: () => (ready ? editor.current?.focus() : area.current?.focus()) }), [ready]);

  const context = useMemo<EditorContext>(
    () => ({
      onChange: (code) => now.current.onChange(code),
      onKey: (event) => {
        if (event.key === "Enter" && (event.shiftKey || event.ctrlKey || event.metaKey)) {
          event.preventDefault();
          now.current.onRun();
          return true;
        }
        if (event.key === "Escape") {
          event.preventDefault();
          now.current.onLeave();
          return true;
        }
        return false;
      },
      onEdge: (direction) => direction === "up" && now.current.value === "" && now.current.onHistory(),
      complete: async (code, cursor) => (await actions.complete(code, cursor)) ?? null,
      inspect: async (code, cursor) => (await actions.inspect(code, cursor)) ?? null,
    }),
    [actions],
  );
  if (ready) {
    return (
      <div className="max-h-[40vh] overflow-y-auto pt-1" data-composer>
        <CodeEditor ref={editor} eager id={id} value={value} context={context} hint={hint} />
      </div>
    );
  }
  return (
    <textarea
      ref={area}
      data-composer
      rows={1}
      value={value}
      aria-label={label}
      placeholder={hint}
      spellCheck={false}
      autoCapitalize="off"
      onChange={(event) => onChange(event.target.value)}
      onKeyDown={(event) => {
        if (event.key === "Enter" && (event.shiftKey || event.ctrlKey || event.metaKey)) {
          event.preventDefault();
          onRun();
        } else if (event.key === "Escape") {
          onLeave();
        }
      }}
      className="code-view mt-1 block w-full resize-none bg-transparent outline-none"
    />
  );
}
