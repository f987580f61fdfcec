import { create } from "zustand";
import { mayChange } from "@/features/account/me";
import type { SessionActions } from "@/features/session";
import { importNotebook } from "@/features/session/sessions";
import { collect } from "./collect";
import { base, extension, uploadDir } from "./paths";
import type { Origin, Transfer } from "./transfers";

/** What becomes of a notebook: a session of its own, a file as any other, or nothing. */
export type NotebookChoice = "session" | "file" | "none";

interface Question {
  asked: { file: File; answer: (choice: NotebookChoice) => void } | null;
}

export const useNotebookQuestion = create<Question>(() => ({ asked: null }));

function ask(file: File): Promise<NotebookChoice> {
  return new Promise((resolve) => {
    useNotebookQuestion.setState({
      asked: {
        file,
        answer(choice) {
          useNotebookQuestion.setState({ asked: null });
          resolve(choice);
        },
      },
    });
  });
}

/**
 * Takes what a person gave the page: asks what to do with a notebook, makes
 * the session if there is none, sends the rest. Must be called in the event's
 * own handler.
 */
export async function addFiles(
  actions: SessionActions,
  items: DataTransferItemList | File[],
  dir: string = uploadDir,
  origin: Origin = "program",
): Promise<Transfer[]> {
  if (!mayChange()) return [];
  const collected = await collect(items); // begins at once, see there
  const [only] = collected.files;
  if (
    only &&
    collected.files.length === 1 &&
    extension(only.relative) === "ipynb" &&
    only.relative === base(only.relative)
  ) {
    const choice = await ask(only.file);
    if (choice === "session") await importNotebook(only.file);
    if (choice !== "file") return [];
  }
  if (collected.files.length + collected.folders.length === 0) return [];
  const id = await actions.ensureSession();
  if (!id) return [];
  const { uploadFiles } = await import("./upload"); // with the first file
  return uploadFiles(id, collected, dir, origin);
}

/** Files of a paste, with names that tell them apart: a picture has none of its own. */
export function pastedFiles(data: DataTransfer, now = new Date()): File[] {
  const stamp = now.toISOString().slice(0, 19).replace(/[-:]/g, "").replace("T", "-");
  return [...data.files].map((file, i) => {
    if (!/^image\.\w+$/.test(file.name)) return file;
    const name = `pasted-${stamp}${i > 0 ? `-${i + 1}` : ""}.${extension(file.name)}`;
    return new File([file], name, { type: file.type, lastModified: file.lastModified });
  });
}
