//! What the file system of a folder can do for an output that would be made there: tried out with
//! a file that never gets a lasting name (open(2) O_TMPFILE and O_DIRECT, linkat(2)).

use std::os::fd::AsFd;
use std::path::Path;

use rustix::fs::OFlags;
use vm_memory::VolatileSlice;

use super::descriptor::Descriptor;
use super::error::{Action, FileError, Role};
use super::place::find_place;
use super::staging::{Naming, Staging, WhyNamed};
use super::system::fstatfs;
use crate::storage::Cancel;

/// As direct transfers want their memory, on any disk.
const PAGE: usize = 4096;

#[repr(align(4096))]
struct Page([u8; PAGE]);

/// What a folder's file system can do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FolderProbe {
    /// Why a new file has a name from the beginning, which a killed run leaves; `None` if it has none.
    pub why_named: Option<WhyNamed>,
    /// Why a file cannot be written past the page cache; `None` if it can.
    pub not_direct: Option<String>,
}

/// Whether the files of a file system are nowhere but in the page cache (linux/magic.h: tmpfs, ramfs).
/// It may take O_DIRECT all the same.
fn is_memory(file: impl AsFd) -> bool {
    fstatfs(file).is_ok_and(|answer| matches!(answer.f_type, 0x0102_1994 | 0x8584_58f6))
}

/// Tries `folder` out. Nothing is left there.
///
/// # Errors
///
/// No file can be made there, or not one byte be written to one.
pub fn probe_folder(folder: &Path) -> Result<FolderProbe, FileError> {
    // A name that the folder may well have: it is not looked at, and nothing gets it.
    let place = find_place(Role::Output, &folder.join("copy.img"), None)?;
    let (staging, file) = Staging::create(place, Naming::Unnamed)?;
    let descriptor = Descriptor::new(file, true, OFlags::RDWR, Cancel::new());
    let mut page = Page([0; PAGE]);
    let slice = VolatileSlice::from(page.0.as_mut_slice());
    // What cannot be written past the page cache is written through it.
    let written = descriptor.write(0, &[slice], PAGE as u64);
    written.map_err(|partial| {
        let action = Action::Write {
            offset: partial.done,
            is_device: false,
        };
        staging.place().failed(action, partial.source)
    })?;
    let not_direct = match is_memory(&descriptor) {
        true => Some("its files are in memory".to_owned()),
        false => descriptor.note(),
    };
    Ok(FolderProbe {
        why_named: staging.why_named(),
        not_direct,
    })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[test]
    fn trying_a_folder_leaves_nothing_there_and_touches_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("copy.img");
        std::fs::write(&file, b"mine").unwrap();
        probe_folder(folder.path()).unwrap();
        assert_eq!(std::fs::read(&file).unwrap(), b"mine");
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1);
    }

    #[test]
    fn a_folder_in_which_no_file_can_be_made_is_an_error_that_names_it() {
        for folder in ["/proc", "/no such folder"] {
            let error = probe_folder(Path::new(folder)).unwrap_err().to_string();
            assert!(error.contains(folder), "{error}");
        }
    }
}
