import type { Me } from "./types";

export default function Usage(_: { me: Me }) {
  return null;
}
