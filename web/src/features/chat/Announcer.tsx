import { useEffect, useRef, useState } from "react";
import { useSession, useSessionStore } from "@/features/session";
import { useStrings } from "./strings";
import { answerText } from "./thread";

/** Reads answers to those who can't see them, once they are whole. */
export function Announcer() {
  const s = useStrings();
  const store = useSessionStore();
  const turn = useSession((state) => state.lastTurn);
  const known = useRef(turn?.id);
  const [said, setSaid] = useState("");
  useEffect(() => {
    if (!turn || turn.id === known.current) return;
    known.current = turn.id;
    const { order, items } = store.get();
    const text = answerText(turn.id, order, items).replace(/```[\s\S]*?```|[*_`#|]/g, " ");
    if (text.trim() !== "") setSaid(s.thread.answered(text.trim().slice(0, 600)));
  }, [turn, store, s]);
  return (
    <div role="status" aria-live="polite" className="sr-only">
      {said}
    </div>
  );
}
