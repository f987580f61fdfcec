import { describe, expect, test } from "vitest";
import { compareCells, decimalsOf, formatCell, isNumeric, plainCell, toCSV, toTSV, widthOf } from "./format";

describe("cells", () => {
  test.each([
    [1.5, "float64", 2, "1.50"],
    [1, "float64", 1, "1.0"],
    [2026, "int64", 0, "2026"],
    ["1152921504606846976", "int64", 0, "1152921504606846976"],
    [0.000012345678, "float64", 4, "1.2346e-5"],
    [1.5e20, "float64", 2, "1.5e20"],
    [0, "float64", 2, "0.00"],
    [true, "bool", 0, "True"],
    [null, "float64", 2, ""],
    ["<b>x</b>", "object", 0, "<b>x</b>"],
    [{ a: 1 }, "object", 0, '{"a":1}'],
  ])("%j as %s", (value, dtype, decimals, want) => {
    expect(formatCell(value, dtype, decimals)).toBe(want);
  });

  test("a column's decimals are those its values need, within bounds", () => {
    expect(decimalsOf([1, 1.25, null, "x"])).toBe(2);
    expect(decimalsOf([1 / 3])).toBe(4);
    expect(decimalsOf([1e-9, 3])).toBe(0);
  });

  test("what is copied is not rounded", () => {
    expect(plainCell(1 / 3)).toBe("0.3333333333333333");
    expect(plainCell(null)).toBe("");
  });
});

test("types that stand right", () => {
  for (const dtype of ["int64", "Int64", "float32", "UInt8", "decimal128(10, 2)", "double"])
    expect(isNumeric(dtype), dtype).toBe(true);
  for (const dtype of ["object", "str", "String", "bool", "datetime64[ns]", "category", "interval"])
    expect(isNumeric(dtype), dtype).toBe(false);
});

test("tabs, quotes and newlines in copied cells", () => {
  expect(
    toTSV([
      ["a\tb", 'say "x"'],
      ["1", "2"],
    ]),
  ).toBe('"a\tb"\t"say ""x"""\n1\t2');
  expect(
    toCSV([
      ["a,b", "c"],
      ["x\ny", ""],
    ]),
  ).toBe('"a,b",c\r\n"x\ny",\r\n');
});

test("widths are bounded", () => {
  const column = { name: "x".repeat(500), dtype: "object", nulls: 0 };
  expect(widthOf(column, ["y".repeat(10_000)])).toBeLessThanOrEqual(320);
  expect(widthOf({ name: "a", dtype: "int64", nulls: null }, ["1"])).toBeGreaterThanOrEqual(64);
});

test("missing values sort last both ways", () => {
  const sorted = (descending: boolean) => [2, null, 10, 1].sort((a, b) => compareCells(a, b, descending));
  expect(sorted(false)).toEqual([1, 2, 10, null]);
  expect(sorted(true)).toEqual([10, 2, 1, null]);
});
