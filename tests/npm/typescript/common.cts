import { MessageBus, createMessageBus, type State } from "flask-messagebus";

const state: State = MessageBus.state;
createMessageBus({ transports: ["polling"] }).stop();
console.log("common:", state);
