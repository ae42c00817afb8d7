// Types of messagebus-htmx: `register(htmx)` defines the extension "messagebus".
export declare function register(htmx: any): void;
