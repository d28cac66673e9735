"""Tells the outside what happens: the adapters of the ports in `domain`. Libraries are imported when they are used."""
