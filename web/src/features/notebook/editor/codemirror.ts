// The one place that knows CodeMirror; loaded when somebody first edits.
import {
  acceptCompletion,
  autocompletion,
  type Completion,
  type CompletionContext,
  type CompletionResult,
  closeBrackets,
  closeBracketsKeymap,
  completionKeymap,
  completionStatus,
  startCompletion,
} from "@codemirror/autocomplete";
import {
  copyLineDown,
  defaultKeymap,
  history,
  historyKeymap,
  indentLess,
  indentMore,
  insertNewlineAndIndent,
  toggleComment,
} from "@codemirror/commands";

import { pythonLanguage } from "@codemirror/lang-python";
import { bracketMatching, indentOnInput, indentUnit, LanguageSupport, syntaxHighlighting } from "@codemirror/language";
import { highlightSelectionMatches, searchKeymap } from "@codemirror/search";
import { Annotation, Compartment, EditorState, type Extension, Prec, StateEffect, StateField } from "@codemirror/state";
import {
  drawSelection,
  dropCursor,
  EditorView,
  keymap,
  lineNumbers,
  placeholder,
  showTooltip,
  type Tooltip,
  tooltips,
} from "@codemirror/view";
import { tags as t, tagHighlighter } from "@lezer/highlight";
import type { Json } from "@/api/types";
import { language } from "@/lib/i18n";
import { markdownTokens } from "./markdownTokens";
import { styledRoot } from "./root";
import type { EditorContext } from "./types";
import { plainText, toCharacters, toUnits } from "./unicode";

// The same classes as the static view's, so that nothing changes when an editor takes its place.
const highlighter = tagHighlighter([
  {
    tag: [t.keyword, t.null, t.controlKeyword, t.operatorKeyword, t.definitionKeyword, t.moduleKeyword],
    class: "tok-keyword",
  },
  { tag: t.bool, class: "tok-bool" },
  { tag: t.number, class: "tok-number" },
  { tag: t.string, class: "tok-string" },
  { tag: [t.special(t.string), t.escape], class: "tok-string2" },
  { tag: t.comment, class: "tok-comment" },
  { tag: [t.function(t.variableName), t.function(t.propertyName)], class: "tok-call" },
  { tag: [t.function(t.definition(t.variableName))], class: "tok-definition" },
  { tag: [t.definition(t.className), t.className], class: "tok-className" },
  { tag: t.propertyName, class: "tok-propertyName" },
  { tag: t.variableName, class: "tok-variableName" },
  { tag: t.meta, class: "tok-meta" },
  { tag: [t.operator, t.derefOperator], class: "tok-operator" },
  { tag: [t.punctuation, t.separator, t.bracket], class: "tok-punctuation" },
  { tag: t.heading, class: "tok-className" },
  { tag: t.strong, class: "tok-strong" },
  { tag: t.emphasis, class: "tok-emphasis" },
  { tag: [t.link, t.url], class: "tok-call" },
]);

// Metrics are those of .code-view in highlight/code.css.
const theme = EditorView.theme({
  "&": { color: "var(--code-ink)", backgroundColor: "transparent", fontSize: "var(--code-size)" },
  "&.cm-focused": { outline: "none" },
  ".cm-scroller": {
    fontFamily: "var(--code-font)",
    lineHeight: "var(--code-leading)",
    overflowX: "auto",
    fontVariantLigatures: "none",
  },
  ".cm-content": { padding: "8px 0", caretColor: "var(--code-ink)" },
  ".cm-line": { padding: "0 12px" },
  ".cm-gutters": { backgroundColor: "transparent", border: "none", color: "var(--code-comment)" },
  ".cm-lineNumbers .cm-gutterElement": { padding: "0 0 0 8px", minWidth: "2.5em" },
  ".cm-cursor": { borderLeftColor: "var(--code-ink)", borderLeftWidth: "1.5px" },
  "&.cm-focused > .cm-scroller > .cm-selectionLayer .cm-selectionBackground": {
    background: "light-dark(#cfe0ff, #33477a)",
  },
  ".cm-selectionBackground": { background: "light-dark(#e3e7ee, #373d4a)" },
  ".cm-selectionMatch": { backgroundColor: "light-dark(#eef0c9, #45462c)" },
  ".cm-matchingBracket, &.cm-focused .cm-matchingBracket": {
    backgroundColor: "light-dark(#dbe7ff, #3a4a6d)",
    borderRadius: "2px",
  },
  ".cm-nonmatchingBracket, &.cm-focused .cm-nonmatchingBracket": { backgroundColor: "light-dark(#ffdcdc, #5c2e33)" },
  ".cm-placeholder": { color: "var(--code-comment)" },
  ".cm-tooltip": {
    backgroundColor: "var(--raised)",
    color: "var(--code-ink)",
    border: "1px solid var(--line-strong)",
    borderRadius: "8px",
    boxShadow: "var(--shadow-pop, 0 6px 24px rgb(0 0 0 / 16%))",
    overflow: "hidden",
    zIndex: "60",
  },
  ".cm-tooltip-autocomplete > ul": { fontFamily: "var(--code-font)", maxHeight: "15em", minWidth: "220px" },
  ".cm-tooltip-autocomplete > ul > li": { padding: "3px 10px", lineHeight: "1.5" },
  ".cm-tooltip-autocomplete > ul > li[aria-selected]": {
    backgroundColor: "var(--accent-soft)",
    color: "var(--code-ink)",
  },
  ".cm-completionMatchedText": { textDecoration: "none", fontWeight: "650" },
  ".cm-completionDetail": { marginLeft: "1.5em", float: "right", fontStyle: "normal", color: "var(--code-comment)" },
  ".cm-inspect": {
    maxWidth: "min(640px, 86vw)",
    maxHeight: "300px",
    overflow: "auto",
    padding: "10px 12px",
    margin: "0",
    fontFamily: "var(--code-font)",
    fontSize: "12px",
    lineHeight: "18px",
    whiteSpace: "pre-wrap",
  },
  ".cm-panels": { backgroundColor: "var(--sunken)", color: "var(--code-ink)" },
  ".cm-panels-bottom": { borderTop: "1px solid var(--line-strong)" },
  ".cm-panel.cm-search": { padding: "6px 30px 6px 8px", fontFamily: "var(--font-sans, sans-serif)", fontSize: "12px" },
  ".cm-panel.cm-search input, .cm-panel.cm-search button, .cm-panel.cm-search label": { fontSize: "12px" },
  ".cm-panel.cm-search label": { whiteSpace: "nowrap" },
  ".cm-panel.cm-search [name=close]": { fontSize: "18px", right: "6px" },
  ".cm-textfield, .cm-button": {
    backgroundColor: "var(--raised)",
    backgroundImage: "none",
    border: "1px solid var(--line-strong)",
    borderRadius: "5px",
    color: "inherit",
  },
  ".cm-searchMatch": { backgroundColor: "light-dark(#fff0a8, #6b5d18)" },
  ".cm-searchMatch-selected": { backgroundColor: "light-dark(#ffd25e, #9a7a10)" },
  ".tok-strong": { fontWeight: "650" },
  ".tok-emphasis": { fontStyle: "italic" },
});

/** The context an editor's extensions read, so that a kept state outlives the component that made it. */
export interface ContextBox {
  current: EditorContext;
}

// How the kernel's type names are called in the list, and which icon they get.
const kinds: Record<string, string> = {
  function: "function",
  instance: "variable",
  statement: "variable",
  module: "namespace",
  class: "class",
  keyword: "keyword",
  param: "property",
  property: "property",
  path: "text",
  magic: "keyword",
};

interface KernelMatch {
  text: string;
  type?: string;
  signature?: string;
}

function kernelMatches(matches: readonly string[], metadata: Record<string, Json> | undefined): KernelMatch[] {
  const typed = metadata?._jupyter_types_experimental;
  if (!Array.isArray(typed) || typed.length === 0) return matches.map((text) => ({ text }));
  return typed.flatMap((entry) => {
    if (typeof entry !== "object" || entry === null || Array.isArray(entry) || typeof entry.text !== "string")
      return [];
    const match: KernelMatch = { text: entry.text };
    if (typeof entry.type === "string" && entry.type !== "<unknown>") match.type = entry.type;
    if (typeof entry.signature === "string") match.signature = entry.signature;
    return [match];
  });
}

function fromKernel(box: ContextBox) {
  return async (context: CompletionContext): Promise<CompletionResult | null> => {
    const { complete } = box.current;
    if (!complete) return null;
    const before = context.state.sliceDoc(0, context.pos);
    // Unasked only where a name begins or an attribute is due.
    if (!context.explicit && !/[\w.]$/.test(before)) return null;
    const code = context.state.doc.toString();
    const found = await complete(code, toCharacters(code, context.pos)).catch(() => null);
    if (context.aborted || !found || found.matches.length === 0) return null;
    const from = toUnits(code, found.cursor_start);
    const typed = code.slice(from, context.pos);
    const options = kernelMatches(found.matches, found.metadata).map((match, i): Completion => {
      // "df.col" completes to whole dotted names; what stands already is not repeated in the list.
      const option: Completion = {
        label: match.text,
        boost: typed.startsWith("_") || !/(^|\.)_/.test(match.text) ? -i / 1000 : -50,
      };
      const type = match.type ? kinds[match.type] : undefined;
      if (type) option.type = type;
      if (match.signature)
        option.detail = match.signature.length > 48 ? `${match.signature.slice(0, 47)}…` : match.signature;
      else if (match.type) option.detail = match.type;
      return option;
    });
    return { from, to: context.pos, options, validFor: /^[\w.]*$/ };
  };
}

// Documentation of what the caret stands on.
const setInspection = StateEffect.define<{ pos: number; text: string } | null>();
const inspection = StateField.define<Tooltip | null>({
  create: () => null,
  update(tooltip, tr) {
    for (const effect of tr.effects) {
      if (!effect.is(setInspection)) continue;
      if (effect.value === null) return null;
      const { pos, text } = effect.value;
      return {
        pos,
        above: true,
        create: () => {
          const dom = document.createElement("pre");
          dom.className = "cm-inspect";
          dom.tabIndex = 0;
          dom.textContent = text;
          return { dom };
        },
      };
    }
    return tr.docChanged || tr.selection ? null : tooltip;
  },
  provide: (field) => showTooltip.from(field),
});

function inspect(box: ContextBox) {
  return (view: EditorView): boolean => {
    const ask = box.current.inspect;
    const { head, empty } = view.state.selection.main;
    const before = view.state.sliceDoc(0, head);
    if (!ask || !empty || !/[\w)\]("',. ]$/.test(before) || /(^|\n)[ \t]*$/.test(before)) return false;
    const code = view.state.doc.toString();
    ask(code, toCharacters(code, head)).then(
      (found) => {
        const text =
          found?.found && typeof found.data["text/plain"] === "string" ? plainText(found.data["text/plain"]) : "";
        if (text === "" || view.state.doc.toString() !== code || view.state.selection.main.head !== head) return;
        view.dispatch({ effects: setInspection.of({ pos: head, text: text.trimEnd() }) });
      },
      () => undefined,
    );
    return true;
  };
}

const closeInspection = (view: EditorView): boolean => {
  if (!view.state.field(inspection, false)) return false;
  view.dispatch({ effects: setInspection.of(null) });
  return true;
};

function completeOrIndent(view: EditorView): boolean {
  if (completionStatus(view.state) === "active") return acceptCompletion(view);
  const { main } = view.state.selection;
  const line = view.state.doc.lineAt(main.head);
  const before = view.state.sliceDoc(line.from, main.head);
  if (main.empty && /[\w.%]$|\[['"]\w*$|['"(/][\w/.-]*$/.test(before) && before.trim() !== "")
    return startCompletion(view);
  return main.empty && before.trim() !== "" ? insertSpaces(view) : indentMore(view);
}

function insertSpaces(view: EditorView): boolean {
  const { main } = view.state.selection;
  const column = main.head - view.state.doc.lineAt(main.head).from;
  view.dispatch(view.state.replaceSelection(" ".repeat(4 - (column % 4))), {
    scrollIntoView: true,
    userEvent: "input",
  });
  return true;
}

function edge(box: ContextBox, direction: "up" | "down") {
  return (view: EditorView): boolean => {
    if (completionStatus(view.state) !== null) return false;
    const { main } = view.state.selection;
    if (!main.empty) return false;
    const line = view.state.doc.lineAt(main.head);
    const last = direction === "up" ? line.number === 1 : line.number === view.state.doc.lines;
    return last ? (box.current.onEdge?.(direction) ?? false) : false;
  };
}

const numbers = new Compartment();

const german = {
  Find: "Suchen",
  Replace: "Ersetzen",
  next: "weiter",
  previous: "zurück",
  all: "alle",
  "match case": "Groß/klein",
  regexp: "Regex",
  "by word": "ganze Wörter",
  replace: "ersetzen",
  "replace all": "alle ersetzen",
  close: "schließen",
  "current match": "dieser Treffer",
  "replaced $ matches": "$ Treffer ersetzt",
  "replaced match on line $": "Treffer in Zeile $ ersetzt",
  "on line": "in Zeile",
  Completions: "Vorschläge",
};

export function newState(
  code: string,
  box: ContextBox,
  options: { language: "python" | "markdown"; hint?: string; lines?: boolean },
): EditorState {
  const python = options.language === "python";
  const kernel = fromKernel(box);
  const extensions: Extension[] = [
    language() === "de" ? EditorState.phrases.of(german) : [],
    Prec.highest(
      EditorView.domEventHandlers({
        keydown: (event, view) => {
          if (event.key === "Escape" && (completionStatus(view.state) !== null || closeInspection(view))) return false;
          return box.current.onKey?.(event) ?? false;
        },
        focus: () => box.current.onFocus?.(),
        blur: () => box.current.onBlur?.(),
      }),
    ),
    numbers.of(options.lines ? lineNumbers() : []),
    history(),
    drawSelection(),
    dropCursor(),
    indentUnit.of("    "),
    EditorState.tabSize.of(4),
    EditorState.allowMultipleSelections.of(true),
    python ? new LanguageSupport(pythonLanguage) : [markdownTokens, EditorView.lineWrapping],
    syntaxHighlighting(highlighter),
    theme,
    // Tooltips hang on the page, where no cell's edge cuts them off.
    tooltips({ parent: document.body, position: "fixed" }),
    highlightSelectionMatches({ minSelectionLength: 2 }),
    EditorView.updateListener.of((update) => {
      if (update.docChanged && !update.transactions.some((tr) => tr.annotation(fromOutside))) {
        box.current.onChange(update.state.doc.toString());
      }
    }),
    EditorView.contentAttributes.of({
      "aria-label": options.hint ?? (python ? "Python" : "Markdown"),
      tabindex: "0", // what scrolls around it is reached by it
      autocorrect: "off",
      autocapitalize: "off",
    }),
    options.hint ? placeholder(options.hint) : [],
    python
      ? [
          bracketMatching(),
          closeBrackets(),
          indentOnInput(),
          inspection,
          autocompletion({
            override: [kernel],
            activateOnTyping: false,
            icons: true,
            maxRenderedOptions: 80,
            tooltipClass: () => "cm-complete",
          }),
          keymap.of([
            { key: "Tab", run: completeOrIndent },
            { key: "Shift-Tab", run: (view) => inspect(box)(view) || indentLess(view) },
            { key: "Escape", run: closeInspection },
          ]),
        ]
      : [],
    keymap.of([
      { key: "ArrowUp", run: edge(box, "up") },
      { key: "ArrowDown", run: edge(box, "down") },
      { key: "Mod-/", run: toggleComment },
      { key: "Mod-Shift-d", run: copyLineDown },
      { key: "Enter", run: (view) => completionStatus(view.state) !== "active" && insertNewlineAndIndent(view) },
      ...closeBracketsKeymap,
      ...completionKeymap,
      ...searchKeymap,
      ...historyKeymap,
      ...defaultKeymap.filter((binding) => !["Mod-Enter", "Shift-Enter", "Alt-ArrowUp"].includes(binding.key ?? "")),
    ]),
  ];
  return EditorState.create({ doc: code, extensions });
}

const fromOutside = Annotation.define<boolean>();

export function newView(state: EditorState, parent: HTMLElement): EditorView {
  return new EditorView({ state, parent, root: styledRoot(parent.ownerDocument) });
}

/** Brings in what another tab or the model wrote, keeping the caret where it can be. */
export function replaceText(view: EditorView, text: string): void {
  const now = view.state.doc.toString();
  if (now === text) return;
  let from = 0;
  const most = Math.min(now.length, text.length);
  while (from < most && now[from] === text[from]) from++;
  let end = 0;
  while (end < most - from && now[now.length - 1 - end] === text[text.length - 1 - end]) end++;
  view.dispatch({
    changes: { from, to: now.length - end, insert: text.slice(from, text.length - end) },
    annotations: fromOutside.of(true),
  });
}

export function setLineNumbers(view: EditorView, on: boolean): void {
  view.dispatch({ effects: numbers.reconfigure(on ? lineNumbers() : []) });
}

export type { EditorState, EditorView };
