import { memo, useEffect, useRef, useState } from "react";

type Katex = typeof import("katex").default;

let loaded: Katex | undefined;
let loading: Promise<Katex> | undefined;

function load(): Promise<Katex> {
  loading ??= Promise.all([import("katex"), import("katex/dist/katex.min.css")]).then(([module]) => {
    loaded = module.default;
    return loaded;
  });
  return loading;
}

/**
 * A formula. KaTeX builds elements and sets their styles through the object
 * model, which the page's policy allows; its HTML text would need inline
 * style attributes.
 */
export const Formula = memo(function Formula({ tex, display }: { tex: string; display: boolean }) {
  const ref = useRef<HTMLSpanElement>(null);
  const [katex, setKatex] = useState(() => loaded);
  const [failed, setFailed] = useState(false);
  useEffect(() => {
    let gone = false;
    if (!katex) {
      load().then(
        (k) => gone || setKatex(() => k),
        () => gone || setFailed(true),
      );
    }
    return () => {
      gone = true;
    };
  }, [katex]);
  useEffect(() => {
    const element = ref.current;
    if (!katex || !element) return;
    try {
      katex.render(tex, element, {
        displayMode: display,
        throwOnError: true,
        trust: false,
        maxSize: 20,
        maxExpand: 200,
      });
      setFailed(false);
    } catch {
      element.replaceChildren(tex);
      setFailed(true);
    }
  }, [katex, tex, display]);
  const className = `${display ? "block overflow-x-auto overflow-y-hidden py-1 text-center" : ""}${failed || !katex ? " font-mono text-[0.9em]" : ""}`;
  // The element's inside is KaTeX's: React sees the same text until KaTeX is there, then nothing.
  return (
    <span ref={ref} key={katex ? "katex" : "text"} className={className}>
      {katex ? null : tex}
    </span>
  );
});
