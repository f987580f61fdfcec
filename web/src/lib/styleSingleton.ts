// Stands in for the package react-style-singleton (see vite.config.ts): the same
// exports, but by a constructed style sheet, which a strict policy allows.
import { useEffect } from "react";

export function stylesheetSingleton(): { add: (css: string) => void; remove: () => void } {
  let count = 0;
  const sheet = new CSSStyleSheet();
  return {
    add(css) {
      if (count++ > 0) return;
      sheet.replaceSync(css);
      document.adoptedStyleSheets = [...document.adoptedStyleSheets, sheet];
    },
    remove() {
      if (--count === 0) document.adoptedStyleSheets = document.adoptedStyleSheets.filter((other) => other !== sheet);
    },
  };
}

export function styleHookSingleton(): (css: string, dynamic?: boolean) => void {
  const sheet = stylesheetSingleton();
  return (css, dynamic) => {
    // biome-ignore lint/correctness/useExhaustiveDependencies: styles are fixed unless they are said to be dynamic
    useEffect(() => {
      sheet.add(css);
      return () => sheet.remove();
    }, [css && dynamic]);
  };
}

/** Applies its styles while it is shown. */
export function styleSingleton(): (props: { styles: string; dynamic?: boolean }) => null {
  const useStyle = styleHookSingleton();
  return ({ styles, dynamic }) => {
    useStyle(styles, dynamic);
    return null;
  };
}
