//! The words that begin a command of their own; without one it is a copy.

use super::image;
use super::text::{Page, STATUSES_OF_CHECK, STATUSES_OF_INFO};
use crate::config::ImageTask;

/// A command.
pub(super) struct Word {
    /// The word.
    pub(super) word: &'static str,
    /// What it does.
    pub(super) task: ImageTask,
    /// What is said of it.
    pub(super) page: Page,
}

/// All of them.
pub(super) const WORDS: [Word; 2] = [
    Word {
        word: "info",
        task: ImageTask::Info,
        page: Page {
            summary: "says what a disk image is, and whether it is safe to use",
            usage: &["vmm info [OPTIONS] IMAGE"],
            description: "\
Looks into IMAGE, a file or block device, inside a virtual machine: its format, the size of the \
disk in it, features, snapshots, the files that it names, and a verdict. The image is not changed, \
and no file that it names is opened.",
            groups: image::groups,
            examples: &[
                ("vmm info disk.qcow2", "what is in this image?"),
                (
                    "vmm info --image-format raw disk.img",
                    "it is to be a raw disk, and nothing else",
                ),
                (
                    "vmm info --format json --allow backing-file disk.qcow2",
                    "for a program that will see to the backing file",
                ),
            ],
            statuses: &STATUSES_OF_INFO,
        },
    },
    Word {
        word: "check",
        task: ImageTask::Check,
        page: Page {
            summary: "checks whether the tables of a disk image are sound",
            usage: &["vmm check [OPTIONS] IMAGE"],
            description: "\
Looks through the tables of IMAGE, a file or block device, inside a virtual machine. Of a qcow2 \
image it compares the refcounts with what the tables use; of other formats it looks at each table \
entry and the checksums of the headers. Nothing is repaired.",
            groups: image::groups,
            examples: &[("vmm check disk.qcow2", "is this image whole?")],
            statuses: &STATUSES_OF_CHECK,
        },
    },
];

/// The command of that name.
pub(super) fn named(word: &str) -> Option<&'static Word> {
    static ALL: [Word; 2] = WORDS;
    ALL.iter().find(|command| command.word == word)
}
