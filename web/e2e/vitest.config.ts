import { fileURLToPath } from "node:url";
import { defineConfig } from "vitest/config";

// Browser tests against the built server. They share one machine with its
// sandboxes, so one file runs after the other.
export default defineConfig({
  resolve: { alias: { "@": fileURLToPath(new URL("../src", import.meta.url)) } },
  test: {
    root: fileURLToPath(new URL(".", import.meta.url)),
    environment: "node",
    include: ["**/*.test.ts"],
    fileParallelism: false,
    testTimeout: 60_000,
    hookTimeout: 120_000,
    retry: 0, // a test that passes the second time hides something
  },
});
