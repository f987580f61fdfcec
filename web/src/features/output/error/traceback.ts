// Splits a traceback into its frames, so that those of libraries can be folded.

export type Part = { kind: "text" | "own" | "library"; text: string; file?: string };

// biome-ignore lint/suspicious/noControlCharactersInRegex: colours begin with one
const ansi = /\x1b\[[0-9;:]*m/g;

export function withoutColours(text: string): string {
  return text.replace(ansi, "");
}

// How a frame begins: "Cell In[1], line 2", "File /usr/lib/…/x.py:12, in f(…)" and the older forms of both.
const frameStart =
  /^(?:(Cell In|Input In|<ipython-input|In)\b.*(?:line \d|\bin\b|\[\d+\])|File ("?)(.+?)\2(?::\d+|, line \d+|:?,? in )|(\S.*?\.py)(?::\d+)? in )/;

const ours = /^(\.\/|~\/|\/workspace\/|\/home\/|\/root\/|\/tmp\/|[^/<]*$)/;
const theirs =
  /(site-packages|dist-packages|\/usr\/(local\/)?lib\/|\/lib\/python\d|<frozen|<__array|\/opt\/|^<(?!stdin|string|ipython))/;

export function isLibrary(file: string): boolean {
  return theirs.test(file) || (!ours.test(file) && !/^<(stdin|string|ipython)/.test(file));
}

/** The parts of a traceback in order; text is what belongs to no frame. */
export function parseTraceback(traceback: readonly string[]): Part[] {
  const parts: Part[] = [];
  for (const entry of traceback) {
    let current: Part | undefined;
    for (const line of entry.split("\n")) {
      const bare = withoutColours(line);
      const start = frameStart.exec(bare);
      if (start) {
        const file = start[3] ?? start[4];
        const kind = file !== undefined && isLibrary(file) ? "library" : "own";
        current = file === undefined ? { kind, text: line } : { kind, text: line, file };
        parts.push(current);
      } else if (current) {
        current.text += `\n${line}`;
      } else {
        current = { kind: "text", text: line };
        parts.push(current);
      }
    }
  }
  for (const part of parts) part.text = part.text.replace(/\n+$/, "");
  return parts.filter((part) => part.text !== "" || part.kind !== "text");
}

export type Group = { kind: "shown"; parts: Part[] } | { kind: "folded"; parts: Part[] };

/** Neighbouring frames of libraries as one group. If there are no frames of one's own, nothing is folded. */
export function groupFrames(parts: readonly Part[]): Group[] {
  const fold = parts.some((part) => part.kind === "own");
  const groups: Group[] = [];
  for (const part of parts) {
    const kind = fold && part.kind === "library" ? "folded" : "shown";
    const last = groups.at(-1);
    if (last?.kind === kind) last.parts.push(part);
    else groups.push({ kind, parts: [part] });
  }
  return groups;
}
