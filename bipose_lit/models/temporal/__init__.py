"""Heads over time. A new one is a `TemporalHead` of any package, named by its class path.

1. Take plain constructor arguments (str, int, float, bool, list, null) and make the layers in `build(spec)`.
2. In `forward(features, valid)` return the features plus a residual whose last layer starts at zero; zero where not
valid.
3. Let frames that are not valid influence nothing: `torch.where(valid..., features, 0)` first, since padding may hold
anything.
4. Say the truth in `causal` and `context`; a causal head also has `init_state` and `step`.
5. `bipose_lit.testing.check_temporal_head(MyHead())` tells whether all of that holds.
"""
