// Reading safetensors: eight bytes of length, a JSON header, then the numbers, little-endian.

const KINDS = { F32: Float32Array, U8: Uint8Array };

/** {tensors: {name: {shape, values}}, metadata}; an Error where the file is none or cut short. */
export function parse(buffer) {
  const view = new DataView(buffer);
  const length = buffer.byteLength < 8 ? NaN : Number(view.getBigUint64(0, true));
  if (!(length <= buffer.byteLength - 8)) throw new Error("The answer is no safetensors file, or it is cut short.");
  const { __metadata__: metadata = {}, ...entries } = JSON.parse(new TextDecoder().decode(new Uint8Array(buffer, 8, length)));
  const start = 8 + length, tensors = {};
  for (const [name, { dtype, shape, data_offsets: [from, to] }] of Object.entries(entries)) {
    const Kind = KINDS[dtype];
    if (!Kind) throw new Error(`The tensor ${name} is ${dtype}; F32 and U8 are read.`);
    if (start + to > buffer.byteLength) throw new Error("The answer is cut short.");
    // A view where the numbers are aligned, which the format asks of writers but not in so many words; else a copy.
    const values = (start + from) % Kind.BYTES_PER_ELEMENT
      ? new Kind(buffer.slice(start + from, start + to))
      : new Kind(buffer, start + from, (to - from) / Kind.BYTES_PER_ELEMENT);
    tensors[name] = { shape, values };
  }
  return { tensors, metadata };
}
