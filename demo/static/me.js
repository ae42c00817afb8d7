// Who sits at this browser, and what it remembers. Works without storage as well, for one page's time.

const ADJECTIVES = ["Quiet", "Bright", "Brave", "Calm", "Clever", "Gentle", "Happy", "Keen", "Merry", "Nimble", "Sunny", "Witty"];
const ANIMALS = ["Otter", "Heron", "Badger", "Finch", "Fox", "Hare", "Lynx", "Marten", "Owl", "Robin", "Seal", "Wren"];

export function recall(name) {
  try {
    return localStorage.getItem(`chat:${name}`);
  } catch {
    return null;
  }
}

export function remember(name, value) {
  try {
    localStorage.setItem(`chat:${name}`, value);
  } catch {
    // Forbidden or full: forgotten with the page.
  }
}

export const randomKey = () =>
  Array.from(crypto.getRandomValues(new Uint8Array(16)), (byte) => byte.toString(16).padStart(2, "0")).join("");

const anyOf = (list) => list[Math.floor(Math.random() * list.length)];
const friendlyName = () => `${anyOf(ADJECTIVES)} ${anyOf(ANIMALS)}`;

function kept(name, make, good) {
  const known = recall(name);
  if (known && good(known)) return known;
  const made = make();
  remember(name, made);
  return made;
}

export const me = {
  author: kept("author", randomKey, (key) => /^[0-9a-f]{32}$/.test(key)),
  name: kept("name", friendlyName, (name) => name.trim()),
};

/* The field with the nickname: an empty one gets the last good name back. */
export function bindNickname(input) {
  input.value = me.name;
  input.addEventListener("input", () => {
    if (!input.value.trim()) return;
    me.name = input.value.trim();
    remember("name", me.name);
  });
  input.addEventListener("blur", () => (input.value = me.name));
}
