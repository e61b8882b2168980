"""The IR as trainable torch modules: `to_fx` builds one, `Bridge.write_back` brings its weights home."""

from .bridge import Bridge, to_fx

__all__ = ["Bridge", "to_fx"]
