// Which addresses text from a model or a notebook may lead to.

const schemes = new Set(["http:", "https:", "mailto:"]);

/** The address if it may be opened from the page, else undefined. */
export function safeLink(url: string | undefined): string | undefined {
  if (!url) return undefined;
  // biome-ignore lint/suspicious/noControlCharactersInRegex: browsers skip these inside a scheme
  const plain = url.replace(/[\u0000-\u0020\u007f-\u00a0\u2028\u2029]/g, "");
  if (plain.startsWith("#")) return plain;
  if (plain.startsWith("//") || plain.startsWith("\\")) return undefined;
  try {
    const parsed = new URL(plain);
    return schemes.has(parsed.protocol) ? parsed.href : undefined;
  } catch {
    return undefined; // relative: names nothing on this server that a model should link to
  }
}

/** The address if an image may be shown from it: only what comes with the text itself. */
export function safeImage(url: string | undefined): string | undefined {
  return url && /^data:image\/(?:png|jpe?g|gif|webp);base64,[a-z0-9+/=\s]+$/i.test(url) ? url : undefined;
}
