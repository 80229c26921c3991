use rustix::io::Errno;

use super::*;

fn failed(action: Action, errno: Errno) -> FileError {
    FileError::failed(Role::Output, Path::new("copy.img"), action, errno)
}

#[test]
fn a_message_is_one_line_with_file_operation_offset_reason_and_advice() {
    let error = failed(
        Action::Write {
            offset: 4096,
            is_device: false,
        },
        Errno::NOSPC,
    );
    assert_eq!(
        error.to_string(),
        "cannot write the output copy.img at offset 4096: No space left on device; \
         make room there, or choose another file system"
    );
}

#[test]
fn the_kind_of_the_reason_survives_the_way_to_the_disk() {
    let error = failed(
        Action::Write {
            offset: 0,
            is_device: false,
        },
        Errno::NOSPC,
    );
    assert_eq!(io::Error::from(error).kind(), io::ErrorKind::StorageFull);
}

#[test]
fn a_path_with_control_characters_cannot_break_the_line_or_reach_the_terminal() {
    let error = FileError::failed(
        Role::Input,
        Path::new("a\nvmm: \u{1b}[2J\u{202e}"),
        Action::Open,
        Errno::NOENT,
    );
    assert_eq!(
        error.to_string(),
        "cannot open the input $'a\\nvmm: \\x1b[2J\\u202e': No such file or directory; \
         check the path"
    );
}

#[test]
fn a_discard_that_fails_is_not_called_a_write() {
    let error = failed(Action::Discard { offset: 4096 }, Errno::IO);
    let told = error.to_string();
    let expected = "cannot discard a part of the output copy.img at offset 4096: ";
    assert!(told.starts_with(expected), "{told}");
    let kind = io::Error::from_raw_os_error(libc::EIO).kind();
    assert_eq!(io::Error::from(error).kind(), kind);
}
