/** Makes a text field as tall as its text, up to a height in pixels. */
export function fitHeight(field: HTMLTextAreaElement | null, max: number): void {
  if (!field) return;
  field.style.height = "auto";
  const height = Math.min(field.scrollHeight, max);
  field.style.height = `${height}px`;
  field.style.overflowY = field.scrollHeight > max ? "auto" : "hidden";
}
