"""Save and load networks: containers of arrays and configurations, written whole or not at all."""
