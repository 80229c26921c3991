//! Runs the tests of a target whose `#[test]` is the one of [`test_attribute`]: as the compiler's
//! own harness does, but a test may say while it runs that it cannot run here, and is counted as
//! ignored then.
//!
//! With `TESTS_IGNORED` in the environment the reasons are also added to the file of that name, one
//! a line, for who sums up several targets.

use std::cell::RefCell;
use std::fs::File;
use std::io::Write;
use std::panic::resume_unwind;
use std::process::ExitCode;

use libtest_mimic::{Arguments, Completion, Failed, Trial};

/// A test, as the attribute registers it.
pub(crate) struct Test {
    /// With the path of its module, the crate first.
    pub(crate) name: &'static str,
    pub(crate) run: fn(),
}

inventory::collect!(Test);

/// The compiler's own harness does not know these tests: a target that is left to it would pass without
/// having run any. Only in such a one does the compiler's attribute keep this function.
#[::core::prelude::v1::test]
fn this_target_has_another_harness() {
    compile_error!("give this target an entry in Cargo.toml: [[test]], its name, harness = false");
}

thread_local! {
    /// Why the test that runs on this thread cannot run here.
    static IGNORED: RefCell<Option<String>> = const { RefCell::new(None) };
}

/// The `main` of such a target.
pub(crate) fn main() -> ExitCode {
    heed_signals();
    let mut tests: Vec<&Test> = inventory::iter::<Test>().collect();
    tests.sort_by_key(|test| test.name);
    let trials = tests.into_iter().map(trial).collect();
    libtest_mimic::run(&Arguments::from_args(), trials).exit_code()
}

/// The tests may have been started by something that ignores signals, as nohup(1) does. What they start
/// would ignore them too.
fn heed_signals() {
    for signal in [libc::SIGINT, libc::SIGQUIT, libc::SIGTERM, libc::SIGHUP] {
        // SAFETY: the default action needs no code of ours, and no other thread has been started.
        unsafe { libc::signal(signal, libc::SIG_DFL) };
    }
}

fn trial(test: &'static Test) -> Trial {
    let name = test
        .name
        .split_once("::")
        .map_or(test.name, |(_, name)| name);
    Trial::ignorable_test(name, || run(name, test.run))
}

/// Runs a test on a thread of its own, which has its name, as the compiler's harness does.
fn run(name: &str, test: fn()) -> Result<Completion, Failed> {
    let thread = std::thread::Builder::new().name(name.to_owned());
    let thread = thread.spawn(move || {
        test();
        IGNORED.take()
    })?;
    // Of a panic the surrounding harness makes a failure.
    let reason = thread.join().unwrap_or_else(|panic| resume_unwind(panic));
    let Some(reason) = reason else {
        return Ok(Completion::Completed);
    };
    list(&reason);
    Ok(Completion::ignored_with(reason))
}

/// Adds a reason to the list, if there is one.
pub(super) fn list(reason: &str) {
    if let Some(path) = std::env::var_os("TESTS_IGNORED") {
        let list = File::options().append(true).create(true).open(path);
        // In one piece: other targets add lines too.
        list.unwrap()
            .write_all(format!("{reason}\n").as_bytes())
            .unwrap();
    }
}

/// Has the current test counted as ignored, unless it fails. The first reason counts.
pub(super) fn ignore(reason: &str) {
    IGNORED.with_borrow_mut(|ignored| {
        ignored.get_or_insert_with(|| reason.to_owned());
    });
}
