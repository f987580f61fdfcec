// Fails when what the page loads first is larger than the bound: index.html and
// all it names, gzip, and its font, which is compressed already.
import { readFileSync } from "node:fs";
import { gzipSync } from "node:zlib";

const limit = 220 * 1024;
const dist = new URL("../dist/", import.meta.url);
const html = readFileSync(new URL("index.html", dist), "utf8");
const files = [...html.matchAll(/(?:src|href)="\/([^"]+\.(?:js|css|woff2))"/g)].map((m) => m[1]);
let total = gzipSync(html).length;
for (const file of files) {
  const body = readFileSync(new URL(file, dist));
  total += file.endsWith(".woff2") ? body.length : gzipSync(body).length;
}
console.log(`first load: ${(total / 1024).toFixed(1)} KB gzip of ${limit / 1024} KB, ${files.length} files`);
if (total > limit) process.exit(1);
