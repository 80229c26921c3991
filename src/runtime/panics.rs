//! A panic is a fault of the VMM's own. It ends the run as any other failure does, with one line
//! that says where: of a thread as well as of the main one.

use std::any::Any;
use std::cell::{Cell, RefCell};
use std::io::{Write, stderr};
use std::panic::{AssertUnwindSafe, PanicHookInfo, catch_unwind, set_hook};
use std::thread;

use super::RunError;
use super::memory::end_for_want_of_memory;
use crate::stack_line::StackLine;

/// How the standard library's panic begins where a thread that has just started finds no memory for
/// the stack on which signals are handled. It would end the process by SIGABRT.
const NO_SIGNAL_STACK: &str = "failed to allocate an alternative stack";

thread_local! {
    /// Whether somebody is there to tell of a panic of this thread.
    static CAUGHT: Cell<bool> = const { Cell::new(false) };
    /// What the last panic of this thread was.
    static LAST: RefCell<Option<String>> = const { RefCell::new(None) };
}

/// For the whole program: has a panic described in one line instead of the standard library's
/// several. Within [`catch`] it is kept for the caller, anywhere else it is printed.
pub fn describe_panics() {
    set_hook(Box::new(|info| {
        let text = describe(info);
        if CAUGHT.get() {
            LAST.set(Some(text));
            return;
        }
        if message(info.payload()).starts_with(NO_SIGNAL_STACK) {
            let mut line = StackLine::new();
            line.add(b"vmm: cannot have the memory that a thread needs");
            end_for_want_of_memory(line);
        }
        let line = format!("vmm: {}\n", RunError::Died(text));
        // One call writes the whole line, so that no other thread writes into it. If it fails there is
        // nobody to tell.
        let _ = stderr().write_all(line.as_bytes());
    }));
}

/// Does `work`, and survives its panic.
///
/// # Errors
///
/// [`RunError::Died`], if it panicked.
pub fn catch<T>(work: impl FnOnce() -> T) -> Result<T, RunError> {
    let before = CAUGHT.replace(true);
    // What a panic leaves behind is not used again: the run ends.
    let result = catch_unwind(AssertUnwindSafe(work));
    CAUGHT.set(before);
    result.map_err(|payload| {
        // If the program has a hook of its own, the place of the panic is not known here.
        let text = LAST.take();
        RunError::Died(text.unwrap_or_else(|| subject() + &message(&*payload)))
    })
}

fn describe(info: &PanicHookInfo<'_>) -> String {
    let place = info.location().map_or_else(String::new, |place| {
        format!(" ({}:{})", place.file(), place.line())
    });
    format!("{}{}{place}", subject(), message(info.payload()))
}

fn subject() -> String {
    format!("thread {}: ", thread::current().name().unwrap_or("unnamed"))
}

/// What the panic says, on one line.
fn message(payload: &(dyn Any + Send)) -> String {
    let text = payload
        .downcast_ref::<&str>()
        .copied()
        .or_else(|| payload.downcast_ref::<String>().map(String::as_str))
        .unwrap_or("panicked");
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::panic)]

    use super::*;

    #[test]
    fn a_panic_becomes_one_line_with_the_thread_and_the_message() {
        let worker = thread::Builder::new().name("disk".into());
        let caught = worker.spawn(|| catch(|| panic!("two\n  lines {}", 7)));
        let error = caught.unwrap().join().unwrap().unwrap_err();
        assert_eq!(error.exit_code(), 3);
        let line = error.to_string();
        assert!(line.contains("thread disk: two lines 7"), "{line}");
        assert_eq!(line.lines().count(), 1);
    }

    #[test]
    fn work_that_does_not_panic_returns_what_it_returns() {
        assert_eq!(catch(|| 5).unwrap(), 5);
    }
}
