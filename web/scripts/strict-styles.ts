import { fileURLToPath } from "node:url";
import type { Plugin } from "vite";

/**
 * The page's policy forbids style elements that scripts write. Three packages
 * would write some; all can do without, but have no option for it.
 */
export function strictStyles(): Plugin {
  return {
    name: "strict-styles",
    enforce: "pre",
    config: () => ({
      resolve: {
        alias: {
          // Locks scrolling behind dialogs: the same by a constructed style sheet.
          "react-style-singleton": fileURLToPath(new URL("../src/lib/styleSingleton.ts", import.meta.url)),
        },
      },
    }),
    transform(code, id) {
      // CodeMirror's styles: constructed sheets also for documents, not only for shadow roots.
      if (id.includes("/style-mod/src/")) {
        return replaced(code, "!root.head && root.adoptedStyleSheets", "root.adoptedStyleSheets");
      }
      // Toasts: src/ui/toast.tsx imports the same styles as a file.
      if (id.includes("/sonner/dist/") && id.endsWith("js")) {
        return replaced(code, "function __insertCSS(code) {", "function __insertCSS(code) { return;");
      }
      return null;
    },
  };
}

function replaced(code: string, from: string, to: string): { code: string; map: null } {
  if (!code.includes(from)) throw new Error(`strict-styles: nothing to replace: ${from}`);
  return { code: code.replace(from, to), map: null };
}
