const bell = document.querySelector("#bell");
const unread = document.querySelector("#unread");
const list = document.querySelector("#notifications");

MessageBus.subscribe(bell.dataset.channel, (data) => {
  unread.textContent = data.unread || "";
  if (data.text) {
    const item = document.createElement("li");
    item.textContent = data.text; // as text: it is somebody's input
    list.prepend(item);
  }
});

// Away for longer than the backlog reaches: the database knows better.
MessageBus.onGap = () => location.reload();

bell.addEventListener("click", () =>
  fetch(bell.dataset.seen, { method: "POST", headers: { "X-CSRFToken": bell.dataset.token } }),
);
