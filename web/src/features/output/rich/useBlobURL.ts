import { useEffect, useState } from "react";

/** An address of bytes for as long as they are shown. */
export function useBlobURL(bytes: Uint8Array<ArrayBuffer> | undefined, type: string): string | undefined {
  const [url, setURL] = useState<string>();
  useEffect(() => {
    if (!bytes) {
      setURL(undefined);
      return;
    }
    const made = URL.createObjectURL(new Blob([bytes], { type }));
    setURL(made);
    return () => URL.revokeObjectURL(made);
  }, [bytes, type]);
  return url;
}

/** Has the browser save bytes as a file. */
export function saveFile(data: BlobPart, type: string, name: string): void {
  const url = URL.createObjectURL(new Blob([data], { type }));
  const link = document.createElement("a");
  link.href = url;
  link.download = name;
  link.click();
  setTimeout(() => URL.revokeObjectURL(url), 10_000);
}
