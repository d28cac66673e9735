"""The server as several processes: a parent that supervises, an engine, and fronts."""
