// Which rows and columns are in sight. Browsers can't make elements of any
// height, so a very long table scrolls faster than the bar moves.

export const rowHeight = 28;

const maxPixels = 8_000_000;

export interface RowWindow {
  /** Height of all rows in px, as the scroller gets it. */
  height: number;
  first: number;
  last: number; // exclusive
  /** Where a row stands, in px from the top of the rows. */
  top(row: number): number;
}

export function rowWindow(total: number, scrollTop: number, view: number, overscan = 8): RowWindow {
  const full = total * rowHeight;
  const height = Math.min(full, maxPixels);
  const ratio = full > height && height > view ? (full - view) / (height - view) : 1;
  const virtual = Math.max(0, scrollTop * ratio);
  const first = Math.max(0, Math.floor(virtual / rowHeight) - overscan);
  const last = Math.min(total, Math.ceil((virtual + view) / rowHeight) + overscan);
  return { height, first, last, top: (row) => scrollTop + row * rowHeight - virtual };
}

/** The scroll position that has a row in sight, or undefined if it is already. */
export function scrollFor(row: number, total: number, scrollTop: number, view: number): number | undefined {
  const full = total * rowHeight;
  const height = Math.min(full, maxPixels);
  const ratio = full > height && height > view ? (full - view) / (height - view) : 1;
  const virtual = scrollTop * ratio;
  const top = row * rowHeight;
  if (top < virtual) return top / ratio;
  if (top + rowHeight > virtual + view) return (top + rowHeight - view) / ratio;
  return undefined;
}

/** Left edges of columns, with the right edge of the last one at the end. */
export function edges(widths: readonly number[]): number[] {
  const found = [0];
  for (const width of widths) found.push((found.at(-1) as number) + width);
  return found;
}

export function columnWindow(lefts: readonly number[], scrollLeft: number, view: number): [number, number] {
  const count = lefts.length - 1;
  let first = 0;
  while (first < count && (lefts[first + 1] as number) < scrollLeft) first++;
  let last = first;
  while (last < count && (lefts[last] as number) < scrollLeft + view) last++;
  return [Math.max(0, first - 1), Math.min(count, last + 1)];
}
