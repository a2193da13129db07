"""A small writer of MATLAB files, element by element and in either byte order: what scipy does not write."""

import struct

CLASSES = {
    "f8": 6, "f4": 7, "i1": 8, "u1": 9, "i2": 10, "u2": 11, "i4": 12, "u4": 13, "i8": 14, "u8": 15,
}  # fmt: skip
STORED = {"i1": 1, "u1": 2, "i2": 3, "u2": 4, "i4": 5, "u4": 6, "f4": 7, "f8": 9, "i8": 12, "u8": 13}
CELL, STRUCT, CHAR = 1, 2, 4


def element(order, kind, data):
    return struct.pack(order + "II", kind, len(data)) + data + b"\0" * (-len(data) % 8)


def matrix(order, code, shape, content, name=b"v", flags=0, dimensions=5, names=1):
    head = element(order, 6, struct.pack(order + "II", code | flags, 0))
    head += element(order, dimensions, struct.pack(f"{order}{len(shape)}i", *shape)) + element(order, names, name)
    return element(order, 14, head + content)


def struct_content(order, fields, values=b"", width=32, names=1):
    block = b"".join(field.ljust(width, b"\0") for field in fields)
    return element(order, 5, struct.pack(order + "i", width)) + element(order, names, block) + values


def mat_file(order, *variables):
    mark = {"<": b"IM", ">": b"MI"}[order]
    return b"MATLAB 5.0 MAT-file".ljust(124) + struct.pack(order + "H", 0x0100) + mark + b"".join(variables)
