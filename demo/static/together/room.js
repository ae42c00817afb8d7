// Who is here, who types, what is said, and to whom.
const { MessageBus } = window;
const ROOM = "/together/room", TYPING = "/together/typing";
const TYPING_SECONDS = 3;
const $ = (id) => document.getElementById(id);
const { me } = document.body.dataset;
let to = null; // the member that the next message is for
const typing = new Map(); // user -> the timer that takes the name away

function make(name, text = "", className = "") {
  return Object.assign(document.createElement(name), { textContent: text, className });
}

// ---- what is said ----

MessageBus.subscribe(ROOM, ({ line, from, name, to, text }) => {
  const row = make("div", "", line ? "line" : `${to ? "whisper" : ""} ${from === me ? "own" : ""}`);
  if (line) row.textContent = line;
  else row.append(make("b", to ? `${name}, for you two alone` : name), make("span", text));
  $("log").append(row);
  row.scrollIntoView({ block: "nearest" });
  stopTyping(from);
}, 0);

$("form").onsubmit = async (event) => {
  event.preventDefault();
  const text = $("text").value;
  $("problem").textContent = "";
  try {
    if (to) await whisper(to.id, text);
    else await MessageBus.publish(ROOM, { text });
    $("text").value = "";
  } catch (error) {
    $("problem").textContent = error.message;
  }
};

async function whisper(to, text) {
  const { ok, status } = await fetch("whisper", {
    method: "POST", headers: { "Content-Type": "application/json" }, body: JSON.stringify({ to, text }),
  });
  if (!ok) throw new Error(`It was not sent (${status}).`);
}

// ---- who types ----

MessageBus.subscribe(TYPING, ({ from, name }) => {
  if (from === me) return;
  clearTimeout(typing.get(from)?.timer);
  typing.set(from, { name, timer: setTimeout(() => stopTyping(from), TYPING_SECONDS * 1000) });
  showTyping();
});

function stopTyping(user) {
  clearTimeout(typing.get(user)?.timer);
  if (typing.delete(user)) showTyping();
}

function showTyping() {
  const names = [...typing.values()].map(({ name }) => name);
  $("typing").textContent = names.length ? `${names.join(", ")} ${names.length > 1 ? "are" : "is"} typing` : "";
}

let toldAt = 0;
$("text").oninput = () => {
  if (to || Date.now() < toldAt + 1000) return;
  toldAt = Date.now();
  MessageBus.publish(TYPING, null, { transient: true, key: "typing" }).catch(() => {});
};

// ---- who is here ----

MessageBus.presence(ROOM, {
  onChange({ count, members }) {
    $("count").textContent = count;
    const focused = $("members").querySelector("button:focus")?.dataset.member;
    $("members").replaceChildren(...(members ?? []).map((member) => {
      const row = make("li"), { name } = member.info;
      if (member.id === me) row.append(make("span", `${name} (you)`));
      else {
        const button = make("button", name, "quiet");
        button.title = `Whisper to ${name}`;
        button.dataset.member = member.id;
        button.onclick = () => address(member);
        row.append(button);
      }
      return row;
    }));
    [...$("members").querySelectorAll("button")].find((button) => button.dataset.member === focused)?.focus();
  },
});

function address(member) {
  to = member;
  $("text").placeholder = member ? `To ${member.info.name} alone` : "To everybody";
  $("all").hidden = !member;
  $("text").focus();
}
$("all").onclick = () => address(null);
