//! What the help text and the man page say beside the options.

use super::options::{self, Opt};
use crate::runtime::exit_status;

/// What is said of one command.
pub(super) struct Page {
    /// What it does, in a line.
    pub(super) summary: &'static str,
    /// The ways to call it.
    pub(super) usage: &'static [&'static str],
    /// What it does.
    pub(super) description: &'static str,
    /// Its options, in groups with a title each.
    pub(super) groups: fn() -> Vec<(&'static str, Vec<Opt>)>,
    /// Command lines to learn from, each with what it does.
    pub(super) examples: &'static [(&'static str, &'static str)],
    /// Its exit statuses.
    pub(super) statuses: &'static [(u8, &'static str)],
}

impl Page {
    /// All options.
    #[cfg(test)]
    pub(super) fn options(&self) -> Vec<Opt> {
        (self.groups)()
            .into_iter()
            .flat_map(|(_, group)| group)
            .collect()
    }
}

/// The copy, which needs no word.
pub(super) const COPY: Page = Page {
    summary: SUMMARY,
    usage: &USAGE,
    description: DESCRIPTION,
    groups: options::groups,
    examples: &EXAMPLES,
    statuses: &STATUSES,
};

/// The ways to call the program.
const USAGE: [&str; 6] = [
    "vmm [OPTIONS] SRC DST",
    "vmm [OPTIONS] --input SRC --output DST [GUEST]",
    "vmm info [OPTIONS] IMAGE",
    "vmm check [OPTIONS] IMAGE",
    "vmm convert [OPTIONS] IMAGE DISK",
    "vmm --check [FOLDER]",
];

/// What the program is, in a line.
const SUMMARY: &str = "copies a disk inside a virtual machine";

/// What the program does.
const DESCRIPTION: &str = "\
Starts a virtual machine with SRC as a read-only disk and DST as another, and lets a small guest \
copy the one to the other. SRC and DST are files or block devices, and both are required. A file \
appears as DST only when the copy is complete. Where SRC and DST are given without --input and \
--output, a third argument is the guest, like --guest. The words info and check begin commands \
that look into a disk image, and convert one that writes the disk in it: vmm info --help says \
more. A file of such a name is written ./info.";

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

// What more than one command can end with.
const COMMAND_LINE: (u8, &str) = (exit_status::USAGE, "the command line is wrong");
const HOST: (u8, &str) = (exit_status::HOST, "the host failed: a file, memory, KVM");
const GUEST: (u8, &str) = (
    exit_status::GUEST,
    "the guest failed: it faulted or broke the protocol",
);
const SIGALRM: (u8, &str) = (
    142,
    "the system kept the run from its end, and the line that says so could not be written either, or \
     an alarm was set before the start (SIGALRM)",
);
const SIGSYS: (u8, &str) = (
    159,
    "a thread made a system call that the sandbox forbids (SIGSYS)",
);
const REFUSED: (u8, &str) = (
    exit_status::REFUSED,
    "refused: the image may be whole, but using it is not safe or not possible",
);
const BROKEN: (u8, &str) = (
    exit_status::BROKEN,
    "broken: the image contradicts itself or its format",
);
const TIME_LIMIT: (u8, &str) = (exit_status::TIMEOUT, "the time limit ended the run");
const SIGHUP: (u8, &str) = (129, "SIGHUP ended the run");
const SIGINT: (u8, &str) = (130, "SIGINT (Ctrl-C) ended the run");
const SIGTERM: (u8, &str) = (143, "SIGTERM ended the run");

/// The exit statuses of a copy.
const STATUSES: [(u8, &str); 10] = [
    (
        0,
        "the output is a complete copy; with --check, a copy would run here",
    ),
    COMMAND_LINE,
    (
        exit_status::HOST,
        "the host failed: a file, a disk, memory, KVM; with --check, no copy would run here",
    ),
    (
        exit_status::GUEST,
        "the guest failed: it reported an error, faulted, broke the protocol or left the copy \
         incomplete",
    ),
    TIME_LIMIT,
    SIGHUP,
    SIGINT,
    SIGALRM,
    SIGTERM,
    SIGSYS,
];

/// The exit statuses of `vmm convert`.
pub(super) const STATUSES_OF_CONVERT: [(u8, &str); 12] = [
    (0, "the output is the disk in the image"),
    COMMAND_LINE,
    HOST,
    GUEST,
    (
        exit_status::REFUSED,
        "refused: the image may be whole, but using it is not safe or not possible, or the disk or \
         the output is larger than --max-output-size allows",
    ),
    BROKEN,
    TIME_LIMIT,
    SIGHUP,
    SIGINT,
    SIGALRM,
    SIGTERM,
    SIGSYS,
];

/// The exit statuses of `vmm info`.
pub(super) const STATUSES_OF_INFO: [(u8, &str); 12] = [
    (0, "nothing speaks against using the image"),
    COMMAND_LINE,
    HOST,
    GUEST,
    REFUSED,
    BROKEN,
    TIME_LIMIT,
    SIGHUP,
    SIGINT,
    SIGALRM,
    SIGTERM,
    SIGSYS,
];

/// The exit statuses of `vmm check`.
pub(super) const STATUSES_OF_CHECK: [(u8, &str); 13] = [
    (0, "the tables are sound"),
    COMMAND_LINE,
    HOST,
    GUEST,
    (
        exit_status::REFUSED,
        "refused: the image cannot be checked, or not to its end",
    ),
    (exit_status::BROKEN, "broken: there are errors"),
    (
        exit_status::LEAKS,
        "leaks: clusters are lost, and nothing else is wrong",
    ),
    TIME_LIMIT,
    SIGHUP,
    SIGINT,
    SIGALRM,
    SIGTERM,
    SIGSYS,
];

/// Where to read on.
pub(super) const DOCUMENTATION: &str = "\
man vmm, and README.md with the folder docs in the source or in share/doc/vmm where vmm was \
installed.";
