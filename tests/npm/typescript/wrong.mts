import MessageBus from "flask-messagebus";
import Nothing from "flask-messagebus/messagebus.js"; // the script exports nothing

MessageBus.start({ transports: ["carrier pigeon"] });
Nothing;
