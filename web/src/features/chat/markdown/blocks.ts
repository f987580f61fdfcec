// Splits Markdown into its top-level blocks, so that a streaming message
// renders only its last block again.

const fenceOpen = /^ {0,3}(`{3,}|~{3,})(.*)$/;
const listItem = /^ {0,3}(?:[-*+]|\d{1,9}[.)])(?:\s|$)/;
const definition = /^ {0,3}\[(?:\^)?[^\]\n]+\]:/;

/**
 * The top-level blocks of text, in order. Joined with blank lines between they
 * mean the same as the whole: a list with blank lines inside, a fence and a
 * formula stay in one piece.
 */
export function splitBlocks(text: string): string[] {
  const blocks: string[] = [];
  const definitions: string[] = [];
  let block: string[] = [];
  let fence = ""; // what closes the open fence
  let math = false;
  let list = false; // the block began as a list, so indented lines after a blank one belong to it
  let blank = false;

  const flush = () => {
    while (block.length > 0 && block[block.length - 1]?.trim() === "") block.pop();
    if (block.length > 0) {
      if (block.every((line) => definition.test(line))) definitions.push(...block);
      else blocks.push(block.join("\n"));
    }
    block = [];
    list = false;
    blank = false;
  };

  for (const line of text.split("\n")) {
    if (fence !== "") {
      block.push(line);
      const close = fenceOpen.exec(line.replace(/^ +/, ""));
      if (close?.[1]?.startsWith(fence) && close[2]?.trim() === "") fence = "";
      continue;
    }
    if (math) {
      block.push(line);
      if (line.trim().endsWith("$$")) math = false;
      continue;
    }
    if (line.trim() === "") {
      if (block.length > 0) {
        block.push(line);
        blank = true;
      }
      continue;
    }
    if (blank) {
      const belongs = list && (/^(?: {2,}|\t)/.test(line) || listItem.test(line));
      if (!belongs) flush();
      blank = false;
    }
    if (block.length === 0) list = listItem.test(line);
    const open = fenceOpen.exec(list ? line.replace(/^\s+/, "") : line);
    if (open?.[1] && !(open[1].startsWith("`") && open[2]?.includes("`"))) {
      if (!list) flush();
      fence = open[1];
    } else if (line.trim().startsWith("$$") && !/\$\$.*\$\$/.test(line.trim())) {
      if (!list) flush();
      math = true;
    } else if (!list && /^ {0,3}#{1,6}\s/.test(line)) {
      flush();
    }
    if (block.length === 0) list = listItem.test(line);
    block.push(line);
  }
  flush();

  // Definitions of links and footnotes serve every block that may refer to them.
  if (definitions.length === 0) return blocks;
  const tail = `\n\n${definitions.join("\n")}`;
  return blocks.map((b) => (b.includes("[") ? b + tail : b));
}
