import "flask-messagebus/messagebus.js";

console.log("script:", MessageBus.state);
