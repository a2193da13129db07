"""Contract checks for parts, ours and a stranger's: does a head, refiner, backbone, decoder or codec keep its promises?

    from bipose_lit.testing import check_temporal_head
    check_temporal_head(MyHead(hidden=16))

Each check raises one AssertionError that lists every broken clause, and returns None if all hold.
"""

from bipose_lit.testing.heads import check_refiner, check_temporal_head
from bipose_lit.testing.parts import check_backbone, check_codec, check_decoder

__all__ = ["check_backbone", "check_codec", "check_decoder", "check_refiner", "check_temporal_head"]
