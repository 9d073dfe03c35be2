"""`rfclip test`, from a checkout that need not be installed."""

import _checkout

if __name__ == "__main__":
    _checkout.run("test")
