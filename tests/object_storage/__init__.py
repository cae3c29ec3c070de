"""Object storage, against a server of its protocol on this machine."""
