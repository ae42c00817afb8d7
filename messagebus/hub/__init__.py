"""Who listens in this process: subscribers, channel windows, recovery, permissions, callbacks. No HTTP."""
