import { signInAgain } from "@/api/client";
import { problemOf } from "./answers";

/** One request of an upload. fetch tells nothing of how much went out, so this is XMLHttpRequest. */
export interface SendRequest {
  method: "PUT" | "HEAD" | "GET" | "POST";
  url: string;
  headers?: Record<string, string>;
  body?: Blob | string;
  signal?: AbortSignal;
  onProgress?: (bytes: number) => void;
  /** Given up when nothing moved for so long: a dead connection can stay silent for many minutes. */
  stallMs?: number;
}

export interface Answer {
  status: number;
  header: (name: string) => string | null;
  text: string;
}

/** The connection ended before there was an answer. */
export class CutError extends Error {
  override name = "CutError";
}

export type Send = (request: SendRequest) => Promise<Answer>;

/** Sends it, once more after a sign-in where one is needed. */
export const send: Send = async (request) => {
  const answer = await sendOnce(request);
  // What is asked for heads only has no body that says why.
  const { code } = request.method === "HEAD" ? { code: "signed-out" } : problemOf(answer);
  return (await signInAgain({ status: answer.status, code }, request.signal)) ? sendOnce(request) : answer;
};

const sendOnce: Send = (request) =>
  new Promise((resolve, reject) => {
    const xhr = new XMLHttpRequest();
    let timer: ReturnType<typeof setTimeout> | undefined;
    const abort = () => xhr.abort();
    const over = () => {
      clearTimeout(timer);
      request.signal?.removeEventListener("abort", abort);
    };
    const moved = () => {
      clearTimeout(timer);
      if (request.stallMs) timer = setTimeout(abort, request.stallMs);
    };
    if (request.signal?.aborted) {
      reject(request.signal.reason);
      return;
    }
    request.signal?.addEventListener("abort", abort);
    xhr.open(request.method, request.url);
    for (const [name, value] of Object.entries(request.headers ?? {})) xhr.setRequestHeader(name, value);
    xhr.upload.onprogress = (event) => {
      moved();
      request.onProgress?.(event.loaded);
    };
    xhr.onload = () => {
      over();
      resolve({ status: xhr.status, header: (name) => xhr.getResponseHeader(name), text: xhr.responseText });
    };
    xhr.onerror = () => {
      over();
      reject(new CutError("the connection ended"));
    };
    xhr.onabort = () => {
      over();
      reject(request.signal?.aborted ? request.signal.reason : new CutError("nothing moved for too long"));
    };
    moved();
    xhr.send(request.body ?? null);
  });
