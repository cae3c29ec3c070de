"""One HTML page about one or several runs, that needs nothing beside itself."""
