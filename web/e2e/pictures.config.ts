import { mergeConfig } from "vitest/config";
import tests from "./vitest.config";

// What is run by hand: make screens takes the pictures of the documents,
// make bench-web measures. Neither is a test.
const config = mergeConfig(tests, { test: { testTimeout: 300_000 } });
config.test = { ...config.test, include: ["screens/*.ts", "bench/*.ts"] };
export default config;
