// Asking the server. The token, where one is needed, is kept in memory only: it is gone with the page.

const TRIES = 6;
const LONGEST = 30; // seconds that are waited between two tries, whatever the server says

let token = "";

export function setToken(value) {
  token = value.trim();
}

/** What the server refused, in its own sentence. */
export class Refused extends Error {
  constructor(sentence, status) {
    super(sentence);
    this.status = status;
  }
}

export function models(signal) {
  return ask("/v1/models", { signal }, "json");
}

export function sample(address, signal) {
  return ask(address, { signal }, "blob");
}

/** POST /v1/segment; `options` are its query parameters, `note` is told when the server is busy and we wait. */
export async function segment(blob, options, { signal, note, read }) {
  const query = new URLSearchParams(Object.entries(options).filter(([, value]) => value !== null && value !== undefined));
  for (let attempt = 1; ; attempt++) {
    const body = new FormData();
    body.append("image", blob, blob.name || "photograph");
    try {
      return await ask(`/v1/segment?${query}`, { method: "POST", body, signal }, read);
    } catch (error) {
      if (error.status !== 503 || attempt === TRIES) throw error;
      note(`The server is busy; asking again in ${error.wait} s (${attempt} of ${TRIES - 1}).`);
      await pause(error.wait * 1000, signal);
    }
  }
}

/** The answer's body, read as "json", "blob" or "arrayBuffer". */
async function ask(address, options, read) {
  const headers = token ? { Authorization: `Bearer ${token}` } : {};
  let answer;
  try {
    answer = await fetch(address, { ...options, headers, cache: "no-store", credentials: "omit", redirect: "error" });
    if (answer.ok) return await answer[read]();
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new Refused("The server does not answer; see whether it still runs.", 0);
  }
  const refused = new Refused(await sentence(answer), answer.status);
  const wait = Number(answer.headers.get("Retry-After"));
  refused.wait = Math.min(LONGEST, Math.max(1, Math.ceil(wait) || 1));
  throw refused;
}

async function sentence(answer) {
  try {
    const said = (await answer.json()).error;
    if (typeof said === "string" && said) return /[.!?]$/.test(said) ? said : `${said}.`;
  } catch {
    // a proxy's page, or nothing at all
  }
  return `The server answered ${answer.status} ${answer.statusText}`.trim() + ".";
}

function pause(milliseconds, signal) {
  return new Promise((done, fail) => {
    const timer = setTimeout(done, milliseconds);
    signal.addEventListener("abort", () => {
      clearTimeout(timer);
      fail(new DOMException("aborted", "AbortError"));
    }, { once: true });
  });
}
