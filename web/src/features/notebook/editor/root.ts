// CodeMirror writes its styles into a style element, which the page's policy
// refuses. Where it finds a shadow root instead of a document it uses a
// constructed style sheet, which the policy allows. This is the document,
// showing only what an editor uses of its root and so taken for the latter.

export function styledRoot(doc: Document): Document {
  const root = {
    nodeType: Node.DOCUMENT_NODE,
    ownerDocument: doc,
    get activeElement() {
      return doc.activeElement;
    },
    getSelection: () => doc.getSelection(),
    get adoptedStyleSheets() {
      return doc.adoptedStyleSheets;
    },
    set adoptedStyleSheets(sheets: CSSStyleSheet[]) {
      doc.adoptedStyleSheets = sheets;
    },
  };
  // jsdom has no constructed sheets; nothing is styled there anyway.
  return "adoptedStyleSheets" in doc ? (root as unknown as Document) : doc;
}
