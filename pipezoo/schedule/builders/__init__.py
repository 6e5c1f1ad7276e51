"""How the orders of schedules repeat: what most of the zoo is written in."""
