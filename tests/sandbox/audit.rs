//! Holds the product's calls against the lists: strace(1) watches runs without the sandbox, under
//! all conditions that the other tests know, from where a thread would be confined. Each call must
//! be on the thread's list, with its arguments, and each rule of a thread's own list must have been
//! needed.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::process::Command;

use syscalls::Sysno;
use vmm::sandbox::{Call, Calls, any_thread, calls};

use crate::common::process::binary;
use crate::common::{Files, Vmm, needs_kvm, skip};
use crate::conditions::{Conditions, Reader, Streams, Work};
use crate::surroundings::{ALLOCATORS, SETTINGS, demanding, installed};

/// `KVM_RUN` (KVM API, section 4.10): the first one that the vCPU's thread makes comes after it
/// would have been confined.
const KVM_RUN: u64 = 0xae80;

/// Rules that none of these runs needs, with the reason why they are there all the same. "*" is
/// any thread.
const RARE: [(&str, &str, &str); 6] = [
    (
        "*",
        "epoll_wait",
        "with another C library it is epoll_pwait",
    ),
    (
        "*",
        "epoll_pwait",
        "with another C library it is epoll_wait",
    ),
    (
        "vcpu",
        "preadv",
        "it helps the input only where the guest waits for it",
    ),
    (
        "output",
        "preadv",
        "a guest may read the output, as the copying one never does",
    ),
    (
        "vmm",
        "unlinkat",
        "putting the output in place has failed half-way",
    ),
    ("vmm", "renameat2", "where no file may be replaced"),
];

/// A call that a thread has made while it would have been confined.
#[derive(Debug)]
struct Made {
    thread: String,
    name: String,
    number: i64,
    arguments: [u64; 6],
}

/// The calls of one run.
struct Trace {
    process: libc::pid_t,
    vcpu: libc::pid_t,
    made: Vec<Made>,
}

impl Trace {
    /// Reads what strace has written: `1234<thread> call(0x1, 0x2) = 0`.
    fn parse(log: &str) -> Self {
        let mut trace = Self {
            process: 0,
            vcpu: 0,
            made: Vec::new(),
        };
        let mut confined = Vec::new();
        for line in log.lines() {
            let Some((thread, call)) = line.split_once("> ") else {
                continue;
            };
            let Some((id, thread)) = thread.split_once('<') else {
                continue;
            };
            let id = id.trim().parse().unwrap();
            if trace.process == 0 {
                trace.process = id;
            }
            let Some((name, arguments)) = call.trim().split_once('(') else {
                continue;
            };
            // The end of a call of which the beginning was seen, a signal, the end of a thread.
            let Ok(call) = name.parse::<Sysno>() else {
                continue;
            };
            let end = arguments.find([')', '<']).unwrap_or(arguments.len());
            let mut numbers = [0; 6];
            for (place, argument) in numbers.iter_mut().zip(arguments[..end].split(", ")) {
                let hexadecimal = argument.trim().trim_start_matches("0x");
                *place = u64::from_str_radix(hexadecimal, 16).unwrap_or(0);
            }
            let starts = match thread {
                "vcpu" => call == Sysno::ioctl && numbers[1] == KVM_RUN,
                _ => matches!(call, Sysno::epoll_wait | Sysno::epoll_pwait),
            };
            if starts && !confined.contains(&id) {
                confined.push(id);
            }
            if thread == "vcpu" {
                trace.vcpu = id;
            }
            if confined.contains(&id) {
                trace.made.push(Made {
                    thread: thread.to_owned(),
                    name: name.to_owned(),
                    number: i64::from(call.id()),
                    arguments: numbers,
                });
            }
        }
        trace
    }

    /// The first argument number `index` of a call that the main thread has made.
    fn main_argument(&self, name: &str, index: usize) -> i32 {
        let made = |made: &&Made| made.thread == "vmm" && made.name == name;
        let value = self.made.iter().find(made);
        let value = value.map_or(0, |made| made.arguments[index]);
        u32::try_from(value & 0xffff_ffff).unwrap().cast_signed()
    }

    /// What each thread may call for its own purposes, as the runtime puts it together.
    fn lists(&self) -> BTreeMap<&'static str, Calls> {
        let signal = self.main_argument("tgkill", 2);
        let folder = match self.main_argument("linkat", 2) {
            0 => self.main_argument("renameat", 2),
            folder => folder,
        };
        let reader = calls::event_loop().and(&calls::read_file());
        let main = calls::main_loop(self.process, self.vcpu, signal);
        BTreeMap::from([
            ("vmm", main.and(&calls::place_file(folder))),
            ("vcpu", calls::vcpu().and(&calls::read_file())),
            ("input", reader.clone()),
            ("output", reader.and(&calls::write_file())),
        ])
    }
}

/// What the runs together have shown.
#[derive(Default)]
struct Audit {
    runs: usize,
    /// Calls on no list, by the thread and the conditions.
    missing: Vec<String>,
    /// How often each rule of a thread's own list was needed. The rules are known by their places,
    /// since what they pin differs from run to run.
    needed: BTreeMap<(&'static str, usize, &'static str), usize>,
}

impl Audit {
    /// Runs the product under strace, with these variables in its environment.
    #[track_caller]
    fn run(&mut self, conditions: &Conditions, environment: &[(&str, &str)]) {
        let files = conditions.files();
        let folder = tempfile::tempdir().unwrap();
        let log = folder.path().join("log");
        let mut vmm = Vmm::of(Path::new("strace"))
            .args(&[
                "-f",
                "-Y",
                "-qq",
                "-e",
                "raw=all",
                "-e",
                "signal=none",
                "-o",
            ])
            .arg(&log);
        for (name, value) in environment {
            vmm = vmm.arg("-E").arg(format!("{name}={value}"));
        }
        let vmm = vmm.arg(binary()).arg("--no-sandbox");
        conditions.run(&files, vmm);
        let trace = Trace::parse(&fs::read_to_string(log).unwrap());
        self.runs += 1;
        self.hold(&trace, &format!("{conditions:?} {environment:?}"));
    }

    fn hold(&mut self, trace: &Trace, conditions: &str) {
        let any = any_thread();
        let lists = trace.lists();
        let rules = |thread| lists.get(thread).into_iter().flat_map(Calls::iter);
        for thread in ["vmm", "vcpu", "input", "output"] {
            for (place, rule) in rules(thread).enumerate() {
                let key = (lists.get_key_value(thread).unwrap().0, place, rule.name());
                *self.needed.entry((*key.0, key.1, key.2)).or_default() += 0;
            }
        }
        for made in &trace.made {
            let permits = |rule: &Call| rule.permits(made.number, &made.arguments);
            let mut own = false;
            for (place, rule) in rules(made.thread.as_str()).enumerate() {
                if permits(rule) {
                    own = true;
                    let thread = lists.get_key_value(made.thread.as_str()).unwrap().0;
                    *self
                        .needed
                        .entry((*thread, place, rule.name()))
                        .or_default() += 1;
                }
            }
            if !own && !any.iter().any(permits) {
                self.missing.push(format!("{made:x?} of {conditions}"));
            }
        }
    }

    fn needless(&self) -> Vec<String> {
        let is_rare = |thread, name| {
            RARE.iter()
                .any(|(rare, call, _)| (*rare == "*" || *rare == thread) && *call == name)
        };
        self.needed
            .iter()
            .filter(|&(&(thread, _, name), &times)| times == 0 && !is_rare(thread, name))
            .map(|((thread, place, name), _)| format!("{thread}: {name} (rule {place})"))
            .collect()
    }
}

/// Runs that between them do all that the product can do while it is confined.
fn all_kinds_of_runs() -> Vec<Conditions> {
    let copy = |len, arguments| Conditions::new(Work::Copy, len, arguments);
    let mut kinds = vec![
        copy(3 << 20, &["--fsync", "--stats", "--debug"]).replacing(),
        copy(100_001, &["--output-sector-size", "4096"]),
        copy(1 << 20, &["--direct", "--progress-percent", "10"]),
        copy(70_000, &["--queue-depth", "1", "--request-size", "512"]),
        Conditions::new(Work::Fault, 5000, &[]),
        Conditions::new(Work::Spin, 5000, &[]),
    ];
    for reader in Reader::ALL {
        let debug = ["--debug", "--request-size", "1024"];
        kinds.push(copy(1 << 20, &debug).streams(Streams::Pipes(reader, Reader::Keen)));
        let flood = Conditions::new(Work::Flood, 5000, &["--debug"]);
        kinds.push(flood.streams(Streams::Pipes(Reader::Keen, reader)));
    }
    kinds
}

fn strace_is_usable() -> bool {
    let files = Files::random(1);
    let log = files.path("log");
    let traced = Command::new("strace")
        .args(["-f", "-Y", "-e", "raw=all", "-o"])
        .arg(&log)
        .arg("true")
        .output();
    match traced {
        Ok(output) if output.status.success() => true,
        Ok(output) => {
            skip(&format!("strace does not work here: {output:?}"));
            false
        }
        Err(error) => {
            skip(&format!("strace cannot be started: {error}"));
            false
        }
    }
}

#[test]
fn each_call_is_listed_and_each_rule_is_needed() {
    needs_kvm!();
    if !strace_is_usable() {
        return;
    }
    let mut audit = Audit::default();
    for conditions in all_kinds_of_runs().iter().chain(&demanding()) {
        audit.run(conditions, &[]);
    }
    assert!(audit.runs > 15 && !audit.needed.is_empty());
    assert!(audit.missing.is_empty(), "on no list: {:#?}", audit.missing);
    let needless = audit.needless();
    assert!(needless.is_empty(), "no run needs: {needless:#?}");
}

#[test]
fn each_call_is_listed_with_other_allocators_and_settings() {
    needs_kvm!();
    if !strace_is_usable() {
        return;
    }
    let mut audit = Audit::default();
    let preloads = ALLOCATORS.iter().filter_map(|name| installed(name));
    let preloads: Vec<_> = preloads.map(|path| ("LD_PRELOAD", path)).collect();
    let preloads = preloads.iter().map(|(name, path)| (*name, path.as_str()));
    for setting in SETTINGS.into_iter().chain(preloads) {
        for conditions in &demanding() {
            audit.run(conditions, &[setting]);
        }
    }
    assert!(audit.missing.is_empty(), "on no list: {:#?}", audit.missing);
}
