//! What a confined process can still do, call by call, with Landlock and without.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io;
use std::os::fd::{AsFd, AsRawFd, RawFd};
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use seccompiler::SeccompAction;
use vmm::sandbox::{Calls, Filter, calls, catch_violations, confine_process};

use crate::common::{Files, Vmm, needs_kvm, skip, test};
use crate::{child, task};

/// Descriptors that no process has open, to be the folder of an output, another, and the file that is
/// replaced.
const FOLDER: RawFd = 1000;
const ELSEWHERE: RawFd = 1001;
const REPLACED: RawFd = 1002;
/// The status of a run whose image is refused.
const REFUSED: i32 = 5;
/// No process has this number: it is beyond the greatest that there can be (proc(5)).
const NOBODY: libc::pid_t = 1 << 22;

/// The lists that threads have, by what they do.
fn lists() -> BTreeMap<&'static str, Calls> {
    let own = std::process::id().cast_signed();
    let main = calls::main_loop(own, NOBODY, libc::SIGURG);
    let placing = calls::place_file(FOLDER, ELSEWHERE).and(&calls::see_attributes(REPLACED));
    BTreeMap::from([
        ("main", main.and(&placing)),
        ("vcpu", calls::vcpu().and(&calls::read_file())),
        ("input", calls::device_loop().and(&calls::read_file())),
        ("output", calls::device_loop().and(&calls::write_file())),
        ("watcher", calls::watcher()),
        ("nothing", Calls::new()),
    ])
}

fn call(number: i64, arguments: [i64; 5]) -> i64 {
    let [a, b, c, d, e] = arguments;
    // SAFETY: the calls are to be refused; those that are not have null pointers or descriptors
    // that are not open, with which none of them does anything.
    unsafe { libc::syscall(number, a, b, c, d, e) }
}

/// What an attacker in the process would try; each as one system call, with its name.
fn forbidden() -> BTreeMap<&'static str, (i64, [i64; 5])> {
    let [folder, elsewhere, replaced] = [FOLDER, ELSEWHERE, REPLACED].map(i64::from);
    let here = i64::from(libc::AT_FDCWD);
    let own = i64::from(std::process::id());
    let executable = i64::from(libc::PROT_EXEC);
    let anonymous = i64::from(libc::MAP_PRIVATE | libc::MAP_ANONYMOUS);
    BTreeMap::from([
        ("execve", (libc::SYS_execve, [0; 5])),
        ("connect", (libc::SYS_connect, [-1, 0, 0, 0, 0])),
        ("socket", (libc::SYS_socket, [1, 1, 0, 0, 0])),
        ("vfork", (libc::SYS_vfork, [0; 5])),
        ("kill", (libc::SYS_kill, [0; 5])),
        ("ptrace", (libc::SYS_ptrace, [-1, 0, 0, 0, 0])),
        (
            "ioctl to create a VM",
            (libc::SYS_ioctl, [-1, 0xae01, 0, 0, 0]),
        ),
        (
            "ioctl to type on a terminal",
            (libc::SYS_ioctl, [-1, 0x5412, 0, 0, 0]),
        ),
        (
            "mmap of code",
            (libc::SYS_mmap, [0, 4096, executable, anonymous, -1]),
        ),
        (
            "mmap of a file",
            (libc::SYS_mmap, [0, 4096, 1, libc::MAP_PRIVATE.into(), -1]),
        ),
        (
            "mprotect to code",
            (libc::SYS_mprotect, [0, 4096, executable, 0, 0]),
        ),
        (
            "madvise to share",
            (
                libc::SYS_madvise,
                [0, 4096, libc::MADV_MERGEABLE.into(), 0, 0],
            ),
        ),
        (
            "prctl to be dumped",
            (libc::SYS_prctl, [libc::PR_SET_DUMPABLE.into(), 1, 0, 0, 0]),
        ),
        (
            "rt_sigaction of another",
            (libc::SYS_rt_sigaction, [10, 0, 0, 8, 0]),
        ),
        (
            "rt_sigaction of this",
            (libc::SYS_rt_sigaction, [libc::SIGSYS.into(), 0, 0, 8, 0]),
        ),
        (
            "fcntl to lock",
            (libc::SYS_fcntl, [-1, libc::F_SETLK.into(), 0, 0, 0]),
        ),
        (
            "tgkill of another process",
            (
                libc::SYS_tgkill,
                [1, NOBODY.into(), libc::SIGURG.into(), 0, 0],
            ),
        ),
        (
            "tgkill of another thread",
            (libc::SYS_tgkill, [own, 1, libc::SIGURG.into(), 0, 0]),
        ),
        (
            "tgkill with another signal",
            (libc::SYS_tgkill, [own, NOBODY.into(), 15, 0, 0]),
        ),
        (
            "linkat to elsewhere",
            (libc::SYS_linkat, [here, 0, elsewhere, 0, 0]),
        ),
        (
            "linkat to here",
            (libc::SYS_linkat, [folder, 0, here, 0, 0]),
        ),
        (
            "renameat to elsewhere",
            (libc::SYS_renameat, [folder, 0, elsewhere, 0, 0]),
        ),
        (
            "renameat from elsewhere",
            (libc::SYS_renameat, [elsewhere, 0, folder, 0, 0]),
        ),
        (
            "renameat2 from here",
            (libc::SYS_renameat2, [here, 0, folder, 0, 0]),
        ),
        (
            "unlinkat elsewhere",
            (libc::SYS_unlinkat, [elsewhere, 0, 0, 0, 0]),
        ),
        (
            "unlinkat of a folder",
            (
                libc::SYS_unlinkat,
                [folder, 0, libc::AT_REMOVEDIR.into(), 0, 0],
            ),
        ),
        (
            "fgetxattr of another file",
            (libc::SYS_fgetxattr, [elsewhere, 0, 0, 0, 0]),
        ),
        ("fsetxattr", (libc::SYS_fsetxattr, [replaced, 0, 0, 0, 0])),
        ("rename", (libc::SYS_rename, [0; 5])),
        ("symlink", (libc::SYS_symlink, [0; 5])),
    ])
}

#[test]
fn a_forbidden_call_on_any_thread_ends_the_process_with_a_line_and_sigsys() {
    let name =
        "confinement::a_forbidden_call_on_any_thread_ends_the_process_with_a_line_and_sigsys";
    if let Some(task) = task() {
        let (list, attempt) = task.split_once(' ').unwrap();
        let (number, arguments) = forbidden()[attempt];
        // A thread has the name that the line tells.
        let filter = Filter::new(&lists()[list]).unwrap();
        catch_violations().unwrap();
        let confined = move || {
            filter.install().unwrap();
            call(number, arguments);
        };
        let thread = thread::Builder::new()
            .name("con\nfined".into())
            .spawn(confined);
        thread.unwrap().join().unwrap();
        std::process::exit(7);
    }
    for list in lists().keys() {
        for attempt in forbidden().keys() {
            let output = child(name, &format!("{list} {attempt}"));
            let line = String::from_utf8(output.stderr).unwrap();
            assert_eq!(
                output.status.signal(),
                Some(libc::SIGSYS),
                "{list}: {attempt}: {line}"
            );
            let call = attempt.split_once(' ').map_or(*attempt, |(call, _)| call);
            let start = format!("vmm: the thread con?fined made the system call {call} (");
            assert!(line.starts_with(&start), "{list}: {attempt}: {line:?}");
            // This program has no options: it is told what the library can do.
            for part in [
                "), which the sandbox forbids; ",
                "Worker::calls",
                "Runner::vcpu_calls",
                "Runner::main_calls",
            ] {
                assert!(line.contains(part), "{part}: {line:?}");
            }
            let end = "Runner::confined(false) runs without the sandbox\n";
            assert!(line.ends_with(end), "{line:?}");
            assert!(!line.contains("--no-sandbox"), "{line:?}");
            assert_eq!(line.lines().count(), 1, "{line}");
        }
    }
}

#[test]
fn the_end_comes_without_a_line_where_standard_error_has_no_room() {
    let name = "confinement::the_end_comes_without_a_line_where_standard_error_has_no_room";
    if let Some(task) = task() {
        let (reader, writer) = io::pipe().unwrap();
        if task == "full" {
            rustix::pipe::fcntl_setpipe_size(&writer, 4096).unwrap();
            rustix::io::write(&writer, &[b'x'; 4096]).unwrap();
        }
        // Nobody reads the pipe, or nobody can.
        let _reader = (task == "full").then_some(reader);
        // SAFETY: both are open; what standard error was is not needed any more.
        unsafe { libc::dup2(writer.as_raw_fd(), libc::STDERR_FILENO) };
        catch_violations().unwrap();
        Filter::new(&Calls::new()).unwrap().install().unwrap();
        call(libc::SYS_socket, [1, 1, 0, 0, 0]);
    }
    for task in ["full", "closed"] {
        let started = Instant::now();
        let status = child(name, task).status;
        assert_eq!(status.signal(), Some(libc::SIGSYS), "{task}");
        assert!(started.elapsed() < Duration::from_secs(10), "{task}");
    }
}

#[test]
fn a_signal_that_was_blocked_or_ignored_at_the_start_is_reported_all_the_same() {
    let name =
        "confinement::a_signal_that_was_blocked_or_ignored_at_the_start_is_reported_all_the_same";
    if task().is_some() {
        // SAFETY: ignoring a signal installs no code of ours.
        unsafe { libc::signal(libc::SIGSYS, libc::SIG_IGN) };
        // SAFETY: a set of signals is plain data, for which all zeros are valid.
        let mut all: libc::sigset_t = unsafe { std::mem::zeroed() };
        // SAFETY: the set is valid.
        unsafe { libc::sigfillset(&raw mut all) };
        // SAFETY: the set is valid, and the old mask is not wanted.
        unsafe { libc::pthread_sigmask(libc::SIG_BLOCK, &raw const all, std::ptr::null_mut()) };
        catch_violations().unwrap();
        let confined = || {
            Filter::new(&Calls::new()).unwrap().install().unwrap();
            call(libc::SYS_socket, [1, 1, 0, 0, 0]);
        };
        thread::spawn(confined).join().unwrap();
    }
    let output = child(name, "yes");
    assert_eq!(output.status.signal(), Some(libc::SIGSYS));
    let line = String::from_utf8(output.stderr).unwrap();
    assert!(line.contains("made the system call socket"), "{line}");
}

#[test]
fn sigsys_from_somebody_else_ends_the_process_without_blaming_it() {
    let name = "confinement::sigsys_from_somebody_else_ends_the_process_without_blaming_it";
    if let Some(task) = task() {
        catch_violations().unwrap();
        if task == "confined" {
            let own = std::process::id().cast_signed();
            // SAFETY: asks for the number of this thread and touches no memory.
            let thread = unsafe { libc::gettid() };
            let list = calls::main_loop(own, thread, libc::SIGSYS);
            Filter::new(&list).unwrap().install().unwrap();
        }
        // SAFETY: sends a signal to this thread.
        unsafe { libc::raise(libc::SIGSYS) };
    }
    for task in ["confined", "free"] {
        let output = child(name, task);
        assert_eq!(output.status.signal(), Some(libc::SIGSYS), "{task}");
        assert_eq!(String::from_utf8(output.stderr).unwrap(), "", "{task}");
    }
}

#[test]
fn a_crash_of_a_confined_thread_is_seen_as_one() {
    let name = "confinement::a_crash_of_a_confined_thread_is_seen_as_one";
    if let Some(task) = task() {
        let confined = move || {
            Filter::new(&Calls::new()).unwrap().install().unwrap();
            match task.as_str() {
                "abort" => std::process::abort(),
                "panic" => panic!("on purpose"),
                // SAFETY: none; it is to crash.
                _ => unsafe { std::ptr::null_mut::<u8>().write_volatile(1) },
            }
        };
        catch_violations().unwrap();
        let joined = thread::spawn(confined).join();
        std::process::exit(if joined.is_err() { 7 } else { 8 });
    }
    assert_eq!(child(name, "abort").status.signal(), Some(libc::SIGABRT));
    assert_eq!(child(name, "null").status.signal(), Some(libc::SIGSEGV));
    let panicked = child(name, "panic");
    assert_eq!(panicked.status.code(), Some(7), "{panicked:?}");
}

#[test]
fn opening_and_looking_up_paths_is_answered_on_every_list() {
    let name = "confinement::opening_and_looking_up_paths_is_answered_on_every_list";
    if let Some(list) = task() {
        let path = c"/etc/passwd".as_ptr() as i64;
        let mut space = [0_u64; 64];
        let space = space.as_mut_ptr() as i64;
        let here = i64::from(libc::AT_FDCWD);
        Filter::new(&lists()[list.as_str()])
            .unwrap()
            .install()
            .unwrap();
        let attempts = [
            (libc::SYS_open, [path, 0, 0, 0, 0]),
            (libc::SYS_openat, [here, path, 0, 0, 0]),
            (libc::SYS_openat2, [here, path, space, 24, 0]),
            (libc::SYS_creat, [path, 0, 0, 0, 0]),
            (libc::SYS_access, [path, 0, 0, 0, 0]),
            (libc::SYS_faccessat, [here, path, 0, 0, 0]),
            (libc::SYS_faccessat2, [here, path, 0, 0, 0]),
            (libc::SYS_readlink, [path, space, 64, 0, 0]),
            (libc::SYS_readlinkat, [here, path, space, 64, 0]),
            (libc::SYS_stat, [path, space, 0, 0, 0]),
            (libc::SYS_lstat, [path, space, 0, 0, 0]),
            (libc::SYS_newfstatat, [here, path, space, 0, 0]),
            (libc::SYS_statx, [here, path, 0, 0xfff, space]),
            (libc::SYS_statfs, [path, space, 0, 0, 0]),
            (libc::SYS_getcwd, [space, 64, 0, 0, 0]),
        ];
        for (number, arguments) in attempts {
            let result = call(number, arguments);
            let reason = io::Error::last_os_error().raw_os_error();
            assert_eq!((result, reason), (-1, Some(libc::EACCES)), "{number}");
        }
        assert_eq!(attempts.len(), vmm::sandbox::ANSWERED.len());
        std::process::exit(7);
    }
    for list in lists().keys() {
        let output = child(name, list);
        assert_eq!(output.status.code(), Some(7), "{list}: {output:?}");
    }
}

#[test]
fn an_output_gets_its_name_in_its_folder_and_nowhere_else() {
    let name = "confinement::an_output_gets_its_name_in_its_folder_and_nowhere_else";
    if task().is_some() {
        use rustix::fs::{AtFlags, CWD, linkat, renameat, unlinkat};
        let folder = tempfile::tempdir().unwrap();
        let handle = File::open(folder.path()).unwrap();
        let file = tempfile::tempfile_in(folder.path()).unwrap();
        let path = format!("/proc/self/fd/{}", file.as_raw_fd());
        Filter::new(&calls::place_file(handle.as_raw_fd(), file.as_raw_fd()))
            .unwrap()
            .install()
            .unwrap();
        linkat(CWD, &path, &handle, "new", AtFlags::SYMLINK_FOLLOW).unwrap();
        linkat(CWD, &path, &handle, "other", AtFlags::SYMLINK_FOLLOW).unwrap();
        renameat(&handle, "other", &handle, "new").unwrap();
        unlinkat(&handle, "new", AtFlags::empty()).unwrap();
        std::process::exit(7);
    }
    let output = child(name, "yes");
    assert_eq!(output.status.code(), Some(7), "{output:?}");
}

#[test]
fn a_confined_process_can_name_its_files_and_open_nothing() {
    const CONFINED: i32 = 40;
    const NO_LANDLOCK: i32 = 41;
    let name = "confinement::a_confined_process_can_name_its_files_and_open_nothing";
    if task().is_some() {
        let folders = [tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap()];
        let path = |folder: &tempfile::TempDir, name| folder.path().join(name);
        let handles = folders.each_ref().map(|folder| {
            fs::write(path(folder, "complete"), "data").unwrap();
            File::open(folder.path()).unwrap()
        });
        confine_process(&handles.each_ref().map(AsFd::as_fd)).unwrap();
        let opened = [
            File::open("/etc/passwd").map(drop),
            File::create(path(&folders[0], "copy")).map(drop),
            fs::read_dir("/").map(drop),
            std::net::TcpListener::bind("127.0.0.1:0").map(drop),
        ];
        for folder in &folders {
            fs::rename(path(folder, "complete"), path(folder, "copy")).unwrap();
        }
        let refused = opened.iter().all(|result| {
            result
                .as_ref()
                .is_err_and(|error| error.kind() == io::ErrorKind::PermissionDenied)
        });
        let code = match (refused, opened.iter().all(Result::is_ok)) {
            (true, _) => CONFINED,
            (_, true) => NO_LANDLOCK,
            _ => panic!("{opened:?}"),
        };
        std::process::exit(code);
    }
    let output = child(name, "yes");
    match output.status.code() {
        Some(CONFINED) => {}
        Some(NO_LANDLOCK) => skip("this kernel has no Landlock"),
        _ => panic!("{output:?}"),
    }
}

#[test]
fn a_kernel_without_landlock_copies_and_names_the_output() {
    needs_kvm!();
    for errno in [libc::ENOSYS, libc::EOPNOTSUPP] {
        for files in [
            Files::random(70_000),
            Files::random(70_000).with_old_output(b"old"),
        ] {
            let vmm = files.vmm();
            vmm.refused(&[libc::SYS_landlock_create_ruleset], errno)
                .succeed();
            files.assert_copied();
        }
    }
}

/// Random numbers then come from a file, which a confined process cannot open.
#[test]
fn a_filter_that_forbids_the_call_for_random_numbers_keeps_no_operation() {
    needs_kvm!();
    for errno in [libc::ENOSYS, libc::EPERM] {
        let files = Files::random(70_000);
        let raw = |command| Vmm::bare().args(&[command, "--image-format", "raw"]);
        for vmm in [
            Vmm::copying(&files.input(), Path::new("/dev/null")),
            raw("info").arg(files.input()),
            raw("check").arg(files.input()),
            Vmm::bare().arg("--check"),
        ] {
            let finished = vmm.refused(&[libc::SYS_getrandom], errno).run();
            assert_eq!(finished.stderr, "", "{finished:?}");
            // An image of that format has nothing that could be checked.
            let ended = finished.code();
            assert!(matches!(ended, Some(0 | REFUSED)), "{finished:?}");
        }
    }
}

#[test]
fn a_call_that_a_filter_around_the_process_traps_is_not_laid_to_the_sandbox() {
    needs_kvm!();
    for (call, name) in [
        // Of the end, when the process is confined, and of the beginning.
        (libc::SYS_linkat, "linkat"),
        (libc::SYS_eventfd2, "eventfd2"),
    ] {
        for option in [None, Some("--no-sandbox")] {
            let files = Files::random(70_000);
            let vmm = files.vmm().args(option.as_slice());
            let finished = vmm.answered(&[call], SeccompAction::Trap).run();
            assert_eq!(finished.status.signal(), Some(libc::SIGSYS), "{finished:?}");
            let line = finished.stderr.lines().last().unwrap();
            let start = format!("vmm: the thread vmm made the system call {name} (");
            assert!(line.starts_with(&start), "{finished:?}");
            let end = "a filter around the process forbids, as that of a container or a service: \
                       allow it there";
            assert!(line.ends_with(end), "{finished:?}");
        }
    }
}

/// Waits until `ready` gives something, for a few seconds at the most.
fn wait_for<T>(mut ready: impl FnMut() -> Option<T>) -> T {
    let end = Instant::now() + Duration::from_secs(10);
    loop {
        if let Some(value) = ready() {
            return value;
        }
        assert!(Instant::now() < end, "it does not happen");
        thread::sleep(Duration::from_millis(2));
    }
}

#[test]
fn every_thread_of_a_run_is_confined() {
    needs_kvm!();
    let mut files = Files::random(4096);
    // A guest that never ends, so that there is time to look.
    let guest = files.add("guest.bin", &[0xeb, 0xfe]);
    let running = Vmm::copying(&files.input(), &files.output())
        .arg(guest)
        .start();
    let tasks = format!("/proc/{}/task", running.pid());
    let threads = wait_for(|| {
        let mut threads = BTreeMap::new();
        for task in fs::read_dir(&tasks).ok()? {
            let task = task.ok()?.path();
            let name = fs::read_to_string(task.join("comm")).ok()?;
            let status = fs::read_to_string(task.join("status")).ok()?;
            let value = |key: &str| {
                let line = status.lines().find(|line| line.starts_with(key)).unwrap();
                line.rsplit('\t').next().unwrap().trim().to_owned()
            };
            let state = (value("NoNewPrivs:"), value("Seccomp:"));
            threads.insert(name.trim().to_owned(), state);
        }
        let ours = ["vmm", "vcpu", "input", "output", "watcher"];
        let confined = ("1".to_owned(), "2".to_owned());
        ours.iter()
            .all(|name| threads.get(*name) == Some(&confined))
            .then_some(threads)
    });
    // KVM may add threads of the kernel's own; they inherit the filter.
    for (name, state) in threads {
        assert_eq!(state, ("1".to_owned(), "2".to_owned()), "{name}");
    }
}
