"""Who is there: members, rooms, and how workers agree on them. Pure; ``hub.presence`` connects it."""
