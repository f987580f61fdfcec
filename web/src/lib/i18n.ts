import { useSyncExternalStore } from "react";
import { remember, remembered } from "./storage";

export type Language = "en" | "de";

export const languages: Record<Language, string> = { en: "English", de: "Deutsch" };

/** The type of a text without its wording, so that another language has to have the same texts. */
type Shape<T> = {
  readonly [K in keyof T]: T[K] extends string
    ? string
    : T[K] extends (...args: infer A) => string
      ? (...args: A) => string
      : Shape<T[K]>;
};

const listeners = new Set<() => void>();

function firstLanguage(): Language {
  const kept = remembered("language");
  if (kept === "en" || kept === "de") return kept;
  return typeof navigator !== "undefined" && navigator.language.startsWith("de") ? "de" : "en";
}

let current: Language = firstLanguage();

export function language(): Language {
  return current;
}

export function setLanguage(next: Language): void {
  current = next;
  remember("language", next);
  document.documentElement.lang = next;
  for (const listener of listeners) listener();
}

function subscribe(listener: () => void): () => void {
  listeners.add(listener);
  return () => listeners.delete(listener);
}

export function useLanguage(): Language {
  return useSyncExternalStore(subscribe, language);
}

/** All dictionaries that were defined, for the test that compares the languages. */
export const dictionaries: Record<Language, unknown>[] = [];

export interface UseStrings<T> {
  /** The texts in the chosen language; the component follows a change of it. */
  (): Shape<T>;
  /** The same outside of components. */
  now(): Shape<T>;
}

/**
 * Defines the texts of a feature in all languages. A text with values is a
 * function. TypeScript refuses a language that lacks one.
 *
 *     export const useStrings = defineStrings({
 *       en: { run: "Run", left: (n: number) => `${n} left` },
 *       de: { run: "Ausführen", left: (n) => `noch ${n}` },
 *     });
 */
export function defineStrings<const T>(dictionary: { en: T; de: Shape<NoInfer<T>> }): UseStrings<T> {
  dictionaries.push(dictionary);
  const now = () => dictionary[current] as Shape<T>;
  const hook = () => {
    useLanguage();
    return now();
  };
  return Object.assign(hook, { now });
}
