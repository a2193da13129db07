"""Published checkpoints as weights of our parts: `bipose import-weights`.

    checkpoint.py   a file's tensors, read without running anything that it pickles
    sources.py      how the published codes name their tensors, and how timm and our decoders name the same ones
    networks.py     which network such tensors belong to
    fit.py          every tensor in its place, or a list of what has none
    files.py        the names under which it is written, unless they are somebody else's files
    command.py      the command: rename, compare with the network, refuse or write

A new source is a word in `arguments.SOURCES` and an entry in `sources.SOURCES`: rules from its names to ours, and what its
pictures looked like.
"""
