import { call } from "@/api/client";
import { forgetPersonal } from "@/lib/storage";
import { beginAnew, currentMe } from "./me";

/** Signs out here, or in all browsers, and leaves nothing of the person's on the page or in the browser. */
export async function signOut(everywhere = false): Promise<void> {
  if (everywhere) await call("DELETE", "/v1/me/logins");
  else await call("POST", "/v1/logout");
  if (currentMe()?.auth === "accounts") forgetPersonal();
  beginAnew();
}
