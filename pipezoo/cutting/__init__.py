"""What splitters cut with: traced pieces, chains of modules, and a run on copies that proves the cut."""
