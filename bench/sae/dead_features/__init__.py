"""What is done for dead features during training: a file for each way.

`auxk`, `ghost` and `pre_activation` add a loss on dead features (`base`) to a step; `resample` sets
their rows anew between steps.
"""
