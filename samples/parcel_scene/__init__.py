"""A small renderer for one subject: a corrugated box on a conveyor belt, photographed from a fixed camera."""
