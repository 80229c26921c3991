//! `make bench` and `make bench-reference`: the VMM beside `cp`, `dd` and `qemu-img` in one run.
//!
//! Settings are environment variables (see `settings`); results go to `bench-results/`. Whole
//! processes are timed with wait4(2) by the crate of that name, which also gives CPU time and peak
//! memory of just that process and lets the commands run in turns without a shell between.
#![allow(clippy::print_stderr, reason = "it is a program for a terminal")]

mod convert;
mod disks;
mod figures;
mod growth;
mod images;
mod machine;
mod plot;
mod program;
mod reference;
mod run;
mod sectors;
mod settings;
mod system;
mod table;
mod targets;
mod workspace;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use run::Runner;
use settings::{Settings, Suite};
use workspace::Workspace;

/// Where results are written, and where the documentation shows published ones.
const RESULTS: &str = "bench-results";
const PUBLISHED: &str = "resources";

#[derive(Debug, thiserror::Error)]
enum BenchError {
    #[error(transparent)]
    Settings(#[from] settings::SettingsError),
    #[error(transparent)]
    Measure(#[from] run::MeasureError),
    #[error(transparent)]
    Plot(#[from] plot::PlotError),
    #[error("cannot {what}: {error}")]
    Io { what: String, error: std::io::Error },
}

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    // `cargo bench` says --bench; `cargo test --benches` does not, and wants no measurements.
    if !arguments.iter().any(|argument| argument == "--bench") {
        eprintln!("measurements are made by: make bench");
        return ExitCode::SUCCESS;
    }
    let suite = arguments
        .iter()
        .find(|argument| !argument.starts_with('-'))
        .map(String::as_str);
    match bench(suite) {
        Ok(written) => {
            eprintln!("written: {}", written.display());
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("bench: {error}");
            ExitCode::FAILURE
        }
    }
}

fn bench(suite: Option<&str>) -> Result<PathBuf, BenchError> {
    let variable = |name: &str| std::env::var(name).ok();
    let settings = Settings::new(suite, variable, env!("CARGO_BIN_EXE_vmm").into())?;
    let results = Path::new(RESULTS);
    fs::create_dir_all(results).map_err(io_error("make the folder", results))?;
    let workspace =
        Workspace::new(&settings.folder).map_err(io_error("make a folder in", &settings.folder))?;
    let runner = Runner {
        workspace,
        vmm: settings.vmm.clone(),
    };
    let machine = machine::describe(&settings.folder, &settings.vmm);
    match settings.suite {
        Suite::Bench => {
            let (targets, targets::Peers(peers)) = targets::measure(&runner, &settings)?;
            // What was measured is written at once: a failure after minutes does not take it along.
            let save = |measured: &[&str]| {
                let text = format!("{}\n## Machine\n\n{machine}", measured.join("\n"));
                write("bench.md", &head("make bench", &text))
            };
            save(&[&targets])?;
            let (sectors, lines) = sectors::measure(&runner, &settings)?;
            let caption = "Copying a GiB through the VM, by sector size";
            plot::draw(&results.join("bench.svg"), caption, &lines, &peers)?;
            save(&[&targets, &sectors])?;
            let images = images::measure(&runner, &settings)?;
            save(&[&targets, &sectors, &images])?;
            let conversions = convert::measure(&runner, &settings)?;
            save(&[&targets, &sectors, &images, &conversions])?;
            let disks = disks::measure(&runner, &settings)?;
            save(&[&targets, &sectors, &disks, &images, &conversions])?;
            publish(&settings, &["bench.md", "bench.svg"])?;
            Ok(results.join("bench.md"))
        }
        Suite::Reference => {
            let table = reference::measure(&runner, &settings)?;
            let text = format!("{table}\n## Machine\n\n{machine}");
            write("reference.md", &head("make bench-reference", &text))?;
            publish(&settings, &["reference.md"])?;
            Ok(results.join("reference.md"))
        }
    }
}

/// The text with a title and how it was made.
fn head(command: &str, text: &str) -> String {
    format!(
        "# Results of `{command}`\n\n<!-- Written by `BENCH_PUBLISH=1 {command}`; changes made by \
         hand are lost. -->\n\n{text}"
    )
}

fn write(name: &str, text: &str) -> Result<(), BenchError> {
    let path = Path::new(RESULTS).join(name);
    fs::write(&path, text).map_err(io_error("write", &path))
}

fn publish(settings: &Settings, names: &[&str]) -> Result<(), BenchError> {
    if !settings.publish {
        return Ok(());
    }
    fs::create_dir_all(PUBLISHED).map_err(io_error("make the folder", Path::new(PUBLISHED)))?;
    for name in names {
        let to = Path::new(PUBLISHED).join(name);
        fs::copy(Path::new(RESULTS).join(name), &to).map_err(io_error("write", &to))?;
    }
    Ok(())
}

fn io_error(what: &str, path: &Path) -> impl FnOnce(std::io::Error) -> BenchError {
    let what = format!("{what} {}", path.display());
    move |error| BenchError::Io { what, error }
}
