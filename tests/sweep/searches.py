"""Searches that are listed point by point."""

GRID = """
question: All of them?
base: base.yaml
space:
  head: {overlays: {none: null, lstm: {model: {temporal: lstm}}, bilstm: {model: {temporal: bilstm}}}}
  model.lr: [1.0e-4, 1.0e-3, 1.0e-2, 1.0e-1]
  model.width: [4, 8, 16, 32, 64]
objective: pck@0.1[clip]
sampler: grid
retrain: {best: 0}
"""
"""60 points."""

SMALL = GRID.replace("[1.0e-4, 1.0e-3, 1.0e-2, 1.0e-1]", "[1.0e-3, 1.0e-2]").replace("[4, 8, 16, 32, 64]", "[8, 16]")
"""12 points."""
