// Keeps the end in view while it grows, until the person scrolls up.
import { type RefObject, useCallback, useEffect, useLayoutEffect, useRef, useState } from "react";
import { useSession, useSessionStore } from "@/features/session";

const close = 48; // pixels from the end that count as the end

export function useStickToEnd(scroller: RefObject<HTMLElement | null>, content: RefObject<HTMLElement | null>) {
  const store = useSessionStore();
  const stuck = useRef(true);
  const last = useRef(0);
  const [away, setAway] = useState(false);

  const toEnd = useCallback(() => {
    const element = scroller.current;
    if (!element) return;
    element.scrollTop = element.scrollHeight;
    last.current = element.scrollTop;
  }, [scroller]);

  useLayoutEffect(() => {
    const element = scroller.current;
    const inner = content.current;
    if (!element || !inner) return;
    if (location.hash.length > 1) stuck.current = false;
    else toEnd();
    const onScroll = () => {
      const top = element.scrollTop;
      const left = element.scrollHeight - top - element.clientHeight;
      // Growing content moves the end away without anybody scrolling: only a way up leaves it.
      if (left <= close) stuck.current = true;
      else if (top < last.current - 2) stuck.current = false;
      last.current = top;
      setAway(!stuck.current && left > 240);
    };
    element.addEventListener("scroll", onScroll, { passive: true });
    if (typeof ResizeObserver === "undefined") return () => element.removeEventListener("scroll", onScroll);
    const observer = new ResizeObserver(() => {
      if (stuck.current) toEnd();
      onScroll();
    });
    observer.observe(inner);
    observer.observe(element);
    return () => {
      observer.disconnect();
      element.removeEventListener("scroll", onScroll);
    };
  }, [scroller, content, toEnd]);

  // Who sends a message wants to see it.
  const sent = useSession((state) => {
    const id = state.order.at(-1);
    return id !== undefined && state.items.get(id)?.kind === "user" ? id : "";
  });
  useEffect(() => {
    if (sent === "" || store.get().status !== "ready") return;
    stuck.current = true;
    toEnd();
  }, [sent, store, toEnd]);

  const jump = useCallback(() => {
    stuck.current = true;
    setAway(false);
    const element = scroller.current;
    element?.scrollTo({ top: element.scrollHeight, behavior: "smooth" });
  }, [scroller]);
  return { away, jump };
}
