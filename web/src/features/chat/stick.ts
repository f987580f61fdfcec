// Keeps the end in view while it grows, until the person scrolls up.
import { type RefObject, useCallback, useEffect, useLayoutEffect, useRef, useState } from "react";
import { useSession, useSessionStore } from "@/features/session";

const close = 48; // pixels from the end that count as the end
const gestures = ["wheel", "touchmove", "pointerdown", "keydown"] as const; // by which people scroll

export function useStickToEnd(scroller: RefObject<HTMLElement | null>, content: RefObject<HTMLElement | null>) {
  const store = useSessionStore();
  const stuck = useRef(true);
  const last = useRef({ top: 0, height: 0 });
  const [away, setAway] = useState(false);

  const toEnd = useCallback(() => {
    const element = scroller.current;
    if (!element) return;
    element.scrollTop = element.scrollHeight;
    last.current = { top: element.scrollTop, height: element.scrollHeight };
  }, [scroller]);

  useLayoutEffect(() => {
    const element = scroller.current;
    const inner = content.current;
    if (!element || !inner) return;
    if (location.hash.length > 1) stuck.current = false;
    else toEnd();
    let touched = Number.NEGATIVE_INFINITY;
    const touch = (event: Event) => {
      const { target } = event;
      // Who types a message below does not scroll by it.
      if (event.type === "keydown" && target instanceof HTMLTextAreaElement && !element.contains(target)) return;
      touched = performance.now();
    };
    const onScroll = () => {
      const { scrollTop: top, scrollHeight: height } = element;
      const left = height - top - element.clientHeight;
      // What grows and shrinks moves the end, and the browser's anchor the view,
      // without anybody scrolling. Only a way up leaves the end: by hand, or by
      // something that scrolled while the content stayed as it was.
      const up = top < last.current.top - 2;
      if (left <= close) stuck.current = true;
      else if (up && (height === last.current.height || performance.now() - touched < 1000)) stuck.current = false;
      last.current = { top, height };
      setAway(!stuck.current && left > 240);
    };
    for (const type of gestures) window.addEventListener(type, touch, { passive: true, capture: true });
    const unlisten = () => {
      for (const type of gestures) window.removeEventListener(type, touch, { capture: true });
      element.removeEventListener("scroll", onScroll);
    };
    element.addEventListener("scroll", onScroll, { passive: true });
    if (typeof ResizeObserver === "undefined") return unlisten;
    const observer = new ResizeObserver(() => {
      if (stuck.current) toEnd();
      onScroll();
    });
    observer.observe(inner);
    observer.observe(element);
    return () => {
      observer.disconnect();
      unlisten();
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
