"""A recorder for tests."""


class Kept:
    """Keeps a copy of everything, each activation once."""

    def __init__(self):
        self.seen = {}

    def record(self, name, layer, value):
        assert (name, layer) not in self.seen
        self.seen[name, layer] = value.clone()
