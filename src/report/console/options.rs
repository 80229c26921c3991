//! What a console shows, and for whom.

/// How a run shows what it has to say.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum OutputFormat {
    /// Lines for people.
    #[default]
    Text,
    /// Objects for programs (`docs/json.md`).
    Json,
}

/// What is to be shown.
#[derive(Clone, Debug)]
pub struct ConsoleOptions {
    /// Show no messages and no bar.
    pub quiet: bool,
    /// Show the lines of messages even beside a bar.
    pub verbose: bool,
    /// Show the guest's debug lines.
    pub debug: bool,
    /// For people, or for programs.
    pub format: OutputFormat,
    /// The guest speaks plain text, which is passed on; there is no bar then.
    pub raw_text: bool,
    /// How many bytes there are to do, for the bar.
    pub total: Option<u64>,
    /// What is done to them, as in `copied`.
    pub verb: &'static str,
}
