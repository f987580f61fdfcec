/** Turns counts of bytes into a rate, and tells at most ten times a second. */
export class Meter {
  private told = 0;
  private since = performance.now();
  private from = -1;
  private rate = 0;

  constructor(private readonly tell: (rate: number, bytes: number) => void) {}

  at(bytes: number): void {
    const now = performance.now();
    if (this.from < 0 || bytes < this.from) {
      this.from = bytes;
      this.since = now;
      this.tell(this.rate, bytes);
      return;
    }
    const seconds = (now - this.since) / 1000;
    if (seconds >= 0.5) {
      const lately = (bytes - this.from) / seconds;
      this.rate = this.rate === 0 ? lately : this.rate * 0.6 + lately * 0.4;
      this.from = bytes;
      this.since = now;
    }
    if (now - this.told < 100) return;
    this.told = now;
    this.tell(this.rate, bytes);
  }
}
