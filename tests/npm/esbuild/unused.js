// For its global alone: a bundler must not drop it.
import "flask-messagebus";

console.log("unused:", globalThis.MessageBus.status());
