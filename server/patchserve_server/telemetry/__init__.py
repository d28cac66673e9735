"""How the server is watched from outside: adapters of the port `domain.events`. What is off is not imported."""
