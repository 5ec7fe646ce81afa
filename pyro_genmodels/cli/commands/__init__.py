"""The commands of ``pyro-genmodels``, one file each."""
