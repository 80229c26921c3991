//! The conditions under which the product is run here: how its output is read, what it is asked to
//! do, and what surrounds it. The stress test, the test of other surroundings and the audit of the
//! lists all use them.

use std::fs::File;
use std::io::{self, Read};
use std::os::unix::process::ExitStatusExt;
use std::sync::mpsc::{self, RecvTimeoutError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use guest_abi::ports::COM2;
use rustix::process::Signal;

use crate::common::program::Program;
use crate::common::terminal::Terminal;
use crate::common::{Files, Finished, Operation, Running, Vmm, random};

/// How somebody reads a stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Reader {
    /// At once.
    Keen,
    /// All of it, after a while.
    Late,
    /// Some of it after a while, and after another the rest.
    Bursty,
    /// A little at a time.
    Slow,
    /// Not at all, until the run has ended, or does not end by a signal.
    Stuck,
    /// A little, and then it goes away.
    Leaving,
}

impl Reader {
    pub(crate) const ALL: [Self; 6] = [
        Self::Keen,
        Self::Late,
        Self::Bursty,
        Self::Slow,
        Self::Stuck,
        Self::Leaving,
    ];

    /// Reads `stream` this way; for a stuck reader `ended` closes when the run has ended.
    fn read(self, mut stream: impl Read, ended: &mpsc::Receiver<()>) -> io::Result<Vec<u8>> {
        const PAUSE: Duration = Duration::from_millis(60);
        let mut bytes = Vec::new();
        let mut take = |stream: &mut dyn Read, most| stream.take(most).read_to_end(&mut bytes);
        match self {
            Self::Keen => {}
            Self::Late => thread::sleep(PAUSE),
            Self::Bursty => {
                thread::sleep(PAUSE);
                take(&mut stream, 100_000)?;
                thread::sleep(PAUSE);
            }
            Self::Slow => {
                for _ in 0..100 {
                    thread::sleep(Duration::from_millis(1));
                    if take(&mut stream, 1500)? == 0 {
                        break;
                    }
                }
            }
            Self::Stuck => drop(ended.recv()),
            Self::Leaving => {
                take(&mut stream, 300)?;
                return Ok(bytes);
            }
        }
        take(&mut stream, u64::MAX)?;
        Ok(bytes)
    }
}

/// Where the output of a run goes.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Streams {
    /// Two pipes, and how they are read.
    Pipes(Reader, Reader),
    /// A terminal whose width changes all the time.
    Terminal,
    /// A socket for standard output.
    Socket,
}

/// What a run does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Work {
    /// Copies.
    Copy,
    /// Converts an image.
    Convert,
    /// Says what an image is.
    Info,
    /// Checks the tables of an image.
    Check,
    /// Has the guest fill COM2 with text, and fail.
    Flood,
    /// Has the guest fault.
    Fault,
    /// Has the guest run until the time limit.
    Spin,
}

/// One way to run the product.
#[derive(Clone, Debug)]
pub(crate) struct Conditions {
    pub(crate) work: Work,
    /// Bytes to copy.
    pub(crate) len: usize,
    pub(crate) arguments: Vec<&'static str>,
    pub(crate) streams: Streams,
    /// Whether there is an output to be replaced.
    pub(crate) replacing: bool,
    /// Whether the second half of the input is a hole.
    pub(crate) hole: bool,
}

impl Conditions {
    pub(crate) fn new(work: Work, len: usize, arguments: &[&'static str]) -> Self {
        Self {
            work,
            len,
            arguments: arguments.to_vec(),
            streams: Streams::Pipes(Reader::Keen, Reader::Keen),
            replacing: false,
            hole: false,
        }
    }

    pub(crate) fn streams(mut self, streams: Streams) -> Self {
        self.streams = streams;
        self
    }

    pub(crate) fn replacing(mut self) -> Self {
        self.replacing = true;
        self
    }

    pub(crate) fn with_hole(mut self) -> Self {
        self.hole = true;
        self
    }

    /// The files that such a run needs.
    pub(crate) fn files(&self) -> Files {
        let mut files = Files::random(self.len);
        if self.hole {
            let mut content = random(self.len / 2, 1);
            content.resize(self.len, 0);
            files = Files::new(&content);
            let input = File::options().write(true).open(files.input()).unwrap();
            let half = (self.len / 2) as u64;
            input.set_len(half).unwrap();
            input.set_len(self.len as u64).unwrap();
            // Where it can be, it is room that was never written, and not in the page cache: reading the
            // first half brings some of it there.
            let whole = rustix::fs::FallocateFlags::empty();
            let _ = rustix::fs::fallocate(&input, whole, half, half);
            input.sync_all().unwrap();
            let _ = rustix::fs::fadvise(&input, 0, None, rustix::fs::Advice::DontNeed);
        }
        if self.replacing {
            files = files.with_old_output(b"old");
        }
        if let Some(guest) = self.guest() {
            files.add("guest.bin", &guest);
        }
        match self.work {
            Work::Convert | Work::Info | Work::Check => files.with_image(),
            _ => files,
        }
    }

    fn guest(&self) -> Option<Vec<u8>> {
        let line = [b"a line that somebody may read".as_slice(), b"\n"].concat();
        match self.work {
            Work::Copy | Work::Convert | Work::Info | Work::Check => None,
            Work::Flood => {
                let lines = Program::new().send(COM2, &line.repeat(20));
                Some(Program::new().repeat(100, &lines).exit(1).build())
            }
            Work::Fault => Some(vec![0x0f, 0x0b]),
            Work::Spin => Some(vec![0xeb, 0xfe]),
        }
    }

    /// Runs `vmm`, which is the product, bare or in something that runs it, and fails unless it
    /// ends as it should: an exact copy, or a documented status and no output.
    #[track_caller]
    pub(crate) fn run(&self, files: &Files, vmm: Vmm) -> Finished {
        let operation = match self.work {
            Work::Convert => Operation::Convert,
            Work::Info => Operation::Info,
            Work::Check => Operation::Check,
            Work::Copy | Work::Flood | Work::Fault | Work::Spin => Operation::Copy,
        };
        let arguments = operation.arguments(files).into_iter();
        let mut vmm = arguments.fold(vmm, Vmm::arg).args(&self.arguments);
        if self.work == Work::Spin {
            vmm = vmm.args(&["--timeout", "0.2"]);
        }
        if self.guest().is_some() {
            vmm = vmm.arg(files.path("guest.bin"));
        }
        let finished = match self.streams {
            Streams::Pipes(out, err) => run_with_pipes(vmm, out, err),
            Streams::Terminal => run_on_terminal(vmm),
            Streams::Socket => run_on_socket(vmm),
        };
        self.judge(files, &finished);
        finished
    }

    #[track_caller]
    fn judge(&self, files: &Files, finished: &Finished) {
        let is_stuck = matches!(
            self.streams,
            Streams::Pipes(Reader::Stuck, _) | Streams::Pipes(_, Reader::Stuck)
        );
        let expected = match self.work {
            Work::Copy | Work::Convert | Work::Info | Work::Check => 0,
            Work::Flood | Work::Fault => 4,
            Work::Spin => 124,
        };
        let code = finished.code().or(finished.status.signal());
        match code {
            Some(0) if matches!(self.work, Work::Copy | Work::Convert) => files.assert_copied(),
            // Nobody reads what it has to say: a signal had to end it. On a busy host it may come
            // before the run has taken over signals.
            Some(143 | libc::SIGTERM) if is_stuck => drop(files.assert_old_or_copied()),
            Some(code) if code == expected => files.assert_untouched(),
            _ => panic!("{self:?}: {finished:?}"),
        }
    }
}

fn run_with_pipes(vmm: Vmm, out: Reader, err: Reader) -> Finished {
    let stuck = [out, err].contains(&Reader::Stuck);
    let (out, err) = (Stream::new(out), Stream::new(err));
    let running = vmm.stdout(out.writer).stderr(err.writer).start();
    if stuck {
        // What it can do by itself it does in this time; then it is told to end.
        wait_a_while(&running);
        for _ in 0..5 {
            running.signal(Signal::TERM);
            wait_a_while(&running);
        }
    }
    // From here on everybody reads.
    drop((out.ended, err.ended));
    let mut finished = running.finish();
    let text =
        |reader: JoinHandle<Vec<u8>>| String::from_utf8_lossy(&reader.join().unwrap()).into_owned();
    finished.stdout = text(out.reader);
    finished.stderr = text(err.reader);
    finished
}

fn run_on_socket(vmm: Vmm) -> Finished {
    let (mut ours, theirs) = std::os::unix::net::UnixStream::pair().unwrap();
    let running = vmm.stdout(std::os::fd::OwnedFd::from(theirs)).start();
    let mut shown = String::new();
    ours.read_to_string(&mut shown).unwrap();
    let mut finished = running.finish();
    finished.stdout = shown;
    finished
}

fn wait_a_while(running: &Running) {
    let end = Instant::now() + Duration::from_millis(200);
    while !running.has_ended() && Instant::now() < end {
        thread::sleep(Duration::from_millis(5));
    }
}

/// A pipe with a thread that reads it.
struct Stream {
    writer: io::PipeWriter,
    ended: mpsc::Sender<()>,
    reader: JoinHandle<Vec<u8>>,
}

impl Stream {
    fn new(kind: Reader) -> Self {
        let (reader, writer) = io::pipe().unwrap();
        let (ended, has_ended) = mpsc::channel();
        let reader = thread::spawn(move || kind.read(reader, &has_ended).unwrap());
        Self {
            writer,
            ended,
            reader,
        }
    }
}

fn run_on_terminal(vmm: Vmm) -> Finished {
    let terminal = Terminal::open();
    let mut resize = terminal.resizer();
    let (ended, has_ended) = mpsc::channel::<()>();
    let resizing = thread::spawn(move || {
        for columns in (1..200).cycle() {
            resize(columns);
            let waited = has_ended.recv_timeout(Duration::from_millis(1));
            if waited == Err(RecvTimeoutError::Disconnected) {
                break;
            }
        }
    });
    let running = terminal.attach(vmm).start();
    let reading = thread::spawn(move || terminal.read_to_end());
    let mut finished = running.finish();
    drop(ended);
    resizing.join().unwrap();
    finished.stderr = reading.join().unwrap();
    finished
}
