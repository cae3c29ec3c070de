"""The launch files run against stand-ins for the programs of the cloud."""
