import MessageBus, { createMessageBus, type Gap, type State } from "flask-messagebus";

const state: State = MessageBus.state;
MessageBus.onGap = (channel: string, gap: Gap) => console.log(channel, gap.before);
createMessageBus({ transports: ["polling"] }).stop();
console.log("module:", state);
