import { act, render, screen } from "@testing-library/react";
import { beforeEach, expect, it } from "vitest";
import { defineStrings, dictionaries, language, setLanguage } from "./i18n";

// All of them, so that a feature added later is checked too.
const modules = import.meta.glob("../**/strings.ts", { eager: true });

const useStrings = defineStrings({ en: { left: (n: number) => `${n} left` }, de: { left: (n) => `noch ${n}` } });

function Probe() {
  return <p>{useStrings().left(3)}</p>;
}

beforeEach(() => setLanguage("en"));

function leaves(value: unknown, path = ""): Map<string, unknown> {
  const all = new Map<string, unknown>();
  for (const [key, inner] of Object.entries(value as Record<string, unknown>)) {
    if (typeof inner === "object" && inner !== null) {
      for (const [sub, leaf] of leaves(inner, `${path}${key}.`)) all.set(sub, leaf);
    } else all.set(path + key, inner);
  }
  return all;
}

it("has every text in both languages, and none empty", () => {
  expect(Object.keys(modules).length).toBeGreaterThan(2);
  expect(dictionaries.length).toBeGreaterThanOrEqual(Object.keys(modules).length);
  for (const { en, de } of dictionaries) {
    const [english, german] = [leaves(en), leaves(de)];
    expect([...german.keys()]).toEqual([...english.keys()]);
    for (const [key, text] of german) {
      expect(typeof text, key).toBe(typeof english.get(key));
      if (typeof text === "string") expect(text.trim(), key).not.toBe("");
    }
  }
});

it("speaks German with Du", () => {
  for (const { de } of dictionaries) {
    for (const [key, text] of leaves(de)) {
      if (typeof text === "string") expect(text, key).not.toMatch(/\bIhnen\b|[a-zäöüß,] (Ihre?[nmrs]?|Sie)\b/);
    }
  }
});

it("changes the texts on the page with the language", () => {
  render(<Probe />);
  expect(screen.getByText("3 left")).toBeInTheDocument();
  act(() => setLanguage("de"));
  expect(screen.getByText("noch 3")).toBeInTheDocument();
  expect(document.documentElement.lang).toBe("de");
  expect(language()).toBe("de");
});
