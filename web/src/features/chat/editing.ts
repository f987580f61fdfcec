// Lets the composer open an earlier message for editing where it stands.

const listeners = new Map<string, () => void>();

export function onEditMessage(id: string, open: () => void): () => void {
  listeners.set(id, open);
  return () => {
    if (listeners.get(id) === open) listeners.delete(id);
  };
}

/** Opens the message for editing; tells whether it is there to be edited. */
export function editMessage(id: string): boolean {
  const open = listeners.get(id);
  open?.();
  return open !== undefined;
}
