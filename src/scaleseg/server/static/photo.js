// A photograph as the browser sees it: upright, and reduced to what the page shows. The server gets the file as it is.

export const LONGEST = 1000; // pixels of the large picture's longer side
export const ACCEPTED = "JPEG, PNG, WebP, BMP or TIFF";

/** The first of the files that somebody chose, dropped or pasted, and how many `more` there are; null where there is none. */
export function given(files, name = "photograph") {
  return files?.length ? { name: files[0].name || name, blob: files[0], more: files.length - 1 } : null;
}

/** An Error where there is nothing to send: a folder was dropped, the file is gone, or it has more bytes than the server takes. */
export async function readable({ name, blob }, limit = Infinity) {
  try {
    await blob.slice(0, 1).arrayBuffer();
  } catch {
    throw new Error(`${name} cannot be read: it is a folder, or it is gone; give one photograph: ${ACCEPTED}.`);
  }
  if (blob.size <= limit) return;
  throw new Error(`${name} has ${blob.size.toLocaleString("en")} bytes; the server takes at most ${limit.toLocaleString("en")}: give a smaller file.`);
}

/** {size: [rows, columns], bitmap} with the bitmap no longer than `LONGEST`; null where this browser cannot decode it. */
export async function decode(blob) {
  let whole;
  try {
    whole = await createImageBitmap(blob, { imageOrientation: "from-image" });
  } catch {
    return null;
  }
  const size = [whole.height, whole.width], factor = Math.min(1, LONGEST / Math.max(...size));
  if (factor === 1) return { size, bitmap: whole };
  const [resizeHeight, resizeWidth] = size.map((pixels) => Math.max(1, Math.round(pixels * factor)));
  const bitmap = await createImageBitmap(whole, { resizeWidth, resizeHeight, resizeQuality: "high" });
  whole.close();
  return { size, bitmap };
}
