// Builds what the frame needs into dist/frame: its document with the loader
// written into it, and the two chart libraries, each as one classic script.
// The page fetches those on first use and hands their text to a frame, which
// itself may load nothing.
import { copyFile, mkdir, readFile, writeFile } from "node:fs/promises";
import { resolve } from "node:path";
import { fileURLToPath } from "node:url";
import { build, type Plugin } from "vite";

const here = (path: string) => fileURLToPath(new URL(path, import.meta.url));

async function bundle(entry: string): Promise<string> {
  const result = await build({
    configFile: false,
    logLevel: "warn",
    root: here("."),
    define: { "process.env.NODE_ENV": '"production"' },
    build: {
      write: false,
      target: "es2022",
      lib: { entry: here(entry), formats: ["iife"], name: "caesarionFrame" },
    },
  });
  const output = Array.isArray(result) ? result[0] : result;
  if (!output || !("output" in output)) throw new Error(`${entry}: nothing was built`);
  return output.output[0].code;
}

/** Writes the frame's files into a folder. */
export async function buildFrame(dir: string): Promise<void> {
  await mkdir(dir, { recursive: true });
  const [page, main, vega] = await Promise.all([
    readFile(here("index.html"), "utf8"),
    bundle("main.ts"),
    bundle("vega.ts"),
  ]);
  // Inside of a script element nothing may look like its end, or like the start of a comment.
  const safe = main.replaceAll("</script", "<\\/script").replaceAll("<!--", "<\\!--");
  await writeFile(
    `${dir}/index.html`,
    page.replace("/*main*/", () => safe.trim()),
  );
  await writeFile(`${dir}/vega.js`, vega);
  await copyFile(here("../node_modules/plotly.js-cartesian-dist-min/plotly-cartesian.min.js"), `${dir}/plotly.js`);
}

/** Adds the frame's files to what `vite build` writes. */
export function framePlugin(): Plugin {
  let dir = "";
  return {
    name: "caesarion-frame",
    apply: "build",
    configResolved(config) {
      dir = resolve(config.root, config.build.outDir, "frame");
    },
    async closeBundle() {
      await buildFrame(dir);
    },
  };
}
