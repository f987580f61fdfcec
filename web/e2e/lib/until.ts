/** Waits for a condition and gives what it gave; fails with what was last seen. */
export async function until<T>(
  what: string,
  probe: () => Promise<T | false | undefined | null> | T | false | undefined | null,
  timeout = 45_000,
): Promise<T> {
  const end = Date.now() + timeout;
  let last: unknown;
  for (;;) {
    try {
      const value = await probe();
      if (value) return value;
      last = value;
    } catch (err) {
      last = err;
    }
    if (Date.now() > end) throw new Error(`${what}: not in ${timeout} ms (${String(last)})`);
    await new Promise((done) => setTimeout(done, 25));
  }
}
