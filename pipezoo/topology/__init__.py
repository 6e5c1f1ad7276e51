"""Where the processes of a run stand: nodes, links between them, and what the run's messages take there. No torch."""
