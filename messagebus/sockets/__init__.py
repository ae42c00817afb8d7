"""Sockets of an application's own: WebSockets that its code speaks on, served by the bus's loop. No Flask."""
