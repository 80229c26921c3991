//! Holds the product's calls against the lists: strace(1) watches runs without the sandbox, under
//! all conditions that the other tests know, from where a thread would be confined. Each call must
//! be on the thread's list, with its arguments, and each rule of a thread's own list must have been
//! needed.

use std::collections::BTreeMap;
use std::fs;

use syscalls::Sysno;
use vmm::sandbox::{ANSWERED, Call, Calls, any_thread, calls};

use crate::common::{Vmm, needs_kvm, needs_strace, test};
use crate::conditions::{Conditions, Reader, Streams, Work};
use crate::surroundings::{ALLOCATORS, SETTINGS, demanding, installed};

/// `KVM_RUN` (KVM API, section 4.10): the first one that the vCPU's thread makes comes after it
/// would have been confined.
const KVM_RUN: u64 = 0xae80;

/// Rules that none of these runs needs, with the reason why they are there all the same. "*" is
/// any thread.
const RARE: [(&str, &str, &str); 18] = [
    (
        "vmm",
        "fchmod",
        "somebody has to change what is replaced during the run",
    ),
    (
        "vmm",
        "fchown",
        "somebody has to give away what is replaced during the run",
    ),
    (
        "vmm",
        "flistxattr",
        "somebody has to write to what is replaced, or change its mode, during the run",
    ),
    (
        "vmm",
        "fgetxattr",
        "somebody has to write to what is replaced, or change its mode, during the run",
    ),
    (
        "vmm",
        "renameat2",
        "a new file has a hidden name only where the file system has no unnamed ones",
    ),
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
        "*",
        "sched_setaffinity",
        "only where there are two processors, and a device meets the vCPU on one of them",
    ),
    (
        "vcpu",
        "preadv",
        "it helps the input only where the guest waits for it",
    ),
    (
        "output",
        "preadv",
        "a guest may read the output, as the copying one does only to verify it",
    ),
    (
        "vcpu",
        "pwritev",
        "it helps the output only where the guest waits for it",
    ),
    (
        "vcpu",
        "fdatasync",
        "it helps the output only where the guest waits for it",
    ),
    (
        "vcpu",
        "fallocate",
        "only what lies on a device, or was written before, is punched out",
    ),
    (
        "output",
        "fallocate",
        "only what lies on a device, or was written before, is punched out",
    ),
    (
        "vmm",
        "unlinkat",
        "putting the output in place has failed half-way",
    ),
    (
        "watcher",
        "rt_sigaction",
        "it sets an alarm only where the main thread is stuck and the run is to end",
    ),
    (
        "watcher",
        "alarm",
        "it sets an alarm only where the main thread is stuck and the run is to end",
    ),
    (
        "vmm",
        "ioctl",
        "rustix sets a terminal by an older request where the newer one is refused",
    ),
];

/// A call that a thread has made while it would have been confined.
#[derive(Debug)]
struct Made {
    thread: String,
    name: String,
    number: i64,
    arguments: [u64; 6],
}

/// The list of each thread, by its name.
type Lists = BTreeMap<&'static str, Calls>;

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
                // It has waited for nothing else before.
                "watcher" => matches!(call, Sysno::poll | Sysno::ppoll),
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

    /// What each thread may call for its own purposes, as the runtime puts it together for such
    /// work.
    fn lists(&self, work: Work) -> Lists {
        let signal = self.main_argument("tgkill", 2);
        let folder = match self.main_argument("linkat", 2) {
            0 => self.main_argument("renameat", 2),
            folder => folder,
        };
        let reader = calls::device_loop().and(&calls::read_file());
        let main = calls::main_loop(self.process, self.vcpu, signal);
        let placing = main
            .clone()
            .and(&calls::place_file(folder, self.main_argument("fchmod", 0)))
            .and(&calls::see_attributes(self.main_argument("fgetxattr", 0)));
        let helping = calls::vcpu().and(&calls::read_file());
        let looking = [
            ("input", reader.clone()),
            ("vcpu", helping.clone()),
            ("watcher", calls::watcher()),
        ];
        let writing = [("output", reader.and(&calls::write_file()))];
        let mut lists = BTreeMap::from(looking);
        match work {
            Work::Info | Work::Check => {
                lists.insert("vmm", main);
            }
            Work::Convert => {
                lists.extend(writing);
                let looking = calls::find_holes().and(&calls::read_file());
                lists.insert("vmm", placing.and(&looking));
            }
            Work::Copy | Work::Flood | Work::Fault | Work::Spin => {
                lists.extend(writing);
                lists.insert("vmm", placing.and(&calls::find_holes()));
                lists.insert("vcpu", helping.and(&calls::write_file()));
                lists.insert("console", calls::device_loop());
            }
        }
        lists
    }
}

/// What the runs together have shown.
#[derive(Default)]
struct Audit {
    runs: usize,
    /// Calls on no list, by the thread and the conditions.
    missing: Vec<String>,
    /// How often each rule of a thread's own list was needed. A rule is known by its place in the
    /// list, since what it pins differs from run to run.
    needed: BTreeMap<(&'static str, usize, &'static str), usize>,
}

impl Audit {
    /// Runs the product under strace, with these variables in its environment.
    #[track_caller]
    fn run(&mut self, conditions: &Conditions, environment: &[(&str, &str)]) {
        let files = conditions.files();
        let folder = tempfile::tempdir().unwrap();
        let log = folder.path().join("log");
        let environment: Vec<_> = environment
            .iter()
            .flat_map(|(name, value)| ["-E".to_owned(), format!("{name}={value}")])
            .collect();
        let mut options = vec!["-Y", "-e", "raw=all", "-e", "signal=none"];
        options.extend(environment.iter().map(String::as_str));
        let mut conditions = conditions.clone();
        conditions.arguments.push("--no-sandbox");
        conditions.run(&files, Vmm::bare().traced(&log, &options));
        let trace = Trace::parse(&fs::read_to_string(log).unwrap());
        self.runs += 1;
        let lists = trace.lists(conditions.work);
        self.hold(&trace, lists, &format!("{conditions:?} {environment:?}"));
    }

    fn hold(&mut self, trace: &Trace, lists: Lists, conditions: &str) {
        let any = any_thread();
        let permits = |made: &Made, rule: &Call| rule.permits(made.number, &made.arguments);
        for (&thread, list) in &lists {
            for (place, rule) in list.iter().enumerate() {
                let needs_it = |made: &&Made| made.thread == thread && permits(made, rule);
                let times = trace.made.iter().filter(needs_it).count();
                *self.needed.entry((thread, place, rule.name())).or_default() += times;
            }
        }
        for made in &trace.made {
            let own = lists.get(made.thread.as_str()).into_iter();
            let mut listed = own.flat_map(Calls::iter).chain(any.iter());
            let answered = ANSWERED.contains(&made.number);
            if !answered && !listed.any(|rule| permits(made, rule)) {
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
    let copy = |len, arguments: &[&'static str]| Conditions::new(Work::Copy, len, arguments);
    let mut kinds = vec![
        copy(3 << 20, &["--fsync", "--stats", "--debug"]).replacing(),
        copy(100_001, &["--output-sector-size", "4096"]),
        copy(1 << 20, &["--direct", "--progress-percent", "10"]),
        copy(70_000, &["--queue-depth", "1", "--request-size", "512"]),
        copy(100_000, &[]).streams(Streams::Socket),
        copy(1 << 20, &["--digest", "sha256", "--verify"]).with_hole(),
        Conditions::new(Work::Convert, 3 << 20, &["--fsync", "--stats", "--debug"]).replacing(),
        Conditions::new(Work::Convert, 1 << 20, &["--digest", "sha256", "-p", "1"]).with_hole(),
        Conditions::new(Work::Info, 1 << 20, &["--debug"]),
        Conditions::new(Work::Check, 1 << 20, &["--format", "json"]).streams(Streams::Socket),
        Conditions::new(Work::Fault, 5000, &[]),
        Conditions::new(Work::Spin, 5000, &[]),
    ];
    for reader in Reader::ALL {
        let debug = copy(1 << 20, &["--debug", "--request-size", "1024"]);
        kinds.push(debug.streams(Streams::Pipes(reader, Reader::Keen)));
        let convert = Conditions::new(Work::Convert, 1 << 20, &["--progress-percent", "0"]);
        kinds.push(convert.streams(Streams::Pipes(reader, Reader::Keen)));
        let info = Conditions::new(Work::Info, 1 << 20, &[]);
        kinds.push(info.streams(Streams::Pipes(reader, Reader::Keen)));
        let flood = Conditions::new(Work::Flood, 5000, &["--debug"]);
        kinds.push(flood.streams(Streams::Pipes(Reader::Keen, reader)));
    }
    kinds
}

#[test]
fn each_call_is_listed_and_each_rule_is_needed() {
    needs_kvm!();
    needs_strace!();
    let mut audit = Audit::default();
    for conditions in all_kinds_of_runs().iter().chain(&demanding()) {
        audit.run(conditions, &[]);
    }
    assert!(audit.runs > 15 && !audit.needed.is_empty());
    assert!(audit.missing.is_empty(), "on no list: {:#?}", audit.missing);
    let needless = audit.needless();
    assert!(needless.is_empty(), "no run needs: {needless:#?}");
    let is_listed = |(rare, call, _): &&(&str, &str, &str)| {
        let mut rules = audit.needed.keys();
        rules.any(|(thread, _, name)| (*rare == "*" || rare == thread) && call == name)
    };
    let stale: Vec<_> = RARE.iter().filter(|rare| !is_listed(rare)).collect();
    assert!(stale.is_empty(), "on no list any more: {stale:#?}");
}

#[test]
fn each_call_is_listed_with_other_allocators_and_settings() {
    needs_kvm!();
    needs_strace!();
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

#[test]
fn the_audit_finds_a_call_on_no_list_and_a_rule_that_nobody_needs() {
    const LOG: &str = "\
7<vmm> socket(0x1, 0x1, 0)   = 0x3
7<vmm> epoll_wait(0x3, 0x7f00, 0x8, 0xffffffff <unfinished ...>
8<vcpu> ioctl(0x5, 0xae01, 0) = 0
8<vcpu> ioctl(0x5, 0xae80, 0) = 0
7<vmm> <... epoll_wait resumed>) = 0x1
8<vcpu> +++ exited with 0 +++
7<vmm> tgkill(0x7, 0x8, 0x17) = 0
7<vmm> mmap(0, 0x1000, 0x3, 0x22, 0xffffffff, 0) = 0x7f00
7<vmm> renameat(0xb, 0x7f00, 0xb, 0x7f00) = 0
";
    let hold = |log: &str| {
        let mut audit = Audit::default();
        let trace = Trace::parse(log);
        audit.hold(&trace, trace.lists(Work::Copy), "");
        (audit.missing.clone(), audit.needless())
    };
    let (missing, needless) = hold(LOG);
    assert_eq!(missing, Vec::<String>::new());
    assert!(
        needless.contains(&"vmm: fsync (rule 13)".to_owned()),
        "{needless:?}"
    );
    assert!(
        !needless
            .iter()
            .any(|rule| rule.contains("tgkill") || rule.contains("renameat"))
    );
    for forbidden in [
        "8<vcpu> ioctl(0x5, 0xae01, 0) = 0\n",
        "7<vmm> socket(0x1, 0x1, 0) = 0x3\n",
        "7<vmm> tgkill(0x9, 0x8, 0x17) = 0\n",
        "7<vmm> mmap(0, 0x1000, 0x5, 0x22, 0xffffffff, 0) = 0x7f00\n",
        "7<vmm> renameat(0xb, 0x7f00, 0xc, 0x7f00 <unfinished ...>\n",
    ] {
        let (missing, _) = hold(&format!("{LOG}{forbidden}"));
        assert_eq!(missing.len(), 1, "{forbidden}: {missing:?}");
    }
}
