// Puts text where the person was writing last: a cell's editor or the message.
// It goes the way typing goes, so whatever is there takes it, with its undo.

let last: HTMLElement | null = null;

function isEditable(element: EventTarget | null): element is HTMLElement {
  return (
    element instanceof HTMLTextAreaElement ||
    (element instanceof HTMLElement && element.getAttribute("contenteditable") === "true")
  );
}

if (typeof document !== "undefined") {
  document.addEventListener("focusin", (event) => {
    if (isEditable(event.target)) last = event.target;
  });
}

/** Tells whether there was a place for it. */
export function insertText(text: string): boolean {
  if (!last?.isConnected) return false;
  last.focus();
  return document.execCommand("insertText", false, text);
}
