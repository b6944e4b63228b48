"""TaskFlow decorators; :mod:`.jobs` has the public names."""
