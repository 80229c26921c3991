//! What the help text and the man page say beside the options.

/// The ways to call the program.
pub(super) const USAGE: [&str; 3] = [
    "vmm [OPTIONS] SRC DST",
    "vmm [OPTIONS] --input SRC --output DST [GUEST]",
    "vmm --check [FOLDER]",
];

/// What the program is, in a line.
pub(super) const SUMMARY: &str = "copies a disk inside a virtual machine";

/// What the program does.
pub(super) const DESCRIPTION: &str = "\
Starts a virtual machine with SRC as a read-only disk and DST as another, and lets a small guest \
copy the one to the other. SRC and DST are files or block devices, and both are required. A file \
appears as DST only when the copy is complete. With SRC and DST in their place, a third argument \
is the guest, as --guest is.";

/// What a size may look like.
pub(super) const SIZES: &str =
    "A SIZE is in bytes, or has a unit: 512, 4k, 128K, 1M, 1G; KiB and the like mean the same.";

/// Command lines to learn from, each with what it does.
pub(super) const EXAMPLES: [(&str, &str); 5] = [
    ("vmm disk.img copy.img", "copy a disk"),
    (
        "vmm -p 10 --fsync disk.img copy.img | cat",
        "a line every 10 percent; success only when the copy is on stable storage",
    ),
    (
        "vmm --input-sector-size 4K --output-sector-size 512 disk.img copy.img",
        "disks with sectors of different sizes",
    ),
    (
        "vmm --format json --stats disk.img copy.img",
        "for a program that reads along",
    ),
    (
        "vmm --guest guest.bin disk.img copy.img",
        "another guest; beside --input and --output a lone argument is one, too",
    ),
];

/// All exit statuses.
pub(super) const STATUSES: [(u8, &str); 9] = [
    (0, "the output is a complete copy"),
    (2, "the command line is wrong"),
    (3, "the host failed: a file, a disk, memory, KVM"),
    (
        4,
        "the guest failed: it reported an error, faulted, broke the protocol or left the copy \
         incomplete",
    ),
    (124, "the time limit ended the run"),
    (129, "SIGHUP ended the run"),
    (130, "SIGINT (Ctrl-C) ended the run"),
    (143, "SIGTERM ended the run"),
    (
        159,
        "a thread made a system call that the sandbox forbids (SIGSYS)",
    ),
];

/// Where to read on.
pub(super) const DOCUMENTATION: &str = "\
man vmm, and README.md with the folder docs in the source or in share/doc/vmm where vmm was \
installed.";
