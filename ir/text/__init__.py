"""The text form of a model: printed, parsed, and kept in a file with its weights beside it."""

from .form import load_text, parse_model, print_model, save_text

__all__ = ["load_text", "parse_model", "print_model", "save_text"]
