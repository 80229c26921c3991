//! The line that the watcher says when it ends the process: why, where the main thread is stuck, and
//! what has become of the output.

use std::fmt::{self, Display, Formatter};
use std::fs::File;
use std::io::Read;

use super::Stage;
use crate::runtime::RunError;
use crate::sandbox::call_name;

/// More than the kernel writes about a thread's system call.
const TEXT: usize = 256;

/// A system call in which a thread waits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct StuckIn {
    number: i64,
    /// The standard stream that it is about, if it is about one.
    stream: Option<u8>,
}

impl StuckIn {
    /// What the kernel says of a thread in `file` (proc_pid_syscall(5)), which is read only once.
    pub(super) fn read(mut file: &File) -> Option<Self> {
        let mut text = [0; TEXT];
        let len = file.read(&mut text).ok()?;
        Self::parse(str::from_utf8(text.get(..len)?).ok()?)
    }

    /// The number of the call and its arguments, or `running`, or -1 where no call is the reason.
    fn parse(text: &str) -> Option<Self> {
        let mut words = text.split_ascii_whitespace();
        let number = words.next()?.parse().ok().filter(|number| *number >= 0)?;
        let takes_stream = [
            libc::SYS_read,
            libc::SYS_readv,
            libc::SYS_write,
            libc::SYS_writev,
        ];
        let first = words.next().and_then(|word| word.strip_prefix("0x"));
        let stream = first.and_then(|digits| u8::from_str_radix(digits, 16).ok());
        let is_stream = |stream: &u8| *stream <= 2 && takes_stream.contains(&number);
        Some(Self {
            number,
            stream: stream.filter(is_stream),
        })
    }

    /// Whether it writes standard error, where nothing can be said then.
    pub(super) const fn is_about_standard_error(self) -> bool {
        matches!(self.stream, Some(2))
    }
}

impl Display for StuckIn {
    fn fmt(&self, to: &mut Formatter<'_>) -> fmt::Result {
        write!(to, "the system call {}", call_name(self.number))?;
        to.write_str(match self.stream {
            Some(0) => " from standard input",
            Some(1) => " to standard output",
            Some(_) => " to standard error",
            None => "",
        })
    }
}

/// All that the line says.
pub(super) struct LastLine<'a> {
    /// What the main thread was doing.
    pub(super) stage: Stage,
    /// Why the run ends.
    pub(super) why: &'a RunError,
    /// Where the main thread is stuck, if that is known.
    pub(super) stuck: Option<StuckIn>,
    /// Whether the run makes an output.
    pub(super) makes_output: bool,
}

impl Display for LastLine<'_> {
    fn fmt(&self, to: &mut Formatter<'_>) -> fmt::Result {
        let warning = match self.stage {
            Stage::InPlace => "warning: ",
            _ => "",
        };
        write!(to, "vmm: {warning}{}", self.why)?;
        match (self.stuck, self.stage) {
            (Some(stuck), _) => write!(to, " while it waited for {stuck}")?,
            (None, Stage::Opening) => to.write_str(" before the guest had started")?,
            (None, _) => to.write_str(" while it waited for the system")?,
        }
        to.write_str(match self.stage {
            Stage::InPlace => "; the output is complete and in place",
            _ if !self.makes_output => "",
            Stage::Opening => "",
            Stage::Committing => {
                "; the output may be in place, and is complete if it is; hidden files .vmm-*.tmp* \
                 may be left beside it"
            }
            _ => {
                "; the output has not been replaced, and hidden files .vmm-*.tmp* may be left \
                 beside it"
            }
        })?;
        to.write_str("\n")
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use std::time::Duration;

    use super::*;

    #[test]
    fn what_the_kernel_says_of_a_thread_is_understood() {
        let parse = |text| StuckIn::parse(text).map(|stuck| stuck.to_string());
        let told = |text: &str| Some(text.to_owned());
        for (text, expected) in [
            (
                "1 0x1 0x7f00 0x5 0x0 0x0 0x0 0x7ff0 0x7f01\n",
                told("the system call write to standard output"),
            ),
            (
                "0 0x0 0x7f00 0x5 0x0 0x0 0x0 0x7ff0 0x7f01\n",
                told("the system call read from standard input"),
            ),
            ("1 0x7 0x7f00 0x5\n", told("the system call write")),
            (
                "265 0xffffff9c 0x7f00 0x5\n",
                told("the system call linkat"),
            ),
            ("8 0x1 0x0 0x3\n", told("the system call lseek")),
            ("running\n", None),
            ("-1 0x7ff0 0x7f01\n", None),
            ("", None),
        ] {
            assert_eq!(parse(text), expected, "{text}");
        }
        let to_error = StuckIn::parse("20 0x2 0x7f00").unwrap();
        assert!(to_error.is_about_standard_error());
    }

    #[test]
    fn a_thread_that_waits_is_seen_in_its_call() {
        let (reader, writer) = std::io::pipe().unwrap();
        let (send, receive) = std::sync::mpsc::channel();
        let waiting = std::thread::spawn(move || {
            send.send(File::open("/proc/thread-self/syscall")).unwrap();
            let _ = (&reader).read(&mut [0]);
        });
        let file = receive.recv().unwrap();
        std::thread::sleep(Duration::from_millis(300));
        match file {
            // The kernel may have been built without it.
            Err(_) => {}
            Ok(file) => {
                let stuck = StuckIn::read(&file).unwrap();
                assert_eq!(stuck.to_string(), "the system call read");
            }
        }
        drop(writer);
        waiting.join().unwrap();
    }

    #[test]
    fn the_line_says_what_has_become_of_the_output_and_fits() {
        let long = RunError::TimedOut(Duration::from_secs_f64(1e9 / 3.0));
        let stuck = StuckIn::parse("1 0x1 0x0");
        for stage in (0..6).map(Stage::of) {
            let line = |why, makes_output| {
                let line = LastLine {
                    stage,
                    why,
                    stuck,
                    makes_output,
                };
                line.to_string()
            };
            let (with, without) = (line(&long, true), line(&long, false));
            assert!(with.len() <= crate::stack_line::LINE, "{with}");
            assert!(with.ends_with('\n') && with.lines().count() == 1, "{with}");
            assert_eq!(with.contains(".vmm-*.tmp*"), with != without, "{with}");
            assert_eq!(
                with.contains("in place"),
                stage >= Stage::Committing,
                "{with}"
            );
            assert_eq!(with.contains("warning"), stage == Stage::InPlace, "{with}");
            let signal = line(&RunError::Signal(15), true);
            assert!(signal.contains("ended by SIGTERM while it waited for the system call write"));
        }
    }
}
