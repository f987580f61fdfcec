import type { Element, Root } from "hast";
import { type ComponentPropsWithoutRef, memo, useMemo, useRef } from "react";
import ReactMarkdown, { type Components } from "react-markdown";
import remarkGfm from "remark-gfm";
import remarkMath from "remark-math";
import { splitBlocks } from "./markdown/blocks";
import { CodeBlock } from "./markdown/CodeBlock";
import { Formula } from "./markdown/Formula";
import { mathSource } from "./markdown/math";
import { mendBlock } from "./markdown/mend";
import { safeImage, safeLink } from "./markdown/urls";
import "@/features/notebook/highlight/code.css";
import "./markdown/markdown.css";

function textOf(node: Element | Root): string {
  return node.children
    .map((child) => (child.type === "text" ? child.value : child.type === "element" ? textOf(child) : ""))
    .join("");
}

function Link({ node: _, href, children, ...rest }: ComponentPropsWithoutRef<"a"> & { node?: Element }) {
  const address = safeLink(href);
  if (!address) return <span>{children}</span>;
  if (address.startsWith("#")) {
    return (
      <a {...rest} href={address}>
        {children}
      </a>
    );
  }
  return (
    <a href={address} target="_blank" rel="noopener noreferrer nofollow" title={address}>
      {children}
    </a>
  );
}

// The page loads nothing from elsewhere: a remote image would tell its server
// who reads this. It becomes a link.
function Image({ src, alt }: ComponentPropsWithoutRef<"img">) {
  const address = typeof src === "string" ? src : undefined;
  const image = safeImage(address);
  if (image) return <img src={image} alt={alt ?? ""} className="max-w-full rounded-md" />;
  const link = safeLink(address);
  if (!link) return alt ? <span>{alt}</span> : null;
  return (
    <a href={link} target="_blank" rel="noopener noreferrer nofollow" title={link}>
      {alt || link}
    </a>
  );
}

const components: Components = {
  a: Link,
  img: Image,
  table: ({ node: _, ...props }) => (
    // biome-ignore lint/a11y/noNoninteractiveTabindex: what scrolls must be reachable by keyboard
    <div className="markdown-table" tabIndex={0}>
      <table {...props} />
    </div>
  ),
  pre: ({ node, children }) => {
    const code = node?.children[0];
    if (code?.type !== "element" || code.tagName !== "code") return <pre>{children}</pre>;
    const classes = Array.isArray(code.properties.className) ? code.properties.className.map(String) : [];
    const text = textOf(code).replace(/\n$/, "");
    if (classes.includes("math-display")) return <Formula tex={text} display />;
    const language = classes.find((c) => c.startsWith("language-"))?.slice("language-".length) ?? "";
    return language === "math" ? <Formula tex={text} display /> : <CodeBlock code={text} language={language} />;
  },
  code: ({ node, children, className }) => {
    if (node && className?.includes("math-inline")) return <Formula tex={textOf(node)} display={false} />;
    return <code>{children}</code>;
  },
  input: ({ node: _, ...props }) => <input {...props} aria-hidden tabIndex={-1} />,
};

// Line breaks in table cells can only be written as HTML; of all tags this one means what it says.
function remarkBreaks() {
  const visit = (node: { type: string; value?: string; children?: unknown[] }) => {
    if (node.type === "html" && /^<br\s*\/?>$/i.test(node.value ?? "")) node.type = "break";
    for (const child of node.children ?? []) visit(child as typeof node);
  };
  return visit;
}

const plugins: ComponentPropsWithoutRef<typeof ReactMarkdown>["remarkPlugins"] = [remarkGfm, remarkMath, remarkBreaks];

// Keep is what react-markdown's own filter would take out; Link and Image decide.
const keep = (url: string) => url;

const Block = memo(function Block({ source }: { source: string }) {
  return (
    <ReactMarkdown remarkPlugins={plugins} components={components} urlTransform={keep}>
      {source}
    </ReactMarkdown>
  );
});

// Blocks never seen changing are not kept; a few messages stream at a time at most.
function useBlocks(text: string, streaming: boolean): string[] {
  const stable = useRef<{ text: string; blocks: string[]; end: number }>({ text: "", blocks: [], end: 0 });
  return useMemo(() => {
    if (!streaming) return splitBlocks(mathSource(text));
    // Everything before the last block is final once a fresh block has begun
    // behind it, so only what comes after is split again. Definitions may come
    // at the very end and serve all: that is seen to when the text is whole.
    const s = stable.current;
    if (!text.startsWith(s.text.slice(0, s.end))) stable.current = { text, blocks: [], end: 0 };
    const base = stable.current;
    const tail = text.slice(base.end);
    const blocks = splitBlocks(mathSource(tail));
    const last = blocks.pop();
    if (blocks.length > 2) {
      const cut = lastBoundary(tail);
      const head = cut > 0 ? splitBlocks(mathSource(tail.slice(0, cut))) : [];
      // Only where splitting there changes nothing is it a boundary.
      if (head.length > 0 && head.every((b, i) => b === blocks[i])) {
        stable.current = { text, blocks: [...base.blocks, ...head], end: base.end + cut };
      }
    }
    return last === undefined ? [...base.blocks, ...blocks] : [...base.blocks, ...blocks, mendBlock(last)];
  }, [text, streaming]);
}

// Where the last but one paragraph break of the text is.
function lastBoundary(text: string): number {
  const last = text.lastIndexOf("\n\n");
  const before = last > 0 ? text.lastIndexOf("\n\n", last - 1) : -1;
  return before > 0 ? before + 2 : 0;
}

/** Markdown from a model, a notebook or a person: no HTML, no foreign images, safe links only. */
export const Markdown = memo(function Markdown({ text, streaming = false }: { text: string; streaming?: boolean }) {
  const blocks = useBlocks(text, streaming);
  return (
    <div className="markdown">
      {blocks.map((source, i) => (
        // biome-ignore lint/suspicious/noArrayIndexKey: blocks only ever grow at the end
        <Block key={i} source={source} />
      ))}
    </div>
  );
});
