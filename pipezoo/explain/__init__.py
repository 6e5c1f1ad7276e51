"""What a run's folder says about its idle time, and what another order would change."""
