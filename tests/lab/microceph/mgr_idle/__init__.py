"""What a manager loads in the place of a module; it looks for a file called module.py."""

from .module import Module as Module
