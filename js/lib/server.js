// @ts-check
/** Kleinod's own routes on ComfyUI's server. No side effects on import. */
import { api } from "../../../scripts/api.js";
import { saySentences } from "./sentences.js";

/**
 * @param {string} route what follows /kleinod/
 * @param {string} method
 * @param {object} [body]
 * @returns {Promise<any>} the answer's JSON; an Error with the server's sentence otherwise
 */
export async function call(route, method = "GET", body = undefined) {
  const answer = await api.fetchApi(`/kleinod/${route}`, {
    method,
    headers: { "Content-Type": "application/json", "X-Kleinod": "1" },
    body: body === undefined ? undefined : JSON.stringify(body),
  });
  const data = await answer.json().catch(() => ({ error: `HTTP ${answer.status}` }));
  if (!answer.ok) throw new Error(data.error ?? `HTTP ${answer.status}`);
  return data;
}

/** The sentence in what was thrown, in the page's language. @param {unknown} thrown */
export const wordsOf = (thrown) => saySentences(thrown instanceof Error ? thrown.message : String(thrown));
