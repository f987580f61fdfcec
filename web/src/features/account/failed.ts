import type { useStrings } from "./strings";

type Strings = ReturnType<typeof useStrings>;

/** What a sign-in with a provider ended with, for people. The code came by the address: it is not to be trusted, only shown. */
export function failedText(s: Strings, code: string): string {
  return Object.hasOwn(s.failed, code) ? s.failed[code as keyof Strings["failed"]] : s.failedOther(code);
}
