"""What the admin page shows: who is connected, what one client is sent, and the numbers, while somebody looks."""
