/**
 * Text that grows at its end, as a value: append gives a new Chunks, and the
 * old one still reads as before. All versions share one list of pieces, so a
 * cell that prints 200,000 lines costs as many pushes and no copy.
 */
export class Chunks {
  static readonly empty = new Chunks([], 0, 0);

  readonly length: number; // characters
  readonly count: number; // pieces
  private readonly pieces: string[]; // shared; those from count on are not ours
  private joined: string | undefined;

  private constructor(pieces: string[], count: number, length: number) {
    this.pieces = pieces;
    this.count = count;
    this.length = length;
  }

  static of(text: string): Chunks {
    return text === "" ? Chunks.empty : new Chunks([text], 1, text.length);
  }

  append(text: string): Chunks {
    if (text === "") return this;
    // Only the newest version may extend the shared list; an older one, or the
    // empty one that everybody shares, begins a list of its own.
    const pieces = this.count === this.pieces.length && this.count > 0 ? this.pieces : this.pieces.slice(0, this.count);
    pieces.push(text);
    return new Chunks(pieces, this.count + 1, this.length + text.length);
  }

  /** The pieces from the given one on, for those who already have the others. */
  from(index: number): string[] {
    return this.pieces.slice(index, this.count);
  }

  /** Whether this continues what earlier holds. */
  continues(earlier: Chunks): boolean {
    return this.count >= earlier.count && (earlier.count === 0 || this.pieces === earlier.pieces);
  }

  toString(): string {
    this.joined ??= this.count === this.pieces.length ? this.pieces.join("") : this.from(0).join("");
    return this.joined;
  }
}
