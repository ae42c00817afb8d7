// The body of a streamed poll: batches with a separator behind each.

const SEPARATOR = "\r\n|\r\n";

/**
 * Bytes in any pieces -> one text per batch, for `emit`. Feeding it nothing ends the stream; what is left then is the one
 * batch of a poll that is no stream. An escaped separator cannot come: in JSON a line break stands as \r\n in a string, and
 * a bar nowhere else.
 */
export function batchSplitter(emit) {
  const decoder = new TextDecoder(); // keeps half a character until the other half comes
  let rest = "";
  return (bytes) => {
    const parts = (rest + decoder.decode(bytes, { stream: !!bytes })).split(SEPARATOR);
    rest = bytes ? parts.pop() : "";
    for (const text of parts) if (text) emit(text);
  };
}
