//! The words that begin a command of their own; without one it is a copy.

use super::prepare::most_similar;
use super::text::{Page, STATUSES_OF_CHECK, STATUSES_OF_CONVERT, STATUSES_OF_INFO};
use super::{convert, image, options};
use crate::config::ImageTask;

/// What a command does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Task {
    /// Look into an image.
    Look(ImageTask),
    /// Convert one.
    Convert,
}

/// A word that begins a command.
pub(super) struct Word {
    /// The word.
    pub(super) word: &'static str,
    /// What it does.
    pub(super) task: Task,
    /// What is said of it.
    pub(super) page: Page,
}

/// All words that begin a command.
pub(super) const WORDS: [Word; 3] = [
    Word {
        word: "info",
        task: Task::Look(ImageTask::Info),
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
                    "refuse it unless it is a raw disk",
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
        task: Task::Look(ImageTask::Check),
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
    Word {
        word: "convert",
        task: Task::Convert,
        page: Page {
            summary: "converts a disk image that nobody need trust",
            usage: &[
                "vmm convert [OPTIONS] IMAGE DISK",
                "vmm convert [OPTIONS] --input IMAGE --output DISK",
            ],
            description: "\
Reads IMAGE, a file or block device in one of the formats of disk images, inside a virtual machine, \
and writes the disk in it to DISK, as it is or as a qcow2 image. An image that vmm info would \
refuse is refused before anything is written, and DISK appears only when it is complete. No file \
that the image names is opened: a backing file has to be given. A raw disk may begin like an image, \
since its user wrote what is in it: open it as raw (qemu-img -f raw, -drive format=raw).",
            groups: convert::groups,
            examples: &[
                (
                    "vmm convert disk.qcow2 disk.img",
                    "a raw disk, with holes for zeros",
                ),
                (
                    "vmm convert --output-format qcow2 disk.vhdx disk.qcow2",
                    "an image for QEMU, in which zeros take no room",
                ),
                (
                    "vmm convert --backing base.qcow2 new.qcow2 disk.img",
                    "what the image lacks is in another one",
                ),
                (
                    "vmm convert --image-format vmdk --digest sha256 disk.vmdk disk.img",
                    "refuse it unless it is a VMDK; print the digest of the disk in it",
                ),
            ],
            statuses: &STATUSES_OF_CONVERT,
        },
    },
];

/// The command of that name.
pub(super) fn named(word: &str) -> Option<&'static Word> {
    static ALL: [Word; 3] = WORDS;
    ALL.iter().find(|command| command.word == word)
}

/// The commands that have an option `name`, each as it is typed.
pub(super) fn that_have(name: &str) -> Vec<String> {
    let copy = (options::groups as fn() -> _, "vmm".to_owned());
    let worded = WORDS
        .iter()
        .map(|command| (command.page.groups, format!("vmm {}", command.word)));
    std::iter::once(copy)
        .chain(worded)
        .filter(|(groups, _)| {
            groups()
                .iter()
                .flat_map(|(_, group)| group)
                .any(|option| option.long == name)
        })
        .map(|(_, typed)| typed)
        .collect()
}

/// The word that was probably meant by `word`, which is no such word.
pub(super) fn meant(word: &str) -> Option<&'static str> {
    let words = WORDS.iter().map(|command| command.word);
    most_similar(&word.to_lowercase(), words, SIMILAR)
}

/// From here up a word is taken for another one that was meant.
const SIMILAR: f64 = 0.9;
