"""The loop over all sockets of subscribers: waiting, deadlines, writing. It knows no HTTP and no channels."""
