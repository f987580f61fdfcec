// A session opens with what is to be seen: the end. Entries further up are drawn
// when they come near, or when the page has nothing else to do; the place they
// hold has about their height, and the browser keeps what is read in place.
import { type RefObject, useEffect, useMemo, useState } from "react";

const margin = 1200; // pixels around the visible part
const atATime = 3;
const fresh = 12; // of those at the end; what comes while the session is open is drawn at once

export interface Reveal {
  observe(element: Element, show: () => void): () => void;
  /** Entries that were drawn once stay so. */
  readonly shown: Set<string>;
  /** Whether the session was drawn, so that entries that come now are new. */
  open: boolean;
}

export function useReveal(root: RefObject<HTMLElement | null>, first: () => Iterable<string>): Reveal {
  // biome-ignore lint/correctness/useExhaustiveDependencies: what is first is asked once
  const reveal = useMemo<Reveal>(() => {
    const waiting = new Map<Element, () => void>();
    const shown = new Set<string>(first());
    let observer: IntersectionObserver | null = null;
    let idle: ReturnType<typeof setTimeout> | undefined;
    const show = (element: Element) => {
      const found = waiting.get(element);
      waiting.delete(element);
      observer?.unobserve(element);
      found?.();
    };
    // From the end upwards, a few at a time, so that each turn takes less than a frame.
    const work = () => {
      idle = undefined;
      for (const element of [...waiting.keys()].slice(-atATime).reverse()) show(element);
      if (waiting.size > 0) idle = setTimeout(work, 40);
    };
    return {
      shown,
      open: false,
      observe(element, callback) {
        if (typeof IntersectionObserver === "undefined") {
          callback();
          return () => {};
        }
        observer ??= new IntersectionObserver(
          (entries) => {
            for (const entry of entries) if (entry.isIntersecting) show(entry.target);
          },
          { root: root.current, rootMargin: `${margin}px 0px` },
        );
        waiting.set(element, callback);
        observer.observe(element);
        idle ??= setTimeout(work, 700);
        return () => {
          waiting.delete(element);
          observer?.unobserve(element);
          if (waiting.size === 0) clearTimeout(idle);
        };
      },
    };
  }, [root]);
  useEffect(() => {
    reveal.open = true;
  }, [reveal]);
  return reveal;
}

/** Whether an entry is to be drawn. */
export function useNear(
  ref: RefObject<HTMLElement | null>,
  id: string,
  reveal: Reveal,
  order: readonly string[],
): boolean {
  const [near, setNear] = useState(() => reveal.shown.has(id) || (reveal.open && order.slice(-fresh).includes(id)));
  useEffect(() => {
    if (near) {
      reveal.shown.add(id);
      return;
    }
    const element = ref.current;
    return element ? reveal.observe(element, () => setNear(true)) : undefined;
  }, [near, ref, id, reveal]);
  return near;
}
