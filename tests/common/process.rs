//! The VMM as a child process: started with arguments, watched, and killed when it takes longer
//! than any run may, since a hang is a failure.
#![allow(
    clippy::zombie_processes,
    reason = "`Running` waits for its process, however it goes"
)]

use std::ffi::OsStr;
use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::os::unix::process::CommandExt;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::thread::JoinHandle;
use std::time::Duration;

use rustix::process::{
    Pid, PidfdFlags, Resource, Rlimit, Signal, kill_process, pidfd_open, setrlimit,
};

use super::skip;

/// No test's run takes that long, not even on a host that is itself emulated.
const LIMIT: Duration = Duration::from_secs(60);

/// The binary under test.
pub(crate) fn binary() -> PathBuf {
    std::env::var_os("VMM_BINARY")
        .unwrap_or_else(|| env!("CARGO_BIN_EXE_vmm").into())
        .into()
}

/// Whether the binary under test asks for no dynamic loader (PT_INTERP, System V ABI, "Program Header").
pub(crate) fn is_static() -> bool {
    const PT_INTERP: u32 = 3;
    let elf = std::fs::read(binary()).unwrap();
    let half = |at: usize| usize::from(u16::from_le_bytes(elf[at..at + 2].try_into().unwrap()));
    let table = usize::try_from(u64::from_le_bytes(elf[32..40].try_into().unwrap())).unwrap();
    let (size, count) = (half(54), half(56));
    (0..count).all(|index| {
        let entry = table + index * size;
        elf[entry..entry + 4] != PT_INTERP.to_le_bytes()
    })
}

/// Whether libraries can be loaded before those of the binary under test. If not, the current test is
/// counted as ignored.
pub(crate) fn can_preload() -> bool {
    if is_static() {
        skip("nothing can be loaded into a static binary");
    }
    !is_static()
}

/// A library for LD_PRELOAD, compiled from C. If there can be none the test is counted as ignored.
pub(crate) fn preloaded(folder: &Path, source: &str) -> Option<PathBuf> {
    let (code, library) = (folder.join("preloaded.c"), folder.join("preloaded.so"));
    std::fs::write(&code, source).unwrap();
    let mut compiler = Command::new("cc");
    compiler
        .args(["-shared", "-fPIC", "-o"])
        .args([&library, &code]);
    let Ok(output) = compiler.output() else {
        skip("there is no C compiler (cc)");
        return None;
    };
    assert!(output.status.success(), "{output:?}");
    can_preload().then_some(library)
}

/// Every signal that a program may block.
pub(crate) fn all_signals() -> Vec<i32> {
    (1..=64).collect()
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

    /// With a limit on the size of any file that it writes, in bytes.
    pub(crate) fn with_file_size_limit(self, bytes: u64) -> Self {
        self.with_limit(Resource::Fsize, bytes)
    }

    /// With a limit on the memory of its own that it may have, in bytes.
    pub(crate) fn with_memory_limit(self, bytes: u64) -> Self {
        self.with_limit(Resource::Data, bytes)
    }

    /// With a limit on a resource (getrlimit(2)).
    pub(crate) fn with_limit(self, resource: Resource, most: u64) -> Self {
        self.with_limits(resource, most, most)
    }

    /// With a soft limit on a resource and a hard one.
    pub(crate) fn with_limits(self, resource: Resource, soft: u64, hard: u64) -> Self {
        let (current, maximum) = (Some(soft), Some(hard));
        let limit = move || setrlimit(resource, Rlimit { current, maximum });
        self.before_start(move || limit().map_err(io::Error::from))
    }

    /// Without one of the standard streams, by its number.
    pub(crate) fn closed(self, stream: i32) -> Self {
        self.before_start(move || {
            // SAFETY: nothing in the process uses the descriptor.
            unsafe { libc::close(stream) };
            Ok(())
        })
    }

    /// With these signals ignored, as nohup(1) has it.
    pub(crate) fn ignoring(self, signals: &[i32]) -> Self {
        let signals = signals.to_vec();
        self.before_start(move || {
            for &signal in &signals {
                // SAFETY: ignoring a signal installs no code.
                unsafe { libc::signal(signal, libc::SIG_IGN) };
            }
            Ok(())
        })
    }

    /// With these signals blocked, as the parent of a process may have done.
    pub(crate) fn blocking(self, signals: &[i32]) -> Self {
        // SAFETY: a set is plain data, for which all zeros are valid.
        let mut set: libc::sigset_t = unsafe { std::mem::zeroed() };
        for &signal in signals {
            // SAFETY: the set is valid.
            unsafe { libc::sigaddset(&raw mut set, signal) };
        }
        self.before_start(move || {
            // SAFETY: the set is valid and the old one is not wanted.
            unsafe { libc::sigprocmask(libc::SIG_BLOCK, &raw const set, std::ptr::null_mut()) };
            Ok(())
        })
    }

    /// In a session of its own, with what is its standard input as the session's terminal.
    pub(crate) fn in_session(mut self) -> Self {
        let set = || {
            // SAFETY: the call takes nothing.
            if unsafe { libc::setsid() } < 0 {
                return Err(io::Error::last_os_error());
            }
            // SAFETY: the request takes a number.
            match unsafe { libc::ioctl(0, libc::TIOCSCTTY, 0) } {
                0 => Ok(()),
                _ => Err(io::Error::last_os_error()),
            }
        };
        // SAFETY: between fork and exec it makes two system calls and nothing else.
        unsafe { self.0.pre_exec(set) };
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

    /// The processes that its threads have started.
    pub(crate) fn children(&self) -> Vec<Pid> {
        let tasks = std::fs::read_dir(format!("/proc/{}/task", self.pid().as_raw_nonzero()));
        let children = |task: io::Result<std::fs::DirEntry>| {
            std::fs::read_to_string(task.unwrap().path().join("children")).unwrap()
        };
        let lists: Vec<String> = tasks.unwrap().map(children).collect();
        let numbers = lists.iter().flat_map(|list| list.split_whitespace());
        numbers
            .map(|number| Pid::from_raw(number.parse().unwrap()).unwrap())
            .collect()
    }

    pub(crate) fn has_ended(&self) -> bool {
        wait(self.pid(), Duration::ZERO)
    }

    /// Waits until it has the thread that runs its guest: then it has taken over signals and opened
    /// all its files, however busy this host is.
    #[track_caller]
    pub(crate) fn wait_for_guest(&self) {
        let tasks = format!("/proc/{}/task", self.pid().as_raw_nonzero());
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

    /// Stops it once its guest runs, lets `change` happen meanwhile, and has it go on: however fast this host
    /// is, the run is met under way.
    #[track_caller]
    pub(crate) fn meanwhile(&self, change: impl FnOnce()) {
        self.wait_for_guest();
        self.signal(Signal::STOP);
        assert!(!self.has_ended(), "it ended before it was met");
        change();
        self.signal(Signal::CONT);
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

/// A pseudoterminal: the test's side of it, and the side for a process.
pub(crate) struct Terminal {
    ours: File,
    theirs: OwnedFd,
}

impl Terminal {
    /// A terminal of 24 lines of 100 columns.
    pub(crate) fn open() -> Self {
        let (mut ours, mut theirs) = (-1, -1);
        let size = libc::winsize {
            ws_row: 24,
            ws_col: 100,
            ws_xpixel: 0,
            ws_ypixel: 0,
        };
        let none = std::ptr::null_mut();
        // SAFETY: the descriptors are written to valid places; there is no name to be written,
        // and the size is only read.
        let opened = unsafe {
            libc::openpty(
                &raw mut ours,
                &raw mut theirs,
                none,
                std::ptr::null(),
                &raw const size,
            )
        };
        assert_eq!(opened, 0, "{}", io::Error::last_os_error());
        for descriptor in [ours, theirs] {
            // SAFETY: the descriptor is open; a process that is started meanwhile must not have it.
            unsafe { libc::fcntl(descriptor, libc::F_SETFD, libc::FD_CLOEXEC) };
        }
        // SAFETY: the descriptor is new and nobody else's.
        let ours = unsafe { File::from_raw_fd(ours) };
        // SAFETY: as above.
        let theirs = unsafe { OwnedFd::from_raw_fd(theirs) };
        Self { ours, theirs }
    }

    /// Hangs up, and returns the side of a process, which has nobody to talk to any more.
    pub(crate) fn hang_up(self) -> OwnedFd {
        self.theirs
    }

    /// Both output streams of `vmm` on this terminal.
    pub(crate) fn attach(&self, vmm: Vmm) -> Vmm {
        self.attach_stderr(vmm)
            .stdout(self.theirs.try_clone().unwrap())
    }

    /// Standard error of `vmm` on this terminal.
    pub(crate) fn attach_stderr(&self, vmm: Vmm) -> Vmm {
        vmm.env("TERM", "xterm")
            .stderr(self.theirs.try_clone().unwrap())
    }

    /// Standard input of `vmm` from this terminal.
    pub(crate) fn attach_stdin(&self, vmm: Vmm) -> Vmm {
        vmm.stdin(self.theirs.try_clone().unwrap())
    }

    /// Types `keys`.
    pub(crate) fn type_keys(&self, keys: &[u8]) {
        (&self.ours).write_all(keys).unwrap();
    }

    /// What was shown, as far as it waits to be read.
    pub(crate) fn shown(&self) -> String {
        let mut waiting: libc::c_int = 0;
        // SAFETY: `waiting` is valid for writing.
        unsafe { libc::ioctl(self.ours.as_raw_fd(), libc::FIONREAD, &raw mut waiting) };
        let mut shown = vec![0; usize::try_from(waiting).unwrap()];
        (&self.ours).read_exact(&mut shown).unwrap();
        String::from_utf8_lossy(&shown).into_owned()
    }

    /// Its settings, to be compared: modes and keys.
    pub(crate) fn settings(&self) -> (Vec<u32>, Vec<u8>) {
        // SAFETY: a `termios` is plain data, for which all zeros are valid.
        let mut settings: libc::termios = unsafe { std::mem::zeroed() };
        // SAFETY: `settings` is valid for writing.
        let asked = unsafe { libc::tcgetattr(self.theirs.as_raw_fd(), &raw mut settings) };
        assert_eq!(asked, 0, "{}", io::Error::last_os_error());
        let modes = [
            settings.c_iflag,
            settings.c_oflag,
            settings.c_cflag,
            settings.c_lflag,
        ];
        (modes.to_vec(), settings.c_cc.to_vec())
    }

    /// Gives it other settings, as an editor does.
    pub(crate) fn edit(&self) {
        // SAFETY: a `termios` is plain data, for which all zeros are valid.
        let mut settings: libc::termios = unsafe { std::mem::zeroed() };
        // SAFETY: `settings` is valid for writing.
        let asked = unsafe { libc::tcgetattr(self.theirs.as_raw_fd(), &raw mut settings) };
        assert_eq!(asked, 0, "{}", io::Error::last_os_error());
        settings.c_lflag &= !(libc::ICANON | libc::ECHO | libc::ISIG);
        settings.c_iflag ^= libc::ICRNL;
        // SAFETY: `settings` is only read.
        let set =
            unsafe { libc::tcsetattr(self.theirs.as_raw_fd(), libc::TCSANOW, &raw const settings) };
        assert_eq!(set, 0, "{}", io::Error::last_os_error());
    }

    /// The group of processes that is in its foreground.
    pub(crate) fn foreground(&self) -> i32 {
        let mut group: libc::pid_t = 0;
        // SAFETY: `group` is valid for writing.
        let asked = unsafe { libc::ioctl(self.ours.as_raw_fd(), libc::TIOCGPGRP, &raw mut group) };
        assert_eq!(asked, 0, "{}", io::Error::last_os_error());
        group
    }

    /// Stops it, as Ctrl-S does.
    pub(crate) fn stop(&self) {
        // SAFETY: the descriptor is that of a terminal.
        let stopped = unsafe { libc::tcflow(self.theirs.as_raw_fd(), libc::TCOOFF) };
        assert_eq!(stopped, 0, "{}", io::Error::last_os_error());
    }

    /// What gives it another width, in columns, from any thread.
    pub(crate) fn resizer(&self) -> impl FnMut(u16) + Send + use<> {
        let terminal = self.ours.try_clone().unwrap();
        move |columns| {
            let size = libc::winsize {
                ws_row: 24,
                ws_col: columns,
                ws_xpixel: 0,
                ws_ypixel: 0,
            };
            // SAFETY: the size is only read, and the descriptor is open.
            let set =
                unsafe { libc::ioctl(terminal.as_raw_fd(), libc::TIOCSWINSZ, &raw const size) };
            assert_eq!(set, 0, "{}", io::Error::last_os_error());
        }
    }

    /// What is shown, for who wants to read it as it comes.
    pub(crate) fn reader(&self) -> File {
        self.ours.try_clone().unwrap()
    }

    /// What is shown until the last process with this terminal has ended.
    pub(crate) fn read_to_end(self) -> String {
        let Self { mut ours, theirs } = self;
        drop(theirs);
        let mut shown = Vec::new();
        // The end of a terminal without processes is an error, EIO.
        let _ = ours.read_to_end(&mut shown);
        String::from_utf8_lossy(&shown).into_owned()
    }
}
