//! A file system that stops answering, as a network can: a folder with one file, and with what is
//! made there, served over /dev/fuse as far as this needs it (linux/fuse.h).

use std::collections::BTreeMap;
use std::ffi::CString;
use std::fs::File;
use std::io::{Read, Write};
use std::ops::Range;
use std::os::fd::AsRawFd;
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// The name of the file, and its number.
const NAME: &str = "file";
const FILE: u64 = 2;
/// The number of the folder (FUSE_ROOT_ID).
const FOLDER: u64 = 1;
/// The length of the file in bytes.
pub(crate) const LENGTH: u64 = 1 << 20;

/// Requests, by their numbers.
const LOOKUP: u32 = 1;
const FORGET: u32 = 2;
const GETATTR: u32 = 3;
const SETATTR: u32 = 4;
const UNLINK: u32 = 10;
const RENAME: u32 = 12;
const LINK: u32 = 13;
const OPEN: u32 = 14;
const READ: u32 = 15;
const WRITE: u32 = 16;
const RELEASE: u32 = 18;
const GETXATTR: u32 = 22;
const FLUSH: u32 = 25;
const INIT: u32 = 26;
const FSYNCDIR: u32 = 30;
const CREATE: u32 = 35;
const INTERRUPT: u32 = 36;
const BATCH_FORGET: u32 = 42;
const LSEEK: u32 = 46;
const TMPFILE: u32 = 51;
/// No request has this number.
const NOTHING: u32 = 0;

const IN_HEADER: usize = 40;
/// What stands before the names that are made, opened or given, and before the data that is written.
const CREATE_IN: usize = 16;
const LINK_IN: usize = 8;
const WRITE_IN: usize = 40;
/// How late a late answer is.
const LATE: Duration = Duration::from_millis(50);
/// The bit of SETATTR that says that there is a new length.
const NEW_LENGTH: u32 = 8;

/// What gets no answer.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Silence {
    /// Looking up the file.
    Lookups,
    /// Reading it.
    Reads,
    /// Writing it.
    Writes,
    /// Making an unnamed file.
    UnnamedFiles,
    /// Looking for holes.
    Seeks,
    /// Nothing; but each look for a hole is answered late, and there is one after each block.
    SlowSeeks,
    /// The same, once much of the file has been read.
    SlowSeeksInTheEnd,
    /// Reading an extended attribute.
    Attributes,
    /// Nothing; but no name is taken away.
    Removals,
    /// Giving a file a name, once something has been written.
    LinksInTheEnd,
    /// Giving a file another name, once something has been written.
    RenamesInTheEnd,
    /// Closing a file, once something has been written.
    ClosesInTheEnd,
    /// Making the names in a folder durable.
    FolderSyncs,
    /// Nothing; but what gives a file a name, or another one, is done and answered with an error.
    LostAnswers,
    /// Nothing; but each file is said to have one name, however many it has, as over SFTP.
    CountOfNames,
    /// Nothing; but no file gets a second name.
    SecondNames,
    /// Nothing; but no name is taken away, once something has been written.
    RemovalsInTheEnd,
    /// Nothing; but a file that is closed is said to have found no room, once something has been written.
    Room,
    /// Nothing; but no file gets a length other than by being written.
    Lengths,
    /// Nothing; but a file is said to be shorter than what is read of it.
    EndsOfFiles,
    /// Nothing; but a file with a name is made and answered with an error.
    Creations,
    /// Nothing; but no name is changed.
    Renames,
    /// Nothing; but once something has been written a name is changed and answered with an error, and
    /// no file that is open can be looked at from then on, as where files are told by their paths.
    LostRenamesInTheEnd,
}

impl Silence {
    /// The request that is meant, and whether something has to be written first.
    const fn request(self) -> (u32, bool) {
        match self {
            Self::Lookups => (LOOKUP, false),
            Self::Reads => (READ, false),
            Self::Writes => (WRITE, false),
            Self::UnnamedFiles => (TMPFILE, false),
            Self::Seeks => (LSEEK, false),
            Self::SlowSeeks
            | Self::SlowSeeksInTheEnd
            | Self::Removals
            | Self::LostAnswers
            | Self::CountOfNames
            | Self::SecondNames
            | Self::RemovalsInTheEnd
            | Self::Room
            | Self::Lengths
            | Self::EndsOfFiles
            | Self::Creations
            | Self::Renames
            | Self::LostRenamesInTheEnd => (NOTHING, false),
            Self::Attributes => (GETXATTR, false),
            Self::LinksInTheEnd => (LINK, true),
            Self::RenamesInTheEnd => (RENAME, true),
            Self::ClosesInTheEnd => (FLUSH, true),
            Self::FolderSyncs => (FSYNCDIR, true),
        }
    }

    /// Whether a call that a signal has interrupted is to hang again.
    const fn lasts(self) -> bool {
        matches!(self, Self::Lookups | Self::Reads)
    }
}

/// The file system, mounted for as long as this lives.
pub(crate) struct Hanging {
    folder: tempfile::TempDir,
    answers: Arc<AtomicBool>,
    hangs: Arc<AtomicBool>,
    is_over: Arc<AtomicBool>,
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
        let hangs = Arc::new(AtomicBool::new(false));
        let is_over = Arc::new(AtomicBool::new(false));
        let server = Server {
            device,
            silence,
            polite,
            answers: answers.clone(),
            hangs: hangs.clone(),
            is_over: is_over.clone(),
            waiting: Vec::new(),
            files: BTreeMap::from([(FILE, vec![0; usize::try_from(LENGTH).unwrap()])]),
            names: BTreeMap::from([(NAME.as_bytes().to_vec(), FILE)]),
            changes: BTreeMap::new(),
            has_written: false,
            has_lost_paths: false,
            bytes_read: 0,
        };
        let server = std::thread::spawn(move || server.serve());
        Some(Self {
            folder,
            answers,
            hangs,
            is_over,
            server: Some(server),
        })
    }

    pub(crate) fn file(&self) -> PathBuf {
        self.folder.path().join(NAME)
    }

    /// Waits until something waits for an answer that does not come, or comes late; and a little longer.
    #[track_caller]
    pub(crate) fn wait(&self) {
        let begun = Instant::now();
        while !self.hangs.load(Ordering::SeqCst) {
            assert!(begun.elapsed() < Duration::from_secs(20), "nothing hung");
            std::thread::sleep(Duration::from_millis(5));
        }
        std::thread::sleep(Duration::from_millis(100));
    }

    pub(crate) fn folder(&self) -> PathBuf {
        self.folder.path().to_owned()
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
        // Whoever has made a namespace of mounts meanwhile has this one in it and keeps it there. The file
        // system ends all the same once nobody serves it.
        self.is_over.store(true, Ordering::SeqCst);
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
    hangs: Arc<AtomicBool>,
    /// Set when nobody is to be served any more.
    is_over: Arc<AtomicBool>,
    /// Requests that nobody answers.
    waiting: Vec<u64>,
    /// What each file has, by its number.
    files: BTreeMap<u64, Vec<u8>>,
    /// The number of the file that has a name.
    names: BTreeMap<Vec<u8>, u64>,
    /// How often each file was changed, which is what its times say.
    changes: BTreeMap<u64, u64>,
    has_written: bool,
    has_lost_paths: bool,
    bytes_read: u64,
}

/// What a request is answered with: content, or the number of an error.
type Answer = Result<Vec<u8>, i32>;

/// One request.
struct Request<'a> {
    kind: u32,
    unique: u64,
    node: u64,
    /// What follows the header.
    content: &'a [u8],
}

impl Request<'_> {
    fn word(&self, at: usize) -> u32 {
        u32::from_le_bytes(self.content[at..at + 4].try_into().unwrap())
    }

    fn long(&self, at: usize) -> u64 {
        u64::from_le_bytes(self.content[at..at + 8].try_into().unwrap())
    }

    /// Whether a request to set attributes sets the length.
    fn has_new_length(&self) -> bool {
        self.word(0) & NEW_LENGTH != 0
    }

    /// Which bytes of its file a request reads or writes.
    fn range(&self) -> Range<usize> {
        let start = usize::try_from(self.long(8)).unwrap();
        start..start + self.word(16) as usize
    }

    /// The name that begins at `at`, with a zero behind it.
    fn name(&self, at: usize) -> Vec<u8> {
        self.names(at).next().unwrap()
    }

    /// The names that begin at `at`, each with a zero behind it.
    fn names(&self, at: usize) -> impl Iterator<Item = Vec<u8>> {
        self.content[at..]
            .split(|byte| *byte == 0)
            .map(<[u8]>::to_vec)
    }
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
                if self.is_over.load(Ordering::SeqCst) {
                    return;
                }
                continue;
            }
            let Ok(len) = (&self.device).read(&mut request) else {
                return;
            };
            let long = |at: usize| u64::from_le_bytes(request[at..at + 8].try_into().unwrap());
            self.take(&Request {
                kind: u32::from_le_bytes(request[4..8].try_into().unwrap()),
                unique: long(8),
                node: long(16),
                content: &request[IN_HEADER..len],
            });
        }
    }

    fn is_silent(&self, kind: u32) -> bool {
        let (silent, in_the_end) = self.silence.request();
        let answers = self.answers.load(Ordering::SeqCst);
        kind == silent && !answers && (!in_the_end || self.has_written)
    }

    const fn has_holes(&self) -> bool {
        matches!(
            self.silence,
            Silence::SlowSeeks | Silence::SlowSeeksInTheEnd
        )
    }

    fn take(&mut self, request: &Request<'_>) {
        match request.kind {
            kind if self.is_silent(kind) => {
                self.waiting.push(request.unique);
                self.hangs.store(true, Ordering::SeqCst);
            }
            FORGET | BATCH_FORGET => {}
            INTERRUPT => self.interrupt(request.long(0)),
            _ => match self.answer_to(request) {
                Ok(content) => self.reply(request.unique, &content),
                Err(error) => self.refuse(request.unique, error),
            },
        }
    }

    /// Ends the request `unwanted`, if it waits.
    fn interrupt(&mut self, unwanted: u64) {
        if self.polite && self.waiting.contains(&unwanted) {
            self.waiting.retain(|&waiting| waiting != unwanted);
            self.refuse(unwanted, libc::EINTR);
            // The end of a process waits for its files to be closed, and no signal ends that.
            let gives_up = !self.silence.lasts();
            self.answers.fetch_or(gives_up, Ordering::SeqCst);
        }
    }

    /// Carries out a request, unless it is refused.
    fn answer_to(&mut self, request: &Request<'_>) -> Answer {
        self.refused(request)?;
        let answer = match request.kind {
            INIT => Ok(init()),
            OPEN => Ok(self.open()),
            FLUSH | RELEASE => Ok(Vec::new()),
            LOOKUP => self.look_up(request),
            GETATTR => Ok(self.attributes(request.node, 16)),
            SETATTR => Ok(self.set_attributes(request)),
            TMPFILE | CREATE => Ok(self.create(request)),
            LINK => Ok(self.link(request)),
            RENAME => Ok(self.rename(request)),
            UNLINK => self.unlink(request),
            READ => Ok(self.read(request)),
            WRITE => Ok(self.write(request)),
            LSEEK if self.has_holes() => Ok(self.seek(request)),
            _ => Err(libc::ENOSYS),
        }?;
        self.lost(request)?;
        Ok(answer)
    }

    /// Which requests are refused.
    fn refused(&self, request: &Request<'_>) -> Result<(), i32> {
        match (request.kind, self.silence) {
            (FLUSH, Silence::Room) if self.has_written => Err(libc::ENOSPC),
            (SETATTR, Silence::Lengths) if request.has_new_length() => Err(libc::EPERM),
            (LINK, Silence::SecondNames) | (UNLINK, Silence::Removals) => Err(libc::EPERM),
            (UNLINK, Silence::RemovalsInTheEnd) if self.has_written => Err(libc::EPERM),
            (RENAME, Silence::Renames) => Err(libc::EACCES),
            (GETATTR, _) if self.has_lost_paths && request.node != FOLDER => {
                let answers = self.answers.load(Ordering::SeqCst);
                if answers { Ok(()) } else { Err(libc::ENOENT) }
            }
            _ => Ok(()),
        }
    }

    /// Which requests are answered with an error though they have been carried out.
    fn lost(&mut self, request: &Request<'_>) -> Result<(), i32> {
        match (request.kind, self.silence) {
            (CREATE, Silence::Creations) => Err(libc::EIO),
            (LINK, Silence::LostAnswers) if self.has_written => {
                let is_for_a_moment = request.name(LINK_IN).ends_with(b"~");
                if is_for_a_moment {
                    Ok(())
                } else {
                    Err(libc::EEXIST)
                }
            }
            (RENAME, Silence::LostAnswers) => Err(libc::ENOENT),
            (RENAME, Silence::LostRenamesInTheEnd) if self.has_written => {
                self.has_lost_paths = true;
                Err(libc::EIO)
            }
            _ => Ok(()),
        }
    }

    fn open(&self) -> Vec<u8> {
        let mut reply = vec![0; 16];
        // What is read past the page cache need not end where the file does (FOPEN_DIRECT_IO).
        reply[8] = u8::from(self.silence == Silence::EndsOfFiles);
        reply
    }

    fn look_up(&self, request: &Request<'_>) -> Answer {
        let node = self.names.get(&request.name(0)).ok_or(libc::ENOENT)?;
        Ok(self.entry(*node))
    }

    fn set_attributes(&mut self, request: &Request<'_>) -> Vec<u8> {
        if request.has_new_length() {
            let length = request.long(16);
            let file = self.files.get_mut(&request.node).unwrap();
            file.resize(usize::try_from(length).unwrap(), 0);
            *self.changes.entry(request.node).or_default() += 1;
        }
        self.attributes(request.node, 16)
    }

    fn create(&mut self, request: &Request<'_>) -> Vec<u8> {
        let node = FILE + 1 + self.files.len() as u64;
        self.files.insert(node, Vec::new());
        if request.kind == CREATE {
            self.names.insert(request.name(CREATE_IN), node);
        }
        let mut reply = self.entry(node);
        reply.extend([0; 16]);
        reply
    }

    fn link(&mut self, request: &Request<'_>) -> Vec<u8> {
        let node = request.long(0);
        self.names.insert(request.name(LINK_IN), node);
        self.entry(node)
    }

    fn rename(&mut self, request: &Request<'_>) -> Vec<u8> {
        let mut names = request.names(8);
        let node = self.names.remove(&names.next().unwrap()).unwrap();
        self.names.insert(names.next().unwrap(), node);
        Vec::new()
    }

    fn unlink(&mut self, request: &Request<'_>) -> Answer {
        let removed = self.names.remove(&request.name(0));
        removed.map(|_| Vec::new()).ok_or(libc::ENOENT)
    }

    fn read(&mut self, request: &Request<'_>) -> Vec<u8> {
        let file = &self.files[&request.node];
        let range = request.range();
        let end = range.end.min(file.len());
        let bytes = file[range.start.min(end)..end].to_vec();
        self.bytes_read += bytes.len() as u64;
        bytes
    }

    fn write(&mut self, request: &Request<'_>) -> Vec<u8> {
        self.has_written = true;
        *self.changes.entry(request.node).or_default() += 1;
        let file = self.files.get_mut(&request.node).unwrap();
        let range = request.range();
        file.resize(file.len().max(range.end), 0);
        let size = range.len() as u64;
        file[range].copy_from_slice(&request.content[WRITE_IN..]);
        size.to_le_bytes().to_vec()
    }

    fn seek(&self, request: &Request<'_>) -> Vec<u8> {
        if self.silence == Silence::SlowSeeks || self.bytes_read > LENGTH / 4 {
            self.hangs.store(true, Ordering::SeqCst);
            std::thread::sleep(LATE);
        }
        seek(request).to_le_bytes().to_vec()
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

    /// What is told of a name: the number of its file, nothing that may be remembered, and the file's
    /// attributes.
    fn entry(&self, node: u64) -> Vec<u8> {
        let mut bytes = node.to_le_bytes().to_vec();
        bytes.extend(self.attributes(node, 32));
        bytes
    }

    /// The attributes of a file, behind so many zeros.
    fn attributes(&self, node: u64, zeros: usize) -> Vec<u8> {
        let (mode, size) = match self.files.get(&node) {
            // It is as long as it has names.
            None => (libc::S_IFDIR | 0o777, self.names.len() as u64),
            Some(file) if self.silence == Silence::EndsOfFiles => {
                (libc::S_IFREG | 0o666, file.len() as u64 - 10)
            }
            Some(file) => (libc::S_IFREG | 0o666, file.len() as u64),
        };
        let mut bytes = vec![0; zeros];
        let changed = self.changes.get(&node).copied().unwrap_or_default();
        for long in [node, size, size / 512, 0, changed, changed] {
            bytes.extend(u64::to_le_bytes(long));
        }
        // The folder has one as well.
        let names = self.names.values().chain(&[FOLDER]);
        let names = names.filter(|&&named| named == node).count();
        let names = match self.silence {
            Silence::CountOfNames => 1,
            _ => u32::try_from(names).unwrap(),
        };
        for word in [0, 0, 0, mode, names, 0, 0, 0, 4096, 0] {
            bytes.extend(u32::to_le_bytes(word));
        }
        bytes
    }
}

/// What the file system can do: version 7.31, no features, writes of 4 KiB.
fn init() -> Vec<u8> {
    let words = [7_u32, 31, 0, 0, 0, 4096, 1];
    let mut reply: Vec<u8> = words.iter().flat_map(|word| word.to_le_bytes()).collect();
    reply.resize(64, 0);
    reply
}

/// Where the next block with data, or the next hole, begins in a file that has them by turns.
fn seek(request: &Request<'_>) -> u64 {
    const BLOCK: u64 = 4096;
    let (offset, whence) = (request.long(8), request.word(16));
    let block = offset / BLOCK;
    let wanted = u64::from(whence == libc::SEEK_HOLE.cast_unsigned());
    if block % 2 == wanted {
        offset
    } else {
        ((block + 1) * BLOCK).min(LENGTH)
    }
}
