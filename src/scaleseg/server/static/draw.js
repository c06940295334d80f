// Painting: class colours over a photograph, weight maps, differences. As images.draw_overlay and draw_weights do it.

const STOPS = [
  [0, 34, 78], [18, 53, 112], [59, 73, 108], [87, 93, 109], [112, 113, 115],
  [138, 134, 120], [165, 156, 116], [195, 179, 105], [254, 232, 56],
];

const WHITE = 0xffffffff;
const DIFFERENT = packed([230, 97, 0], 255);

/** The cividis colours of 0 to 255, packed as ImageData wants them. */
const RAMP = Uint32Array.from({ length: 256 }, (_, index) => {
  const place = (index / 255) * (STOPS.length - 1), lower = Math.min(STOPS.length - 2, Math.floor(place));
  return packed(STOPS[lower].map((from, channel) => Math.round(from + (STOPS[lower + 1][channel] - from) * (place - lower))), 255);
});

/** A CSS colour of the ramp. */
export function rampColour(fraction) {
  const value = RAMP[Math.round(Math.min(1, Math.max(0, fraction)) * 255)];
  return `rgb(${value & 255} ${(value >> 8) & 255} ${(value >> 16) & 255})`;
}

/** PASCAL VOC's colour of a class id, as images.palette. */
export function vocColour(id) {
  const colour = [0, 0, 0];
  for (let bit = 7, rest = id; bit >= 0; bit--, rest >>= 3) {
    for (let channel = 0; channel < 3; channel++) colour[channel] |= ((rest >> channel) & 1) << bit;
  }
  return colour;
}

function packed([red, green, blue], alpha) {
  return ((alpha << 24) | (blue << 16) | (green << 8) | red) >>> 0; // little-endian, as every browser's machine today
}

/** Class colours to lay over a photograph, borders in white; hidden classes and class 0 stay clear. */
export function classLayer(labels, width, height, colours, hidden, opacity) {
  const layer = new ImageData(width, height), pixels = new Uint32Array(layer.data.buffer);
  const shown = Uint8Array.from({ length: 256 }, (_, id) => (hidden.has(id) ? 0 : id));
  const paint = Uint32Array.from({ length: 256 }, (_, id) => (id && colours[id] ? packed(colours[id], Math.round(opacity * 255)) : 0));
  for (let row = 0, index = 0; row < height; row++) {
    for (let column = 0; column < width; column++, index++) {
      const id = shown[labels[index]];
      const edge = (column > 0 && shown[labels[index - 1]] !== id) || (row > 0 && shown[labels[index - width]] !== id);
      pixels[index] = edge && opacity > 0 ? WHITE : paint[id];
    }
  }
  return layer;
}

/** A map of weights from 0, dark blue, to 1, yellow; the borders of the classes in white where labels are given. */
export function weightLayer(values, width, height, labels = null) {
  const layer = new ImageData(width, height), pixels = new Uint32Array(layer.data.buffer);
  for (let row = 0, index = 0; row < height; row++) {
    for (let column = 0; column < width; column++, index++) {
      const edge = labels && ((column > 0 && labels[index - 1] !== labels[index]) || (row > 0 && labels[index - width] !== labels[index]));
      pixels[index] = edge ? WHITE : RAMP[Math.round(Math.min(1, Math.max(0, values[index])) * 255)];
    }
  }
  return layer;
}

/** Where two label maps name different classes: `apart[index]` is 1 there. Drawn as a hatch, which needs no colour. */
export function differenceLayer(apart, width, height) {
  const layer = new ImageData(width, height), pixels = new Uint32Array(layer.data.buffer);
  const band = Math.max(2, Math.round(Math.max(width, height) / 160));
  for (let row = 0, index = 0; row < height; row++) {
    for (let column = 0; column < width; column++, index++) {
      if (!apart[index]) pixels[index] = 0xb0ffffff;
      else pixels[index] = Math.floor((row + column) / band) % 3 ? DIFFERENT : 0xff202020;
    }
  }
  return layer;
}

/** A layer on a canvas, over the photograph where one is given. */
export function put(canvas, layer, bitmap = null) {
  const context = canvas.getContext("2d");
  if (canvas.width !== layer.width || canvas.height !== layer.height) {
    canvas.width = layer.width;
    canvas.height = layer.height;
  }
  if (!bitmap) {
    context.putImageData(layer, 0, 0);
    return;
  }
  context.drawImage(bitmap, 0, 0, layer.width, layer.height);
  context.drawImage(spare(layer), 0, 0);
}

/** Left of `split` (0 to 1) the canvas stays; right of it another canvas is drawn, with a line between. */
export function swipe(canvas, other, split) {
  const context = canvas.getContext("2d"), from = Math.round(canvas.width * split);
  if (from < canvas.width) {
    const scale = other.width / canvas.width;
    context.drawImage(other, from * scale, 0, (canvas.width - from) * scale, other.height, from, 0, canvas.width - from, canvas.height);
  }
  const line = Math.max(2, Math.round(canvas.width / 400));
  context.fillStyle = "#000";
  context.fillRect(from - line, 0, 2 * line, canvas.height);
  context.fillStyle = "#fff";
  context.fillRect(from - line / 2, 0, line, canvas.height);
}

let scratch = null;

/** ImageData replaces what it is put on; to lay it over something it goes by way of a canvas of its own. */
function spare(layer) {
  scratch ??= document.createElement("canvas");
  if (scratch.width !== layer.width || scratch.height !== layer.height) {
    scratch.width = layer.width;
    scratch.height = layer.height;
  }
  scratch.getContext("2d").putImageData(layer, 0, 0);
  return scratch;
}
