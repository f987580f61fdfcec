/** How a piece of text looks: what SGR sequences said before it. */
export interface Style {
  fg?: Color;
  bg?: Color;
  bold?: true;
  dim?: true;
  italic?: true;
  underline?: true;
  strike?: true;
  inverse?: true;
  hidden?: true;
  link?: string; // OSC 8; http or https only
}

/** One of the 16 colours of the theme, or one of its own as #rrggbb. */
export type Color = number | string;

export const plain: Style = {};

const interned = new Map<string, Style>([["{}", plain]]);

// A program can make up a style for each letter; beyond this the table begins anew.
const maxInterned = 4096;

function intern(style: Style): Style {
  const key = JSON.stringify(style);
  const known = interned.get(key);
  if (known) return known;
  if (interned.size >= maxInterned) {
    interned.clear();
    interned.set("{}", plain);
  }
  interned.set(key, style);
  return style;
}

function ordered(style: Style): Style {
  const { fg, bg, bold, dim, italic, underline, strike, inverse, hidden, link } = style;
  return intern({
    ...(fg !== undefined && { fg }),
    ...(bg !== undefined && { bg }),
    ...(bold && { bold }),
    ...(dim && { dim }),
    ...(italic && { italic }),
    ...(underline && { underline }),
    ...(strike && { strike }),
    ...(inverse && { inverse }),
    ...(hidden && { hidden }),
    ...(link && { link }),
  });
}

const hex = (...parts: number[]) => `#${parts.map((n) => n.toString(16).padStart(2, "0")).join("")}`;

/** A colour of the table of 256. */
export function indexed(n: number): Color | undefined {
  if (!Number.isInteger(n) || n < 0 || n > 255) return undefined;
  if (n < 16) return n;
  if (n >= 232) {
    const grey = 8 + (n - 232) * 10;
    return hex(grey, grey, grey);
  }
  const step = (i: number) => (i === 0 ? 0 : 55 + i * 40);
  const cube = n - 16;
  return hex(step(Math.floor(cube / 36)), step(Math.floor(cube / 6) % 6), step(cube % 6));
}

/** Reads the colour behind 38 or 48; gives it and how many parameters it took. */
function extended(parameters: number[], at: number): [Color | undefined, number] {
  const byte = (n: number | undefined) => n !== undefined && n >= 0 && n <= 255;
  if (parameters[at] === 5) return [indexed(parameters[at + 1] ?? -1), 2];
  if (parameters[at] === 2) {
    const [r, g, b] = parameters.slice(at + 1, at + 4);
    return [byte(r) && byte(g) && byte(b) ? hex(r as number, g as number, b as number) : undefined, 4];
  }
  return [undefined, 1];
}

/** The style after CSI … m. Parameters may be separated by colons, as some write colours. */
export function applySGR(style: Style, text: string): Style {
  const next: Style = { ...style };
  // 38:2::r:g:b has a place for a colour space that nobody fills.
  const parameters = text
    .replace(/([34]8):2:[^:;]*:(\d+:\d+:\d+)/g, "$1:2:$2")
    .split(/[;:]/)
    .map((p) => (p === "" ? 0 : Number(p)));
  for (let i = 0; i < parameters.length; i++) {
    const n = parameters[i] as number;
    if (n === 0) {
      for (const name of Object.keys(next)) if (name !== "link") delete next[name as keyof Style];
    } else if (n === 1) next.bold = true;
    else if (n === 2) next.dim = true;
    else if (n === 3) next.italic = true;
    else if (n === 4 || n === 21) next.underline = true;
    else if (n === 7) next.inverse = true;
    else if (n === 8) next.hidden = true;
    else if (n === 9) next.strike = true;
    else if (n === 22) {
      delete next.bold;
      delete next.dim;
    } else if (n === 23) delete next.italic;
    else if (n === 24) delete next.underline;
    else if (n === 27) delete next.inverse;
    else if (n === 28) delete next.hidden;
    else if (n === 29) delete next.strike;
    else if (n >= 30 && n <= 37) next.fg = n - 30;
    else if (n >= 90 && n <= 97) next.fg = n - 82;
    else if (n >= 40 && n <= 47) next.bg = n - 40;
    else if (n >= 100 && n <= 107) next.bg = n - 92;
    else if (n === 39) delete next.fg;
    else if (n === 49) delete next.bg;
    else if (n === 38 || n === 48) {
      const [color, taken] = extended(parameters, i + 1);
      i += taken;
      if (color !== undefined) next[n === 38 ? "fg" : "bg"] = color;
    }
  }
  return ordered(next);
}

/** The style with a link, or without one. Only addresses a person can be sent to. */
export function withLink(style: Style, url: string): Style {
  const next = { ...style };
  if (/^https?:\/\/[^\s<>"]+$/i.test(url) && url.length < 2048) next.link = url;
  else delete next.link;
  return ordered(next);
}
