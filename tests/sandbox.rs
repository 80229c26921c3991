//! The sandbox holds: on each thread a forbidden call ends the process with SIGSYS, nothing can be
//! opened once the process is confined, and no call is allowed that no run needs.
#![allow(clippy::unwrap_used, clippy::panic, clippy::expect_used)]

mod common;

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File};
use std::io;
use std::os::fd::AsFd;
use std::os::unix::process::ExitStatusExt;
use std::process::{Command, ExitStatus};
use std::thread;
use std::time::{Duration, Instant};

use common::{Files, Vmm, needs_kvm, skip};
use vmm::sandbox::{Filter, Role, confine_process, rules};

/// Tells a test that it runs as its own child, and what to do there.
const CHILD: &str = "SANDBOX_TEST_CHILD";

/// Runs the test `name` again in a process of its own with `task` to do.
fn child(name: &str, task: &str) -> ExitStatus {
    Command::new(std::env::current_exe().unwrap())
        .args(["--exact", name, "--nocapture", "--test-threads=1"])
        .env(CHILD, task)
        .stdout(std::process::Stdio::null())
        .status()
        .unwrap()
}

/// What this process is to do, if it is a child.
fn task() -> Option<String> {
    std::env::var(CHILD).ok()
}

/// What an attacker in the process would try; each as one system call.
fn forbidden_calls() -> BTreeMap<&'static str, fn()> {
    fn call(number: i64, arguments: [usize; 3]) {
        let [first, second, third] = arguments;
        // SAFETY: the calls are to be refused; if one is not, its arguments are null or closed
        // descriptors, with which none of them does anything.
        unsafe { libc::syscall(number, first, second, third) };
    }
    BTreeMap::from([
        (
            "open",
            (|| call(libc::SYS_openat, [usize::MAX, 0, 0])) as fn(),
        ),
        ("execute", || call(libc::SYS_execve, [0, 0, 0])),
        ("connect", || call(libc::SYS_connect, [usize::MAX, 0, 0])),
        ("socket", || call(libc::SYS_socket, [1, 1, 0])),
        ("fork", || call(libc::SYS_vfork, [0, 0, 0])),
        ("kill", || call(libc::SYS_kill, [0, 0, 0])),
        ("trace", || call(libc::SYS_ptrace, [usize::MAX, 0, 0])),
        ("create a VM", || {
            call(libc::SYS_ioctl, [usize::MAX, 0xae01, 0])
        }),
        ("map code", || {
            let executable = usize::try_from(libc::PROT_EXEC).unwrap();
            call(libc::SYS_mmap, [0, 4096, executable]);
        }),
        ("change a handler", || {
            call(libc::SYS_rt_sigaction, [10, 0, 0])
        }),
    ])
}

#[test]
fn a_forbidden_call_on_any_thread_ends_the_process_with_sigsys() {
    if let Some(task) = task() {
        let (role, name) = task.split_once(' ').unwrap();
        let role = Role::ALL
            .into_iter()
            .find(|candidate| format!("{candidate:?}") == role)
            .unwrap();
        let calls = forbidden_calls();
        Filter::new(role).unwrap().install().unwrap();
        if let Some(call) = calls.get(name) {
            call();
        }
        // SAFETY: ends this process, which has nothing left to do; all threads may do that.
        unsafe { libc::syscall(libc::SYS_exit, 7) };
    }
    let name = "a_forbidden_call_on_any_thread_ends_the_process_with_sigsys";
    for role in Role::ALL {
        for call in forbidden_calls().keys() {
            let status = child(name, &format!("{role:?} {call}"));
            assert_eq!(status.signal(), Some(libc::SIGSYS), "{role:?}: {call}");
        }
    }
}

#[test]
fn a_confined_process_can_name_the_output_and_open_nothing() {
    const CONFINED: i32 = 40;
    const NO_LANDLOCK: i32 = 41;
    if task().is_some() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("copy");
        fs::write(folder.path().join("complete"), "data").unwrap();
        let handle = File::open(folder.path()).unwrap();
        confine_process(Some(handle.as_fd())).unwrap();
        let opened = [
            File::open("/etc/passwd").map(drop),
            File::create(&path).map(drop),
            fs::read_dir("/").map(drop),
            std::net::TcpListener::bind("127.0.0.1:0").map(drop),
        ];
        let renamed = fs::rename(folder.path().join("complete"), &path);
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
        assert!(renamed.is_ok(), "{renamed:?}");
        std::process::exit(code);
    }
    let status = child(
        "a_confined_process_can_name_the_output_and_open_nothing",
        "yes",
    );
    match status.code() {
        Some(CONFINED) => {}
        Some(NO_LANDLOCK) => skip("this kernel has no Landlock"),
        other => panic!("{other:?}"),
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
        let ours = ["vmm", "vcpu", "input", "output"];
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

/// Runs that between them do everything that the VMM can do while it is confined.
fn all_kinds_of_runs(trace: impl Fn(&str, &[&str], &Files)) {
    let big = Files::random(3 << 20).with_old_output(b"old");
    trace("replacing", &["--fsync", "--stats", "--debug"], &big);
    trace(
        "new",
        &["--output-sector-size", "4096"],
        &Files::random(100_001),
    );
    trace(
        "direct",
        &["--direct", "--progress-percent", "10"],
        &Files::random(1 << 20),
    );
    let mut files = Files::random(5000);
    files.add("fault.bin", &[0x0f, 0x0b]);
    trace("fault", &["fault.bin"], &files);
    let mut files = Files::random(5000);
    files.add("spin.bin", &[0xeb, 0xfe]);
    trace("spinning", &["--timeout", "0.3", "spin.bin"], &files);
}

#[test]
fn no_call_is_allowed_that_no_run_needs() {
    needs_kvm!();
    if Command::new("strace").arg("--version").output().is_err() {
        return skip("strace is not installed");
    }
    let used = std::cell::RefCell::new(BTreeMap::<String, BTreeSet<String>>::new());
    all_kinds_of_runs(|name, arguments, files| {
        let log = files.path(&format!("{name}.strace"));
        let _ = Command::new("strace")
            .args(["-f", "-Y", "-qq", "-o"])
            .arg(&log)
            .arg(env!("CARGO_BIN_EXE_vmm"))
            .arg("--input")
            .arg(files.input())
            .arg("--output")
            .arg(files.output())
            .args(arguments)
            .current_dir(files.folder())
            .output()
            .unwrap();
        collect(&fs::read_to_string(log).unwrap(), &mut used.borrow_mut());
    });
    let used = used.into_inner();
    let mut needless = Vec::new();
    for role in Role::ALL {
        let thread = match role {
            Role::Main => "vmm",
            Role::Vcpu => "vcpu",
            Role::Input => "input",
            Role::Output => "output",
        };
        for rule in rules(role) {
            if !used[thread].contains(rule.name) && !RARE.iter().any(|(name, _)| *name == rule.name)
            {
                needless.push(format!("{role:?}: {}", rule.name));
            }
        }
    }
    assert!(
        needless.is_empty(),
        "no run makes these calls: {needless:?}"
    );
}

/// Calls that a run makes only when something happens that these runs do not arrange. Other tests
/// do, and would fail without them.
const RARE: [(&str, &str); 11] = [
    (
        "clock_gettime",
        "the host's clock cannot be read without a system call",
    ),
    ("brk", "the heap grows"),
    ("mmap", "the heap grows"),
    ("mprotect", "the heap grows"),
    ("munmap", "the heap shrinks"),
    ("ppoll", "the end waits for a reader of what was printed"),
    ("sendto", "standard output or standard error is a socket"),
    ("ioctl", "the progress bar asks for the width of a terminal"),
    (
        "unlinkat",
        "putting the output in place has failed half-way",
    ),
    (
        "preadv",
        "a guest reads the output disk, as the copying one never does",
    ),
    (
        "fcntl",
        "only a build with debug assertions makes it, for each descriptor that it closes",
    ),
];

/// Notes which calls each thread made once it was confined.
fn collect(log: &str, used: &mut BTreeMap<String, BTreeSet<String>>) {
    let mut confined = BTreeSet::new();
    for line in log.lines() {
        // 1234<name> call(arguments) = result
        let Some((thread, rest)) = line.split_once("> ") else {
            continue;
        };
        let name = thread.split('<').nth(1).unwrap_or_default();
        let call = rest.trim_start();
        if call.starts_with("seccomp(SECCOMP_SET_MODE_FILTER") {
            confined.insert(thread.to_owned());
            continue;
        }
        let call = call.strip_prefix("<... ").unwrap_or(call);
        let end = call.find(|c: char| !c.is_ascii_alphanumeric() && c != '_');
        let call = &call[..end.unwrap_or(call.len())];
        if confined.contains(thread) && !call.is_empty() {
            used.entry(name.to_owned())
                .or_default()
                .insert(call.to_owned());
        }
    }
}
