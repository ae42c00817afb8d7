"""Who listens in this process: subscribers, channel windows, history, permissions, callbacks. No HTTP."""
