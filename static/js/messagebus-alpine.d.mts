// Types of messagebus-alpine: `Alpine.plugin(plugin)` adds x-channel and $messagebus.
export declare function plugin(Alpine: any): void;
export default plugin;
