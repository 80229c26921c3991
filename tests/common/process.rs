//! The VMM as a child process: started with arguments, watched, and killed when it takes longer
//! than any run may, since a hang is a failure.
#![allow(
    clippy::zombie_processes,
    reason = "`Running` waits for its process, however it goes"
)]

use std::ffi::OsStr;
use std::io::{self, Read};
use std::os::fd::AsRawFd;
use std::os::unix::process::CommandExt;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::thread::JoinHandle;
use std::time::Duration;

use rustix::process::{Pid, PidfdFlags, Signal, kill_process, pidfd_open};

use super::skip;

/// No test's run takes that long, not even on a host that is itself emulated.
const LIMIT: Duration = Duration::from_secs(60);

/// The binary under test.
pub(crate) fn binary() -> PathBuf {
    std::env::var_os("VMM_BINARY")
        .unwrap_or_else(|| env!("CARGO_BIN_EXE_vmm").into())
        .into()
}

/// Copies a program that is to be started. By another process: one that another test starts while
/// this one writes the copy would have it open for writing, and it could not be executed.
pub(crate) fn copy_program(from: &Path, to: &Path) {
    let status = Command::new("cp").arg(from).arg(to).status().unwrap();
    assert!(status.success(), "{status}");
}

/// A run of the VMM that has not begun.
pub(crate) struct Vmm(Command);

impl Vmm {
    /// With no arguments at all.
    pub(crate) fn bare() -> Self {
        Self::of(&binary())
    }

    /// Another copy of the binary, with no arguments.
    pub(crate) fn of(binary: &Path) -> Self {
        let mut command = Command::new(binary);
        command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        Self(command)
    }

    pub(crate) fn copying(input: &Path, output: &Path) -> Self {
        Self::bare()
            .arg("--input")
            .arg(input)
            .arg("--output")
            .arg(output)
    }

    /// The same under strace(1) with these options, which writes into `log`. Only arguments may have been
    /// set before.
    pub(crate) fn traced(self, log: &Path, options: &[&str]) -> Self {
        let strace = Self::of("strace".as_ref()).args(&["-f", "-qq", "-o"]);
        let strace = strace.arg(log).args(options).arg(self.0.get_program());
        self.0.get_args().fold(strace, Self::arg)
    }

    pub(crate) fn arg(mut self, argument: impl AsRef<OsStr>) -> Self {
        self.0.arg(argument);
        self
    }

    pub(crate) fn args(mut self, arguments: &[&str]) -> Self {
        self.0.args(arguments);
        self
    }

    pub(crate) fn current_dir(mut self, folder: &Path) -> Self {
        self.0.current_dir(folder);
        self
    }

    pub(crate) fn stdin(mut self, stdin: impl Into<Stdio>) -> Self {
        self.0.stdin(stdin);
        self
    }

    pub(crate) fn stdout(mut self, stdout: impl Into<Stdio>) -> Self {
        self.0.stdout(stdout);
        self
    }

    pub(crate) fn stderr(mut self, stderr: impl Into<Stdio>) -> Self {
        self.0.stderr(stderr);
        self
    }

    pub(crate) fn env(mut self, name: &str, value: impl AsRef<OsStr>) -> Self {
        self.0.env(name, value);
        self
    }

    /// Does `prepare` in the new process before the program is started: it may make system calls
    /// and nothing else.
    pub(crate) fn before_start(
        mut self,
        prepare: impl FnMut() -> io::Result<()> + Send + Sync + 'static,
    ) -> Self {
        // SAFETY: as said above.
        unsafe { self.0.pre_exec(prepare) };
        self
    }

    /// As an unprivileged user without any group (nobody, on most systems).
    pub(crate) fn unprivileged(mut self) -> Self {
        self.0.uid(65534).gid(65534);
        self
    }

    /// Starts it.
    #[track_caller]
    pub(crate) fn start(mut self) -> Running {
        let mut child = self.0.spawn().expect("the VMM can be started");
        let stdout = child.stdout.take().map(collect);
        let stderr = child.stderr.take().map(collect);
        Running {
            child: Some(child),
            stdout,
            stderr,
        }
    }

    /// Starts it and waits for its end.
    #[track_caller]
    pub(crate) fn run(self) -> Finished {
        self.start().finish()
    }

    /// Runs it and fails unless it succeeds.
    #[track_caller]
    pub(crate) fn succeed(self) -> Finished {
        let finished = self.run();
        assert_eq!(finished.code(), Some(0), "{finished:?}");
        finished
    }
}

fn collect(mut stream: impl Read + Send + 'static) -> JoinHandle<Vec<u8>> {
    std::thread::spawn(move || {
        let mut bytes = Vec::new();
        stream.read_to_end(&mut bytes).unwrap();
        bytes
    })
}

/// A run that has begun. It is killed if the test gives it up.
pub(crate) struct Running {
    /// Gone once the process has been waited for: its number may then be another's.
    child: Option<Child>,
    stdout: Option<JoinHandle<Vec<u8>>>,
    stderr: Option<JoinHandle<Vec<u8>>>,
}

impl Running {
    pub(crate) fn pid(&self) -> Pid {
        Pid::from_child(self.child.as_ref().unwrap())
    }

    pub(crate) fn signal(&self, signal: Signal) {
        // It may have ended by itself.
        let _ = kill_process(self.pid(), signal);
    }

    /// The processes that its threads have started. Where the kernel does not tell them
    /// (proc_tid_children(5)) the test is counted as ignored.
    pub(crate) fn children(&self) -> Option<Vec<Pid>> {
        // A thread may end meanwhile.
        let lists: Vec<String> = std::fs::read_dir(self.in_proc("task"))
            .into_iter()
            .flatten()
            .flatten()
            .filter_map(|task| std::fs::read_to_string(task.path().join("children")).ok())
            .collect();
        if lists.is_empty() {
            skip("this kernel does not tell the children of a process");
            return None;
        }
        let numbers = lists.iter().flat_map(|list| list.split_whitespace());
        let pids = numbers.map(|number| Pid::from_raw(number.parse().unwrap()).unwrap());
        Some(pids.collect())
    }

    pub(crate) fn has_ended(&self) -> bool {
        wait(self.pid(), Duration::ZERO)
    }

    /// Waits until it has the thread that runs its guest: then it has taken over signals and opened
    /// all its files, however busy this host is.
    #[track_caller]
    pub(crate) fn wait_for_guest(&self) {
        let tasks = self.in_proc("task");
        let begun = std::time::Instant::now();
        while begun.elapsed() < LIMIT {
            assert!(!self.has_ended(), "it ended before its guest ran");
            let tasks = std::fs::read_dir(&tasks).into_iter().flatten().flatten();
            let mut names = tasks.map(|task| std::fs::read_to_string(task.path().join("comm")));
            if names.any(|name| name.is_ok_and(|name| name == "vcpu\n")) {
                return;
            }
            std::thread::sleep(Duration::from_millis(1));
        }
        panic!("its guest does not run");
    }

    /// Stops it once its guest runs, lets `change` happen meanwhile, and has it go on. Fails if the run
    /// was over too soon to be met under way.
    #[track_caller]
    pub(crate) fn meanwhile(&self, change: impl FnOnce()) {
        self.wait_for_guest();
        self.signal(Signal::STOP);
        let begun = std::time::Instant::now();
        while !self.is_stopped() {
            assert!(!self.has_ended(), "it ended before it was met");
            assert!(begun.elapsed() < LIMIT, "it does not stop");
            std::thread::sleep(Duration::from_millis(1));
        }
        change();
        self.signal(Signal::CONT);
    }

    /// Whether a signal has stopped all its threads.
    fn is_stopped(&self) -> bool {
        let tasks = std::fs::read_dir(self.in_proc("task"));
        tasks.into_iter().flatten().flatten().all(|task| {
            // Behind the name, which stands in parentheses (proc_pid_stat(5)); another letter if strace
            // looks on.
            let stat = std::fs::read_to_string(task.path().join("stat"));
            stat.is_ok_and(|stat| {
                stat.rsplit_once(") ")
                    .is_some_and(|it| it.1.starts_with(['T', 't']))
            })
        })
    }

    /// What the kernel tells of it under `name` (proc(5)).
    fn in_proc(&self, name: &str) -> PathBuf {
        format!("/proc/{}/{name}", self.pid().as_raw_nonzero()).into()
    }

    /// Waits for the end, and kills and fails if it does not come.
    #[track_caller]
    pub(crate) fn finish(mut self) -> Finished {
        let ended = wait(self.pid(), LIMIT);
        let mut child = self.child.take().unwrap();
        if !ended {
            child.kill().unwrap();
        }
        let (status, peak_bytes, cpu) = reap(&child);
        let text = |stream: &mut Option<JoinHandle<Vec<u8>>>| {
            let bytes = stream.take().map(|thread| thread.join().unwrap());
            String::from_utf8(bytes.unwrap_or_default()).expect("text output is UTF-8")
        };
        let finished = Finished {
            status,
            stdout: text(&mut self.stdout),
            stderr: text(&mut self.stderr),
            peak_bytes,
            cpu,
        };
        assert!(ended, "the VMM hung: {finished:?}");
        // No message has the system's number of an error behind its words.
        for text in [&finished.stdout, &finished.stderr] {
            assert!(!text.contains("(os error "), "{finished:?}");
        }
        finished
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if let Some(child) = &mut self.child {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

/// Whether the process ends within `limit`.
fn wait(pid: Pid, limit: Duration) -> bool {
    let process = pidfd_open(pid, PidfdFlags::empty()).unwrap();
    let mut poll = libc::pollfd {
        fd: process.as_raw_fd(),
        events: libc::POLLIN,
        revents: 0,
    };
    let milliseconds = i32::try_from(limit.as_millis()).unwrap();
    // SAFETY: `poll` is one valid entry and the descriptor is open.
    unsafe { libc::poll(&raw mut poll, 1, milliseconds) > 0 }
}

/// Takes the status, the peak resident memory in bytes and the time on processors of a child that
/// has ended.
fn reap(child: &Child) -> (ExitStatus, u64, Duration) {
    let pid = i32::try_from(child.id()).unwrap();
    let mut status = 0;
    // SAFETY: a `rusage` is plain data, for which all zeros are valid.
    let mut usage: libc::rusage = unsafe { std::mem::zeroed() };
    // SAFETY: both pointers are to valid places of the right types.
    let reaped = unsafe { libc::wait4(pid, &raw mut status, 0, &raw mut usage) };
    assert_eq!(reaped, pid, "{}", io::Error::last_os_error());
    let kibibytes = u64::try_from(usage.ru_maxrss).unwrap();
    let cpu = [usage.ru_utime, usage.ru_stime].map(|time| {
        let seconds = Duration::from_secs(u64::try_from(time.tv_sec).unwrap());
        seconds + Duration::from_micros(u64::try_from(time.tv_usec).unwrap())
    });
    (
        ExitStatus::from_raw(status),
        kibibytes * 1024,
        cpu[0] + cpu[1],
    )
}

/// A run that has ended.
#[derive(Debug)]
pub(crate) struct Finished {
    pub(crate) status: ExitStatus,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
    /// Of resident memory. Not less than the test process had when it started the VMM.
    pub(crate) peak_bytes: u64,
    /// The time that its threads and its guest took on processors.
    pub(crate) cpu: Duration,
}

impl Finished {
    /// The exit status, unless a signal ended it.
    pub(crate) fn code(&self) -> Option<i32> {
        self.status.code()
    }

    /// The lines of standard output.
    pub(crate) fn lines(&self) -> Vec<&str> {
        self.stdout.lines().collect()
    }

    /// Fails unless it ended with `code` and its last line on standard error is the VMM's reason,
    /// which contains `reason`. Of other lines there may only be the guest's debug lines.
    #[track_caller]
    pub(crate) fn assert_failed(&self, code: i32, reason: &str) {
        assert_eq!(self.code(), Some(code), "{self:?}");
        let lines: Vec<&str> = self.stderr.lines().collect();
        let (last, before) = lines.split_last().expect("a reason on standard error");
        assert!(last.starts_with("vmm: "), "{self:?}");
        assert!(last.contains(reason), "expected {reason:?} in {last:?}");
        assert!(!last.contains("  "), "a gap in {last:?}");
        let is_debug = |line: &&str| line.starts_with("[DEBUG] ");
        assert!(before.iter().all(is_debug), "{self:?}");
        assert!(!self.stderr.contains("panicked"), "{self:?}");
    }

    /// Fails unless a guest's fault was explained by `what`, or cannot be on this host.
    #[track_caller]
    pub(crate) fn assert_fault_told(&self, what: &str) {
        let unknown = self.stderr.contains("that this host's KVM does not tell");
        let told = self.stderr.contains(what) || unknown && !kvm_tells_of_faults();
        assert!(told, "expected {what:?} in {self:?}");
    }
}

/// Whether this host's KVM leaves a vCPU as it was at a triple fault; kvm_amd resets it, and of others
/// nothing is known.
fn kvm_tells_of_faults() -> bool {
    let modules = ["kvm_intel", "kvm_pvm"].map(|name| Path::new("/sys/module").join(name));
    modules.iter().any(|module| module.exists())
}
