"""Channel classes: server code for each subscription of a client, and the wire of ActionCable and AnyCable."""
