// Types of messagebus-status: importing it defines <messagebus-status>.
import type { MessageBus } from "./messagebus.mjs";

export declare class MessageBusStatus extends HTMLElement {
  /** The bus that it is of: the page's own, unless it is given another before it is put in. */
  bus: MessageBus;
}
