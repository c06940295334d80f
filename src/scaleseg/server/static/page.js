// The page's own voice: its elements by id, the status line, the error line, and word to a screen reader.

const QUIET = 500; // milliseconds before a screen reader is told

let quiet = 0;

export const $ = (id) => document.getElementById(id);

/** The status line. */
export function tell(text) {
  $("status").textContent = text;
}

/** To a screen reader, once nothing new came for a moment. */
export function announce(text) {
  clearTimeout(quiet);
  quiet = setTimeout(() => { $("live").textContent = text; }, QUIET);
}

/** The error line; where the server asks for a token, so does the page. */
export function complain(error) {
  tell("");
  $("error").hidden = false;
  $("error").textContent = error.message;
  if (error.status !== 401) return;
  $("token-form").hidden = false;
  $("token").focus();
}

export function forgive() {
  $("error").hidden = true;
  $("error").textContent = "";
}
