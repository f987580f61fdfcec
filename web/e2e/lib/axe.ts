import { readFile } from "node:fs/promises";
import { fileURLToPath } from "node:url";
import type { AxeResults } from "axe-core";
import type { Page } from "playwright-core";

let axe: string | undefined;

// What belongs to the button that opened it need not be in an area of the page.
const regions = "dialog, [role=dialog], [role=alertdialog], svg, [role=menu], [data-radix-popper-content-wrapper]";

/** Findings of axe, with where they are. */
export async function findings(page: Page): Promise<string[]> {
  // Half of a colour is too little of it.
  await page.waitForFunction(() => document.getAnimations().every((a) => a.playState !== "running"));
  // Through the debugger, which the page's policy does not bind.
  axe ??= await readFile(fileURLToPath(new URL("../../node_modules/axe-core/axe.min.js", import.meta.url)), "utf8");
  await page.evaluate(axe);
  const results = (await page.evaluate(`
    axe.configure({ checks: [{ id: "region", options: { regionMatcher: ${JSON.stringify(regions)} } }] });
    axe.run(document, { resultTypes: ["violations"], rules: { "label-content-name-mismatch": { enabled: true } } })
  `)) as AxeResults;
  return results.violations.map((v) => `${v.id}: ${v.nodes.map((n) => n.html.slice(0, 160)).join(" | ")}`);
}
