// How numbers and lists are said.

export function percent(fraction) {
  return `${(100 * fraction).toFixed(1)}\u00a0%`;
}

/** For a screen reader, which would spell the sign out oddly. */
export function spoken(fraction) {
  return `${(100 * fraction).toFixed(1)} percent`;
}

export function joined(words) {
  return words.length > 1 ? `${words.slice(0, -1).join(", ")} and ${words.at(-1)}` : words.join("");
}
