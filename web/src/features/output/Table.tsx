export type TableSource = { frame: string } | { variable: string } | { path: string };

export function DataTable(_: { source: TableSource }) {
  return null;
}
