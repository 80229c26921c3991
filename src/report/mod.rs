//! What a person sees: messages as lines, the progress bar, and output that never blocks the run.

mod bar;
mod debug_lines;
mod line;
mod printer;

pub use bar::ProgressBar;
pub use debug_lines::DebugLines;
pub use line::{escape, message_line};
pub use printer::Printer;
