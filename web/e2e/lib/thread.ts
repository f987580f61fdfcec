import type { Locator, Page } from "playwright-core";
import type { Server } from "./server";
import { until } from "./until";

/** What tests do with the thread of a session, by what a person sees. */
export function thread(page: Page) {
  const composer = page.getByRole("textbox", { name: "Message" });
  return {
    composer,
    /** Cells in order. */
    cells: page.locator("[data-cell]"),
    /** The nth cell, from 0; negative from the end. */
    cell: (n: number): Locator => page.locator("[data-cell]").nth(n),
    async send(text: string): Promise<void> {
      await composer.fill(text);
      const idle = await page.getByRole("button", { name: "Stop the answer" }).isHidden();
      await composer.press("Enter");
      if (idle) await page.getByRole("button", { name: "Stop the answer" }).waitFor();
    },
    /** Waits until the nth cell has this status. */
    async status(n: number, status: string, timeout = 30_000): Promise<void> {
      await until(
        `cell ${n} is ${status}`,
        async () => {
          const is = await page.locator("[data-cell]").nth(n).getAttribute("data-status", { timeout: 1000 });
          if (is !== status) throw new Error(`it is ${is}`);
          return true;
        },
        timeout,
      );
    },
    /** Waits until no answer is on its way. */
    async answered(): Promise<void> {
      await page.getByRole("button", { name: "Stop the answer" }).waitFor({ state: "hidden", timeout: 60_000 });
    },
  };
}

/** Drops files on the page, as the browser does for a person. */
export async function dropFiles(page: Page, files: { name: string; text: string }[]): Promise<void> {
  await page.evaluate((given) => {
    const data = new DataTransfer();
    for (const f of given) data.items.add(new File([f.text], f.name));
    for (const type of ["dragenter", "dragover", "drop"]) {
      document.body.dispatchEvent(new DragEvent(type, { dataTransfer: data, bubbles: true, cancelable: true }));
    }
  }, files);
}

/** Makes a session without a model that has one cell with this code. */
export async function sessionWithCell(server: Server, code: string): Promise<{ id: string; item: string }> {
  const { id } = await server.api<{ id: string }>("POST", "/v1/sessions", { model: "" });
  const item = await server.api<{ id: string }>("POST", `/v1/sessions/${id}/items`, { kind: "cell", code });
  return { id, item: item.id };
}
