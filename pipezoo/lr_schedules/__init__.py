"""How the learning rate moves: factors of ``optimizer.lr`` by the number of updates. torch's own serve as well."""
