"""The command ``messagebus`` beyond its server: each command in a file or a directory of its own."""
