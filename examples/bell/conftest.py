pytest_plugins = ["messagebus.testing"]
