//! Standard streams that are closed, or something that no program expects. What an operation makes
//! does not depend on them, unless its answer is all that it makes.

use std::fs::File;
use std::os::fd::OwnedFd;
use std::os::unix::net::{UnixDatagram, UnixStream};

use crate::HOST_FAILED;
use crate::common::mount::can_unshare;
use crate::common::process::binary;
use crate::common::terminal::Terminal;
use crate::common::{Files, Operation, Vmm, needs_kvm, skip, test};

#[test]
fn any_of_the_standard_streams_may_be_closed_but_an_answer_needs_its_own() {
    needs_kvm!();
    for operation in Operation::ALL {
        for closed in 1..8 {
            let files = Operation::files();
            let streams = (0..3).filter(|stream| closed & 1 << stream != 0);
            let finished = streams.fold(operation.vmm(&files), Vmm::closed).run();
            let told = finished
                .stderr
                .ends_with("standard output: Bad file descriptor\n")
                || finished
                    .stderr
                    .ends_with(": Bad file descriptor; its lines are dropped\n");
            assert_eq!(told, closed & 0b110 == 0b010, "{closed:03b}: {finished:?}");
            if closed & 0b010 == 0 || operation.writes() {
                assert_eq!(finished.code(), Some(0), "{closed:03b}: {finished:?}");
                operation.assert_done(&files);
            } else {
                assert_eq!(
                    finished.code(),
                    Some(HOST_FAILED),
                    "{closed:03b}: {finished:?}"
                );
            }
        }
    }
    for word in ["--help", "--version", "--check"] {
        let finished = Vmm::bare().arg(word).closed(1).run();
        finished.assert_failed(HOST_FAILED, "vmm: cannot write");
        assert_eq!(finished.stderr.lines().count(), 1, "{word}: {finished:?}");
    }
}

#[test]
fn closed_streams_do_not_matter_where_there_is_nothing_to_open_in_their_place() {
    needs_kvm!();
    if !can_unshare(&["--mount"]) {
        return;
    }
    let alone = |script: &str| {
        let script = format!("mount -t tmpfs none /dev && mknod /dev/kvm c 10 232 && {script}");
        Vmm::of("unshare".as_ref()).args(&["--mount", "sh", "-c", &script, "sh"])
    };
    if alone(": </dev/kvm").run().code() != Some(0) {
        return skip("a folder of devices cannot be mounted here");
    }
    let files = Files::random(512);
    alone(r#"exec "$@" 0<&- 1>&- 2>&-"#)
        .arg(binary())
        .arg("-q")
        .arg(files.input())
        .arg(files.output())
        .succeed();
    files.assert_copied();
}

#[test]
fn a_folder_for_a_stream_cannot_be_written_and_an_answer_is_lost() {
    needs_kvm!();
    let folder = || File::open("/").unwrap();
    for operation in Operation::ALL {
        let files = Operation::files();
        operation.vmm(&files).stdin(folder()).succeed();
        operation.assert_done(&files);
        operation.vmm(&files).stderr(folder()).succeed();
        operation.assert_done(&files);
        let finished = operation.vmm(&files).stdout(folder()).run();
        if operation.writes() {
            assert_eq!(finished.code(), Some(0), "{finished:?}");
            assert!(
                finished.stderr.starts_with("vmm: warning: "),
                "{finished:?}"
            );
            operation.assert_done(&files);
        } else {
            assert_eq!(finished.stderr.lines().count(), 1, "{finished:?}");
            finished.assert_failed(HOST_FAILED, "cannot write the answer");
        }
    }
}

#[test]
fn a_full_disk_behind_standard_output_costs_the_lines_and_an_answer() {
    needs_kvm!();
    let full = || File::options().write(true).open("/dev/full").unwrap();
    for operation in Operation::ALL {
        let files = Operation::files();
        let finished = operation.vmm(&files).stdout(full()).run();
        assert_eq!(finished.stderr.lines().count(), 1, "{finished:?}");
        let expected = if operation.writes() { 0 } else { HOST_FAILED };
        assert_eq!(finished.code(), Some(expected), "{finished:?}");
        match operation.writes() {
            true => operation.assert_done(&files),
            false => files.assert_untouched(),
        }
        operation.vmm(&files).stderr(full()).succeed();
        operation.assert_done(&files);
    }
    for word in ["--help", "--version", "--check"] {
        let finished = Vmm::bare().arg(word).stdout(full()).run();
        assert_eq!(finished.code(), Some(HOST_FAILED), "{word}: {finished:?}");
        assert_eq!(finished.stderr.lines().count(), 1, "{word}: {finished:?}");
    }
}

#[test]
fn a_reader_that_has_gone_is_no_failure_whatever_it_was() {
    needs_kvm!();
    let readers: [fn() -> OwnedFd; 4] = [
        || std::io::pipe().unwrap().1.into(),
        || UnixStream::pair().unwrap().0.into(),
        || UnixDatagram::pair().unwrap().0.into(),
        || Terminal::open().hang_up(),
    ];
    for operation in Operation::ALL {
        for (index, gone) in readers.iter().enumerate() {
            let files = Operation::files();
            let finished = operation.vmm(&files).stdout(gone()).run();
            let ended = (finished.code(), finished.stderr.as_str());
            assert_eq!(ended, (Some(0), ""), "{operation:?}, reader {index}");
            operation.assert_done(&files);
            let finished = operation.vmm(&files).stdout(gone()).stderr(gone()).run();
            assert_eq!(finished.code(), Some(0), "{operation:?}, reader {index}");
            operation.assert_done(&files);
        }
    }
}

#[test]
fn a_pipe_that_is_open_for_reading_alone_has_not_lost_its_reader() {
    needs_kvm!();
    for operation in Operation::ALL {
        let files = Operation::files();
        let (reader, _writer) = std::io::pipe().unwrap();
        let finished = operation.vmm(&files).stdout(reader).run();
        let expected = if operation.writes() { 0 } else { HOST_FAILED };
        assert_eq!(finished.code(), Some(expected), "{finished:?}");
        assert!(
            finished.stderr.contains("Bad file descriptor"),
            "{finished:?}"
        );
    }
}

#[test]
fn help_that_nobody_reads_any_more_is_no_failure() {
    for word in ["--help", "--version"] {
        let finished = Vmm::bare()
            .arg(word)
            .stdout(Terminal::open().hang_up())
            .run();
        assert_eq!(finished.code(), Some(0), "{finished:?}");
        assert_eq!(finished.stderr, "");
    }
}
