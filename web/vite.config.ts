/// <reference types="vitest/config" />
import { fileURLToPath } from "node:url";
import tailwindcss from "@tailwindcss/vite";
import react from "@vitejs/plugin-react";
import { defineConfig } from "vite";
import { framePlugin } from "./frame/build.ts";
import { modernFonts } from "./scripts/modern-fonts.ts";
import { strictStyles } from "./scripts/strict-styles.ts";

// In development Vite serves the page and hands everything else to a running server.
const server = process.env.CAESARION_SERVER ?? "http://127.0.0.1:8000";

export default defineConfig({
  plugins: [strictStyles(), modernFonts(), react(), tailwindcss(), framePlugin()],
  resolve: { alias: { "@": fileURLToPath(new URL("./src", import.meta.url)) } },
  server: { proxy: Object.fromEntries(["/v1", "/api", "/frame", "/health"].map((path) => [path, server])) },
  build: {
    target: "es2023",
    assetsInlineLimit: 0, // the page's policy allows no data: scripts or fonts
    rollupOptions: {
      output: {
        // Stable names: the built page is committed, and a diff of names says nothing.
        entryFileNames: "assets/[name].js",
        chunkFileNames: "assets/[name].js",
        assetFileNames: "assets/[name][extname]",
      },
    },
  },
  test: {
    environment: "jsdom",
    globals: true,
    include: ["src/**/*.test.{ts,tsx}"],
    setupFiles: ["src/lib/testing.ts"],
    testTimeout: 20_000,
  },
});
