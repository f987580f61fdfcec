import type { Json, TableColumn } from "@/api/types";

export function isNumeric(dtype: string): boolean {
  return /^(u?int(eger)?|float|decimal|double|complex|number|long|short|[iuf])\d*($|\W)/i.test(dtype);
}

function isFloat(dtype: string): boolean {
  return /^(float|double|f)\d*$/i.test(dtype);
}

const maxDecimals = 4;

/** Decimals that a column of numbers is shown with, so that its points stand below each other. */
export function decimalsOf(values: Iterable<Json | undefined>): number {
  let most = 0;
  for (const value of values) {
    if (typeof value !== "number" || !Number.isFinite(value) || isExtreme(value)) continue;
    const text = String(value);
    if (text.includes("e")) continue;
    const point = text.indexOf(".");
    if (point >= 0) most = Math.max(most, text.length - point - 1);
    if (most >= maxDecimals) return maxDecimals;
  }
  return most;
}

function isExtreme(value: number): boolean {
  const size = Math.abs(value);
  return size !== 0 && (size >= 1e12 || size < 1e-4);
}

/** A value as a cell shows it. null stands for a missing value and is shown by its own sign. */
export function formatCell(value: Json | undefined, dtype: string, decimals: number): string {
  if (value === null || value === undefined) return "";
  if (typeof value === "boolean") return value ? "True" : "False";
  if (typeof value === "number") {
    if (!isFloat(dtype) && Number.isInteger(value)) return String(value);
    if (isExtreme(value))
      return value
        .toExponential(4)
        .replace(/\.?0+e/, "e")
        .replace("e+", "e");
    return value.toFixed(decimals);
  }
  if (typeof value === "string") return value;
  return JSON.stringify(value);
}

/** A value as it is copied: nothing rounded. */
export function plainCell(value: Json | undefined): string {
  if (value === null || value === undefined) return "";
  if (typeof value === "boolean") return value ? "True" : "False";
  return typeof value === "object" ? JSON.stringify(value) : String(value);
}

export function toTSV(rows: string[][]): string {
  return rows
    .map((row) => row.map((cell) => (/[\t\n\r"]/.test(cell) ? `"${cell.replaceAll('"', '""')}"` : cell)).join("\t"))
    .join("\n");
}

export function toCSV(rows: string[][]): string {
  return rows
    .map(
      (row) => `${row.map((cell) => (/[,\n\r"]/.test(cell) ? `"${cell.replaceAll('"', '""')}"` : cell)).join(",")}\r\n`,
    )
    .join("");
}

const letter = 7.9; // px of a digit at 13 px
const padding = 26;

/** Width in px that shows most values of a column. */
export function widthOf(column: TableColumn, cells: string[]): number {
  const head = Math.min(column.name.length, 24) * letter + padding + 14;
  const meta = (column.dtype.length + 8) * 6;
  let width = Math.max(head, Math.min(meta, 130), 64);
  for (const cell of cells) width = Math.max(width, Math.min(columnsOf(cell), 40) * letter + padding);
  return Math.round(Math.min(width, 320));
}

/** Letters of East Asian scripts are two columns wide. */
function columnsOf(text: string): number {
  const wide = text.slice(0, 40).match(/[\u1100-\u115f\u2e80-\ua4cf\uac00-\ud7a3\uf900-\ufaff\uff00-\uff60]/g);
  return text.length + (wide?.length ?? 0);
}

/** Compares values for sorting; missing ones are always last. */
export function compareCells(a: Json | undefined, b: Json | undefined, descending: boolean): number {
  const missing = (v: Json | undefined) => v === null || v === undefined;
  if (missing(a) || missing(b)) return missing(a) && missing(b) ? 0 : missing(a) ? 1 : -1;
  const sign = descending ? -1 : 1;
  if (typeof a === "number" && typeof b === "number") return sign * (a - b);
  const [x, y] = [plainCell(a), plainCell(b)];
  return sign * (x < y ? -1 : x > y ? 1 : 0);
}
