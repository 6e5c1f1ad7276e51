"""A plan for N devices: how many ranks, replicas and shards, which schedule, which microbatches. No torch.

transformer   layers, heads ... -> parameters, FLOPs, bytes of activations
layer_time    one layer on one shard: F, I, W in seconds; the assumptions stand there
memory        parameters, gradients, states of the optimizer, activations
candidate     one way to use the devices; all that there are, and why others are none
evaluate      a candidate -> its step, by the simulator, and its memory
search        the best of each grid, with bounds, so that few are played
"""
