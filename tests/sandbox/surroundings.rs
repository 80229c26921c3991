//! Other C libraries, allocators and settings than the usual ones: none of them ends a run, and
//! what a preloaded library does that is forbidden is told.

use std::os::unix::process::ExitStatusExt;
use std::path::Path;

use crate::common::preload::{SOCKET_AND_READ, can_preload, preloaded};
use crate::common::{Files, Vmm, leave_out, needs_kvm, test};
use crate::conditions::{Conditions, Reader, Streams, Work};

/// Settings of glibc's that change what its allocator and its threads call.
pub(crate) const SETTINGS: [(&str, &str); 12] = [
    ("MALLOC_ARENA_MAX", "1"),
    ("MALLOC_PERTURB_", "165"),
    ("MALLOC_TRIM_THRESHOLD_", "0"),
    ("MALLOC_TOP_PAD_", "0"),
    ("MALLOC_MMAP_THRESHOLD_", "0"),
    ("GLIBC_TUNABLES", "glibc.malloc.hugetlb=1"),
    ("GLIBC_TUNABLES", "glibc.malloc.hugetlb=2"),
    ("GLIBC_TUNABLES", "glibc.malloc.tcache_count=0"),
    (
        "GLIBC_TUNABLES",
        "glibc.malloc.trim_threshold=1:glibc.malloc.top_pad=1:glibc.malloc.mmap_threshold=4096",
    ),
    ("GLIBC_TUNABLES", "glibc.mem.decorate_maps=1"),
    ("GLIBC_TUNABLES", "glibc.pthread.rseq=0"),
    ("RUST_BACKTRACE", "full"),
];

/// Other allocators, by the names of their files.
pub(crate) const ALLOCATORS: [&str; 3] = [
    "libjemalloc.so.2",
    "libmimalloc.so.2",
    "libtcmalloc_minimal.so.4",
];

/// Where `name` is installed.
pub(crate) fn installed(name: &str) -> Option<String> {
    let folders = ["/usr/lib/x86_64-linux-gnu", "/usr/lib64", "/usr/lib"];
    let paths = folders.map(|folder| format!("{folder}/{name}"));
    paths.into_iter().find(|path| Path::new(path).exists())
}

/// The runs that use memory most, on pipes and on a terminal, and one of each other kind.
pub(crate) fn demanding() -> [Conditions; 7] {
    let slow = Streams::Pipes(Reader::Late, Reader::Bursty);
    let small = ["--request-size", "512", "--stats", "--debug"];
    [
        Conditions::new(Work::Copy, 2_000_000, &small)
            .streams(Streams::Pipes(Reader::Bursty, Reader::Late)),
        Conditions::new(Work::Flood, 512, &["--debug"]).streams(slow),
        Conditions::new(Work::Copy, 300_000, &["--verbose", "--stats"]).streams(Streams::Terminal),
        Conditions::new(Work::Copy, 2_000_000, &["--digest=sha256", "--verify"]).with_hole(),
        Conditions::new(
            Work::Convert,
            2 << 20,
            &["--digest=sha256", "--debug", "--stats"],
        )
        .streams(slow),
        Conditions::new(Work::Info, 1 << 18, &["--format=json"]).streams(slow),
        Conditions::new(Work::Check, 1 << 18, &["--debug"]).streams(slow),
    ]
}

#[track_caller]
fn run_all(prepare: impl Fn(Vmm) -> Vmm) {
    for conditions in demanding() {
        conditions.run(&conditions.files(), prepare(Vmm::bare()));
    }
}

#[test]
fn settings_of_the_c_library_end_no_run() {
    needs_kvm!();
    for (name, value) in SETTINGS {
        run_all(|vmm| vmm.env(name, value));
    }
}

#[test]
fn other_allocators_end_no_run() {
    needs_kvm!();
    if !can_preload() {
        return;
    }
    for name in ALLOCATORS {
        match installed(name) {
            Some(path) => run_all(|vmm| vmm.env("LD_PRELOAD", &path)),
            None => leave_out(&format!("{name} is not installed")),
        }
    }
}

#[test]
fn a_c_library_that_asks_for_terminals_in_a_new_way_ends_no_run() {
    needs_kvm!();
    // As glibc does it since 2.42: TCGETS2, for a structure of 44 bytes.
    const ISATTY: &str = "
        #include <sys/ioctl.h>
        int isatty(int fd) { char space[64]; return ioctl(fd, 0x802c542a, space) == 0; }
    ";
    let folder = tempfile::tempdir().unwrap();
    let Some(library) = preloaded(folder.path(), ISATTY) else {
        return;
    };
    run_all(|vmm| vmm.env("LD_PRELOAD", &library));
}

#[test]
fn what_a_preloaded_library_does_that_is_forbidden_is_told() {
    needs_kvm!();
    let files = Files::random(5000).with_old_output(b"old");
    let folder = tempfile::tempdir().unwrap();
    let Some(library) = preloaded(folder.path(), SOCKET_AND_READ) else {
        return;
    };
    let finished = files.vmm().env("LD_PRELOAD", &library).run();
    assert_eq!(finished.status.signal(), Some(libc::SIGSYS), "{finished:?}");
    files.assert_untouched();
    let line = finished.stderr.lines().next().unwrap();
    let told = ["input", "vcpu"].iter().any(|thread| {
        line.starts_with(&format!(
            "vmm: the thread {thread} made the system call socket (41), which the sandbox forbids"
        ))
    });
    assert!(told, "{finished:?}");
    assert!(line.contains("LD_PRELOAD"), "{line}");
    let end = "; --no-sandbox runs without the sandbox";
    assert!(line.ends_with(end) && !line.contains("Runner::"), "{line}");
    // And what the line recommends helps.
    let free = files.vmm().env("LD_PRELOAD", &library).arg("--no-sandbox");
    free.succeed();
    files.assert_copied();
}
