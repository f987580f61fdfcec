import { describe, expect, test } from "vitest";
import { bytesOf, kindOf, pixelsOf, representations, sizeOf, textOf } from "./mime";

describe("which representation comes first", () => {
  test.each([
    ["a data frame", ["text/plain", "text/html", "application/vnd.caesarion.table+json"], ["table", "html", "text"]],
    [
      "an Altair chart",
      ["application/vnd.vegalite.v6+json", "text/html", "image/png", "text/plain"],
      ["vega", "html", "image", "text"],
    ],
    [
      "a vega-lite type with a minor version",
      ["application/vnd.vegalite.v5.20.1+json", "text/plain"],
      ["vega", "text"],
    ],
    ["a Plotly figure", ["application/vnd.plotly.v1+json", "text/html"], ["plotly", "html"]],
    ["a sympy formula with a picture", ["image/png", "text/latex", "text/plain"], ["latex", "image", "text"]],
    ["a widget with text", ["text/plain", "application/vnd.jupyter.widget-view+json"], ["widget", "text"]],
    ["an unknown type beside a known one", ["application/vnd.bokehjs_exec.v0+json", "text/html"], ["html"]],
    ["an unknown type with text", ["application/x-new", "text/plain"], ["text", "unknown"]],
    ["an unknown type alone", ["application/x-new"], ["unknown"]],
  ])("%s", (_, mimes, want) => {
    const data = Object.fromEntries(mimes.map((mime) => [mime, "x"]));
    expect(representations({ data }).map((r) => r.kind)).toEqual(want);
  });

  test("what was too large to come along has no value", () => {
    const got = representations({ data: { "text/plain": "Figure" }, refs: { "image/png": { bytes: 1e6 } } });
    expect(got).toEqual([
      { mime: "image/png", kind: "image" },
      { mime: "text/plain", kind: "text", value: "Figure" },
    ]);
  });

  test("text that only names the object is left out beside others", () => {
    const text = "<Figure size 640x480 with 1 Axes>";
    expect(representations({ data: { "image/png": "x", "text/plain": text } }).map((r) => r.kind)).toEqual(["image"]);
    expect(representations({ data: { "text/plain": text } }).map((r) => r.kind)).toEqual(["text"]);
  });

  test("names of types that only look like known ones are unknown", () => {
    for (const mime of [
      "image/svg+xml;x",
      "text/html5",
      "image/x-icon",
      "Text/HTML",
      "application/vnd.vegalite.v7+json",
    ]) {
      expect(kindOf(mime), mime).toBe("unknown");
    }
  });
});

test("the chart in Altair's HTML", () => {
  const html = (spec: string, mode: string) =>
    `<div id="altair-viz"></div><script>(function(spec, embedOpt){ vegaEmbed(outputDiv, spec, embedOpt) })(${spec}, {"mode": "${mode}"});\n</script>`;
  const spec = { mark: "bar", data: { values: [{ x: "})({" }] } };
  const data = { "text/html": html(JSON.stringify(spec), "vega-lite") };
  expect(representations({ data }).map((r) => [r.kind, r.value])).toEqual([
    ["vega", spec],
    ["html", data["text/html"]],
  ]);
  for (const none of [
    "<p>vegaEmbed</p>",
    html("{broken", "vega-lite"),
    html("{}", "vega"),
    "<script>x({}, {})</script>",
  ]) {
    expect(representations({ data: { "text/html": none } }).map((r) => r.kind)).toEqual(["html"]);
  }
});

test("text as a list of lines", () => {
  expect(textOf(["a\n", "b"])).toBe("a\nb");
  expect(textOf({ a: 1 })).toBe('{\n  "a": 1\n}');
});

test("base64 with newlines, and what is none", () => {
  expect(bytesOf("aGk=\n")).toEqual(new Uint8Array([104, 105]));
  expect(bytesOf("<svg onload=alert(1)>")).toBeUndefined();
});

test("sizes from metadata are bounded numbers", () => {
  expect(sizeOf({ "image/png": { width: 300, height: "200" } }, "image/png")).toEqual({ width: 300, height: 200 });
  expect(sizeOf({ width: 5, height: 1e9 }, "image/png")).toEqual({ width: 5 });
  expect(sizeOf({ "image/png": { width: "100%;position:fixed" } }, "image/png")).toEqual({});
});

test("pixels of a PNG and of damaged data", () => {
  const png = new Uint8Array(24);
  png.set([0x89, 0x50, 0x4e, 0x47]);
  png[19] = 7;
  png[23] = 9;
  expect(pixelsOf(png)).toEqual({ width: 7, height: 9 });
  expect(pixelsOf(new Uint8Array([0x89, 0x50]))).toBeUndefined();
  expect(pixelsOf(new Uint8Array([0xff, 0xd8, 0xff, 0xe0, 0, 0, 0, 0, 0, 0, 0, 0, 0]))).toBeUndefined();
});
