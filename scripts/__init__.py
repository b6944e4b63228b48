"""What the Makefile runs. Not part of the package that users install."""
