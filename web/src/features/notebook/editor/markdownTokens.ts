import { StreamLanguage, type StringStream } from "@codemirror/language";

// Notes are shown rendered; while they are written a little colour is enough,
// and a full Markdown grammar brings those of HTML, CSS and JavaScript along.
interface State {
  fence: string;
}

function token(stream: StringStream, state: State): string | null {
  if (stream.sol()) {
    const fence = /^\s*(`{3,}|~{3,})/.exec(stream.string)?.[1];
    if (state.fence !== "") {
      if (fence?.startsWith(state.fence)) state.fence = "";
      stream.skipToEnd();
      return "string";
    }
    if (fence) {
      state.fence = fence;
      stream.skipToEnd();
      return "string";
    }
    if (stream.match(/^#{1,6}\s.*/)) return "heading";
    if (stream.match(/^\s*(?:[-*+]|\d+[.)])\s/)) return "keyword";
    if (stream.match(/^\s*>/)) return "comment";
  }
  if (stream.match(/^`[^`]+`/)) return "string";
  if (stream.match(/^\$[^$\n]+\$/)) return "number";
  if (stream.match(/^(\*\*|__)(?=\S).+?\1/)) return "strong";
  if (stream.match(/^([*_])(?=\S)[^*_]+\1/)) return "emphasis";
  if (stream.match(/^!?\[[^\]]*\]\([^)]*\)/)) return "link";
  stream.next();
  stream.eatWhile(/[\p{L}\p{N}\s]/u);
  return null;
}

export const markdownTokens = StreamLanguage.define<State>({
  name: "markdown",
  startState: () => ({ fence: "" }),
  copyState: (state) => ({ ...state }),
  token,
});
