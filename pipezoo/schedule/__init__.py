"""What an order of actions is: data, its proof, its files, and what most orders are built of. numpy only."""
