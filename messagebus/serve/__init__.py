"""The command ``messagebus``: a server for an app, or the bus by itself."""
