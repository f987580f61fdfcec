import {
  type KeyboardEvent,
  type Ref,
  useCallback,
  useEffect,
  useImperativeHandle,
  useLayoutEffect,
  useRef,
  useState,
} from "react";
import { StaticCode } from "../highlight/StaticCode";
import type { ContextBox, EditorState, EditorView } from "./codemirror";
import type { EditorContext, EditorHandle } from "./types";
import "../highlight/code.css";

type Module = typeof import("./codemirror");

let loaded: Module | undefined;
let loading: Promise<Module> | undefined;

/** Fetches the editor; call it when somebody is likely to edit soon. */
export function loadEditor(): Promise<Module> {
  loading ??= import("./codemirror").then((module) => {
    loaded = module;
    return module;
  });
  return loading;
}

// States of editors that are not mounted: their undo history and selection.
interface Kept {
  box: ContextBox;
  state?: EditorState;
}
const kept = new Map<string, Kept>();
const keptMax = 200;

function keep(id: string, entry: Kept): void {
  kept.delete(id);
  kept.set(id, entry);
  for (const oldest of kept.keys()) {
    if (kept.size <= keptMax) break;
    kept.delete(oldest);
  }
}

type Place = "start" | "end" | { x: number; y: number } | undefined;

export interface CodeEditorProps {
  id: string;
  value: string;
  context: EditorContext;
  language?: "python" | "markdown";
  lineNumbers?: boolean;
  /** Shown while there is no text. */
  hint?: string;
  /** Mounts the editor at once instead of when somebody comes near. */
  eager?: boolean;
  ref?: Ref<EditorHandle>;
}

/**
 * Code that turns into an editor when somebody points at it or focuses it. Till
 * then, and again once it is far out of sight, it is static text that looks the
 * same, so that a notebook of 500 cells costs no 500 editors.
 */
export function CodeEditor(props: CodeEditorProps) {
  const { id, value, context, language = "python", lineNumbers = false, hint, eager = false, ref } = props;
  const host = useRef<HTMLDivElement>(null);
  const view = useRef<EditorView>(null);
  const focus = useRef<{ place: Place; typed: string } | null>(null);
  const idle = useRef<HTMLDivElement>(null);
  const [module, setModule] = useState(() => loaded);
  const [wanted, setWanted] = useState(eager);
  const mounted = wanted && module !== undefined;
  const first = useRef({ value, lineNumbers, hint, language });
  first.current = { value, lineNumbers, hint, language };

  const mount = useCallback(() => {
    setWanted(true);
    loadEditor().then(setModule);
  }, []);
  useEffect(() => {
    if (eager) mount();
  }, [eager, mount]);

  const entry = useRef<Kept>(null);
  if (entry.current === null) {
    entry.current = kept.get(id) ?? { box: { current: context } };
    keep(id, entry.current);
  }
  useLayoutEffect(() => {
    if (entry.current) entry.current.box.current = context;
  });

  useLayoutEffect(() => {
    const parent = host.current;
    const own = entry.current;
    if (!mounted || !module || !parent || !own) return;
    const { value, lineNumbers, hint, language } = first.current;
    const options = { language, lines: lineNumbers, ...(hint === undefined ? {} : { hint }) };
    const made = module.newView(own.state ?? module.newState(value, own.box, options), parent);
    module.replaceText(made, value);
    view.current = made;
    if (focus.current) {
      const { typed } = focus.current;
      place(made, focus.current.place);
      focus.current = null;
      if (typed !== "") made.dispatch(made.state.replaceSelection(typed), { userEvent: "input.type" });
    }
    const seen = new IntersectionObserver(
      ([e]) => {
        if (e && !e.isIntersecting && !made.hasFocus && !eager) setWanted(false);
      },
      { rootMargin: "1200px" },
    );
    seen.observe(parent);
    return () => {
      seen.disconnect();
      own.state = made.state;
      keep(id, own);
      view.current = null;
      made.destroy();
    };
  }, [mounted, module, id, eager]);

  useLayoutEffect(() => {
    if (view.current && module) module.replaceText(view.current, value);
  }, [value, module]);
  useLayoutEffect(() => {
    if (view.current && module) module.setLineNumbers(view.current, lineNumbers);
  }, [lineNumbers, module]);

  // Till the editor is loaded its place takes the focus, and the keys for it.
  const ask = useCallback(
    (at: Place) => {
      focus.current = { place: at, typed: "" };
      idle.current?.querySelector("pre")?.focus({ preventScroll: true });
      mount();
    },
    [mount],
  );
  const type = (event: KeyboardEvent) => {
    const pending = focus.current;
    if (!pending || event.ctrlKey || event.metaKey || event.altKey) return;
    if (event.key.length === 1) pending.typed += event.key;
    else if (event.key === "Enter" && !event.shiftKey) pending.typed += "\n";
    else if (event.key === "Backspace") pending.typed = pending.typed.slice(0, -1);
    else return;
    event.preventDefault();
    event.stopPropagation();
  };

  useImperativeHandle(
    ref,
    () => ({
      focus: (at) => {
        if (view.current) {
          place(view.current, at);
          return;
        }
        ask(at);
      },
      blur: () => {
        focus.current = null;
        view.current?.contentDOM.blur();
      },
      hasFocus: () => view.current?.hasFocus ?? false,
      insert: (text) => {
        const editor = view.current;
        if (!editor) return;
        editor.dispatch(editor.state.replaceSelection(text), { userEvent: "input.paste", scrollIntoView: true });
      },
    }),
    [ask],
  );

  if (mounted) return <div ref={host} className="code-editor" data-editor={id} />;
  return (
    // biome-ignore lint/a11y/noStaticElementInteractions: the entry around it answers the keyboard
    <div
      className="code-editor cursor-text"
      data-editor={id}
      onPointerEnter={mount}
      onMouseDown={(event) => {
        // The editor may take this place before the button is up: then no click comes.
        if (event.button !== 0) return;
        event.preventDefault();
        ask({ x: event.clientX, y: event.clientY });
      }}
      ref={idle}
      onFocus={() => {
        if (!focus.current) ask(undefined);
      }}
      onKeyDown={type}
    >
      {value === "" && hint ? (
        // biome-ignore lint/a11y/noNoninteractiveTabindex: becomes the editor once it has the focus
        <pre tabIndex={0} className="code-view text-[color:var(--code-comment)]">
          {hint}
        </pre>
      ) : (
        <StaticCode
          code={value}
          language={language}
          lineNumbers={lineNumbers}
          {...(language === "markdown" ? { className: "code-wrap" } : {})}
        />
      )}
    </div>
  );
}

function place(view: EditorView, at: Place): void {
  view.focus();
  if (at === undefined) return;
  const end = view.state.doc.length;
  const anchor = at === "start" ? 0 : at === "end" ? end : (view.posAtCoords(at) ?? end);
  view.dispatch({ selection: { anchor }, scrollIntoView: typeof at === "string" });
}
