"""What a schedule means at a cost: its timeline, its memory, the bound that no order beats, its critical path."""
