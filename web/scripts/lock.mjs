// Completes package-lock.json with packages for other platforms that a registry
// did not have when it was written (some mirrors keep those of their own
// platform only): npm ci wants an entry for each, though it installs none of
// them here.
//
//   node scripts/lock.mjs        after npm install
import { readFileSync, writeFileSync } from "node:fs";

const file = new URL("../package-lock.json", import.meta.url);
const lock = JSON.parse(readFileSync(file, "utf8"));
const os = ["aix", "android", "darwin", "freebsd", "linux", "netbsd", "openbsd", "openharmony", "sunos", "win32"];
const cpu = ["arm", "arm64", "ia32", "loong64", "mips64el", "ppc64", "ppc64le", "riscv64", "s390x", "wasm32", "x64"];
let added = 0;
for (const entry of Object.values(lock.packages)) {
  for (const [name, range] of Object.entries(entry.optionalDependencies ?? {})) {
    const key = `node_modules/${name}`;
    const words = name.replace(/^@[^/]+\//, "").split("-");
    const platform = words.filter((w) => os.includes(w));
    const processor = words.filter((w) => cpu.includes(w));
    if (lock.packages[key] || !/^\d/.test(range) || (platform.length === 0 && processor.length === 0)) continue;
    lock.packages[key] = {
      version: range,
      ...(processor.length > 0 ? { cpu: processor } : {}),
      dev: true,
      ...(words.some((w) => w.startsWith("musl")) ? { libc: ["musl"] } : {}),
      optional: true,
      ...(platform.length > 0 ? { os: platform } : {}),
    };
    added++;
  }
}
lock.packages = Object.fromEntries(Object.entries(lock.packages).sort(([a], [b]) => (a < b ? -1 : 1)));
writeFileSync(file, `${JSON.stringify(lock, null, 2)}\n`);
console.log(`${added} packages for other platforms added`);
