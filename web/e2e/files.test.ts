// Files as a person handles them: dropped, cut on the way, seen, renamed,
// deleted and had back; what cells made, and the variables beside it.
import { mkdir, mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, test } from "vitest";
import { type Browser, type Page, type Server, startBrowser, startServer, until, type Visit, visit } from "./lib";

const long = 120_000; // of what takes many steps, on a machine with other work

let server: Server;
let browser: Browser;
let view: Visit;
let page: Page;
let session: string;

beforeAll(async () => {
  server = await startServer();
  browser = await startBrowser();
});
afterAll(async () => {
  await browser?.close();
  await server?.stop();
});
beforeEach(async () => {
  session = (await server.api<{ id: string }>("POST", "/v1/sessions", { title: "Files", model: "" })).id;
  view = await visit(browser, server);
  page = view.page;
});
afterEach(() => view.close());

const open = () => page.goto(`/s/${session}`);
const row = (name: RegExp | string) => page.getByRole("treeitem", { name });

/** Drops files on an element, as the browser does for a person. */
async function drop(selector: string, files: { name: string; text: string }[]): Promise<void> {
  await page.evaluate(
    ([target, given]) => {
      const data = new DataTransfer();
      for (const f of given) data.items.add(new File([f.text], f.name));
      const element = document.querySelector(target);
      if (!element) throw new Error(`no ${target}`);
      const at = { dataTransfer: data, bubbles: true, cancelable: true };
      element.dispatchEvent(new DragEvent("dragenter", at));
      element.dispatchEvent(new DragEvent("dragover", at));
      (window as unknown as { dropped: DataTransfer }).dropped = data;
    },
    [selector, files] as const,
  );
  // Before it is let go, the page says where it would go.
  await page.getByText("Drop to upload").waitFor();
  await page.evaluate((target) => {
    const data = (window as unknown as { dropped: DataTransfer }).dropped;
    document
      .querySelector(target)
      ?.dispatchEvent(new DragEvent("drop", { dataTransfer: data, bubbles: true, cancelable: true }));
  }, selector);
}

const content = async (path: string): Promise<string> => {
  const answer = await fetch(`${server.url}/v1/sessions/${session}/files/content?path=${encodeURIComponent(path)}`);
  return answer.ok ? answer.text() : `${answer.status}`;
};

/** Runs code in the session to its end. */
async function run(code: string): Promise<string> {
  const item = await server.api<{ id: string }>("POST", `/v1/sessions/${session}/items`, { kind: "cell", code });
  await server.api("POST", `/v1/sessions/${session}/run`, { items: [item.id] });
  await until(
    "the cell's end",
    async () => {
      const detail = await server.api<{ items: { id: string; status: string }[] }>("GET", `/v1/sessions/${session}`);
      const status = detail.items.find((i) => i.id === item.id)?.status;
      return status !== "queued" && status !== "running" && status;
    },
    60_000,
  );
  return item.id;
}

describe("uploads", () => {
  test("a CSV that is dropped anywhere arrives, and can be looked at as a table", async () => {
    await open();
    await page.getByText("No files yet").waitFor();
    const lines = Array.from({ length: 1500 }, (_, i) => `${i},name ${i}`);
    await drop("main", [{ name: "sales.csv", text: `id,name\n${lines.join("\n")}\n` }]);
    await row(/^sales\.csv/).waitFor();
    expect(await content("/uploaded_files/sales.csv")).toContain("1499,name 1499");
    await row(/^sales\.csv/).click();
    const dialog = page.getByRole("dialog", { name: "sales.csv" });
    await dialog.getByText("name 7", { exact: true }).waitFor();
    await dialog.getByText(/1,500 rows/).waitFor();
    await page.keyboard.press("Escape");
    await dialog.waitFor({ state: "detached" });
    expect(view.errors).toEqual([]);
  });

  test("a file that is dropped on the empty page begins a session", async () => {
    await page.goto("/");
    await page.getByText("No files yet").waitFor();
    await drop("main", [{ name: "first.csv", text: "a,b\n1,2\n" }]);
    await page.waitForURL(/\/s\/ses_/);
    await row(/^first\.csv/).waitFor();
    session = new URL(page.url()).pathname.slice("/s/".length);
    expect(await content("/uploaded_files/first.csv")).toBe("a,b\n1,2\n");
  });

  test("a folder keeps its shape", async () => {
    const dir = await mkdtemp(join(tmpdir(), "caesarion-folder-"));
    await mkdir(join(dir, "set/deep"), { recursive: true });
    await writeFile(join(dir, "set/one.txt"), "1");
    await writeFile(join(dir, "set/deep/two.txt"), "2");
    try {
      await open();
      await page.getByRole("button", { name: "More", exact: true }).waitFor();
      await page.locator("input[webkitdirectory]").first().setInputFiles(join(dir, "set"));
      await row("set").waitFor();
      await until("the files", async () => (await content("/uploaded_files/set/deep/two.txt")) === "2");
      expect(await content("/uploaded_files/set/one.txt")).toBe("1");
      await row("set").click();
      await row("deep").click();
      await row(/^two\.txt/).waitFor();
    } finally {
      await rm(dir, { recursive: true, force: true });
    }
  });

  test(
    "goes on where it was after a cut, and after a reload",
    async () => {
      await open();
      await page.getByRole("button", { name: "Upload files" }).first().waitFor();
      const dir = await mkdtemp(join(tmpdir(), "caesarion-upload-"));
      const big = join(dir, "big.bin");
      const bytes = Buffer.alloc(17 << 20, 7);
      await writeFile(big, bytes);
      let puts = 0;
      const ranges: string[] = [];
      await page.route("**/files/content?*", async (route) => {
        const request = route.request();
        if (request.method() !== "PUT") return route.continue();
        ranges.push((await request.headerValue("content-range")) ?? "");
        if (++puts >= 2) return route.abort("connectionreset");
        return route.continue();
      });
      await page.locator("input[type=file][multiple]").first().setInputFiles(big);
      await page.getByText("connection cut, trying again").waitFor();
      expect(ranges[0]).toBe(`bytes 0-${(8 << 20) - 1}/${bytes.length}`);
      await page.unroute("**/files/content?*");
      await row(/^big\.bin/).waitFor({ timeout: 30_000 });
      expect((await content("/uploaded_files/big.bin")).length).toBe(bytes.length);

      // The same with a page that is gone in the middle, and the file chosen again.
      const second = join(dir, "second.bin");
      await writeFile(second, bytes);
      try {
        puts = 0;
        await page.route("**/files/content?*", (route) =>
          route.request().method() === "PUT" && ++puts >= 2 ? route.abort("connectionreset") : route.continue(),
        );
        await page.locator("input[type=file][multiple]").first().setInputFiles(second);
        await page.getByText("connection cut, trying again").waitFor();
        page.on("dialog", (dialog) => void dialog.accept()); // "leave the page?"
        await page.reload();
        await page.getByText("47 % are there. Drop the same file again to go on.").waitFor();
        await page.unroute("**/files/content?*");
        const next = page.waitForRequest((request) => request.method() === "PUT");
        await page.locator("input[type=file][multiple]").first().setInputFiles(second);
        expect(await (await next).headerValue("content-range")).toBe(
          `bytes ${8 << 20}-${(16 << 20) - 1}/${bytes.length}`,
        );
        await row(/^second\.bin/).waitFor({ timeout: 30_000 });
        expect((await content("/uploaded_files/second.bin")).length).toBe(bytes.length);
        expect(await page.getByText("% are there").count()).toBe(0);
      } finally {
        await rm(dir, { recursive: true, force: true });
      }
    },
    long,
  );

  test("asks before it replaces, and does what was answered", async () => {
    await open();
    await page.getByRole("button", { name: "Upload files" }).first().waitFor();
    await drop("main", [{ name: "a.txt", text: "old" }]);
    await row(/^a\.txt/).waitFor();
    await drop("main", [{ name: "a.txt", text: "new" }]);
    await page.getByText("A file with this name exists already.").waitFor();
    await page.getByRole("button", { name: "Keep both" }).click();
    await row(/^a-2\.txt/).waitFor();
    expect([await content("/uploaded_files/a.txt"), await content("/uploaded_files/a-2.txt")]).toEqual(["old", "new"]);
    await drop("main", [{ name: "a.txt", text: "newest" }]);
    await page.getByRole("button", { name: "Overwrite" }).click();
    await until("the new bytes", async () => (await content("/uploaded_files/a.txt")) === "newest");
  });

  test("a dropped notebook can become a session", async () => {
    await open();
    const ipynb = JSON.stringify({
      nbformat: 4,
      nbformat_minor: 5,
      metadata: {},
      cells: [{ id: "a", cell_type: "code", metadata: {}, source: "answer = 42", execution_count: null, outputs: [] }],
    });
    await drop("main", [{ name: "old work.ipynb", text: ipynb }]);
    await page.getByRole("button", { name: "Open as a session" }).click();
    await page.waitForURL((url) => /\/s\/ses_/.test(url.pathname) && !url.pathname.endsWith(session));
    await page.getByText("answer").first().waitFor();
  });
});

describe("the tree", () => {
  beforeEach(async () => {
    for (const [path, text] of [
      ["/workspace/one.txt", "1"],
      ["/workspace/two.txt", "2"],
      ["/workspace/box/in.txt", "3"],
      ["/workspace/<img src=x onerror=alert(1)>.txt", "4"],
    ]) {
      await server.api("PUT", `/v1/sessions/${session}/files/content?path=${encodeURIComponent(path ?? "")}`, text);
    }
    await open();
    await row(/^one\.txt/).waitFor();
  });

  test("renames, deletes and brings back, by keyboard alone", async () => {
    expect(await row(/^<img src=x onerror/).count()).toBe(1); // a name is text
    await row("Workspace").focus();
    for (const key of ["ArrowDown", "ArrowDown", "ArrowDown", "F2"]) await page.keyboard.press(key);
    const name = page.getByRole("textbox", { name: "New name" });
    await name.waitFor();
    await name.fill("renamed.txt");
    await page.keyboard.press("Enter");
    await row(/^renamed\.txt/).waitFor();
    await until("its content under the new name", async () => (await content("/workspace/renamed.txt")) === "1");
    await page.keyboard.press("Delete");
    await row(/^renamed\.txt/).waitFor({ state: "detached" });
    await until("its end", async () => (await content("/workspace/renamed.txt")) === "404");
    await page.getByRole("button", { name: "Undo" }).click();
    await row(/^renamed\.txt/).waitFor();
    expect(await content("/workspace/renamed.txt")).toBe("1");
  });

  test("takes files that are dropped on a folder, and those that are pasted", async () => {
    await drop('[data-path="/workspace/box"]', [{ name: "new.txt", text: "5" }]);
    await until("the file", async () => (await content("/workspace/box/new.txt")) === "5");
    await page.evaluate(() => {
      const data = new DataTransfer();
      data.items.add(new File(["png"], "image.png", { type: "image/png" }));
      document.body.dispatchEvent(
        new ClipboardEvent("paste", { clipboardData: data, bubbles: true, cancelable: true }),
      );
    });
    await row(/^pasted-.*\.png/).waitFor();
  });

  test("puts a path where the person was writing", async () => {
    const item = await server.api<{ id: string }>("POST", `/v1/sessions/${session}/items`, {
      kind: "cell",
      code: "open()",
    });
    const editor = page.locator(`[data-item-id="${item.id}"] .cm-content`);
    await page.locator(`[data-item-id="${item.id}"]`).getByText("open").click();
    await editor.click();
    await page.keyboard.press("End");
    await page.keyboard.press("ArrowLeft");
    await row(/^one\.txt/).click({ button: "right" });
    await page.getByRole("menuitem", { name: "Insert path into code" }).click();
    await editor.getByText('open("/workspace/one.txt")').waitFor();
    await until("the saved code", async () => {
      const detail = await server.api<{ items: { code?: string }[] }>("GET", `/v1/sessions/${session}`);
      return detail.items[0]?.code === 'open("/workspace/one.txt")';
    });
  });

  test("moves what is dragged onto a folder", async () => {
    await row(/^two\.txt/).dragTo(row("box"));
    await until("the move", async () => (await content("/workspace/box/two.txt")) === "2");
    await row(/^two\.txt/)
      .waitFor({ state: "detached" })
      .catch(() => {});
    expect(await content("/workspace/two.txt")).toBe("404");
  });
});

describe("the preview", () => {
  const png = Buffer.from(
    "iVBORw0KGgoAAAANSUhEUgAAAAoAAAAKCAYAAACNMs+9AAAAFUlEQVR42mNk+M9Qz0AEYBxVSF+FABJADveWkH6oAAAAAElFTkSuQmCC",
    "base64",
  );
  const notebook = {
    nbformat: 4,
    nbformat_minor: 5,
    metadata: {},
    cells: [
      { id: "a", cell_type: "markdown", metadata: {}, source: ["# Old ", "work"] },
      {
        id: "b",
        cell_type: "code",
        metadata: {},
        source: "6 * 7",
        execution_count: 5,
        outputs: [{ output_type: "execute_result", execution_count: 5, data: { "text/plain": ["42"] }, metadata: {} }],
      },
    ],
  };

  test(
    "shows each kind of file as what it is, and goes on with the arrows",
    async () => {
      const svg =
        '<svg xmlns="http://www.w3.org/2000/svg" width="20" height="10"><script>top.hacked = 1</script></svg>';
      const files: [string, string | Uint8Array][] = [
        ["a.png", png],
        ["b.svg", svg],
        ["c.md", "# Heading\n\n<script>top.hacked = 1</script> *text*"],
        ["d.json", '{"deep": [1, {"x": null}]}'],
        ["e.py", "def f():\n    return 1\n"],
        ["f.log", `${"line of a long log\n".repeat(200_000)}`],
        ["g.bin", new Uint8Array(300).map((_, i) => i)],
        ["h.ipynb", JSON.stringify(notebook)],
        ["i.pdf", "%PDF-1.7"],
        ["j.txt", ""],
      ];
      for (const [name, body] of files) {
        await server.api("PUT", `/v1/sessions/${session}/files/content?path=/workspace/${name}`, body);
      }
      await open();
      await row(/^a\.png/).click();
      const dialog = page.getByRole("dialog");
      await dialog.getByText("10 × 10 pixels").waitFor();
      await dialog.getByRole("button", { name: "Zoom in" }).click();
      await dialog.getByText(/150 % · /).waitFor();
      await dialog.getByRole("button", { name: "Fit" }).click();
      const next = async (name: string) => {
        await dialog.getByRole("button", { name: "Next file" }).focus();
        await page.keyboard.press("ArrowRight");
        await page.getByRole("dialog", { name, exact: true }).waitFor();
      };
      await next("b.svg");
      await dialog.getByText("20 × 10 pixels").waitFor();
      await dialog.getByRole("button", { name: "As text" }).click();
      await dialog.getByText("top.hacked").first().waitFor();
      await next("c.md");
      await dialog.getByRole("heading", { name: "Heading" }).waitFor();
      await next("d.json");
      await dialog.getByText('"deep"').waitFor();
      await next("e.py");
      await dialog.locator(".code-numbered").getByText("return").waitFor();
      await next("f.log");
      await dialog.getByText(/The first 1 MB of 3\.6\d MB/).waitFor();
      await next("g.bin");
      await dialog.getByText("00000010").first().waitFor();
      await next("h.ipynb");
      await dialog.getByRole("heading", { name: "Old work" }).waitFor();
      await dialog.getByText("42", { exact: true }).waitFor();
      await next("i.pdf");
      await dialog.getByText(/keep the browser's PDF viewer out/).waitFor();
      await next("j.txt");
      await dialog.getByText("The file is empty.").waitFor();
      expect(await dialog.getByRole("button", { name: "Next file" }).isDisabled()).toBe(true);
      expect(await page.evaluate(() => (window as unknown as { hacked?: number }).hacked)).toBeUndefined();
      await page.keyboard.press("Escape");
      await dialog.waitFor({ state: "detached" });
      // The focus is where the last one was.
      await until("the focus", () =>
        page.evaluate(() => document.activeElement?.getAttribute("data-path") === "/workspace/j.txt"),
      );
      expect(view.errors).toEqual([]);
    },
    long,
  );
});

describe("beside a run", () => {
  test(
    "files of a cell are marked until they are looked at, and variables are listed",
    async () => {
      await open();
      const item = await run(
        "import pandas as pd\nframe = pd.DataFrame({'x': range(300)})\nframe.to_csv('made.csv', index=False)\nnumber = 41",
      );
      const made = row(/^made\.csv.*Made by cell/);
      await made.waitFor();
      expect(await page.locator(`[data-item-id="${item}"]`).count()).toBe(1);
      await made.click();
      await page
        .getByRole("dialog", { name: "made.csv" })
        .getByText(/300 rows/)
        .waitFor();
      await page.keyboard.press("Escape");
      await row(/^made\.csv(?!.*Made by)/).waitFor();

      await page.getByRole("tab", { name: "Variables" }).click();
      await page.locator("[data-variable=number]").getByText("41").waitFor();
      await page.locator("[data-variable=frame]").click();
      await page
        .getByRole("dialog", { name: "frame" })
        .getByText(/300 rows/)
        .waitFor();
      await page.keyboard.press("Escape");
      await run("number = 42; del frame");
      await page.locator("[data-variable=number]").getByText("42").waitFor();
      await page.locator("[data-variable=frame]").waitFor({ state: "detached" });

      await page.getByRole("button", { name: "Sandbox: Ready" }).click();
      await page.getByRole("meter", { name: "Memory" }).waitFor();
      await page.getByRole("button", { name: "Restart Python" }).click();
      await page.getByRole("dialog").getByRole("button", { name: "Restart Python" }).click();
      await page.getByText("No variables yet").waitFor({ timeout: 30_000 });
      expect(view.errors).toEqual([]);
    },
    long,
  );
});

describe("an installation with bounds", () => {
  test(
    "says what it does not take, and why",
    async () => {
      const strict = await startServer({ args: ["--upload-extensions", ".csv", "--upload-max-bytes", "1MiB"] });
      const visitor = await visit(browser, strict);
      try {
        await visitor.page.goto("/");
        const input = visitor.page.locator("input[type=file][multiple]").first();
        await visitor.page.getByText("No files yet").waitFor();
        const file = (name: string, size: number) => ({ name, mimeType: "x", buffer: Buffer.alloc(size, 65) });
        await input.setInputFiles([file("large.csv", 20 << 20), file("tool.exe", 300), file("fine.csv", 10)]);
        await visitor.page.getByText(/an upload may have 1/).waitFor();
        await visitor.page.getByText(/\.exe" may not be uploaded here\. Allowed are \.csv/).waitFor();
        await visitor.page.getByRole("treeitem", { name: /^fine\.csv/ }).waitFor();
      } finally {
        await visitor.close();
        await strict.stop();
      }
    },
    long,
  );
});
