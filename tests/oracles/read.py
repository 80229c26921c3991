"""Reads the disk in an image with every library that knows the format, and compares it with a raw disk.

    read.py FORMAT IMAGE RAW

A line for each library: its name, and `same`, `differs` with the first byte that does, or `cannot` with
the library's reason.
"""

import sys
from pathlib import Path

CHUNK = 1 << 20


class Stream:
    """What dissect.hypervisor opens: a file object with the length of its disk."""

    def __init__(self, stream):
        self.stream = stream
        self.size = stream.size

    def read_at(self, offset, length):
        self.stream.seek(offset)
        return self.stream.read(length)


class Libyal:
    """What the libraries of libyal open."""

    def __init__(self, handle):
        self.handle = handle
        self.size = handle.get_media_size()

    def read_at(self, offset, length):
        return self.handle.read_buffer_at_offset(length, offset)


def dissect_qcow2(path):
    from dissect.hypervisor.disk.qcow2 import QCow2

    return Stream(QCow2(path.open("rb")).open())


def dissect_vmdk(path):
    from dissect.hypervisor.disk.vmdk import VMDK

    return Stream(VMDK(path))


def dissect_vhd(path):
    from dissect.hypervisor.disk.vhd import VHD

    return Stream(VHD(path.open("rb")))


def dissect_vhdx(path):
    from dissect.hypervisor.disk.vhdx import VHDX

    return Stream(VHDX(path.open("rb")))


def dissect_vdi(path):
    from dissect.hypervisor.disk.vdi import VDI

    return Stream(VDI(path.open("rb")).open())


def libqcow(path):
    import pyqcow

    handle = pyqcow.file()
    handle.open(str(path))
    return Libyal(handle)


def libvmdk(path):
    import pyvmdk

    handle = pyvmdk.handle()
    handle.open(str(path))
    # The descriptor calls the only extent by the name that the image had when it was made.
    handle.open_extent_data_files_as_file_objects([path.open("rb")])
    return Libyal(handle)


def libvhdi(path):
    import pyvhdi

    handle = pyvhdi.file()
    handle.open(str(path))
    return Libyal(handle)


READERS = {
    "qcow2": {"dissect": dissect_qcow2, "libqcow": libqcow},
    "vmdk": {"dissect": dissect_vmdk, "libvmdk": libvmdk},
    "vhd": {"dissect": dissect_vhd, "libvhdi": libvhdi},
    "vhdx": {"dissect": dissect_vhdx, "libvhdi": libvhdi},
    "vdi": {"dissect": dissect_vdi},
}


def compare(disk, raw):
    if disk.size != len(raw):
        return f"differs in length: {disk.size} and {len(raw)} bytes"
    for offset in range(0, len(raw), CHUNK):
        expected = raw[offset : offset + CHUNK]
        found = disk.read_at(offset, len(expected))
        if found != expected:
            pairs = enumerate(zip(found, expected))
            first = next((at for at, (a, b) in pairs if a != b), min(len(found), len(expected)))
            return f"differs at byte {offset + first}"
    return "same"


def main():
    kind, image, raw = sys.argv[1:]
    expected = Path(raw).read_bytes()
    for name, reader in READERS[kind].items():
        try:
            outcome = compare(reader(Path(image)), expected)
        except Exception as error:  # A library may fail in any way at all.
            reason = " ".join(str(error).split()) or type(error).__name__
            outcome = f"cannot: {reason}"
        print(name, outcome)


main()
