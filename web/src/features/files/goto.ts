/** Brings an item of the thread into view and puts the focus on it. */
export function showItem(id: string): void {
  const element = document.querySelector<HTMLElement>(`[data-item-id="${CSS.escape(id)}"]`);
  if (!element) return;
  element.scrollIntoView({ block: "center", behavior: "smooth" });
  element.focus({ preventScroll: true });
}
