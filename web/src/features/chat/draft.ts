// What was typed and not sent, kept in this browser for each session.
import { remember, remembered } from "@/lib/storage";

export interface Draft {
  text: string;
  code: string;
}

const keyOf = (sessionId: string) => `draft.${sessionId || "new"}`;

export function loadDraft(sessionId: string): Draft {
  try {
    const kept = JSON.parse(remembered(keyOf(sessionId)) ?? "{}") as Partial<Draft>;
    return {
      text: typeof kept.text === "string" ? kept.text : "",
      code: typeof kept.code === "string" ? kept.code : "",
    };
  } catch {
    return { text: "", code: "" };
  }
}

export function saveDraft(sessionId: string, draft: Draft): void {
  remember(keyOf(sessionId), draft.text === "" && draft.code === "" ? "" : JSON.stringify(draft));
}
