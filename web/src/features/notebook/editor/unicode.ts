// Jupyter counts Unicode characters, the browser UTF-16 units.

export function toCharacters(text: string, units: number): number {
  let count = 0;
  for (let i = 0; i < units && i < text.length; count++) i += (text.codePointAt(i) ?? 0) > 0xffff ? 2 : 1;
  return count;
}

export function toUnits(text: string, characters: number): number {
  let i = 0;
  for (let count = 0; count < characters && i < text.length; count++) i += (text.codePointAt(i) ?? 0) > 0xffff ? 2 : 1;
  return i;
}

/** Text without ANSI sequences, as documentation from the kernel has them. */
export function plainText(text: string): string {
  // biome-ignore lint/suspicious/noControlCharactersInRegex: that is what ANSI is
  return text.replace(/\u001b(?:\[[0-?]*[ -/]*[@-~]|\][^\u0007\u001b]*(?:\u0007|\u001b\\)|.)/g, "");
}
