//! A file system that stops answering, as a network can: one file, served over /dev/fuse as far as
//! this needs it (linux/fuse.h).

use std::ffi::CString;
use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::AsRawFd;
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;

/// The name of the file, its number, and that of the folder.
const NAME: &str = "file";
const ROOT: u64 = 1;
const FILE: u64 = 2;
/// The length of the file in bytes.
pub(crate) const LENGTH: u64 = 1 << 20;

/// Requests, by their numbers.
const LOOKUP: u32 = 1;
const FORGET: u32 = 2;
const GETATTR: u32 = 3;
const OPEN: u32 = 14;
const READ: u32 = 15;
const RELEASE: u32 = 18;
const FLUSH: u32 = 25;
const INIT: u32 = 26;
const INTERRUPT: u32 = 36;
const BATCH_FORGET: u32 = 42;

const IN_HEADER: usize = 40;

/// What gets no answer.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Silence {
    /// Looking up the file.
    Lookups,
    /// Reading it.
    Reads,
}

/// The file system, mounted for as long as this lives.
pub(crate) struct Hanging {
    folder: tempfile::TempDir,
    answers: Arc<AtomicBool>,
    server: Option<JoinHandle<()>>,
}

impl Hanging {
    /// A file system with `silence`. One that is `polite` ends a request when the process does not
    /// want it any more; otherwise no signal ends it, SIGKILL neither. `None` where nothing can be
    /// mounted.
    pub(crate) fn mount(silence: Silence, polite: bool) -> Option<Self> {
        let device = File::options().read(true).write(true).open("/dev/fuse");
        let device = device.ok()?;
        let folder = tempfile::tempdir().unwrap();
        let text = |bytes: &[u8]| CString::new(bytes).unwrap();
        let target = text(folder.path().as_os_str().as_bytes());
        let options = format!(
            "fd={},rootmode=40000,user_id=0,group_id=0",
            device.as_raw_fd()
        );
        let (kind, options) = (text(b"fuse"), text(options.as_bytes()));
        // SAFETY: all four are strings that end with a zero.
        let mounted = unsafe {
            libc::mount(
                kind.as_ptr(),
                target.as_ptr(),
                kind.as_ptr(),
                0,
                options.as_ptr().cast(),
            )
        };
        if mounted != 0 {
            return None;
        }
        let answers = Arc::new(AtomicBool::new(false));
        let server = Server {
            device,
            silence,
            polite,
            answers: answers.clone(),
            waiting: Vec::new(),
        };
        let server = std::thread::spawn(move || server.serve());
        Some(Self {
            folder,
            answers,
            server: Some(server),
        })
    }

    pub(crate) fn file(&self) -> PathBuf {
        self.folder.path().join(NAME)
    }

    /// Gives up its silence: what waits is answered with an error.
    pub(crate) fn answer(&self) {
        self.answers.store(true, Ordering::SeqCst);
    }
}

impl Drop for Hanging {
    fn drop(&mut self) {
        self.answer();
        let target = CString::new(self.folder.path().as_os_str().as_bytes()).unwrap();
        // SAFETY: the path ends with a zero.
        unsafe { libc::umount2(target.as_ptr(), libc::MNT_DETACH) };
        if let Some(server) = self.server.take() {
            let _ = server.join();
        }
    }
}

struct Server {
    device: File,
    silence: Silence,
    polite: bool,
    answers: Arc<AtomicBool>,
    /// Requests that nobody answers.
    waiting: Vec<u64>,
}

impl Server {
    /// Serves until the file system is not mounted any more.
    fn serve(mut self) {
        let mut request = vec![0; 1 << 18];
        loop {
            if self.answers.load(Ordering::SeqCst) {
                for request in std::mem::take(&mut self.waiting) {
                    self.refuse(request, libc::EIO);
                }
            }
            let mut entry = libc::pollfd {
                fd: self.device.as_raw_fd(),
                events: libc::POLLIN,
                revents: 0,
            };
            // SAFETY: `entry` is one valid entry.
            if unsafe { libc::poll(&raw mut entry, 1, 20) } == 0 {
                continue;
            }
            let Ok(len) = (&self.device).read(&mut request) else {
                return;
            };
            self.take(&request[..len]);
        }
    }

    fn take(&mut self, request: &[u8]) {
        let word = |at: usize| u32::from_le_bytes(request[at..at + 4].try_into().unwrap());
        let long = |at: usize| u64::from_le_bytes(request[at..at + 8].try_into().unwrap());
        let (kind, unique, node) = (word(4), long(8), long(16));
        match kind {
            INIT => {
                // Version 7.31, no features, writes of 4 KiB.
                let words = [7_u32, 31, 0, 0, 0, 4096, 1];
                let mut reply: Vec<u8> = words.iter().flat_map(|word| word.to_le_bytes()).collect();
                reply.resize(64, 0);
                self.reply(unique, &reply);
            }
            LOOKUP if self.silence == Silence::Lookups => self.waiting.push(unique),
            READ => self.waiting.push(unique),
            LOOKUP if request[IN_HEADER..].starts_with(NAME.as_bytes()) => {
                let mut reply = Vec::new();
                for long in [FILE, 0, 0, 0, 0] {
                    reply.extend(u64::to_le_bytes(long));
                }
                reply.extend(attributes(FILE));
                self.reply(unique, &reply);
            }
            LOOKUP => self.refuse(unique, libc::ENOENT),
            GETATTR => {
                let mut reply = vec![0; 16];
                reply.extend(attributes(node));
                self.reply(unique, &reply);
            }
            OPEN => self.reply(unique, &[0; 16]),
            RELEASE | FLUSH => self.reply(unique, &[]),
            INTERRUPT => {
                let unwanted = long(IN_HEADER);
                if self.polite && self.waiting.contains(&unwanted) {
                    self.waiting.retain(|&waiting| waiting != unwanted);
                    self.refuse(unwanted, libc::EINTR);
                }
            }
            FORGET | BATCH_FORGET => {}
            _ => self.refuse(unique, libc::ENOSYS),
        }
    }

    fn reply(&self, unique: u64, content: &[u8]) {
        self.send(unique, 0, content);
    }

    fn refuse(&self, unique: u64, error: i32) {
        self.send(unique, -error, &[]);
    }

    fn send(&self, unique: u64, error: i32, content: &[u8]) {
        let len = u32::try_from(16 + content.len()).unwrap();
        let mut reply = len.to_le_bytes().to_vec();
        reply.extend(error.to_le_bytes());
        reply.extend(unique.to_le_bytes());
        reply.extend(content);
        // Whoever asked may have gone.
        let _ = (&self.device).write(&reply);
    }
}

fn attributes(node: u64) -> Vec<u8> {
    let (mode, size) = match node {
        ROOT => (libc::S_IFDIR | 0o777, 0),
        _ => (libc::S_IFREG | 0o666, LENGTH),
    };
    let mut bytes = Vec::new();
    for long in [node, size, size / 512, 0, 0, 0] {
        bytes.extend(u64::to_le_bytes(long));
    }
    for word in [0, 0, 0, mode, 1, 0, 0, 0, 4096, 0] {
        bytes.extend(u32::to_le_bytes(word));
    }
    bytes
}
