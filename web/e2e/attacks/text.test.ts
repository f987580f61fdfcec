// What text, pictures, tables, names and messages try: the page shows them in
// its own document, so that all of them have to stay text.
import { afterAll, afterEach, beforeAll, expect, test } from "vitest";
import type { Output } from "../../src/api/types";
import { display, stream, until } from "../lib";
import { type Scene, Stage } from "./stage";

const stage = new Stage();
let scene: Scene | undefined;

beforeAll(() => stage.open());
afterAll(() => stage.close());
afterEach(async () => {
  await scene?.end();
  scene = undefined;
});

const tag = '<img src=x onerror="top.pwned=1"><script>top.pwned=2</script>';

/** Nothing of the markup became an element of the page. */
async function stayedText(s: Scene): Promise<void> {
  const found = await s.page.evaluate(() => {
    const all = [...document.querySelectorAll("*")];
    return {
      handlers: all.filter((el) => [...el.attributes].some((a) => a.name.startsWith("on"))).length,
      scripts: all.filter(
        (el) => el.localName === "script" && !(el as HTMLScriptElement).src.startsWith(location.origin),
      ).length,
      images: all.filter((el) => el.localName === "img" && el.getAttribute("src") === "x").length,
      links: all
        .filter((el) => el.hasAttribute("href"))
        .map((el) => el.getAttribute("href") ?? "")
        .filter((href) => /^\s*(javascript|data|vbscript|file|blob):/i.test(href)),
    };
  });
  expect(found).toEqual({ handlers: 0, scripts: 0, images: 0, links: [] });
  await s.unharmed();
}

async function show(outputs: Output[], visible: string): Promise<Scene> {
  scene = await stage.perform([{ code: "attack()", outputs }]);
  const s = scene;
  await until(`the text ${visible}`, async () => (await s.text()).includes(visible));
  return s;
}

test("text with markup, with colours, with links", async () => {
  const s = await show(
    [
      stream(`\x1b[31m${tag}\x1b[0m\n\x1b]8;;javascript:top.pwned=1\x1b\\osc\x1b]8;;\x1b\\ javascript:top.pwned=1 `),
      stream(
        `\x1b[38;2;1;2;3";onclick="top.pwned=1m ${tag} http://x"onmouseover="top.pwned=1 data:text/html,<b>\n`,
        "stderr",
      ),
      stream(`${`${tag}\n`.repeat(600)}the end\n`),
    ],
    "osc",
  );
  expect(await s.text()).toContain('<img src=x onerror="top.pwned=1">');
  await stayedText(s);
});

test("an error with markup in its name, its text and its traceback", async () => {
  const s = await show(
    [
      {
        output_type: "error",
        ename: tag,
        evalue: `${tag}</p></section>`,
        traceback: [
          "----",
          `File <a href="javascript:top.pwned=1">/usr/lib/x.py:1</a>, in ${tag}`,
          `Cell In[1], line 1\n----> 1 ${tag}`,
        ],
      },
    ],
    "Cell In[1]",
  );
  await stayedText(s);
});

test("a table with markup in cells, columns, types and labels", async () => {
  const s = await show(
    [
      display({
        "application/vnd.caesarion.table+json": {
          columns: [
            { name: tag, dtype: tag, nulls: 1 },
            { name: "__proto__", dtype: "constructor", nulls: "x" },
          ],
          index: [tag, "javascript:1"],
          rows: [
            [tag, "shown"],
            [{ toString: 1, html: tag }, [tag]],
          ],
          total_rows: 1e15,
          total_columns: 2,
          id: "../../v1/sessions",
          sheets: [tag],
        },
      }),
    ],
    "shown",
  );
  await stayedText(s);
});

test("tables that are none", async () => {
  const s = await show(
    [
      display({ "application/vnd.caesarion.table+json": "not a table" }),
      display({ "application/vnd.caesarion.table+json": null, "text/plain": "one" }),
      display({ "application/vnd.caesarion.table+json": { columns: 5, rows: { a: 1 }, total_rows: "x" } }),
      display({ "application/vnd.caesarion.table+json": { columns: [null, 3], rows: [null, 7, [1]], total_rows: -5 } }),
      display({ "application/vnd.plotly.v1+json": 5 }),
      display({ "application/vnd.vegalite.v5+json": "x" }),
      stream("still here\n"),
    ],
    "still here",
  );
  await stayedText(s);
});

test("JSON with markup in keys and values", async () => {
  const s = await show(
    [
      display({
        "application/json": {
          [tag]: tag,
          __proto__: { a: 1 },
          "json key": ["<svg onload=top.pwned=1>", { constructor: tag }],
        },
      }),
    ],
    "json key",
  );
  await stayedText(s);
});

test("Markdown with HTML, and links that run", async () => {
  const s = await show(
    [
      display({
        "text/markdown": `# shown\n${tag}\n\n[a](javascript:top.pwned=1) [b](JaVaScRiPt:top.pwned=1) [c](data:text/html,<script>1</script>) [d](java\nscript:x)
[e](<javascript:top.pwned=1>) [f](&#106;avascript:top.pwned=1) [g](vbscript:x) [h](blob:x) <javascript:top.pwned=1> [i]: javascript:x
![img](${stage.foreign.url}/pixel) ![x](javascript:top.pwned=1) <iframe src=javascript:top.pwned=1></iframe>

$\\href{javascript:top.pwned=1}{x}$ $\\htmlData{x=y}{z}$ $\\includegraphics{${stage.foreign.url}/tex}$

\`\`\`html
${tag}
\`\`\`
`,
      }),
      display({
        "text/latex": `$\\href{javascript:top.pwned=1}{x} \\url{javascript:1} \\html{<img src=x onerror=top.pwned=1>}$`,
      }),
    ],
    "shown",
  );
  await stayedText(s);
});

test("notes and code of an imported notebook", async () => {
  scene = await stage.perform([
    { markdown: `# note\n${tag} [x](javascript:top.pwned=1) ![p](${stage.foreign.url}/note)` },
    { code: `${tag} # </script><script>top.pwned=1</script>`, outputs: [stream("ran\n")] },
  ]);
  const s = scene;
  await until("the note", async () => (await s.text()).includes("ran"));
  await stayedText(s);
});

test("names of types and of files with markup", async () => {
  const s = await show(
    [
      display({ [`image/${tag}`]: "x", [`text/html;${tag}`]: tag }),
      display({ "image/png": "bm90IGEgcG5n" }, { "image/png": { width: "1;position:fixed", height: 1e9 } }),
      display({ "image/svg+xml": "not an svg" }),
      display({ "application/pdf": "***" }),
      display({ "application/vnd.jupyter.widget-view+json": { model_id: tag }, "text/plain": "widget text" }),
    ],
    "widget text",
  );
  await stayedText(s);
});

test("SVG as a picture: no scripts, nothing loaded", async () => {
  const svg = `<svg xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink" width="120" height="60" onload="top.pwned=1">
    <script>top.pwned=1; fetch("${stage.foreign.url}/svg-script")</script>
    <image href="${stage.foreign.url}/svg-image" width="10" height="10"/>
    <foreignObject width="100" height="40"><body xmlns="http://www.w3.org/1999/xhtml"><img src="${stage.foreign.url}/foreign" onerror="top.pwned=1"/>
      <iframe src="javascript:top.pwned=1"></iframe><script>top.pwned=1</script></body></foreignObject>
    <a xlink:href="javascript:top.pwned=1"><text y="20">link</text></a><use href="${stage.foreign.url}/use#x"/>
    <style>@import url("${stage.foreign.url}/svg-css"); rect { fill: url("${stage.foreign.url}/fill") }</style>
    <set attributeName="href" to="javascript:top.pwned=1"/><animate attributeName="href" values="javascript:top.pwned=1"/></svg>`;
  const s = await show([display({ "image/svg+xml": svg }), stream("below\n")], "below");
  const image = s.page.locator("[role=group][aria-label=Outputs] img").first();
  await until("the picture", () => image.evaluate((el) => (el as HTMLImageElement).naturalWidth > 0));
  expect(await image.getAttribute("src")).toMatch(/^data:image\/svg\+xml;base64,/);
  await stayedText(s);

  // On a person's word it becomes interactive, in a frame, where all of this still does nothing.
  await s.page.getByRole("button", { name: "Show as interactive" }).click();
  await until("the frame", () => s.page.frames().some((f) => f.url().includes("/frame/")));
  const frame = s.page.frames().find((f) => f.url().includes("/frame/"));
  await until("the SVG in it", () => frame?.evaluate(() => document.querySelector("svg") !== null));
  await stayedText(s);
});

test("audio and video that are something else", async () => {
  const page = btoa(`<html>${tag}</html>`);
  const s = await show(
    [
      display({ "audio/wav": page }),
      display({ "video/mp4": page }),
      display({ "audio/html": page }),
      stream("media\n"),
    ],
    "media",
  );
  await stayedText(s);
});

test("a flood of outputs leaves the page usable", async () => {
  const many = Array.from({ length: 300 }, (_, i) =>
    i % 3 === 0
      ? display({ "text/html": `<p>${i}</p><script>setInterval(()=>{},1)</script>` })
      : stream(`line ${i}\n`, i % 2 ? "stdout" : "stderr"),
  );
  const s = await show([...many, stream("last of all\n")], "line 1");
  expect(await s.page.locator("iframe").count()).toBeLessThanOrEqual(20);
  await stayedText(s);
});
